"""Sound: struck strings, each note at its pitch and time, of the length and peak asked for."""

from pathlib import Path

import numpy as np
import pytest

from files import InputError
from helpers import RATE, K, roll_from
from midi import roll_to_midi
from sound import struck_again, struck_string, synthesize, usable_soundfont


def amplitudes(wave: np.ndarray, *frequencies: float) -> list[float]:
    """Return the height of the spectrum within 3 % of each frequency (Hz), as parts of the first.

    The wave is weighted by Hann's window, so that one partial does not leak into the next.
    """
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    axis = np.fft.rfftfreq(len(wave), 1 / RATE)
    found = [spectrum[np.abs(axis - f) < 0.03 * f].max() for f in frequencies]
    return [height / found[0] for height in found]


def test_struck_string_has_partials() -> None:
    phase = 2 * np.pi * 220 * np.arange(RATE // 2) / RATE
    wave = struck_string(phase)
    assert wave.shape == phase.shape
    assert np.isfinite(wave).all()
    assert wave[0] == 0
    _, second, third = amplitudes(wave, 220, 440, 660)
    assert 0.1 < third < second < 0.6
    _, second, third = amplitudes(np.sin(phase), 220, 440, 660)
    assert max(second, third) < 0.001, "the test could not tell a sine"


def test_struck_string_dies_away() -> None:
    wave = struck_string(2 * np.pi * 220 * np.arange(RATE) / RATE)
    early, late = np.abs(wave[:2000]).max(), np.abs(wave[-2000:]).max()
    assert late < early / 3


def test_highest_key_has_no_tones_that_are_not_its_own() -> None:
    # C8 is 4186 Hz. Its partials 6, 7 and 8, at f_k = k f sqrt(1 + 0.0004 k^2), are above half the
    # sample rate, 22,050 Hz, and would be heard at 44,100 - f_k.
    wave = struck_string(2 * np.pi * 4186.01 * np.arange(1000) / RATE)
    wave *= np.hanning(2000)[1000:]  # from the blow, when partials are loudest, down to nothing
    spectrum = np.abs(np.fft.rfft(wave, 2**14))
    for mirrored in (18_804, 14_511, 10_188):
        assert spectrum[round(mirrored / RATE * 2**14)] < 0.02 * spectrum.max()
    for own in (4187, 8379):
        assert spectrum[round(own / RATE * 2**14)] > 0.2 * spectrum.max()


def test_no_phase_is_no_wave() -> None:
    assert struck_string(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    "roll",
    [
        roll_from({60}, {60}, set(), {64}),
        roll_from({21}),
        roll_from({108}, {108}),
        roll_from(set(range(21, 109))),
        roll_from(set(), set(), {60}),
    ],
    ids=["notes", "lowest", "highest", "all", "late"],
)
def test_sound_has_its_length_and_peak(roll: np.ndarray) -> None:
    sound = synthesize(roll_to_midi(roll, 0.5, bpm=240), seconds=0.7)
    assert sound.dtype == np.int16
    assert sound.shape == (30_870,)
    assert abs(int(np.abs(sound.astype(int)).max()) - 0.9 * 32767) <= 1


def test_sound_is_cut_where_it_should_end_without_a_click() -> None:
    sound = synthesize(roll_to_midi(roll_from(*[{60}] * 8), 0.5), seconds=0.5)
    assert sound.shape == (22_050,)
    assert abs(int(sound[-1])) < 100
    assert np.abs(sound[-2000:-500]).max() > 1000


@pytest.mark.parametrize("frames", [1, 4])
def test_silence_sounds_as_zeros(frames: int) -> None:
    sound = synthesize(roll_to_midi(np.zeros((frames, K), dtype=bool), 0.5), frames * 0.25)
    assert sound.dtype == np.int16
    assert sound.shape == (frames * 11_025,)
    assert not sound.any()


def test_notes_sound_at_their_pitch_and_time() -> None:
    sound = synthesize(roll_to_midi(roll_from({69}, {69}, set(), set(), {81}), 0.5), 1.25)
    quarter = RATE // 4
    silent = sound[2 * quarter : 4 * quarter]
    assert not silent.any()
    for start, stop, frequency in [(0, 2 * quarter, 440), (4 * quarter, 5 * quarter, 880)]:
        piece = sound[start:stop].astype(float)
        spectrum = np.abs(np.fft.rfft(piece))
        loudest = np.fft.rfftfreq(len(piece), 1 / RATE)[spectrum.argmax()]
        assert loudest == pytest.approx(frequency, rel=0.01)


def test_a_string_struck_again_sounds_as_the_first_time_for_as_long_as_it_is_held() -> None:
    wave, time = struck_again(), np.arange(RATE // 4)
    for hertz, length in ((220, 400), (220, RATE // 4), (330, 50), (220, 90), (330, 1), (220, 0)):
        phase = 2 * np.pi * hertz / RATE * time[:length]
        np.testing.assert_allclose(wave(phase), struck_string(phase), rtol=0, atol=1e-12)


# ---- soundfonts ----------------------------------------------------------------------------------


def soundfont(folder: Path, head: bytes = b"RIFF\0\0\0\0sfbk") -> str:
    (folder / "a.sf2").write_bytes(head + bytes(20))
    return str(folder / "a.sf2")


def test_without_a_soundfont_there_is_nothing_to_say() -> None:
    assert usable_soundfont(None) == (None, "")


def test_without_fluidsynth_the_user_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sound.find_spec", lambda name: None)
    path, remark = usable_soundfont(soundfont(tmp_path))
    assert path is None
    assert "pyfluidsynth" in remark


def test_with_fluidsynth_it_plays_the_soundfont(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sound.find_spec", lambda name: name == "fluidsynth" or None)
    path, remark = usable_soundfont(soundfont(tmp_path))
    assert remark == ""
    played: list[str] = []

    def fluidsynth(self: object, fs: int, sf2_path: str) -> np.ndarray:
        played.append(sf2_path)
        return np.ones(fs)

    monkeypatch.setattr("pretty_midi.PrettyMIDI.fluidsynth", fluidsynth)
    sound = synthesize(roll_to_midi(roll_from({60}), 0.5), 0.5, path)
    assert played == [str(path)]
    assert sound.shape == (RATE // 2,)
    assert sound.max() == round(0.9 * 32767)


@pytest.mark.parametrize("head", [b"RIFF\0\0\0\0WAVE", b"sfbk", b""])
def test_what_is_no_soundfont_is_refused(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.sf2").write_bytes(head)
    with pytest.raises(InputError, match=r"^--soundfont .*a\.sf2: not a SoundFont"):
        usable_soundfont(str(tmp_path / "a.sf2"))
    with pytest.raises(InputError, match=r"^--soundfont .*b\.sf2: can't be read"):
        usable_soundfont(str(tmp_path / "b.sf2"))
