"""A perceptron for each channel by kernels against two grouped convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.errors import ModelError
from models.ops import triton_perceptron
from models.ops.channel_perceptron import channel_perceptron

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("x", "widen", "widen_bias", "narrow", "narrow_bias")


def make(
    batch: int, channels: int, hidden: int, size: tuple[int, int, int], dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = [(batch, channels, *size), (channels, hidden), (channels, hidden), (channels, hidden), (channels,)]
    drawn = [torch.randn(shape, generator=random, dtype=torch.float64).to(DEVICE) for shape in shapes]
    x = drawn[0].to(dtype).contiguous(memory_format=torch.channels_last_3d)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    return [x.requires_grad_(), *(one.to(kept).requires_grad_() for one in drawn[1:])]


def results(inputs: list[Tensor], backend: str) -> dict[str, Tensor]:
    y = channel_perceptron(*inputs, backend=backend)
    weights = torch.linspace(-1, 2, y.numel(), device=DEVICE).bfloat16().view(y.shape).to(y.dtype)
    gradients = torch.autograd.grad(y, inputs, weights)
    return {"y": y.detach(), **dict(zip(NAMES, gradients, strict=True))}


@pytest.mark.parametrize(
    ("batch", "channels", "hidden", "size"),
    [(1, 1, 1, (1, 1, 1)), (2, 3, 4, (3, 4, 5)), (1, 34, 3, (2, 3, 3)), (2, 48, 4, (4, 3, 3))],
)
def test_equals_the_convolutions_in_value_and_every_gradient(
    batch: int, channels: int, hidden: int, size: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several blocks of rows to a program and one, and channels and rows that fill no block."""
    inputs = make(batch, channels, hidden, size)
    expected = results(inputs, "torch")
    for programs in (1, 2048):
        monkeypatch.setattr(triton_perceptron, "_PROGRAMS", programs)
        for name, value in results(inputs, "triton").items():
            torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_half_precision_is_rounded_once_and_weights_stay_in_full() -> None:
    inputs = make(1, 5, 4, (3, 3, 4), torch.bfloat16)
    exact = [one.detach().double().requires_grad_() for one in inputs]
    expected, found = results(exact, "torch"), results(inputs, "triton")
    assert found["y"].dtype == found["x"].dtype == torch.bfloat16
    assert found["y"].is_contiguous(memory_format=torch.channels_last_3d)
    unit = 2**-8 if DEVICE == "cuda" else 2**-7  # the interpreter cuts off
    torch.testing.assert_close(found["y"].double(), expected["y"], rtol=unit, atol=1e-6)
    torch.testing.assert_close(found["x"].double(), expected["x"], rtol=unit, atol=1e-6)
    for name in NAMES[1:]:
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-4, atol=1e-4)


def test_autocast_casts_the_image_alone() -> None:
    inputs = make(1, 4, 2, (2, 2, 3), torch.float32)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        y = channel_perceptron(*inputs, backend="triton")
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), channel_perceptron(*inputs, backend="torch"), rtol=0.05, atol=0.05)


def test_is_an_operator_that_pytorch_can_trace() -> None:
    torch.library.opcheck(triton_perceptron.perceptron, tuple(make(1, 3, 2, (2, 2, 2), torch.float32)))


def test_what_does_not_fit_is_named() -> None:
    x, *weights = make(1, 3, 2, (2, 2, 2))
    with pytest.raises(ModelError, match=r"x must be \(B, 3, D, H, W\); got \(1, 3, 2, 2\)"):
        channel_perceptron(x[..., 0], *weights)
    with pytest.raises(ModelError, match=r"narrow must be \(3, 2\); got \(3, 1\)"):
        channel_perceptron(x, *weights[:2], weights[2][:, :1], weights[3])
    with pytest.raises(ModelError, match=r"'tritn' is unknown\. Did you mean 'triton'"):
        channel_perceptron(x, *weights, backend="tritn")


@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU here")
def test_on_a_gpu_at_real_size() -> None:
    inputs = make(2, 48, 4, (64, 64, 64), torch.bfloat16)
    exact = [one.detach().float().requires_grad_() for one in inputs]
    expected, found = results(exact, "torch"), results(inputs, "triton")
    for name, value in expected.items():
        assert (found[name].float() - value).norm() < 5e-3 * value.norm(), name
