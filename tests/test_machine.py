"""The device, the threads and the precision: what is asked for, or what suits the machine."""

import pytest
import torch

from files import InputError
from machine import choose_precision, use_machine
from settings import MachineSettings


def with_devices(monkeypatch: pytest.MonkeyPatch, *there: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)


@pytest.mark.parametrize(
    ("there", "auto"),
    [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")],
    ids=["neither", "mps", "cuda", "both"],
)
def test_auto_is_the_first_device_there(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], auto: str
) -> None:
    with_devices(monkeypatch, *there)
    assert use_machine(MachineSettings("auto")).type == auto
    for name in ("cpu", *there):
        assert use_machine(MachineSettings(name)).type == name


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with_devices(monkeypatch)
    with pytest.raises(InputError, match=f"^--device {name}: [^\n]*cpu"):
        use_machine(MachineSettings(name))


@pytest.mark.parametrize(
    ("device", "there", "auto"),
    [
        ("cpu", {"amx_bf16": True}, "bfloat16"),
        ("cpu", {"amx_bf16": False, "avx512_bf16": True}, "float32"),
        ("cpu", {}, "float32"),  # another kind of processor
        ("cuda", {"amx_bf16": True}, "float32"),  # a GPU before Ampere
        ("cuda", {"ampere": True}, "bfloat16"),
        ("mps", {"amx_bf16": True}, "float32"),
    ],
)
def test_auto_is_bfloat16_only_where_there_are_matrix_units_for_it(
    monkeypatch: pytest.MonkeyPatch, device: str, there: dict[str, bool], auto: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: there)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation: "ampere" in there or including_emulation,
    )
    assert choose_precision("auto", torch.device(device)) == auto
    for wanted in ("float32", "bfloat16"):
        assert choose_precision(wanted, torch.device(device)) == wanted


def test_threads_are_as_many_as_asked_for_and_0_leaves_them() -> None:
    use_machine(MachineSettings("cpu", threads=0))
    assert torch.get_num_threads() == 1
    use_machine(MachineSettings("cpu", threads=3))
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
