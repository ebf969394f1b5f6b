"""Mamba's block by kernels that compute things again against the same block step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models.ops import BACKWARD, FORWARD, MixerWeights, Order, fused_mixer, mixer, set_default_backend
from models.ops.launch import Launches
from models.ops.triton_scan import function

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make_layer(
    orders: int, dim: int, inner: int, states: int, *, rank: int = 2, taps: int = 4, length: int = 10, batch: int = 2
) -> tuple[Tensor, MixerWeights]:
    """Tokens and weights that require gradients."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=random)).to(DEVICE).requires_grad_()

    weights = MixerWeights(
        in_proj=draw(2 * inner, dim, scale=dim**-0.5),
        conv_weight=draw(orders, inner, taps, scale=0.5),
        conv_bias=draw(orders, inner),
        x_proj=draw(orders, rank + 2 * states, inner, scale=inner**-0.5),
        step_weight=draw(orders, inner, rank, scale=rank**-0.5),
        step_bias=draw(orders, inner),
        A_log=draw(orders, inner, states, scale=0.5),
        D=draw(orders, inner),
        out_proj=draw(dim, inner, scale=inner**-0.5),
    )
    return draw(batch, length, dim), weights


def results(mix: object, tokens: Tensor, weights: MixerWeights, orders: tuple[Order, ...], **options: object) -> dict:
    """Mixed tokens and the gradient of a fixed weighting of them with respect to everything."""
    mixed = mix(tokens, weights, orders, **options)  # type: ignore[operator]
    weighting = torch.linspace(-1, 2, mixed.numel(), device=mixed.device).view_as(mixed).to(mixed.dtype)
    gradients = torch.autograd.grad(mixed, [tokens, *weights], weighting)
    return {"mixed": mixed.detach(), **dict(zip(("tokens", *MixerWeights._fields), gradients, strict=True))}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, value in expected.items():
        atol = tolerance * value.abs().max().item()
        torch.testing.assert_close(
            found[name].float(), value.float(), rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("orders", "sizes"),
    [
        ((FORWARD,), {"dim": 6, "inner": 12, "states": 4}),
        ((FORWARD, BACKWARD, Order("slices", 5)), {"dim": 4, "inner": 8, "states": 3, "rank": 1}),
        ((Order("slices", 2), BACKWARD), {"dim": 3, "inner": 34, "states": 2, "taps": 3, "length": 18, "batch": 1}),
    ],
)
def test_equals_the_block_step_by_step(orders: tuple[Order, ...], sizes: dict[str, int]) -> None:
    tokens, weights = make_layer(len(orders), **sizes)
    expected = results(mixer.plain, tokens, weights, orders, backend="reference")
    assert_same(results(fused_mixer.mix_orders, tokens, weights, orders), expected, tolerance=2e-6)


def test_orders_that_keep_a_gpu_busy_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for the states of one of them."""
    tokens, weights = make_layer(3, 4, 8, 2, length=10, batch=1)
    orders = (FORWARD, BACKWARD, Order("slices", 5))
    expected = results(mixer.plain, tokens, weights, orders, backend="reference")
    monkeypatch.setattr(function, "_PROGRAMS", 1)
    monkeypatch.setattr(function, "_CHUNKS", (8, 8))
    monkeypatch.setattr(function, "_BLOCK", 4)  # two blocks of channels, whose sums lie beside each other
    grids = []

    class Watched(Launches):
        def __call__(self, kernel: object, grid: tuple[int, int, int], *arguments: Any) -> None:
            if kernel is function.chunk_gradients:
                grids.append(grid[2])
            super().__call__(kernel, grid, *arguments)

    monkeypatch.setattr(function, "launches", lambda *_: Watched())  # these constants are not for others
    assert_same(results(fused_mixer.mix_orders, tokens, weights, orders), expected, tolerance=2e-6)
    assert grids == [1, 1, 1]


def test_autocast_rounds_products_and_gives_gradients_in_full() -> None:
    """Within what bf16 rounds away; parameters keep their type, and the result has that of the region."""
    tokens, weights = make_layer(2, 8, 16, 4, length=12)
    orders = (FORWARD, BACKWARD)
    expected = results(mixer.plain, tokens, weights, orders, backend="reference")
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        found = results(fused_mixer.mix_orders, tokens, weights, orders)
    assert found["mixed"].dtype == torch.bfloat16
    assert all(found[name].dtype == torch.float32 for name in ("tokens", *MixerWeights._fields))
    tolerance = 2e-2 if DEVICE == "cuda" else 4e-2  # the interpreter cuts bf16 off and does not round it
    for name, value in expected.items():
        assert (found[name].float() - value).norm() < tolerance * value.norm(), name


def test_without_gradients_nothing_is_kept() -> None:
    tokens, weights = make_layer(1, 4, 8, 2)
    with torch.no_grad():
        mixed = fused_mixer.mix_orders(tokens, weights, (FORWARD,))
        assert fused_mixer._mix(tokens, *weights, "forward:1", False)[2].numel() == 0
    torch.testing.assert_close(mixed, fused_mixer.mix_orders(tokens, weights, (FORWARD,)).detach())


def test_is_an_operator_that_pytorch_can_trace() -> None:
    """Shapes, types and aliasing as stated, and gradients registered as autograd wants them."""
    tokens, weights = make_layer(2, 4, 8, 2, length=6, batch=1)
    torch.library.opcheck(fused_mixer._mix, (tokens, *weights, "forward:1,slices:3", True))


def test_step_by_step_is_without_kernels_of_ours_but_the_scan_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that what is measured as published is not half ours on a GPU."""
    asked = []
    usual = mixer.causal_conv
    monkeypatch.setattr(
        mixer, "causal_conv", lambda *tensors, backend=None: asked.append(backend) or usual(*tensors, backend=backend)
    )
    tokens, weights = make_layer(2, 4, 8, 2)
    mixer.plain(tokens, weights, (FORWARD, BACKWARD), backend="reference")
    assert asked == ["torch", "torch"]


def test_the_scan_in_triton_brings_the_whole_block(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, weights = make_layer(1, 4, 8, 2)
    called = []
    monkeypatch.setattr(fused_mixer, "mix_orders", lambda *_: called.append(1) or tokens)
    set_default_backend("triton")
    try:
        mixer.mix_orders(tokens, weights, (FORWARD,))
        assert called == [1]
        mixer.mix_orders(tokens.double(), MixerWeights(*(one.double() for one in weights)), (FORWARD,))
        set_default_backend("torch")
        mixer.mix_orders(tokens, weights, (FORWARD,))
        assert called == [1]
    finally:
        set_default_backend(None)


@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU here")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("dim", "length", "slices"), [(48, 16384, 32), (384, 512, 8)])
def test_on_a_gpu_at_real_shapes(dtype: torch.dtype, tolerance: float, dim: int, length: int, slices: int) -> None:
    tokens, weights = make_layer(3, dim, 2 * dim, 16, rank=dim // 16, length=length)
    orders = (FORWARD, BACKWARD, Order("slices", slices))
    expected = results(mixer.plain, tokens, weights, orders, backend="torch")
    with torch.autocast(DEVICE, dtype=dtype, enabled=dtype != torch.float32):
        found = results(fused_mixer.mix_orders, tokens, weights, orders)
    for name, value in expected.items():
        assert (found[name].float() - value.float()).norm() < tolerance * value.float().norm(), name
