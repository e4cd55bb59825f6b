"""MIDI to audio: a General MIDI soundfont, or a built-in string where no renderer is installed.

The renderer is midirenderer (rustysynth), called in `_render` alone. The default soundfont is
TimGM6mb (Tim Brechbill, GPL), which pretty_midi contains. Audio is made in short parts, so
that the length of a piece does not matter to the RAM needed.
"""

import io
import math
import struct
import wave
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import pretty_midi

from pianolstm.files import InputError, one_line

SAMPLE_RATE = 48_000  # Hz, the renderer's
_PART_SECONDS = 30.0  # audio that is made at once
_GAIN = 4.0  # of the renderer's output: chords at velocity 80 reach about a third of full scale
_CEILING = 0.95  # of full scale, the highest peak behind the limiter
_BLOCK = 256  # samples of which the limiter finds the peak: 5 ms
_RECOVERY = 0.02  # share of its way back to 1 that the limiter's gain goes in a block
_SMALL_RATE = 16_000  # Hz, of small files
_TAIL_SECONDS = 3.0  # after the last note, at most
_FADE = SAMPLE_RATE // 2  # samples at the end of the tail
_SILENCE = 1e-3  # of full scale; the tail ends where the audio stays below
_RING_SECONDS = 1.5  # for which the last chord sounds on, if its sound decays by itself
_LONGEST_NOTE = 15.0  # seconds; longer ones have died away, or get a new breath or bow
_DECAYING = {*range(16), *range(24, 40), 45, 46, 47, *range(104, 108)}  # piano, guitar, harp ...
_RELEASE_SECONDS = 0.08  # of the built-in string
_STRING_GAIN = 0.12  # of one note of the built-in string at velocity 127


# ---- files ---------------------------------------------------------------------------------------


def write_wav(
    path: Path, midi: pretty_midi.PrettyMIDI, seconds: float, soundfont: Path | None = None
) -> None:
    """Write MIDI as a stereo .wav file of 16 bits.

    Args:
        path: the file to write.
        midi: the music.
        seconds: length of the music; the last notes ring out behind it.
        soundfont: a SoundFont 2 file; None = the built-in string.

    Raises:
        InputError: the soundfont can't be used.
    """
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, SAMPLE_RATE, 0, "NONE", ""))
        for part in _parts(midi, seconds, soundfont):
            file.writeframes(part.tobytes())


def synthesize(
    midi: pretty_midi.PrettyMIDI, seconds: float, soundfont: Path | None = None
) -> np.ndarray:
    """Render MIDI as stereo audio.

    Loudness follows the velocities by a fixed gain; a limiter holds peaks below full scale.

    Args:
        midi: the music.
        seconds: length of the music; the last notes ring out behind it.
        soundfont: a SoundFont 2 file; None = the built-in string.

    Returns:
        (n, 2) int16, at least `seconds` long; zeros if there is no note.

    Raises:
        InputError: the soundfont can't be used.
    """
    return np.concatenate(list(_parts(midi, seconds, soundfont)))


def encode_small(audio: np.ndarray) -> bytes:
    """Return audio as a .wav file of a twelfth of the size: mono, 16 kHz, mu-law.

    Browsers play it. Source: ITU-T Recommendation G.711.

    Args:
        audio: (n, 2) int16 at `SAMPLE_RATE`.
    """
    from scipy.signal import resample_poly  # a quarter of a second to import

    mono = resample_poly(audio.mean(axis=1), _SMALL_RATE, SAMPLE_RATE)
    size = np.minimum(np.abs(np.rint(mono)).astype(np.int64), 32_635) + 132
    exponent = np.log2(size).astype(np.int64) - 7
    codes = (mono < 0) << 7 | exponent << 4 | size >> exponent + 3 & 15
    data = (~codes & 255).astype(np.uint8).tobytes()
    # Format 7 = mu-law, 1 channel, a byte per sample, no extension.
    form = struct.pack("<HHIIHHH", 7, 1, _SMALL_RATE, _SMALL_RATE, 1, 8, 0)
    chunks = [(b"fmt ", form), (b"fact", struct.pack("<I", len(data))), (b"data", data)]
    body = b"WAVE" + b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def find_soundfont(path: str | None = None) -> tuple[Path | None, str]:
    """Return the soundfont to play with.

    Args:
        path: the value of the flag `--soundfont`; None = the General MIDI bank of pretty_midi.

    Returns:
        The soundfont to pass to `synthesize`, and a remark for the user. The soundfont is None, and
        the remark says why, if the renderer is not installed. The remark is else "".

    Raises:
        InputError: the file is missing or not a SoundFont 2 file.
    """
    if path is not None:
        try:
            with Path(path).open("rb") as file:
                header = file.read(12)
        except OSError as error:
            raise InputError(f"--soundfont {path}: can't be read ({error.strerror})") from None
        if (header[:4], header[8:]) != (b"RIFF", b"sfbk"):
            raise InputError(f"--soundfont {path}: not a SoundFont 2 file")
    if find_spec("midirenderer") is None:
        return None, (
            "midirenderer is not installed: a plain built-in string takes the place of every"
            " instrument; `pip install midirenderer` (there is no build for Linux on ARM)"
        )
    if path is None:
        return Path(pretty_midi.__file__).with_name("TimGM6mb.sf2"), ""
    _render(pretty_midi.PrettyMIDI(), Path(path).read_bytes(), path)
    return Path(path), ""


# ---- parts ---------------------------------------------------------------------------------------


def _parts(
    midi: pretty_midi.PrettyMIDI, seconds: float, soundfont: Path | None
) -> Iterator[np.ndarray]:
    """Yield the audio in parts, (n, 2) int16 each."""
    least, total = (round(t * SAMPLE_RATE) for t in (seconds, seconds + _TAIL_SECONDS))
    done = 0
    for part in _limit(_mix(midi, seconds, soundfont)):
        if done + len(part) > total - _FADE:  # what still sounds at the end of the tail fades
            positions = np.arange(done, done + len(part))
            part *= np.clip((total - positions) / _FADE, 0, 1)[:, None].astype(np.float32)
        if done + len(part) > least:  # behind the music: only as long as it is heard
            loud = np.flatnonzero(np.abs(part).max(axis=1) > _SILENCE)
            last = int(loud[-1]) + 1 if len(loud) else 0
            part = part[: max(last, least - done)]
        done += len(part)
        yield (part * np.iinfo(np.int16).max).round().astype(np.int16)


def _mix(
    midi: pretty_midi.PrettyMIDI, seconds: float, soundfont: Path | None
) -> Iterator[np.ndarray]:
    """Yield the audio without limiter, (n, 2) float32, n a multiple of `_BLOCK`.

    Each part renders the notes that begin in it. What sounds beyond its end is added to the next.
    """
    content = None if soundfont is None else soundfont.read_bytes()
    string = cached_string()
    size = round(_PART_SECONDS * SAMPLE_RATE) // _BLOCK * _BLOCK
    total = round((seconds + _TAIL_SECONDS) * SAMPLE_RATE)
    rest = np.zeros((0, 2), dtype=np.float32)
    for start in range(0, max(total, 1), size):
        span = start / SAMPLE_RATE, (start + size) / SAMPLE_RATE
        excerpt = _excerpt(midi, *span, seconds)
        if content is None:
            sound = _render_string(excerpt, string)
        else:
            sound = _render(excerpt, content, soundfont) * np.float32(_GAIN)
        if len(sound) < len(rest):
            sound, rest = rest, sound
        sound = sound.copy()
        sound[: len(rest)] += rest
        length = min(size, -(-(total - start) // _BLOCK) * _BLOCK)
        part = np.zeros((length, 2), dtype=np.float32)
        part[: min(length, len(sound))] = sound[:length]
        rest = sound[length:]
        yield part


def _excerpt(
    midi: pretty_midi.PrettyMIDI, start: float, end: float, seconds: float
) -> pretty_midi.PrettyMIDI:
    """Return the notes that begin in a span of time, and time for them to fade after the last.

    Notes are at most `_LONGEST_NOTE` long, so that a pedal point takes no more RAM than others.
    """
    excerpt = pretty_midi.PrettyMIDI(resolution=960)
    for track in midi.instruments:
        decays = track.program in _DECAYING and not track.is_drum
        copy = pretty_midi.Instrument(track.program, track.is_drum)
        for note in track.notes:
            stop = note.end + (_RING_SECONDS if decays and note.end >= seconds - 1e-3 else 0.0)
            strokes = 1 if decays else max(1, math.ceil((stop - note.start) / _LONGEST_NOTE))
            for stroke in range(strokes):
                begin = note.start + stroke * _LONGEST_NOTE
                if start <= begin < end:
                    times = begin - start, min(stop, begin + _LONGEST_NOTE) - start
                    copy.notes.append(pretty_midi.Note(note.velocity, note.pitch, *times))
        if copy.notes:
            # A pedal that is up already: an event that makes the file last until all is silent.
            last = max(note.end for note in copy.notes) + _TAIL_SECONDS
            copy.control_changes.append(pretty_midi.ControlChange(64, 0, last))
            excerpt.instruments.append(copy)
    return excerpt


def _limit(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield audio with a gain that falls, 5 ms ahead of a peak, as far as the peak needs.

    Args:
        parts: (n, 2) float32 each, n a multiple of `_BLOCK`.
    """
    waiting = np.zeros((0, 2), dtype=np.float32)  # the last block: its end depends on the next one
    before = edge = 1.0  # gain of the block before `waiting`, and at the start of `waiting`
    ramp = np.linspace(0, 1, _BLOCK, dtype=np.float32)
    for part in chain(parts, [None]):
        sound = waiting if part is None else np.concatenate([waiting, part])
        if not len(sound):
            continue
        peaks = np.abs(sound).reshape(-1, _BLOCK * 2).max(axis=1)  # (blocks,)
        gains = np.minimum(1.0, _CEILING / np.maximum(peaks, 1e-9))
        gain = before
        for i, needed in enumerate(gains.tolist()):
            gain = gains[i] = min(needed, gain + (1.0 - gain) * _RECOVERY)
        ends = np.minimum(gains, np.append(gains[1:], gains[-1]))  # gain at the end of each block
        starts = np.append(min(edge, gains[0]), ends[:-1])
        count = len(gains) - (part is not None)
        curve = starts[:count, None] + (ends - starts)[:count, None] * ramp  # (blocks, _BLOCK)
        yield sound[: count * _BLOCK] * curve.reshape(-1, 1).astype(np.float32)
        waiting = sound[count * _BLOCK :]
        if count:
            before, edge = float(gains[count - 1]), float(ends[count - 1])


# ---- renderers -----------------------------------------------------------------------------------


def _render(midi: pretty_midi.PrettyMIDI, soundfont: bytes, name: object) -> np.ndarray:
    """Render MIDI with a soundfont, (n, 2) float32; the one function that knows the renderer.

    Raises:
        InputError: the soundfont can't be used.
    """
    import midirenderer

    file = io.BytesIO()
    midi.write(file)
    try:
        content = midirenderer.render_wave_from(soundfont, file.getvalue())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise InputError(f"--soundfont {name}: can't be used ({one_line(error)})") from None
    with wave.open(io.BytesIO(content)) as audio:
        samples = np.frombuffer(audio.readframes(audio.getnframes()), dtype="<i2")
    return samples.reshape(-1, 2) / np.float32(32_768)


def _render_string(
    midi: pretty_midi.PrettyMIDI, string: Callable[[float, int], np.ndarray]
) -> np.ndarray:
    """Render MIDI with the built-in string, (n, 2) float32.

    Args:
        midi: the music; programs are ignored, drums left out.
        string: returns the wave of a frequency in Hz, of so many samples.
    """
    notes = [n for track in midi.instruments if not track.is_drum for n in track.notes]
    release = round(_RELEASE_SECONDS * SAMPLE_RATE)
    end = max((note.end for note in notes), default=0.0)
    audio = np.zeros(round(end * SAMPLE_RATE) + release + 1, dtype=np.float32)
    for note in notes:
        start, length = round(note.start * SAMPLE_RATE), round(note.get_duration() * SAMPLE_RATE)
        sound = string(pretty_midi.note_number_to_hz(note.pitch), length + release).copy()
        sound[length:] *= np.linspace(1, 0, len(sound) - length, dtype=np.float32)
        audio[start : start + len(sound)] += sound * np.float32(
            _STRING_GAIN * (note.velocity / 127) ** 2
        )
    return np.stack([audio, audio], axis=1)


def cached_string() -> Callable[[float, int], np.ndarray]:
    """Return a function that returns the wave of a string of a frequency in Hz, (n,) float32.

    A piece repeats few pitches many times, so each is computed only once.
    """
    waves: dict[float, np.ndarray] = {}  # the longest note so far of each frequency

    def string(frequency: float, length: int) -> np.ndarray:
        if len(waves.get(frequency, ())) < length:
            phase = 2 * np.pi * frequency / SAMPLE_RATE * np.arange(length)
            waves[frequency] = struck_string(phase).astype(np.float32)
        return waves[frequency][:length]

    return string


def struck_string(phase: np.ndarray) -> np.ndarray:
    """Return the waveform of a struck string.

    The sum of eight partials; partial k has amplitude 1/k and decays k times as fast as the first.
    The partials of a stiff string are sharp, f_k = k f sqrt(1 + B k^2) (Fletcher and Rossing, "The
    Physics of Musical Instruments", section 12.3). Partials above half the sample rate are left
    out.

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
