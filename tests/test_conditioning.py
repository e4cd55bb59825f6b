"""Conditioning: notes by name, and sampling below or above given notes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import roll_from, steps_of
from helpers_sampling import HEADS, sampling_model
from pianolstm.conditioning import (
    FrameSampler,
    harmonize,
    melody_over,
    parse_notes,
)
from pianolstm.files import InputError
from pianolstm.layers.copy_mixture import CopyHead
from pianolstm.layers.heads import GREEDY, UNIFORMS_PER_FRAME, BernoulliHead, ChordHead, Head
from pianolstm.piece import notes_to_roll
from pianolstm.rolls import PITCHES

# ---- notes by name ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "chords"),
    [
        ("C4", [[60]]),
        ("A0 C8", [[21], [108]]),
        ("60", [[60]]),
        ("C4,E4,G4 67", [[60, 64, 67], [67]]),
        ("C4,E4 | F4|G4", [[60, 64], [65], [67]]),
        ("  F#3   Bb5 ", [[54], [82]]),
        ("f#3 bb5 Db4,C#4", [[54], [82], [61]]),
        ("Cb4 B#3", [[59], [60]]),
        ("60, 64 ,67  72", [[60, 64, 67], [72]]),
        ("", []),
    ],
)
def test_notes_are_names_or_midi_numbers_of_a_beat_each(text: str, chords: list[list[int]]) -> None:
    notes, beats = parse_notes(text)
    assert beats == len(chords)
    assert steps_of(notes_to_roll(notes, 1.0, len(chords))) == chords
    assert all(note.end - note.start == 1 for note in notes)


@pytest.mark.parametrize(
    "word", ["H4", "C", "4C", "-1", "+60", "60.5", "C##4", "C4;E4", "C4-E4", "²", "nan"]
)
def test_a_word_that_is_no_note_is_named(word: str) -> None:
    with pytest.raises(InputError, match=r"^--primer_notes: [^\n]*no note[^\n]*$") as refused:
        parse_notes(f"C4,E4 {word}")
    assert repr(word) in str(refused.value)


@pytest.mark.parametrize("word", ["20", "109", "0", "G#0", "C#8", "C-1", "9" * 30])
def test_a_note_outside_the_88_pitches_is_named(word: str) -> None:
    with pytest.raises(InputError, match=r"^--primer_notes: [^\n]*88 pitches[^\n]*$") as refused:
        parse_notes(word)
    assert repr(word) in str(refused.value)


@given(st.lists(st.sets(st.integers(21, 108), min_size=1, max_size=5), max_size=5))
def test_names_and_numbers_of_all_pitches_agree(chords: list[set[int]]) -> None:
    names = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]
    by_name = " ".join(
        ",".join(f"{names[note % 12]}{note // 12 - 1}" for note in chord) for chord in chords
    )
    by_number = " ".join(",".join(map(str, chord)) for chord in chords)
    expected = [sorted(chord) for chord in chords]
    rolls = [notes_to_roll(parse_notes(text)[0], 1.0, len(chords)) for text in (by_name, by_number)]
    assert steps_of(rolls[0]) == steps_of(rolls[1]) == expected


# ---- sampling below a melody ---------------------------------------------------------------------


def sample_alone(sample_frame: FrameSampler, vectors: torch.Tensor, frames: int) -> np.ndarray:
    """Sample frames from the same vectors, (B, H) -> (B, T, 88) bool."""
    generator = torch.Generator().manual_seed(2)
    uniforms = torch.rand(frames, len(vectors), UNIFORMS_PER_FRAME, generator=generator)
    sampled = [sample_frame(vectors, row, t) for t, row in enumerate(uniforms)]
    return torch.stack(sampled, dim=1).bool().numpy()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["chord", "copies"])
def test_the_melody_is_the_highest_note_and_in_rests_all_notes_stay_below_its_last(
    kind: str,
) -> None:
    head = sampling_model(density=0.3, **HEADS[kind]).head
    assert isinstance(head, (ChordHead, CopyHead))
    melody = roll_from({72}, {60, 64}, set(), {108}, set(), {21}, set())
    rolls = sample_alone(harmonize(melody, head), random_vectors(40, head), 7)
    for roll in rolls:
        highest = [max(pitches, default=0) for pitches in steps_of(roll)]
        assert highest[:2] == [72, 64]
        assert highest[2] < 64
        assert highest[3] == 108
        assert highest[4] < 108
        assert highest[5] == 21
        assert highest[6] < 21
    assert rolls[:, :2].sum() > 3 * 80, "notes sound below it"


@torch.no_grad()
@pytest.mark.parametrize("kind", ["chord", "copies"])
def test_notes_below_a_melody_are_sampled_from_the_exact_conditional_distribution(
    kind: str,
) -> None:
    head, melody = small_head(kind), roll_from({24})  # of the six pitches from 21 that sound
    assert isinstance(head, (ChordHead, CopyHead))
    below = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    frames = torch.zeros(8, PITCHES)
    frames[:, :3], frames[:, 3] = below, 1
    check_frequencies(harmonize(melody, head), head, frames)


# ---- sampling above chords -----------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("chord", [[], [1, 2]])
def test_the_note_above_a_chord_is_sampled_from_the_exact_conditional_distribution(
    head: str, chord: list[int]
) -> None:
    layer = small_head(head)
    chords = np.zeros((1, PITCHES), dtype=bool)
    chords[0, chord] = True
    lowest = max(chord, default=-1) + 1
    frames = torch.from_numpy(chords).float().repeat(PITCHES - lowest + 1, 1)
    frames[torch.arange(PITCHES - lowest), torch.arange(lowest, PITCHES)] = 1  # the last adds none
    check_frequencies(melody_over(chords, layer), layer, frames, samples=400)


@given(st.lists(st.sets(st.integers(21, 108), max_size=4), min_size=1, max_size=6))
@torch.no_grad()
def test_given_chords_are_kept_and_get_at_most_one_note_above(chords: list[set[int]]) -> None:
    head, roll = sampling_model(density=0.3).head, roll_from(*chords)
    for sampled in sample_alone(melody_over(roll, head), random_vectors(3, head), len(chords)):
        for pitches, chord in zip(steps_of(sampled), chords, strict=True):
            added = set(pitches) - chord
            assert chord <= set(pitches)
            assert len(added) <= 1
            assert min(added, default=108) >= max(chord, default=0)


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_the_greedy_note_above_a_chord_does_not_depend_on_chance(head: str) -> None:
    layer = sampling_model(density=0.3, **HEADS[head]).head
    roll = roll_from({48, 52}, {50}, set())
    vectors = random_vectors(1, layer).expand(3, -1)
    rolls = sample_alone(melody_over(roll, layer, GREEDY), vectors, 3)
    assert (rolls == rolls[0]).all()


# ---- distributions -------------------------------------------------------------------------------


def random_vectors(rows: int, head: Head) -> torch.Tensor:
    """Return vectors for a head; candidates of a mixture are of the lowest pitches."""
    if isinstance(head, CopyHead):
        copies = torch.zeros(rows, 2, PITCHES)
        copies[:, 0, [0, 3]] = copies[:, 1, [1, 2]] = 1
        logits = torch.tensor([0.0, 1.0, 0.5]).expand(rows, -1)
        parts = random_vectors(rows, head.head), copies.flatten(1), logits.log_softmax(dim=1)
        return torch.cat(parts, dim=1)
    layer = head.base if isinstance(head, ChordHead) else head.logits
    size = layer.in_features
    return torch.randn(rows, int(size), generator=torch.Generator().manual_seed(3))


def small_head(kind: str) -> Head:
    """Return a head of 88 pitches; of a chord head's only the lowest six ever sound."""
    torch.manual_seed(0)
    if kind == "Bernoulli":
        return BernoulliHead(5)
    head = ChordHead(5, 3)
    with torch.no_grad():
        for weights in head.parameters():
            weights.normal_()
        head.base.bias[7:] = -1e4
    return CopyHead(head, 2, PITCHES) if kind == "copies" else head


def check_frequencies(
    sample_frame: FrameSampler, head: Head, frames: torch.Tensor, samples: int = 20_000
) -> None:
    """Assert that these frames, (F, 88), are sampled as often as the head's NLL says."""
    vector = random_vectors(1, head)
    probabilities = torch.softmax(-head.nll(vector.expand(len(frames), -1), frames), dim=0)
    uniforms = torch.rand(samples, UNIFORMS_PER_FRAME, generator=torch.Generator().manual_seed(4))
    sampled = sample_frame(vector.expand(samples, -1), uniforms, 0)
    for frame, p in zip(frames, probabilities.tolist(), strict=True):
        share = (sampled == frame).all(dim=1).float().mean().item()
        # By chance more than five standard deviations once in a million times.
        assert abs(share - p) <= 5 * (p * (1 - p) / samples) ** 0.5 + 1 / samples
