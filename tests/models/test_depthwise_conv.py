"""Depth-wise 3D convolution and its transpose: every backend against PyTorch in fp64, in value and every gradient."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import ModelError
from models.ops import depthwise_conv
from models.ops.depthwise_conv import depthwise_conv3d, depthwise_conv_transpose3d

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = ("torch", "triton") if find_spec("triton") else ("torch",)
BOTH = {"plain": (depthwise_conv3d, F.conv3d), "transposed": (depthwise_conv_transpose3d, F.conv_transpose3d)}
LAST = torch.channels_last_3d


@pytest.fixture
def kernels() -> ModuleType:
    return pytest.importorskip("models.ops.triton_depthwise")


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small inputs of many tiles, each quick to interpret: programs of 64 or 128 elements and a few rows."""
    if "triton" in BACKENDS and DEVICE == "cpu":
        kernels = pytest.importorskip("models.ops.triton_depthwise")
        for name, value in {"_WARPS": 1, "_MOST_ROWS": 4, "_LEAST_ROWS": 2, "_PROGRAMS": 1, "_ROWS_SUMMED": 2}.items():
            monkeypatch.setattr(kernels, name, value)
        monkeypatch.setattr(kernels, "_PROGRAMS_SUMMED", 12)


def make_inputs(
    shape: tuple[int, ...], kernel: int, *, bias: bool = True, dtype: torch.dtype = torch.float64, last: bool = True
) -> dict[str, Tensor]:
    """x, channels last or first, weight and perhaps bias."""
    random = torch.Generator().manual_seed(0)
    shapes = {"x": shape, "weight": (shape[1], 1, kernel, kernel, kernel), "bias": (shape[1],)}
    inputs = {
        name: torch.randn(size, generator=random, dtype=torch.float64).to(DEVICE, dtype)
        for name, size in shapes.items()
        if bias or name != "bias"
    }
    if last:
        inputs["x"] = inputs["x"].contiguous(memory_format=LAST)
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def weighting(y: Tensor) -> Tensor:
    return torch.sin(torch.arange(y.numel(), dtype=torch.float64)).view(y.shape).to(y)


def with_gradients(y: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """y and the gradient of a fixed weighting of it with respect to every input."""
    gradients = torch.autograd.grad(y, list(inputs.values()), weighting(y))
    return {"y": y.detach(), **dict(zip(inputs, gradients, strict=True))}


def exactly(inputs: dict[str, Tensor], by: Callable[..., Tensor] = F.conv3d, **options: Any) -> dict[str, Tensor]:
    """`with_gradients` of PyTorch's function in fp64 on the same numbers, with the same weighting."""
    exact = {name: tensor.detach().double().contiguous().requires_grad_() for name, tensor in inputs.items()}
    y = by(exact["x"], exact["weight"], exact.get("bias"), groups=exact["x"].shape[1], **options)
    gradients = torch.autograd.grad(y, list(exact.values()), weighting(y).to(inputs["x"].dtype).double())
    return {"y": y.detach(), **dict(zip(inputs, gradients, strict=True))}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, value in expected.items():
        scale = value.abs().max().clamp(min=1e-30).item()
        torch.testing.assert_close(
            found[name].double(), value.double(), rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def rounding_of(backend: str, dtype: torch.dtype) -> float:
    """The error of a number rounded once, relative to it."""
    # Triton's interpreter cuts off what bf16 cannot hold.
    whole = backend == "triton" and DEVICE == "cpu" and dtype == torch.bfloat16
    return torch.finfo(dtype).eps * (1.001 if whole else 0.501)


# Shape of x, k, stride, padding, and whether there is a bias.
CASES = {
    "3³": ((2, 3, 2, 5, 4), 3, 1, 1, True),
    "3³ without padding or bias": ((1, 16, 3, 4, 11), 3, 1, 0, False),
    "3³ halving": ((2, 3, 3, 4, 5), 3, 2, 1, True),
    "3³ halving without padding": ((1, 40, 3, 4, 10), 3, 2, 0, False),
    "5³": ((1, 1, 2, 3, 4), 5, 1, 2, True),
    "5³ with padding of less than half": ((1, 16, 3, 4, 13), 5, 1, 1, True),
    "5³ halving": ((2, 3, 2, 3, 4), 5, 2, 2, False),
    "7³": ((1, 16, 2, 2, 3), 7, 1, 3, True),
    "7³ halving with padding of less than half": ((1, 3, 5, 3, 3), 7, 2, (1, 2, 3), True),
    "9³": ((1, 2, 1, 1, 3), 9, 1, 4, True),
    "one tap": ((1, 3, 2, 3, 5), 1, 2, 0, True),
    "one tap and padding": ((1, 2, 1, 2, 3), 1, 2, 1, True),
    "padding other along each axis": ((1, 2, 3, 4, 3), 3, 1, (0, 1, 2), True),
    "padding of more than half": ((1, 2, 1, 2, 1), 3, 1, 3, True),
    "a row in several blocks of one phase": ((1, 16, 1, 3, 18), 3, 1, 1, True),
    "a row in several blocks of several phases": ((1, 40, 1, 3, 17), 3, 1, 1, True),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.usefixtures("small_tiles")
class TestBackend:
    """What holds whoever computes it."""

    @pytest.mark.parametrize("case", CASES)
    def test_equals_a_convolution_by_groups_in_value_and_every_gradient(self, backend: str, case: str) -> None:
        shape, kernel, stride, padding, bias = CASES[case]
        inputs = make_inputs(shape, kernel, bias=bias)
        y = depthwise_conv3d(**inputs, stride=stride, padding=padding, backend=backend)
        assert_same(with_gradients(y, inputs), exactly(inputs, stride=stride, padding=padding), tolerance=1e-12)

    @pytest.mark.parametrize(
        ("shape", "kernel", "stride", "padding", "output_padding", "bias"),
        [
            ((2, 3, 2, 2, 3), 3, 2, 1, 0, True),
            ((1, 16, 1, 3, 7), 3, 2, (1, 0, 1), (1, 0, 1), False),
            ((1, 2, 1, 2, 2), 5, 2, 2, 1, True),
            ((1, 2, 1, 1, 3), 7, 1, 3, 0, True),
        ],
    )
    def test_transpose_equals_a_transposed_convolution_by_groups(
        self,
        backend: str,
        shape: tuple[int, ...],
        kernel: int,
        stride: int,
        padding: Any,
        output_padding: Any,
        bias: bool,
    ) -> None:
        inputs = make_inputs(shape, kernel, bias=bias)
        options = {"stride": stride, "padding": padding, "output_padding": output_padding}
        found = with_gradients(depthwise_conv_transpose3d(**inputs, **options, backend=backend), inputs)
        assert_same(found, exactly(inputs, F.conv_transpose3d, **options), tolerance=1e-12)

    @pytest.mark.parametrize("which", BOTH)
    def test_gradients_agree_with_finite_differences(self, backend: str, which: str) -> None:
        inputs = make_inputs((1, 2, 1, 2, 3), 3)
        convolve = BOTH[which][0]
        assert torch.autograd.gradcheck(
            lambda *tensors: convolve(*tensors, stride=2, padding=1, backend=backend),
            tuple(inputs.values()),
            fast_mode=True,
        )

    # Here and below one plane: on CPUs PyTorch 2.15 has a wrong gradient of bf16 weights for two, channels last.
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("which", BOTH)
    def test_half_precision_is_rounded_once(self, backend: str, dtype: torch.dtype, which: str) -> None:
        convolve, by_torch = BOTH[which]
        inputs = make_inputs((2, 3, 1, 3, 4), 3, dtype=dtype)
        found = with_gradients(convolve(**inputs, padding=1, backend=backend), inputs)
        assert all(value.dtype == dtype for value in found.values())
        expected = exactly(inputs, by_torch, padding=1)
        rounding = rounding_of(backend, dtype)
        for name, value in expected.items() if backend == "triton" else ():
            cast = rounding if name in ("y", "x") else torch.finfo(dtype).eps / 2 * 1.01
            torch.testing.assert_close(found[name].double(), value, rtol=cast, atol=3e-6, msg=lambda m, n=name: n + m)
        assert_same(found, expected, tolerance=2 * torch.finfo(dtype).eps)

    def test_fp32_parameters_have_fp32_gradients_beside_half_precision_features(self, backend: str) -> None:
        inputs = make_inputs((1, 3, 1, 3, 4), 3, dtype=torch.float32)
        inputs["x"] = inputs["x"].detach().bfloat16().requires_grad_()
        found = with_gradients(depthwise_conv3d(**inputs, padding=1, backend=backend), inputs)
        assert {name: value.dtype for name, value in found.items()} == {
            "y": torch.bfloat16, "x": torch.bfloat16, "weight": torch.float32, "bias": torch.float32
        }  # fmt: skip
        expected = exactly(inputs, padding=1)
        assert_same(found, expected, tolerance=2e-2)
        if backend == "triton":
            rounding = rounding_of(backend, torch.bfloat16)
            torch.testing.assert_close(found["y"].double(), expected["y"], rtol=rounding, atol=1e-6)
            assert_same(found, {name: expected[name] for name in ("weight", "bias")}, tolerance=1e-6)

    @pytest.mark.parametrize("which", BOTH)
    def test_autocast_casts_features(self, backend: str, which: str) -> None:
        convolve, by_torch = BOTH[which]
        inputs = make_inputs((1, 3, 1, 3, 4), 3, dtype=torch.float32)
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            y = convolve(**inputs, padding=1, backend=backend)
        found = with_gradients(y, inputs)
        assert (y.dtype, found["x"].dtype, found["weight"].dtype) == (torch.bfloat16, torch.float32, torch.float32)
        inputs["x"] = inputs["x"].detach().bfloat16()
        expected = exactly(inputs, by_torch, padding=1)
        assert_same(found, expected, tolerance=2e-2)
        if backend == "triton":
            rounding = rounding_of(backend, torch.bfloat16)
            torch.testing.assert_close(found["y"].double(), expected["y"], rtol=rounding, atol=1e-6)
            assert_same(found, {name: expected[name] for name in ("weight", "bias")}, tolerance=1e-6)

    def test_autocast_leaves_fp64_alone(self, backend: str) -> None:
        inputs = make_inputs((1, 1, 1, 1, 2), 3)
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            assert depthwise_conv3d(**inputs, padding=1, backend=backend).dtype == torch.float64

    def test_layouts(self, backend: str) -> None:
        """x channels first, or part of a wider tensor; its gradient comes as autograd wants it."""
        inputs = make_inputs((2, 3, 1, 2, 3), 3, last=False)
        expected = exactly(inputs, padding=1)
        assert_same(
            with_gradients(depthwise_conv3d(**inputs, padding=1, backend=backend), inputs), expected, tolerance=1e-12
        )
        wide = (
            torch.cat([torch.full_like(inputs["x"], torch.nan), inputs["x"]], dim=1)
            .detach()
            .contiguous(memory_format=LAST)
        )
        inputs["x"] = wide.requires_grad_()
        y = depthwise_conv3d(wide[:, 3:], inputs["weight"], inputs["bias"], padding=1, backend=backend)
        found = with_gradients(y, inputs)
        assert (found["x"][:, :3] == 0).all()
        found["x"] = found["x"][:, 3:]
        assert_same(found, expected, tolerance=1e-12)

    def test_gradients_of_the_output_may_lie_anyhow(self, backend: str) -> None:
        inputs = make_inputs((1, 3, 2, 2, 3), 3)
        y = depthwise_conv3d(**inputs, padding=1, backend=backend)
        inputs_of = list(inputs.values())
        weights = torch.arange(3.0, dtype=torch.float64, device=DEVICE).view(1, 3, 1, 1, 1)
        expected = torch.autograd.grad(y, inputs_of, weights.expand_as(y).contiguous(memory_format=LAST), True)
        for grad in (weights.expand_as(y), weights.expand_as(y).contiguous()):
            found = torch.autograd.grad(y, inputs_of, grad, retain_graph=True)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other)

    def test_without_gradients(self, backend: str) -> None:
        inputs = make_inputs((1, 3, 2, 3, 4), 3)
        with torch.no_grad():
            y = depthwise_conv3d(**inputs, stride=(2, 2, 2), padding=(1, 1, 1), backend=backend)
        assert not y.requires_grad
        torch.testing.assert_close(y, F.conv3d(**inputs, stride=2, padding=1, groups=3).detach())

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"x": torch.zeros(2, 3, 3, 3)}, r"x must be \(B, C, D, H, W\), none of them 0; got \(2, 3, 3, 3\)"),
            ({"x": torch.zeros(1, 2, 0, 3, 3)}, r"none of them 0; got \(1, 2, 0, 3, 3\)"),
            ({"x": torch.zeros(1, 2, 3, 3, 3, dtype=torch.int64)}, "x must be floating point; got torch.int64"),
            (
                {"weight": torch.zeros(2, 1, 3, 3, 1)},
                r"weight must be \(C, 1, k, k, k\) with C = 2 .*; got \(2, 1, 3, 3",
            ),
            ({"weight": torch.zeros(1, 1, 3, 3, 3)}, r"C = 2 as in x and k odd; got \(1, 1, 3, 3, 3\)"),
            ({"weight": torch.zeros(2, 2, 3, 3, 3)}, r"got \(2, 2, 3, 3, 3\)"),
            ({"weight": torch.zeros(2, 1, 2, 2, 2)}, r"k odd; got \(2, 1, 2, 2, 2\)"),
            ({"weight": torch.zeros(())}, r"weight must be .*; got \(\)"),
            ({"bias": torch.zeros(3)}, r"bias must be \(2,\) for x \(1, 2, 3, 3, 3\); got \(3,\)"),
            ({"stride": 3}, "stride must be 1 or 2, the same along all axes; got 3"),
            ({"stride": (1, 2, 1)}, r"the same along all axes; got \(1, 2, 1\)"),
            ({"padding": -1}, "padding must be an integer of at least 0 or three of them; got -1"),
            ({"padding": (1, 1)}, r"or three of them; got \(1, 1\)"),
            ({"padding": "same"}, "or three of them; got 'same'"),
        ],
    )
    @pytest.mark.parametrize("which", BOTH)
    def test_says_what_does_not_fit(self, backend: str, which: str, changes: dict[str, Any], message: str) -> None:
        fitting = {"x": torch.zeros(1, 2, 3, 3, 3), "weight": torch.zeros(2, 1, 3, 3, 3), "bias": torch.zeros(2)}
        convolve = BOTH[which][0]
        with pytest.raises(ModelError, match=f"{convolve.__name__}: .*{message}"):
            convolve(**fitting | changes, backend=backend)

    def test_says_what_leaves_no_output(self, backend: str) -> None:
        x, weight = torch.zeros(1, 2, 3, 4, 5), torch.zeros(2, 1, 5, 5, 5)
        with pytest.raises(
            ModelError, match=r"must hold the filter of 5³; got x \(1, 2, 3, 4, 5\) and padding \(0, 0, 0"
        ):
            depthwise_conv3d(x, weight, backend=backend)
        with pytest.raises(ModelError, match=r"must leave something; got \(4, 4, 4\), which leaves \(-1, 0, 1\)"):
            depthwise_conv_transpose3d(x, weight, padding=4, backend=backend)
        with pytest.raises(ModelError, match=r"output_padding must be less than the stride, 2; got \(0, 2, 0\)"):
            depthwise_conv_transpose3d(x, weight, stride=2, output_padding=(0, 2, 0), backend=backend)


@pytest.mark.skipif("triton" not in BACKENDS, reason="no triton")
class TestTriton:
    """What holds for the kernels alone."""

    def test_with_tiles_as_on_a_gpu(self) -> None:
        """More rows, columns and planes than one program takes, none a multiple; stride 2 with its smaller tiles."""
        for stride in (1, 2):
            inputs = make_inputs((1, 40, 1, 17, 14), 3)
            found = with_gradients(depthwise_conv3d(**inputs, stride=stride, padding=1, backend="triton"), inputs)
            assert_same(found, exactly(inputs, stride=stride, padding=1), tolerance=1e-12)

    @pytest.mark.usefixtures("small_tiles")
    def test_what_comes_out_is_channels_last(self) -> None:
        inputs = make_inputs((2, 3, 2, 3, 4), 3, last=False)
        for convolve, _ in BOTH.values():
            y = convolve(**inputs, padding=1, backend="triton")
            assert y.is_contiguous(memory_format=LAST)

    @pytest.mark.usefixtures("small_tiles")
    def test_only_gradients_that_are_wanted_are_computed(self, kernels: ModuleType) -> None:
        # Each by what only it is computed with: the gradient of x the other convolution, that of weights a kernel.
        for which, other in (("plain", "transposed_convolution"), ("transposed", "convolution")):
            for wanted, unused in (("weight", other), ("bias", other), ("x", "_weight_gradient")):
                inputs = {name: tensor.detach() for name, tensor in make_inputs((1, 2, 1, 2, 3), 3).items()}
                inputs[wanted].requires_grad_()
                y = BOTH[which][0](**inputs, padding=1, backend="triton")
                with patch.object(kernels, unused, side_effect=AssertionError):
                    found = torch.autograd.grad(y, inputs[wanted], weighting(y))[0]
                by_torch = BOTH[which][1](**inputs, padding=1, groups=2)
                torch.testing.assert_close(found, torch.autograd.grad(by_torch, inputs[wanted], weighting(y))[0])

    @pytest.mark.usefixtures("small_tiles")
    def test_shares_of_the_weights_gradient(self, kernels: ModuleType) -> None:
        """However many programs share in it; an uneven share too."""
        inputs = make_inputs((1, 3, 1, 9, 2), 3)
        expected = exactly(inputs, padding=1)
        for programs in (1, 2, 100):
            with patch.object(kernels, "_PROGRAMS_SUMMED", programs):
                found = with_gradients(depthwise_conv3d(**inputs, padding=1, backend="triton"), inputs)
            assert_same(found, expected, tolerance=1e-12)

    @pytest.mark.usefixtures("small_tiles")
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_are_operators_that_pytorch_can_trace(self, kernels: ModuleType, dtype: torch.dtype) -> None:
        """Shapes, types, layouts and aliasing as stated, and gradients registered as autograd wants them."""
        inputs = make_inputs((1, 2, 1, 2, 3), 3, dtype=dtype)
        plain, given = [2, [1, 0, 1]], (inputs["x"], inputs["weight"], inputs["bias"])
        inputs["x"].requires_grad_(False)
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        wide = make_inputs((1, 2, 2, 3, 4), 3, dtype=dtype)["x"].detach()
        torch.library.opcheck(kernels.convolution, (wide, *given[1:], *plain), test_utils=checks)
        torch.library.opcheck(kernels.transposed_convolution, (*given, *plain, [2, 5, 6]), test_utils=checks)
        torch.library.opcheck(kernels._weight_gradient, (wide, wide, 3, 1, [1, 1, 1]), test_utils=checks)

    @pytest.mark.usefixtures("small_tiles")
    def test_compiled_as_part_of_a_graph(self) -> None:
        inputs = make_inputs((1, 2, 1, 2, 3), 3, dtype=torch.float32)

        def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return depthwise_conv3d(2 * x, weight, bias, padding=1, backend="triton")

        found = with_gradients(torch.compile(run, backend="aot_eager", fullgraph=True)(**inputs), inputs)
        assert_same(found, with_gradients(run(**inputs), inputs), tolerance=1e-6)


def test_unknown_backend_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"backend 'trito' is unknown. Did you mean 'triton'\?"):
        depthwise_conv3d(**make_inputs((1, 1, 1, 1, 1), 1), backend="trito")


def test_on_a_cpu_the_default_is_torch(kernels: ModuleType) -> None:
    inputs = {name: tensor.detach().cpu() for name, tensor in make_inputs((1, 2, 3, 3, 3), 3).items()}
    with patch.object(kernels, "convolution", side_effect=AssertionError):
        depthwise_conv3d(**inputs)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("last", "backend"), [(True, "triton"), (False, "torch")])
def test_on_a_gpu_the_default_is_triton_for_channels_last(last: bool, backend: str) -> None:
    x = SimpleNamespace(is_cuda=True, device="cuda", is_contiguous=lambda memory_format: last and memory_format == LAST)
    assert depthwise_conv._choose("", None, x) == backend


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("sys.modules['triton'] = None", "package triton is not installed"),
        ("", "tensors are on cpu; TRITON_INTERPRET=1 runs it there"),
    ],
)
def test_where_triton_cannot_run_it_is_an_error_to_ask_for_it(start: str, message: str) -> None:
    """A machine without triton, and one without a GPU: torch serves both."""
    if not start and "triton" not in BACKENDS:
        pytest.skip("no triton")
    program = f"""
import sys
{start}
import torch
from models.errors import ModelError
from models.ops.depthwise_conv import depthwise_conv3d
inputs = torch.ones(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
assert depthwise_conv3d(*inputs).shape == (1, 1, 1, 1, 1)
try:
    depthwise_conv3d(*inputs, backend="triton")
except ModelError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert message in done.stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
class TestOnGpu:
    """Compiled, at real sizes."""

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    @pytest.mark.parametrize(
        ("shape", "kernel", "stride"),
        [
            ((2, 48, 32, 64, 64), 7, 1),
            ((2, 192, 16, 16, 16), 7, 1),
            ((2, 384, 8, 8, 8), 7, 1),
            ((2, 32, 64, 64, 64), 3, 1),
            ((2, 32, 64, 64, 64), 3, 2),
            ((1, 32, 32, 64, 64), 5, 1),
            ((1, 64, 32, 32, 32), 5, 2),
            ((2, 40, 19, 21, 23), 7, 2),
            ((1, 3, 9, 11, 300), 9, 1),
        ],
    )
    @pytest.mark.parametrize("which", BOTH)
    def test_equals_torch(
        self, which: str, shape: tuple[int, ...], kernel: int, stride: int, dtype: torch.dtype
    ) -> None:
        convolve, by_torch = BOTH[which]
        if which == "transposed":
            shape = (*shape[:2], *(-(-size // stride) for size in shape[2:]))
        inputs = make_inputs(shape, kernel, dtype=dtype)
        options = {"stride": stride, "padding": kernel // 2}
        found = with_gradients(convolve(**inputs, **options), inputs)
        expected = exactly(inputs, by_torch, **options)
        # Sums of very many products in fp32; those of a bias all but cancel.
        rounding = 2e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
        assert_same(found, {"bias": expected.pop("bias")}, tolerance=max(1e-4, rounding))
        assert_same(found, expected, tolerance=rounding)

    def test_is_the_same_bit_for_bit_each_time(self) -> None:
        inputs = make_inputs((2, 48, 32, 32, 32), 7, dtype=torch.bfloat16)
        first, second = (with_gradients(depthwise_conv3d(**inputs, padding=3), inputs) for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_tensors_of_more_elements_than_32_bits_count(self) -> None:
        """The last planes of one such, in every kernel."""
        x = torch.zeros(1, 32, 411, 411, 411, dtype=torch.bfloat16, device=DEVICE).to(memory_format=LAST)
        inputs = make_inputs((1, 32, 4, 411, 411), 3, dtype=torch.bfloat16)
        x[:, :, -4:] = inputs["x"].detach()
        weight = inputs["weight"].detach().requires_grad_()
        x.requires_grad_()
        y = depthwise_conv3d(x, weight, padding=1)
        grad_y = torch.zeros_like(y)
        grad_y[:, :, -2:] = 1.0
        grad_x, grad_weight = torch.autograd.grad(y, (x, weight), grad_y)
        part = inputs["x"]
        expected = F.conv3d(part, weight, padding=1, groups=32)
        torch.testing.assert_close(y[:, :, -3:], expected[:, :, -3:], rtol=0.01, atol=0.05)
        expected_x, expected_weight = torch.autograd.grad(expected, (part, weight), grad_y[:, :, -4:])
        torch.testing.assert_close(grad_x[:, :, -4:], expected_x, rtol=0.01, atol=0.05)
        assert_same({"weight": grad_weight}, {"weight": expected_weight}, tolerance=2e-2)
