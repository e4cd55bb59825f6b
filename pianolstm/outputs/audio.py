"""MIDI to audio: a built-in string sound, or FluidSynth with a soundfont where it is installed."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pretty_midi

from pianolstm.files import InputError

SAMPLE_RATE = 44_100  # Hz
_PEAK = 0.9  # of full scale
_FADE_SECONDS = 0.01  # at the end: a wave that is cut off clicks


def struck_string(phase: np.ndarray) -> np.ndarray:
    """Return the waveform of a struck string.

    The sum of eight partials; partial k has amplitude 1/k and decays k times as fast as the first.
    The partials of a stiff string are sharp, f_k = k f sqrt(1 + B k^2) (Fletcher and Rossing, "The
    Physics of Musical Instruments", section 12.3). Partials above half the sample rate are left
    out. pretty_midi adds the decay of the whole note.

    Args:
        phase: (n,) phases of the fundamental in radians, evenly spaced from 0, the attack.

    Returns:
        (n,) float.
    """
    stiffness = 4e-4  # B
    decay = 1.2e-3  # of the first partial, per radian
    wave, step = np.zeros_like(phase), phase[1] if len(phase) > 1 else 0.0
    for k in range(1, 9):
        partial = k * np.sqrt(1 + stiffness * k * k)
        if partial * step < np.pi:  # below half the sample rate
            wave += np.sin(partial * phase) * np.exp(-decay * k * phase) / k
    return wave


def cached_string() -> Callable[[np.ndarray], np.ndarray]:
    """Return a function equal to `struck_string` that computes each pitch only once.

    A piece repeats few pitches many times, so this makes synthesis three times as fast.
    """
    waves: dict[float, np.ndarray] = {}  # by the step of the phase; the longest note so far

    def wave(phase: np.ndarray) -> np.ndarray:
        step = float(phase[1]) if len(phase) > 1 else 0.0
        if len(waves.get(step, ())) < len(phase):
            waves[step] = struck_string(phase)
        return waves[step][: len(phase)]

    return wave


def synthesize(
    midi: pretty_midi.PrettyMIDI, seconds: float, soundfont: Path | None = None
) -> np.ndarray:
    """Render MIDI as mono audio with a peak of 0.9 of full scale.

    Args:
        midi: the music.
        seconds: length of the audio; the music is cut off or padded with silence.
        soundfont: a SoundFont 2 file (.sf2) to render with through FluidSynth; None = built-in
            sound.

    Returns:
        (seconds * 44100,) int16; zeros if there is no note.
    """
    audio = np.zeros(round(seconds * SAMPLE_RATE))
    if any(instrument.notes for instrument in midi.instruments):
        if soundfont is None:
            notes = midi.synthesize(fs=SAMPLE_RATE, wave=cached_string())
        else:
            notes = midi.fluidsynth(fs=SAMPLE_RATE, sf2_path=str(soundfont))
        notes = notes[: len(audio)]
        audio[: len(notes)] = notes
        fade = min(len(audio), int(SAMPLE_RATE * _FADE_SECONDS))
        audio[len(audio) - fade :] *= np.linspace(1, 0, fade)
        audio *= _PEAK * np.iinfo(np.int16).max / max(np.abs(audio).max(), 1e-9)
    return audio.round().astype(np.int16)


def find_soundfont(path: str | None) -> tuple[Path | None, str]:
    """Check the soundfont of the flag `--soundfont`.

    Args:
        path: the flag's value; None if it is not given.

    Returns:
        The soundfont to pass to `synthesize`, and a remark for the user. The soundfont is None, and
        the remark says what to install, if FluidSynth is missing. The remark is else "".

    Raises:
        InputError: the file is missing or not a SoundFont 2 file.
    """
    if path is None:
        return None, ""
    try:
        with Path(path).open("rb") as file:
            header = file.read(12)
    except OSError as error:
        raise InputError(f"--soundfont {path}: can't be read ({error.strerror})") from None
    if (header[:4], header[8:]) != (b"RIFF", b"sfbk"):
        raise InputError(f"--soundfont {path}: not a SoundFont 2 file")
    if find_spec("fluidsynth") is None:
        return None, "FluidSynth is missing: `pip install pyfluidsynth`, and the library fluidsynth"
    return Path(path), ""
