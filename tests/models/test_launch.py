"""Launches that Triton need not look at again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models.ops.launch import Launches, launches

GRID = (3, 2, 1)


class Kernel:
    """A stand-in for a function of `triton.jit`, or with ``interpreted`` for what its interpreter makes of one."""

    arg_names = ("x", "y", "length", "TILE")

    def __init__(self, *, interpreted: bool = False) -> None:
        self.interpreted = interpreted
        self.looked_at: list[tuple[Any, ...]] = []
        self.ran: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def first(*tensors: Any, **named: Any) -> Any:
            self.looked_at.append((grid, tensors, named))
            return None if self.interpreted else Compiled(self)

        return first


class Compiled:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments: self.kernel.ran.append((grid, arguments))


def others() -> dict[str, Any]:
    return {"TILE": 32, "num_warps": 1, "length": 7}  # in any order, and an option that is no argument


def test_from_the_second_time_on_only_tensors_are_looked_at() -> None:
    launch, kernel = Launches(), Kernel()
    x, y = torch.zeros(8), torch.zeros(8)
    launch(kernel, GRID, (x, None), others)
    assert kernel.looked_at == [(GRID, (x, None), others())]
    launch(kernel, (4, 2, 1), (y, None), lambda: pytest.fail("asked again"))
    assert len(kernel.looked_at) == 1
    assert kernel.ran == [((4, 2, 1), (y, None, 7, 32))]


@pytest.mark.parametrize(
    "tensors",
    [
        (torch.zeros(8, dtype=torch.float64), torch.zeros(8)),
        (torch.zeros(8)[1:], torch.zeros(8)),
        (torch.zeros(8), torch.zeros(8)[1:]),
        (torch.zeros(8), None),
    ],
    ids=["another type", "not aligned", "the second not aligned", "one that is missing"],
)
def test_tensors_of_another_kind_are_another_launch(tensors: tuple[Tensor | None, ...]) -> None:
    launch, kernel = Launches(), Kernel()
    for _ in range(2):
        launch(kernel, GRID, (torch.zeros(8), torch.zeros(8)), others)
        launch(kernel, GRID, tensors, others)
    assert len(kernel.looked_at) == 2
    assert len(kernel.ran) == 2


def test_kernels_are_told_apart() -> None:
    launch, kernels = Launches(), (Kernel(), Kernel())
    for kernel in kernels:
        launch(kernel, GRID, (torch.zeros(8), None), others)
    assert [len(kernel.looked_at) for kernel in kernels] == [1, 1]


def test_interpreted_kernels_are_called_as_ever() -> None:
    launch, kernel = Launches(), Kernel(interpreted=True)
    for _ in range(2):
        launch(kernel, GRID, (torch.zeros(8), None), others)
    assert len(kernel.looked_at) == 2


def test_on_amd_all_launches_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    launch, kernel = Launches(), Kernel()
    for _ in range(2):
        launch(kernel, GRID, (torch.zeros(8), None), others)
    assert len(kernel.looked_at) == 2


def test_launches_are_those_of_equal_arguments() -> None:
    assert launches("test", 1, (2, 3)) is launches("test", 1, (2, 3))
    assert launches("test", 1, (2, 3)) is not launches("test", 1, (2, 4))
