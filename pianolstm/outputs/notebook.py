"""A piece in a notebook: a picture, an audio player, a score, and files to keep."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pianolstm.files import make_folder
from pianolstm.midi import piece_to_midi
from pianolstm.outputs.audio import encode_small, find_soundfont, synthesize
from pianolstm.outputs.musicxml import can_engrave, engrave, to_musicxml, write_musicxml
from pianolstm.outputs.plots import plot_piece
from pianolstm.piece import Piece

_DPI = 75  # a notebook keeps its pictures


def play(
    piece: Piece | np.ndarray,
    title: str = "",
    *,
    frame_beats: float = 0.5,
    bpm: float = 120.0,
    program: int = 0,
    score: bool = False,
) -> None:
    """Show a piece as a picture and an audio player; needs IPython.

    Args:
        piece: the piece, or a roll, (T, 88) bool, row = one frame, column 0 = MIDI 21 (A0).
        title: heading of the picture.
        frame_beats: length of a frame of a roll, in beats.
        bpm: tempo of a roll, in beats per minute.
        program: General MIDI program, 0 to 127.
        score: whether to show the score too, where Verovio is installed.
    """
    from IPython.display import SVG, Audio, Image, display  # only notebooks have it

    if not isinstance(piece, Piece):
        piece = Piece(piece, frame_beats, bpm)
    picture = io.BytesIO()
    plot_piece(piece, title).savefig(picture, format="png", dpi=_DPI)
    midi, seconds = piece_to_midi(piece, program=program), piece.beats * 60 / piece.bpm
    soundfont, remark = find_soundfont()
    if remark:
        print(remark)
    audio = encode_small(synthesize(midi, seconds, soundfont))
    display(Image(picture.getvalue()), Audio(audio))
    if score and can_engrave():
        display(SVG(engrave(to_musicxml(replace(piece, title=title), program))))


def keep(pieces: Mapping[str, Piece], folder: Path) -> None:
    """Write pieces as MIDI and MusicXML, and print the names of the files.

    Args:
        pieces: pieces by the names of their files.
        folder: the folder to write to; it is created if missing.
    """
    make_folder(folder)
    for name, piece in pieces.items():
        stem = "".join(c if c.isalnum() or c in ".-" else "-" for c in name)
        piece_to_midi(piece).write(str(folder / f"{stem}.mid"))
        write_musicxml(folder / f"{stem}.musicxml", replace(piece, title=name))
        print(f"{folder / stem}.mid, .musicxml")
