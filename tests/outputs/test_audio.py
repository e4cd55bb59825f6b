"""Audio: the built-in string, soundfonts, and what both promise of pitch, time and loudness."""

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import scipy.io.wavfile

from helpers import roll_from
from pianolstm.files import InputError
from pianolstm.midi import roll_to_midi
from pianolstm.outputs import audio
from pianolstm.outputs.audio import (
    SAMPLE_RATE,
    cached_string,
    encode_small,
    find_soundfont,
    struck_string,
    synthesize,
    write_wav,
)

RATE = SAMPLE_RATE
BANK = Path(pretty_midi.__file__).with_name("TimGM6mb.sf2")
HAS_RENDERER = find_spec("midirenderer") is not None
needs_renderer = pytest.mark.skipif(not HAS_RENDERER, reason="midirenderer is not installed")
SOUNDS = [pytest.param(None, id="string"), pytest.param(BANK, id="bank", marks=needs_renderer)]


# ---- the built-in sound --------------------------------------------------------------------------


def amplitudes(wave: np.ndarray, *frequencies: float) -> list[float]:
    """Return the spectral peak within 3 % of each frequency in Hz, relative to the first.

    A Hann window keeps one partial from leaking into the next.
    """
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    axis = np.fft.rfftfreq(len(wave), 1 / RATE)
    peaks = [spectrum[np.abs(axis - f) < 0.03 * f].max() for f in frequencies]
    return [peak / peaks[0] for peak in peaks]


def test_a_string_has_partials_that_weaken_with_their_number() -> None:
    phase = 2 * np.pi * 220 * np.arange(RATE // 2) / RATE
    wave = struck_string(phase)
    assert wave.shape == phase.shape
    assert np.isfinite(wave).all()
    assert wave[0] == 0
    _, second, third = amplitudes(wave, 220, 440, 660)
    assert 0.1 < third < second < 0.6
    _, second, third = amplitudes(np.sin(phase), 220, 440, 660)
    assert max(second, third) < 0.001, "the test could not tell a sine"


def test_a_string_decays() -> None:
    wave = struck_string(2 * np.pi * 220 * np.arange(RATE) / RATE)
    early, late = np.abs(wave[:2000]).max(), np.abs(wave[-2000:]).max()
    assert late < early / 3


def test_partials_above_half_the_sample_rate_do_not_alias() -> None:
    # C8 is 4186 Hz. Its partials 6, 7 and 8, at f_k = k f sqrt(1 + 0.0004 k^2), lie above half the
    # sample rate, 24,000 Hz, and would alias to 48,000 - f_k.
    wave = struck_string(2 * np.pi * 4186.01 * np.arange(1000) / RATE)
    wave *= np.hanning(2000)[1000:]  # from the attack, where partials are loudest, down to zero
    spectrum = np.abs(np.fft.rfft(wave, 2**14))
    for alias in (22_704, 18_411, 14_088):
        assert spectrum[round(alias / RATE * 2**14)] < 0.02 * spectrum.max()
    for partial in (4187, 8379):
        assert spectrum[round(partial / RATE * 2**14)] > 0.2 * spectrum.max()


def test_a_cached_string_equals_a_computed_one_for_notes_of_any_length() -> None:
    string, time = cached_string(), np.arange(RATE // 4)
    for hertz, length in ((220, 400), (220, RATE // 4), (330, 50), (220, 90), (330, 1), (220, 0)):
        phase = 2 * np.pi * hertz / RATE * time[:length]
        np.testing.assert_allclose(string(hertz, length), struck_string(phase), rtol=0, atol=1e-6)


# ---- synthesis -----------------------------------------------------------------------------------


def loudness(sound: np.ndarray) -> float:
    """Return the root mean square of int16 audio, of full scale."""
    return float(np.sqrt(np.mean((sound / 32768) ** 2)))


def midi_of(roll: np.ndarray, velocity: int = 80, program: int = 0) -> pretty_midi.PrettyMIDI:
    """Return MIDI of a roll whose frames last a quarter of a second."""
    return roll_to_midi(roll, 0.5, velocity=velocity, program=program)


@pytest.mark.parametrize("soundfont", SOUNDS)
def test_notes_have_their_pitch_and_time(soundfont: Path | None) -> None:
    sound = synthesize(midi_of(roll_from({69}, {69}, set(), set(), {81}, {81})), 1.5, soundfont)
    quarter = RATE // 4
    assert sound.dtype == np.int16
    for start, frequency in [(0, 440), (4 * quarter, 880)]:
        note = sound[start : start + 2 * quarter].mean(axis=1)
        spectrum = np.abs(np.fft.rfft(note))
        loudest = np.fft.rfftfreq(len(note), 1 / RATE)[spectrum.argmax()]
        assert loudest == pytest.approx(frequency, rel=0.01)


@pytest.mark.parametrize("soundfont", SOUNDS)
def test_the_last_chord_rings_out_and_then_is_silent(soundfont: Path | None) -> None:
    sound = synthesize(midi_of(roll_from({60, 64}, {60, 64})), 0.5, soundfont)
    assert len(sound) > RATE  # half a second of music, and as much of ringing at least
    assert loudness(sound[RATE // 2 : RATE]) > 0.1 * loudness(sound[: RATE // 2])
    assert np.abs(sound[-200:]).max() < 300  # 1 % of full scale: no click


@pytest.mark.parametrize("soundfont", SOUNDS)
def test_loudness_follows_the_velocity_and_not_the_peak(soundfont: Path | None) -> None:
    roll = roll_from({60, 64, 67}, {60, 64, 67})
    quiet, normal, loud = (
        loudness(synthesize(midi_of(roll, velocity), 0.5, soundfont)) for velocity in (40, 80, 127)
    )
    assert 1.8 * quiet < normal < loud / 1.8


@pytest.mark.parametrize("soundfont", SOUNDS)
def test_all_pitches_at_once_stay_below_full_scale(soundfont: Path | None) -> None:
    sound = synthesize(midi_of(roll_from(set(range(21, 109))), 127), 0.25, soundfont)
    assert 0.8 < np.abs(sound.astype(int)).max() / 32767 <= 0.96


@pytest.mark.parametrize("soundfont", SOUNDS)
def test_silence_is_rendered_as_zeros_of_its_length(soundfont: Path | None) -> None:
    sound = synthesize(midi_of(np.zeros((4, 88), dtype=bool)), 1.0, soundfont)
    assert sound.shape == (RATE, 2)
    assert not sound.any()


@pytest.mark.parametrize("soundfont", SOUNDS)
def test_a_note_across_parts_sounds_as_it_does_within_one(
    soundfont: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    midi = midi_of(roll_from({60}, {60, 64}, {60}, {60}, set(), {67}))
    whole = synthesize(midi, 1.5, soundfont)
    monkeypatch.setattr(audio, "_PART_SECONDS", 0.4)
    parts = synthesize(midi, 1.5, soundfont)
    length = min(len(whole), len(parts))
    # The renderer's reverberation starts anew in each part.
    assert loudness(whole[:length] - parts[:length].astype(float)) < 0.15 * loudness(whole)


@needs_renderer
def test_a_long_note_sounds_to_its_end_where_the_instrument_sustains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audio, "_LONGEST_NOTE", 0.5)
    organ = synthesize(midi_of(roll_from(*[{60}] * 8), program=19), 2.0, BANK)
    quarters = [loudness(organ[i * RATE // 2 : (i + 1) * RATE // 2]) for i in range(4)]
    assert min(quarters) > 0.5 * max(quarters)


@needs_renderer
def test_each_instrument_has_its_own_spectrum() -> None:
    centroids = []
    for program in (0, 40, 73):  # piano, violin, flute
        sound = synthesize(midi_of(roll_from({69}, {69}), program=program), 0.5, BANK)[:, 0]
        spectrum = np.abs(np.fft.rfft(sound / 32768))
        axis = np.fft.rfftfreq(len(sound), 1 / RATE)
        centroids.append(float((axis * spectrum).sum() / spectrum.sum()))
    piano, violin, flute = centroids
    assert violin > 1.3 * piano
    assert min(abs(flute / piano - 1), abs(flute / violin - 1)) > 0.1


def test_a_wav_file_holds_the_audio(tmp_path: Path) -> None:
    midi = midi_of(roll_from({60}, {64}))
    write_wav(tmp_path / "a.wav", midi, 0.5)
    rate, content = scipy.io.wavfile.read(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_array_equal(content, synthesize(midi, 0.5))


def test_small_audio_is_mu_law_of_the_same_sound() -> None:
    time = np.arange(RATE) / RATE
    tone = np.round(12_000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    content = encode_small(np.stack([tone, tone], axis=1))
    assert content[:4] + content[8:12] == b"RIFFWAVE"
    assert struct.unpack("<HHI", content[20:28]) == (7, 1, 16_000)
    codes = 255 - np.frombuffer(content[content.index(b"data") + 8 :], dtype=np.uint8).astype(int)
    assert len(codes) == 16_000
    # The expansion of ITU-T G.711, table 2a.
    size = ((codes & 15) * 2 + 33 << (codes >> 4 & 7)) - 33
    decoded = np.where(codes >> 7, -size, size) * 4
    expected = 12_000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(decoded - expected)[100:-100].max() < 600


# ---- soundfonts ----------------------------------------------------------------------------------


@needs_renderer
def test_the_default_is_a_general_midi_bank() -> None:
    assert find_soundfont(None) == (BANK, "")


def test_without_the_renderer_the_remark_names_the_string_and_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audio, "find_spec", lambda name: None)
    path, remark = find_soundfont(None)
    assert path is None
    assert "string" in remark
    assert "pip install midirenderer" in remark


@needs_renderer
def test_a_soundfont_of_the_users_is_rendered() -> None:
    assert find_soundfont(str(BANK)) == (BANK, "")


@pytest.mark.parametrize("header", [b"RIFF\0\0\0\0WAVE", b"sfbk", b""])
def test_a_file_that_is_no_soundfont_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.sf2").write_bytes(header)
    with pytest.raises(InputError, match=r"^--soundfont .*a\.sf2: not a SoundFont"):
        find_soundfont(str(tmp_path / "a.sf2"))


@needs_renderer
def test_a_damaged_soundfont_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sf2").write_bytes(BANK.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"^--soundfont .*a\.sf2: can't be used"):
        find_soundfont(str(tmp_path / "a.sf2"))


def test_a_missing_soundfont_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--soundfont .*b\.sf2: can't be read"):
        find_soundfont(str(tmp_path / "b.sf2"))
