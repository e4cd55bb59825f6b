"""Audio: the built-in sound, its pitch, time, length and peak, and soundfonts."""

from pathlib import Path

import numpy as np
import pytest

from helpers import roll_from
from pianolstm.files import InputError
from pianolstm.midi import roll_to_midi
from pianolstm.outputs import audio
from pianolstm.outputs.audio import cached_string, find_soundfont, struck_string, synthesize

RATE = 44_100


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
    # sample rate, 22,050 Hz, and would alias to 44,100 - f_k.
    wave = struck_string(2 * np.pi * 4186.01 * np.arange(1000) / RATE)
    wave *= np.hanning(2000)[1000:]  # from the attack, where partials are loudest, down to zero
    spectrum = np.abs(np.fft.rfft(wave, 2**14))
    for alias in (18_804, 14_511, 10_188):
        assert spectrum[round(alias / RATE * 2**14)] < 0.02 * spectrum.max()
    for partial in (4187, 8379):
        assert spectrum[round(partial / RATE * 2**14)] > 0.2 * spectrum.max()


def test_a_cached_string_equals_a_computed_one_for_notes_of_any_length() -> None:
    wave, time = cached_string(), np.arange(RATE // 4)
    for hertz, length in ((220, 400), (220, RATE // 4), (330, 50), (220, 90), (330, 1), (220, 0)):
        phase = 2 * np.pi * hertz / RATE * time[:length]
        np.testing.assert_allclose(wave(phase), struck_string(phase), rtol=0, atol=1e-12)


# ---- synthesis -----------------------------------------------------------------------------------


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
def test_audio_has_the_given_length_and_nine_tenths_of_the_full_scale(roll: np.ndarray) -> None:
    sound = synthesize(roll_to_midi(roll, 0.5, bpm=240), seconds=0.7)
    assert sound.dtype == np.int16
    assert sound.shape == (30_870,)
    assert abs(int(np.abs(sound.astype(int)).max()) - 0.9 * 32767) <= 1


def test_audio_that_is_cut_off_ends_without_a_click() -> None:
    sound = synthesize(roll_to_midi(roll_from(*[{60}] * 8), 0.5), seconds=0.5)
    assert sound.shape == (22_050,)
    assert abs(int(sound[-1])) < 100
    assert np.abs(sound[-2000:-500]).max() > 1000


@pytest.mark.parametrize("frames", [1, 4])
def test_silence_is_rendered_as_zeros(frames: int) -> None:
    sound = synthesize(roll_to_midi(np.zeros((frames, 88), dtype=bool), 0.5), frames * 0.25)
    assert sound.dtype == np.int16
    assert sound.shape == (frames * 11_025,)
    assert not sound.any()


def test_notes_have_their_pitch_and_time() -> None:
    sound = synthesize(roll_to_midi(roll_from({69}, {69}, set(), set(), {81}), 0.5), 1.25)
    quarter = RATE // 4
    assert not sound[2 * quarter : 4 * quarter].any()
    for start, stop, frequency in [(0, 2 * quarter, 440), (4 * quarter, 5 * quarter, 880)]:
        note = sound[start:stop].astype(float)
        spectrum = np.abs(np.fft.rfft(note))
        loudest = np.fft.rfftfreq(len(note), 1 / RATE)[spectrum.argmax()]
        assert loudest == pytest.approx(frequency, rel=0.01)


# ---- soundfonts ----------------------------------------------------------------------------------


@pytest.fixture
def soundfont(tmp_path: Path) -> str:
    (tmp_path / "a.sf2").write_bytes(b"RIFF\0\0\0\0sfbk" + bytes(20))
    return str(tmp_path / "a.sf2")


def test_without_the_flag_there_is_no_soundfont_and_no_remark() -> None:
    assert find_soundfont(None) == (None, "")


def test_without_fluidsynth_the_remark_names_what_to_install(
    soundfont: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "find_spec", lambda name: None)
    path, remark = find_soundfont(soundfont)
    assert path is None
    assert "pyfluidsynth" in remark


def test_fluidsynth_renders_the_soundfont(soundfont: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "find_spec", lambda name: name == "fluidsynth" or None)
    path, remark = find_soundfont(soundfont)
    assert remark == ""
    rendered: list[str] = []

    def fluidsynth(self: object, fs: int, sf2_path: str) -> np.ndarray:
        rendered.append(sf2_path)
        return np.ones(fs)

    monkeypatch.setattr("pretty_midi.PrettyMIDI.fluidsynth", fluidsynth)
    sound = synthesize(roll_to_midi(roll_from({60}), 0.5), 0.5, path)
    assert rendered == [soundfont]
    assert sound.shape == (RATE // 2,)
    assert sound.max() == round(0.9 * 32767)


@pytest.mark.parametrize("header", [b"RIFF\0\0\0\0WAVE", b"sfbk", b""])
def test_a_file_that_is_no_soundfont_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.sf2").write_bytes(header)
    with pytest.raises(InputError, match=r"^--soundfont .*a\.sf2: not a SoundFont"):
        find_soundfont(str(tmp_path / "a.sf2"))


def test_a_missing_soundfont_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--soundfont .*b\.sf2: can't be read"):
        find_soundfont(str(tmp_path / "b.sf2"))
