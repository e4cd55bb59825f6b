"""MIDI to sound: a plain struck string, or FluidSynth where it and a soundfont are at hand."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pretty_midi

from files import InputError

SAMPLE_RATE = 44_100  # Hz
PEAK = 0.9  # of full scale


def struck_string(phase: np.ndarray) -> np.ndarray:
    """Return the wave of a struck string at these phases, in radians from the blow.

    The sum of eight partials, the k-th at amplitude 1/k and gone k times as fast; a stiff string's
    partials are a little sharp, f_k = k f sqrt(1 + B k^2) (Fletcher and Rossing, "The Physics of
    Musical Instruments", section 12.3). Partials that the sample rate can't hold are left out.
    pretty_midi adds the decay of the whole note.
    """
    stiffness, decay = 4e-4, 1.2e-3  # B, and the first partial's decay for each radian
    wave, step = np.zeros_like(phase), phase[1] if len(phase) > 1 else 0.0
    for k in range(1, 9):
        partial = k * np.sqrt(1 + stiffness * k * k)
        if partial * step < np.pi:  # below half the sample rate
            wave += np.sin(partial * phase) * np.exp(-decay * k * phase) / k
    return wave


def struck_again() -> Callable[[np.ndarray], np.ndarray]:
    """Return `struck_string` for phases that start from 0, each pitch worked out but once.

    A tune strikes the same few strings again and again: this makes sound three times as fast.
    """
    waves: dict[float, np.ndarray] = {}  # by the step of the phase, as long as was asked so far

    def wave(phase: np.ndarray) -> np.ndarray:
        step = float(phase[1]) if len(phase) > 1 else 0.0
        if len(waves.get(step, ())) < len(phase):
            waves[step] = struck_string(phase)
        return waves[step][: len(phase)]

    return wave


def synthesize(
    midi: pretty_midi.PrettyMIDI, seconds: float, soundfont: Path | None = None
) -> np.ndarray:
    """Return the sound of a MIDI, (seconds * 44100,) int16, peak 0.9; silence is zeros.

    By FluidSynth with the instruments of a soundfont (.sf2), where one is given.
    """
    sound = np.zeros(round(seconds * SAMPLE_RATE))
    if any(instrument.notes for instrument in midi.instruments):
        if soundfont is None:
            notes = midi.synthesize(fs=SAMPLE_RATE, wave=struck_again())
        else:
            notes = midi.fluidsynth(fs=SAMPLE_RATE, sf2_path=str(soundfont))
        notes = notes[: len(sound)]
        sound[: len(notes)] = notes
        # Speakers click where a wave is cut off; a hundredth of a second of fading hides it.
        fade = min(len(sound), SAMPLE_RATE // 100)
        sound[len(sound) - fade :] *= np.linspace(1, 0, fade)
        sound *= PEAK * np.iinfo(np.int16).max / max(np.abs(sound).max(), 1e-9)
    return sound.round().astype(np.int16)


def usable_soundfont(path: str | None) -> tuple[Path | None, str]:
    """Return the soundfont to play with, and a remark for the user, or "" where there is none.

    Raises:
        InputError: the file is none.
    """
    if path is None:
        return None, ""
    try:
        with Path(path).open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise InputError(f"--soundfont {path}: can't be read ({error.strerror})") from None
    if (head[:4], head[8:]) != (b"RIFF", b"sfbk"):
        raise InputError(f"--soundfont {path}: not a SoundFont 2 file")
    if find_spec("fluidsynth") is None:
        return None, "no FluidSynth here: `pip install pyfluidsynth` and the library fluidsynth"
    return Path(path), ""
