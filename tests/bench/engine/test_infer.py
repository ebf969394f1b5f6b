"""Sliding-window inference: MONAI's result, mirror images, batches, memory that runs out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch import Tensor, nn

from bench.engine.diverged import Diverged
from bench.engine.infer import SlidingWindow
from bench.engine.windows import Corner, WindowPlan
from bench.errors import BenchError
from bench.fields import InferFields

PATCH = (8, 8, 8)
CPU = torch.device("cpu")


@pytest.fixture
def network() -> nn.Module:
    """A small network whose output depends on where in its window a voxel lies."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 6, 5, padding=2), nn.ReLU(), nn.Conv3d(6, 3, 3, padding=1))


class Spy(nn.Module):
    """Returns its first channel, or what it is told; remembers the sizes of its batches."""

    def __init__(self, answer: Callable[[Tensor], object] = lambda x: x[:, :1], most: int = 99) -> None:
        super().__init__()
        self.answer, self.most = answer, most
        self.sizes: list[int] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> object:
        self.sizes.append(len(x))
        self.modes.append(self.training)
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.answer(x)


def _fields(**changes: object) -> InferFields:
    plain = {"overlap": 0.5, "blend": "gaussian", "mirror_axes": (), "output": "argmax", "precision": "fp32"}
    return InferFields.model_validate({**plain, **changes})


def _image(*shape: int) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))


def _ours(network: nn.Module, image: Tensor, at_once: int | None = None, **changes: object) -> Tensor:
    return SlidingWindow(network, PATCH, _fields(**changes), CPU, at_once).logits(image)


def _theirs(network: nn.Module, image: Tensor, overlap: float, blend: str, axes: tuple[int, ...] = ()) -> Tensor:
    """MONAI's logits, averaged over its results on each mirror image."""
    slide = SlidingWindowInferer(PATCH, 2, overlap, mode=blend, sigma_scale=0.125, padding_mode="constant")
    turns: list[list[int]] = [[]]
    for axis in axes:
        turns += [[*turn, axis + 1] for turn in turns]
    with torch.no_grad():
        found = [slide(image.flip(turn)[None], network)[0].flip(turn) for turn in turns]  # type: ignore[index]
    return torch.stack(found).mean(0)


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 12, 20), (13, 9, 11), (5, 16, 7), (3, 2, 6)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("axes", [(), (1,), (0, 1, 2)])
def test_logits_are_those_of_monai(
    network: nn.Module, shape: tuple[int, ...], overlap: float, blend: str, axes: tuple[int, ...]
) -> None:
    image = _image(*shape)
    ours = _ours(network, image, overlap=overlap, blend=blend, mirror_axes=axes)
    torch.testing.assert_close(ours, _theirs(network, image, overlap, blend, axes), atol=1e-4, rtol=0)


def test_mirror_images_change_the_logits(network: nn.Module) -> None:
    image = _image(9, 12, 10)
    assert not torch.allclose(_ours(network, image, mirror_axes=(0, 2)), _ours(network, image), atol=1e-3)


@pytest.mark.parametrize("at_once", [1, 3, 8, 500])
def test_how_many_windows_pass_together_changes_nothing(network: nn.Module, at_once: int) -> None:
    image = _image(13, 9, 11)
    expected = _ours(network, image, mirror_axes=(0, 1))
    torch.testing.assert_close(_ours(network, image, at_once, mirror_axes=(0, 1)), expected)


def test_every_batch_but_the_last_is_full() -> None:
    spy = Spy()
    _ours(spy, torch.zeros(1, 16, 8, 8), 4, mirror_axes=(0, 2))  # 3 windows on each of 4 mirror images
    assert spy.sizes == [4, 4, 4]


def test_windows_are_counted_over_all_mirror_images(network: nn.Module) -> None:
    told: list[tuple[int, int]] = []
    window = SlidingWindow(network, PATCH, _fields(mirror_axes=(0,)), CPU, 2)
    window.logits(torch.zeros(2, 16, 8, 8), lambda done, total: told.append((done, total)))
    assert told == [(0, 6), (2, 6), (4, 6)]


def test_a_half_precision_array_on_the_disk_is_read_as_it_is(network: nn.Module) -> None:
    stored = _image(9, 8, 10).numpy().astype(np.float16)
    stored.flags.writeable = False
    found = SlidingWindow(network, PATCH, _fields(), CPU).logits(stored)
    torch.testing.assert_close(found, _ours(network, torch.from_numpy(stored.astype(np.float32))))


def test_the_precision_is_that_of_the_network_and_sums_stay_in_fp32(network: nn.Module) -> None:
    kinds: list[torch.dtype] = []
    network.register_forward_hook(lambda _module, _given, found: kinds.append(found.dtype))
    image = _image(12, 8, 8)
    short = _ours(network, image, precision="bf16", mirror_axes=(0, 1, 2))
    assert set(kinds) == {torch.bfloat16}
    assert short.dtype == torch.float32
    exact = _ours(network, image, mirror_axes=(0, 1, 2))
    assert not torch.equal(short, exact)
    torch.testing.assert_close(short, exact, atol=0.02, rtol=0)
    # Each window rounds by itself; a sum kept in bf16 would lose three digits more.
    with torch.autocast("cpu", torch.bfloat16):
        rounded = _theirs(network, image, 0.5, "gaussian", (0, 1, 2))
    assert (short - exact).abs().mean() <= 1.01 * (rounded - exact).abs().mean()


class TestMemory:
    def test_half_as_many_windows_where_it_runs_out_and_so_for_the_next_volume(self) -> None:
        image = _image(16, 8, 8)
        spy = Spy(most=2)
        window = SlidingWindow(spy, PATCH, _fields(mirror_axes=(0, 2)), CPU, 8)
        torch.testing.assert_close(window.logits(image), _ours(Spy(), image, mirror_axes=(0, 2)))
        assert spy.sizes == [8, 4, 2, 2, 2, 2, 2, 2]
        spy.sizes.clear()
        window.logits(image)
        assert spy.sizes == [2] * 6

    def test_memory_that_runs_out_in_the_middle_counts_no_window_twice(self) -> None:
        image = _image(16, 8, 8)
        spy = Spy()

        def tighten(x: Tensor) -> Tensor:
            spy.most = 1
            return x[:, :1]

        spy.answer = tighten
        found = SlidingWindow(spy, PATCH, _fields(), CPU, 2).logits(image)
        torch.testing.assert_close(found, _ours(Spy(), image))
        assert spy.sizes == [2, 1]

    @pytest.mark.parametrize("fatal", [1, 3, 4, 6])
    def test_nor_does_memory_that_runs_out_between_two_windows_of_a_batch(
        self, monkeypatch: pytest.MonkeyPatch, fatal: int
    ) -> None:
        image = _image(16, 8, 8)
        expected = _ours(Spy(), image, mirror_axes=(1,))
        calls = 0
        shares = WindowPlan.shares

        def scarce(plan: WindowPlan, corner: Corner) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return shares(plan, corner)

        monkeypatch.setattr(WindowPlan, "shares", scarce)
        torch.testing.assert_close(_ours(Spy(), image, 4, mirror_axes=(1,)), expected)
        assert calls == 7

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize("when", ["beforehand", "on the way"])
    def test_logits_too_many_for_the_gpu_are_summed_on_the_cpu(
        self, network: nn.Module, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        image = _image(13, 9, 11)
        expected = _ours(network, image, mirror_axes=(0, 1))
        spy = Spy(network.cuda().forward)
        if when == "beforehand":
            monkeypatch.setattr("bench.engine.infer._free_bytes", lambda _device: 1)
        else:
            answered = spy.answer

            def once(x: Tensor) -> object:
                if len(spy.sizes) == 2:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return answered(x)

            spy.answer = once
        window = SlidingWindow(spy, PATCH, _fields(mirror_axes=(0, 1)), torch.device("cuda"), 1)
        found = window.logits(image)
        assert found.device == CPU
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

    def test_not_even_one_window_is_the_end(self) -> None:
        with pytest.raises(torch.OutOfMemoryError):
            _ours(Spy(most=0), torch.zeros(1, 8, 8, 8), 4)

    def test_other_faults_of_the_network_are_not_taken_for_it(self) -> None:
        def fault(_x: Tensor) -> Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        spy = Spy(fault)
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            _ours(spy, torch.zeros(1, 8, 8, 8), 4)
        assert spy.sizes == [1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: [x, x[..., ::2]], "a list of 2"),
        (lambda x: {"out": x}, "a dict of 1"),
        (lambda x: x[..., ::2, ::2, ::2], r"shape \(1, 1, 4, 4, 4\)"),
        (lambda x: x[:, 0], r"shape \(1, 8, 8, 8\)"),
        (lambda x: x.argmax(1, keepdim=True), "type int64"),
        (lambda _x: None, "a NoneType"),
    ],
)
def test_what_is_no_logits_is_named(answer: Callable[[Tensor], object], words: str) -> None:
    with pytest.raises(BenchError, match=rf"returned .*{words}.*expected.*\(1, K, 8, 8, 8\)"):
        _ours(Spy(answer), torch.zeros(1, 8, 8, 8))


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_logits_that_are_not_finite_have_no_largest_class(bad: float) -> None:
    def burst(x: Tensor) -> Tensor:
        found = x.clone()
        found[0, 0, 3, 3, 3] = bad
        return found

    with pytest.raises(Diverged, match="not finite"):
        _ours(Spy(burst), torch.ones(1, 8, 8, 8))


def test_the_network_runs_in_evaluation_mode_and_a_stop_is_heard(network: nn.Module) -> None:
    spy = Spy()
    spy.train()
    _ours(spy, torch.zeros(1, 16, 8, 8))
    assert spy.modes
    assert not any(spy.modes)

    def stop(done: int, _total: int) -> None:
        if done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        SlidingWindow(network, PATCH, _fields(), CPU).logits(torch.zeros(2, 16, 8, 8), stop)
