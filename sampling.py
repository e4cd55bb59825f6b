"""Tunes drawn from a model, frame by frame: freely, below a melody, or above chords.

Sampling follows RNN-NADE (Boulanger-Lewandowski et al. 2012): each frame is drawn from the model's
distribution given all frames before it, and then read by the model in its turn. Everything here is
pure: all chance comes from the generators, one for each tune, so that a tune is the same whichever
others are drawn beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heads import DRAWS, FREELY, Choices, ChordHead, Head, draw
from model import PianoLSTM
from settings import K

BLOCK = 16  # frames that are drawn before it is looked whether all tunes are over
FEW = 8  # tunes side by side, up to which one thread is faster than two

# Draws the frame at time t: vectors (B, H), noise (B, K + 1), t -> (B, K) of 0 and 1.
DrawFrame = Callable[[Tensor, Tensor, int], Tensor]


def generators_of(seed: int, count: int) -> list[torch.Generator]:
    """Return a generator for each tune, of streams that no other seed or tune shares."""
    seeds = (np.random.SeedSequence([seed, i]).generate_state(1, np.uint64) for i in range(count))
    return [torch.Generator().manual_seed(int(state[0] >> np.uint64(1))) for state in seeds]


@contextmanager
def sensible_threads(tunes: int, threads: int = 0) -> Iterator[None]:
    """Compute frame by frame on one thread if there are few tunes, else on the usual number.

    What a second thread has to do for a few rows takes less time than to tell it. Of so many
    `threads` as are given, all are used.
    """
    usual = torch.get_num_threads()
    torch.set_num_threads(threads or (1 if tunes <= FEW else usual))
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def next_generator(generator: torch.Generator) -> torch.Generator:
    """Return the source of chance of the tune after this one, however much was drawn from it."""
    state = np.random.SeedSequence([generator.initial_seed(), 1]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def sample(
    model: PianoLSTM,
    frames: int,
    generators: Sequence[torch.Generator],
    draw_frame: DrawFrame | None = None,
    *,
    primer: Tensor | None = None,
    max_hold: int = 0,
    threads: int = 0,
    on_frames: Callable[[int], Any] = lambda _: None,
) -> Tensor:
    """Draw music from the model.

    Of how tunes go on after their end the model has heard nothing. It plays one that holds a chord
    as at the end, and on, and on. So with `max_hold`, a tune that has stayed on one frame for so
    long is over, and another one begins in its place.

    Args:
        model: in evaluation mode.
        frames: new frames in each row.
        generators: B, on the CPU, one for each row: the only source of chance.
        draw_frame: how a frame is drawn; None = freely, as the model believes.
        primer: (T, 88) frames that the model hears first; None = silence alone.
        max_hold: frames; 0 = one tune, however long it holds.
        threads: of the CPU; 0 = one for few tunes, else as many as PyTorch is set to.
        on_frames: told of frames as they come, B * frames in all, for a progress bar.

    Returns:
        (B, frames, 88) bool, row = one frame, column 0 = MIDI 21; the primer is not in it.
    """
    draw_frame = draw_frame or freely(model.head)
    music = torch.zeros(len(generators), frames, K, dtype=torch.bool)
    sources, done = list(generators), torch.zeros(len(generators), dtype=torch.int64)
    while len(rows := (done < frames).nonzero()[:, 0].tolist()):
        wanted = frames - done[rows]
        with sensible_threads(len(rows), threads):
            drawn, lengths = sample_tunes(
                model,
                wanted,
                [sources[row] for row in rows],
                draw_frame,
                primer,
                max_hold,
                on_frames,
            )
        for row, tune, length in zip(rows, drawn, lengths.tolist(), strict=True):
            music[row, done[row] : done[row] + length] = tune[:length]
            sources[row] = next_generator(sources[row])
        done[rows] += lengths
        primer = None
    return music


@torch.inference_mode()
def sample_tunes(
    model: PianoLSTM,
    wanted: Tensor,
    generators: Sequence[torch.Generator],
    draw_frame: DrawFrame,
    primer: Tensor | None,
    max_hold: int,
    on_frames: Callable[[int], Any],
) -> tuple[Tensor, Tensor]:
    """Draw a tune for each row, until it is over or has the frames wanted of it, (B,).

    Returns:
        (B, T, 88) bool; and how many frames of each row are its tune, (B,) int64.
    """
    device, rows = next(model.parameters()).device, len(generators)
    heard = torch.zeros(rows, 1, K, device=device)  # a tune starts from silence
    if primer is not None:
        heard = torch.cat([heard, primer.to(heard).expand(rows, -1, -1)], dim=1)
    longest, told = int(wanted.max()), 0
    drawn = torch.zeros(rows, longest, K, dtype=torch.bool, device=device)
    lengths, held = wanted.to(device), torch.zeros(rows, dtype=torch.int64, device=device)
    before = heard.new_zeros(rows, K)
    hidden, state = model(heard)  # (B, T, H)
    for start in range(0, longest, BLOCK):
        noise = torch.stack([torch.rand(BLOCK, DRAWS, generator=g) for g in generators])
        frames: list[Tensor] = []  # (B, K) each
        # Views of all at once, for to slice a tensor takes as long as to add two small ones.
        for t, chance in enumerate(noise.to(device).unbind(1)[: longest - start], start):
            frame = draw_frame(hidden[:, -1], chance, t)  # (B, K)
            frames.append(frame)
            if max_hold:
                held = held * (frame == before).all(dim=1) + 1
                before, lengths = frame, lengths.where(held < max_hold, lengths.clamp(max=t + 1))
            if t < longest - 1:
                hidden, state = model(frame[:, None], state)
        stop = start + len(frames)
        drawn[:, start:stop] = torch.stack(frames, dim=1)
        done = int(lengths.clamp(max=stop).sum())
        on_frames(done - told)
        told = done
        if not (lengths > stop).any():
            break
    return drawn.cpu(), lengths.cpu()


def freely(head: Head, choices: Choices = FREELY) -> DrawFrame:
    """Return what draws whole frames from the head."""
    sampler = head.sampler(choices)
    return lambda hidden, noise, _: sampler(hidden, noise)


def below(melody: np.ndarray, head: ChordHead, choices: Choices = FREELY) -> DrawFrame:
    """Return what draws the notes below a melody, itself in every frame as the highest note.

    The chord head chooses the highest note first; given that, the rest is drawn from the very
    distribution of frames that have it. Where the melody rests, what sounds stays below its last
    note.

    Args:
        melody: (T, 88) bool; of each frame the highest note counts.
        head: of the model.
        choices: how freely; its `temperature` is not used.
    """
    allowed = torch.zeros(len(melody), K + 1, dtype=torch.bool)  # the classes, 0 = stop
    ceiling = K + 1
    for t, frame in enumerate(melody):
        if frame.any():
            ceiling = int(np.flatnonzero(frame)[-1]) + 1
            allowed[t, ceiling] = True
        else:
            allowed[t, :ceiling] = True

    sampler = head.sampler(choices)

    def draw_frame(hidden: Tensor, noise: Tensor, t: int) -> Tensor:
        return sampler(hidden, noise, allowed[t].to(hidden.device).expand(len(hidden), -1))

    return draw_frame


def above(chords: np.ndarray, head: Head, choices: Choices = FREELY) -> DrawFrame:
    """Return what draws a note above given chords, or none, from its exact conditional probability.

    By Bayes' rule p(note | chord) is in proportion to p(note and chord), which either head gives
    exactly: there are at most 88 frames to compare.

    Args:
        chords: (T, 88) bool, kept as they are.
        head: of the model.
        choices: how freely the note is drawn: `temperature` and `top_p`.
    """

    def draw_frame(hidden: Tensor, noise: Tensor, t: int) -> Tensor:
        chord = torch.from_numpy(chords[t]).to(hidden)
        lowest = int(np.flatnonzero(chords[t])[-1]) + 1 if chords[t].any() else 0
        frames = torch.cat([chord[None], chord + torch.eye(K).to(chord)[lowest:]])  # (C, K)
        rows = hidden.repeat_interleave(len(frames), dim=0)  # (B * C, H)
        logits = -head.nll(rows, frames.repeat(len(hidden), 1)).view(len(hidden), -1)
        note = draw(logits, noise[:, :1], choices.temperature, choices.top_p)  # (B, 1)
        return frames[note.squeeze(1)]

    return draw_frame


@torch.inference_mode()
def expected(
    model: PianoLSTM, roll: Tensor, generator: torch.Generator, draws: int = 200
) -> Tensor:
    """Return how likely the model takes each key to sound, frame by frame, from many draws of it.

    The chord head knows the probability of a frame, not of a key; so each frame is drawn often.

    Args:
        model: in evaluation mode.
        roll: (T, 88), the music heard.
        generator: on the CPU.
        draws: of each frame; a probability p is off by sqrt(p (1 - p) / draws).

    Returns:
        (T + 1, 88): row t is what is expected as frame t, having heard those before it.
    """
    device = next(model.parameters()).device
    heard = torch.cat([torch.zeros(1, K), roll.float()]).to(device)  # a tune starts from silence
    hidden, _ = model(heard[None])
    rows = hidden[0].repeat_interleave(draws, dim=0)  # ((T + 1) * draws, H)
    noise = torch.rand(len(rows), DRAWS, generator=generator).to(device)
    return model.head.sample(rows, noise).view(-1, draws, K).mean(dim=1).cpu()
