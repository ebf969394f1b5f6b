"""Instance normalisation with residual and activation: every backend against its definition, in value and gradients."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from models.errors import ModelError
from models.ops import instance_norm as module
from models.ops.instance_norm import instance_norm

if find_spec("triton"):
    import triton
    import triton.language as tl

    from models.ops.triton_norm.tiles import share_of

    @triton.jit
    def store_channels(found, channels, CHANNELS: tl.constexpr):
        """The channels that each lane of each program reads."""
        _, _, d, _ = share_of(tl.program_id(0), channels, 1, CHANNELS, True)
        tl.store(found + tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS), d)


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = ("torch", "triton") if find_spec("triton") else ("torch",)
SLOPES = (None, 0.0, 0.01, 0.2)
RESIDUALS = ("none", "plain", "normalised")


@pytest.fixture
def triton_norm() -> ModuleType:
    return pytest.importorskip("models.ops.triton_norm.function")


def in_channels_last(tensor: Tensor) -> Tensor:
    """The same, laid out as torch.channels_last_3d lays it out, whatever the number of spatial axes."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def make_inputs(
    shape: tuple[int, ...],
    *,
    affine: bool = False,
    residual: bool = False,
    dtype: torch.dtype = torch.float64,
    mean: float = 0.5,
    seed: int = 0,
) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)

    def draw(*sizes: int, shift: float = 0.0) -> Tensor:
        tensor = torch.randn(sizes, generator=random, dtype=torch.float64) + shift
        return (in_channels_last(tensor) if len(sizes) > 2 else tensor).to(DEVICE, dtype).requires_grad_()

    inputs = {"x": draw(*shape, shift=mean)}
    if affine:
        inputs |= {"weight": draw(shape[1], shift=1.0), "bias": draw(shape[1])}
    if residual:
        inputs["residual"] = draw(*shape, shift=-mean)
    return inputs


def by_definition(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    eps: float = 1e-5,
    negative_slope: float | None = None,
    normalise_residual: bool = False,
) -> Tensor:
    space = tuple(range(2, x.dim()))

    def normalised(tensor: Tensor) -> Tensor:
        apart = tensor - tensor.mean(space, keepdim=True)
        return apart / (apart.square().mean(space, keepdim=True) + eps).sqrt()

    def of_channels(parameter: Tensor) -> Tensor:
        return parameter.view(-1, *(1 for _ in space))

    y = normalised(x)
    if weight is not None:
        y = y * of_channels(weight)
    if bias is not None:
        y = y + of_channels(bias)
    if residual is not None:
        y = y + (normalised(residual) if normalise_residual else residual)
    return y if negative_slope is None else torch.where(y > 0, y, y * negative_slope)


def weighting(y: Tensor) -> Tensor:
    return torch.sin(torch.arange(y.numel(), dtype=torch.float64) + 0.5).view(y.shape).to(y.device, y.dtype)


def with_gradients(y: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """y and the gradient of a fixed weighting of it with respect to every input."""
    gradients = torch.autograd.grad(y, list(inputs.values()), weighting(y))
    return {"y": y.detach(), **dict(zip(inputs, gradients, strict=True))}


def exactly(inputs: dict[str, Tensor], **options: object) -> dict[str, Tensor]:
    """`with_gradients` of the definition in fp64 on the same numbers, with the same weighting."""
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    y = by_definition(**exact, **options)
    gradients = torch.autograd.grad(y, list(exact.values()), weighting(y.to(inputs["x"].dtype)).double())
    return {"y": y.detach(), **dict(zip(exact, gradients, strict=True))}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, value in expected.items():
        scale = value.abs().max().clamp(min=1e-30).item()
        torch.testing.assert_close(
            found[name].double(), value, rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def check(backend: str, inputs: dict[str, Tensor], *, tolerance: float = 1e-11, **options: object) -> dict[str, Tensor]:
    found = with_gradients(instance_norm(**inputs, **options, backend=backend), inputs)
    assert_same(found, exactly(inputs, **options), tolerance)
    return found


def same_numbers(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in inputs.items()}


@pytest.mark.parametrize("backend", BACKENDS)
class TestBackendContract:
    """What holds for every backend."""

    @pytest.mark.parametrize(("affine", "slope", "residual"), list(product((False, True), SLOPES, RESIDUALS)))
    def test_equals_its_definition_in_value_and_every_gradient(
        self, backend: str, affine: bool, slope: float | None, residual: str
    ) -> None:
        inputs = make_inputs((2, 3, 3, 5, 3), affine=affine, residual=residual != "none")
        check(backend, inputs, negative_slope=slope, normalise_residual=residual == "normalised")

    @pytest.mark.parametrize("shape", [(2, 1, 5, 3, 7), (1, 48, 3, 7, 5), (1, 70, 3, 3, 3), (1, 160, 1, 3, 3)])
    @pytest.mark.parametrize("affine", [False, True])
    def test_any_number_of_channels(self, backend: str, shape: tuple[int, ...], affine: bool) -> None:
        inputs = make_inputs(shape, affine=affine, residual=True)
        check(backend, inputs, negative_slope=0.2, normalise_residual=True)

    @pytest.mark.parametrize("shape", [(2, 3, 9), (1, 4, 3, 5), (1, 2, 2, 3, 2, 2), (1, 3, 1, 1, 2)])
    def test_any_number_of_spatial_axes(self, backend: str, shape: tuple[int, ...]) -> None:
        inputs = make_inputs(shape, residual=True)
        check(backend, inputs, negative_slope=0.01, eps=0.1)  # of two elements without it, gradients cancel

    @pytest.mark.parametrize("only", ["weight", "bias"])
    def test_weight_or_bias_may_come_alone(self, backend: str, only: str) -> None:
        inputs = make_inputs((1, 3, 2, 3, 2), affine=True)
        check(backend, {name: inputs[name] for name in ("x", only)}, negative_slope=0.2)

    def test_eps_is_added_to_the_variance(self, backend: str) -> None:
        check(backend, make_inputs((1, 3, 2, 3, 2), residual=True), eps=0.3, normalise_residual=True)

    def test_a_constant_channel_is_normalised_to_zero(self, backend: str) -> None:
        x = torch.full((1, 2, 3, 3, 3), 7.0, device=DEVICE)
        bias = torch.tensor([1.0, -1.0], device=DEVICE)
        y = instance_norm(in_channels_last(x), bias=bias, backend=backend)
        torch.testing.assert_close(y, bias.view(-1, 1, 1, 1).expand_as(y), rtol=0, atol=1e-3)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize(("affine", "slope"), [(False, 0.01), (True, 0.0), (False, None)])
    def test_half_precision_is_within_its_rounding(
        self, backend: str, dtype: torch.dtype, affine: bool, slope: float | None
    ) -> None:
        """On average; not the gradients of torch, which rounds a sum across zero to where its gradient is another."""
        inputs = make_inputs((2, 5, 4, 6, 5), affine=affine, residual=True, dtype=dtype)
        options = {"negative_slope": slope, "normalise_residual": True}
        found = with_gradients(instance_norm(**inputs, **options, backend=backend), inputs)
        for name, value in exactly(inputs, **options).items():
            assert found[name].dtype == dtype
            error = (found[name].double() - value).norm()
            if backend == "triton" or name == "y":
                assert error < 1.5 * torch.finfo(dtype).eps * value.norm(), name

    def test_gradients_have_the_types_of_what_they_belong_to(self, backend: str) -> None:
        inputs = make_inputs((1, 3, 3, 3, 4), affine=True, residual=True, dtype=torch.float32)
        inputs["x"] = inputs["x"].detach().bfloat16().requires_grad_()
        found = with_gradients(instance_norm(**inputs, negative_slope=0.2, backend=backend), inputs)
        assert {name: value.dtype for name, value in found.items()} == {
            "y": torch.bfloat16, "x": torch.bfloat16, "weight": torch.float32, "bias": torch.float32,
            "residual": torch.float32,
        }  # fmt: skip

    def test_a_mean_far_from_zero_leaves_the_deviations_accurate(self, backend: str) -> None:
        """What fp32 rounds off the mean is left in y, and in nothing else that depends on the deviations."""
        inputs = make_inputs((1, 3, 6, 7, 8), residual=True, dtype=torch.float32, mean=1e3)
        check(backend, inputs, tolerance=1e-4, normalise_residual=True)

    def test_one_voxel_far_from_all_others_leaves_the_variance_accurate(self, backend: str) -> None:
        inputs = make_inputs((1, 3, 6, 7, 8), dtype=torch.float32, mean=1e3)
        with torch.no_grad():
            inputs["x"][:, :, 0, 0, 0] = 0
        expected = by_definition(inputs["x"].detach().double())
        found = instance_norm(inputs["x"], backend=backend).detach().double()
        spread = [one[:, :, 0, 0, 0] - one.amax((2, 3, 4)) for one in (found, expected)]
        torch.testing.assert_close(*spread, rtol=5e-6, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_autocast_changes_nothing(self, backend: str, dtype: torch.dtype) -> None:
        inputs = make_inputs((1, 3, 3, 3, 2), affine=True, residual=True, dtype=dtype)
        expected = with_gradients(instance_norm(**inputs, negative_slope=0.1, backend=backend), inputs)
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            found = with_gradients(instance_norm(**inputs, negative_slope=0.1, backend=backend), inputs)
        assert all(torch.equal(found[name], value) for name, value in expected.items())

    def test_keeps_channels_last(self, backend: str) -> None:
        inputs = make_inputs((2, 3, 3, 4, 5), residual=True)
        found = with_gradients(instance_norm(**inputs, negative_slope=0.1, backend=backend), inputs)
        assert found["y"].is_contiguous(memory_format=torch.channels_last_3d)

    @pytest.mark.parametrize("normalised", [False, True])
    @pytest.mark.parametrize("slope", [None, 0.1])
    def test_residual_and_gradient_may_lie_in_another_layout(
        self, backend: str, normalised: bool, slope: float | None
    ) -> None:
        """Of one sample, for which PyTorch 2.15 mixes up the layouts."""
        inputs = make_inputs((1, 3, 2, 3, 4), residual=True)
        inputs["residual"] = inputs["residual"].detach().contiguous().requires_grad_()
        options = {"negative_slope": slope, "normalise_residual": normalised}
        found = check(backend, inputs, **options)
        y = instance_norm(**inputs, **options, backend=backend)
        laid_out = torch.autograd.grad(y, list(inputs.values()), in_channels_last(weighting(y)), retain_graph=True)
        assert_same(dict(zip(inputs, laid_out, strict=True)), {name: found[name] for name in inputs}, tolerance=1e-12)
        expanded = weighting(y[:, :1]).expand_as(y)
        one, other = (
            torch.autograd.grad(y, list(inputs.values()), gradient, retain_graph=True)
            for gradient in (expanded, expanded.contiguous())
        )
        assert all(torch.allclose(*pair, rtol=0, atol=1e-12) for pair in zip(one, other, strict=True))

    @pytest.mark.parametrize("fixed", ["x", "residual"])
    @pytest.mark.parametrize("slope", [None, 0.1])
    def test_x_or_residual_may_need_no_gradient(self, backend: str, fixed: str, slope: float | None) -> None:
        inputs = make_inputs((1, 3, 3, 2, 2), residual=True)
        expected = exactly(inputs, negative_slope=slope)
        inputs[fixed] = inputs[fixed].detach()
        y = instance_norm(**inputs, negative_slope=slope, backend=backend)
        wanted = {name: tensor for name, tensor in inputs.items() if name != fixed}
        assert_same(with_gradients(y, wanted), {name: expected[name] for name in ("y", *wanted)}, tolerance=1e-11)

    def test_without_gradients_the_result_is_the_same(self, backend: str) -> None:
        inputs = make_inputs((1, 3, 3, 2, 2), residual=True)
        with torch.no_grad():
            y = instance_norm(**inputs, negative_slope=0.1, backend=backend)
        assert not y.requires_grad
        assert torch.equal(y, instance_norm(**inputs, negative_slope=0.1, backend=backend))

    def test_is_compiled_in_one_graph(self, backend: str) -> None:
        inputs = make_inputs((1, 3, 2, 3, 2), residual=True)

        def step(x: Tensor, residual: Tensor) -> Tensor:
            return 3 * instance_norm(
                2 * x, residual=residual, negative_slope=0.1, normalise_residual=True, backend=backend
            )

        expected = with_gradients(step(**inputs), inputs)
        compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
        found = with_gradients(compiled(**inputs), inputs)
        assert_same(found, expected, tolerance=1e-13)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"x": torch.zeros(4, 6)}, r"x must be \(B, C, ...\) with spatial axes, none of them 0; got \(4, 6\)"),
            ({"x": torch.zeros(1, 6, 0, 2, 2)}, r"none of them 0; got \(1, 6, 0, 2, 2\)"),
            ({"x": torch.zeros(1, 6, 2, dtype=torch.int64)}, "x must be floating point; got torch.int64"),
            ({"x": torch.zeros(2, 6, 1, 1, 1)}, r"more than one element in space .*; got \(2, 6, 1, 1, 1\)"),
            ({"weight": torch.zeros(5)}, r"weight must be \(6,\) for x \(1, 6, 2, 2, 2\); got \(5,\)"),
            ({"bias": torch.zeros(1, 6)}, r"bias must be \(6,\) .*; got \(1, 6\)"),
            ({"residual": torch.zeros(1, 6, 2, 2, 1)}, r"residual must be \(1, 6, 2, 2, 2\) as x is; got \(1, 6, 2"),
            ({"residual": torch.zeros(1, 6, 2, 2, 2).int()}, "residual must be floating point; got torch.int32"),
            ({"normalise_residual": True}, "normalise_residual needs a residual"),
        ],
    )
    def test_says_what_does_not_fit(self, backend: str, changes: dict[str, object], message: str) -> None:
        with pytest.raises(ModelError, match=message):
            instance_norm(**{"x": torch.zeros(1, 6, 2, 2, 2)} | changes, backend=backend)


class TestTriton:
    """What holds for the kernels alone."""

    @pytest.mark.parametrize("shape", [(1, 128, 4, 4, 4), (2, 48, 3, 5, 7), (1, 144, 3, 5, 5)])
    def test_programs_may_take_several_tiles(self, triton_norm: ModuleType, shape: tuple[int, ...]) -> None:
        """Whole tiles, and rows and channels left over."""
        columns = shape[0] * len(range(0, shape[1], 128))
        with patch.multiple(triton_norm, _PROGRAMS_SUMMING=3 * columns, _PROGRAMS=2 * columns):
            inputs = make_inputs(shape, residual=True)
            shares, tiles = triton_norm._shares(inputs["x"], 4), triton_norm._tiles(inputs["x"], 2048)
            assert 1 < shares["parts"] <= 3
            assert shares["ROWS"] * 4 * shares["parts"] < shares["length"]
            assert tiles["blocks"] > 1
            assert tiles["programs"] > columns
            assert shares["RAGGED"] is tiles["RAGGED"] is (shape[1] != 128)
            check("triton", inputs, negative_slope=0.2, normalise_residual=True)
            check("triton", make_inputs(shape, affine=True), negative_slope=0.0)

    @pytest.mark.parametrize(("channels", "width"), [(1, 16), (48, 64), (96, 32), (192, 64), (384, 128), (70, 128)])
    def test_programs_are_as_wide_as_divides_the_channels(
        self, triton_norm: ModuleType, channels: int, width: int
    ) -> None:
        assert triton_norm._width(channels) == width

    @pytest.mark.usefixtures("triton_norm")
    def test_idle_lanes_read_channels_that_are_there(self) -> None:
        """What they read is never seen, so that a read past the end would not show."""
        found = torch.full((3, 16), -1, dtype=torch.int32, device=DEVICE)
        store_channels[3,](found, 40, CHANNELS=16)
        assert found.flatten()[:40].tolist() == list(range(40))
        assert 0 <= found.min() <= found.max() < 40

    @pytest.mark.parametrize("parts", [1, 1024])
    def test_a_mean_far_from_zero_is_rounded_about_once(self, triton_norm: ModuleType, parts: int) -> None:
        x = make_inputs((1, 16, 7, 7, 7), dtype=torch.float32, mean=1e3)["x"].detach()
        with patch.object(triton_norm, "_MOST_PARTS", parts):
            statistics = triton_norm._statistics([x], 1e-5).double()
        mean, rstd = (one.view(1, 16) for one in statistics[0])
        variance, expected = torch.var_mean(x.double(), (2, 3, 4), correction=0)
        torch.testing.assert_close(mean, expected, rtol=0, atol=2.0**-14)  # numbers near 1e3 are 2^-14 apart
        torch.testing.assert_close(rstd, (variance + 1e-5).rsqrt(), rtol=5e-6, atol=0)

    @pytest.mark.parametrize("length", [1, 4096, 4097, 10**6, 128**3, 2**30])
    def test_parts_of_a_sample_are_as_many_as_the_merging_kernel_holds(
        self, triton_norm: ModuleType, length: int
    ) -> None:
        shares = triton_norm._shares(torch.empty(1, 48, length, device="meta"), 4)
        steps = -(-length // (shares["ROWS"] * 4))
        assert 1 <= shares["parts"] <= min(triton_norm._MOST_PARTS, steps)
        assert shares["programs"] == shares["parts"]

    @pytest.mark.parametrize(
        ("slope", "affine", "residual", "kept"),
        [
            (0.01, False, "none", {"y"}),
            (0.01, False, "normalised", {"y", "residual"}),
            (0.01, False, "plain", {"y", "residual"}),
            (0.0, False, "plain", {"x", "residual"}),
            (0.01, True, "none", {"x", "weight", "bias"}),
            (None, False, "plain", {"x"}),
            (None, False, "normalised", {"x", "residual"}),
            (1e-5, False, "none", {"x"}),  # fp16 holds no such numbers in full
        ],
    )
    @pytest.mark.usefixtures("triton_norm")
    def test_keeps_the_output_where_it_can_be_inverted(
        self, slope: float | None, affine: bool, residual: str, kept: set[str]
    ) -> None:
        inputs = make_inputs((1, 3, 2, 3, 2), affine=affine, residual=residual != "none", dtype=torch.float16)
        saved: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda one: one):
            y = instance_norm(
                **inputs, negative_slope=slope, normalise_residual=residual == "normalised", backend="triton"
            )
        named = {tensor.data_ptr(): name for name, tensor in ({"y": y} | inputs).items()}
        found = [named.get(tensor.data_ptr(), "statistics") for tensor in saved]
        assert sorted(found) == sorted([*kept, "statistics"])
        tensors = 2 if residual == "normalised" else 1
        statistics = saved[found.index("statistics")]
        assert (statistics.shape, statistics.dtype) == ((tensors, 2, 1, 3), torch.float32)

    @pytest.mark.parametrize("residual", ["none", "normalised"])
    @pytest.mark.usefixtures("triton_norm")
    def test_gradients_from_the_output_are_about_as_exact_as_from_x(self, residual: str) -> None:
        """A weight of 1 makes it keep x; rounding y to bf16 may cost no more than rounding the gradient does."""
        inputs = make_inputs((1, 4, 8, 8, 6), residual=residual != "none", dtype=torch.bfloat16)
        options = {"negative_slope": 0.01, "normalise_residual": residual == "normalised"}
        expected = exactly(inputs, **options)
        from_y = with_gradients(instance_norm(**inputs, **options, backend="triton"), inputs)
        weight = torch.ones(4, device=DEVICE)
        from_x = with_gradients(instance_norm(**inputs, weight=weight, **options, backend="triton"), inputs)
        for name in inputs:
            errors = [(one[name].double() - expected[name]).norm() for one in (from_y, from_x)]
            assert errors[1] > 0
            assert errors[0] < 1.5 * errors[1], name

    @pytest.mark.parametrize(
        ("affine", "slope", "residual"),
        [(False, 0.01, "none"), (False, 0.2, "normalised"), (True, None, "plain")],
    )
    def test_is_an_operator_that_pytorch_can_trace(
        self, triton_norm: ModuleType, affine: bool, slope: float | None, residual: str
    ) -> None:
        """Shapes, types and aliasing as stated, and gradients registered as autograd wants them."""
        inputs = make_inputs((2, 3, 2, 2, 3), affine=affine, residual=residual != "none", dtype=torch.float32)
        x, *others = (inputs.get(name) for name in ("x", "weight", "bias", "residual"))
        normalised = residual == "normalised"
        torch.library.opcheck(triton_norm._norm, (x, *others, 1e-5, slope, normalised))
        fixed = [None if one is None else one.detach() for one in (x, *others)]
        y, statistics = triton_norm._norm(*fixed, 1e-5, slope, normalised)
        output = slope == 0.01
        torch.library.opcheck(
            triton_norm._norm_backward,
            (y, y if output else fixed[0], *fixed[1:], statistics, slope, normalised, output, slope is not None),
        )

    @pytest.mark.usefixtures("triton_norm")
    def test_channels_first_is_an_error_to_ask_for(self) -> None:
        with pytest.raises(ModelError, match=r"x has strides .*; it takes channels last"):
            instance_norm(torch.zeros(1, 3, 2, 2, 2, device=DEVICE), backend="triton")


@pytest.mark.parametrize("backend", [None, "torch"])
def test_channels_first_stays_and_is_torchs_by_default(backend: str | None) -> None:
    inputs = {
        name: tensor.detach().contiguous() for name, tensor in make_inputs((2, 3, 2, 3, 4), residual=True).items()
    }
    inputs = same_numbers(inputs, torch.float64)
    with patch.object(module, "_torch", wraps=module._torch) as called:
        y = instance_norm(**inputs, negative_slope=0.1, backend=backend)
    assert called.call_count == 1
    assert y.is_contiguous()
    assert_same(with_gradients(y, inputs), exactly(inputs, negative_slope=0.1), tolerance=1e-11)


def test_triton_is_refused_for_channels_first() -> None:
    with pytest.raises(ModelError, match=r"'triton' cannot run here: x has strides .* channels last"):
        instance_norm(torch.zeros(1, 3, 2, 2, 2), backend="triton")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
class TestOnAGpu:
    """Real shapes, compiled."""

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("shape", [(2, 48, 64, 64, 64), (1, 96, 33, 20, 17), (2, 384, 6, 6, 6), (1, 70, 9, 20, 17)])
    @pytest.mark.parametrize(
        ("affine", "slope", "residual"),
        [(False, 0.01, "none"), (False, 0.01, "normalised"), (True, 0.0, "plain"), (False, None, "plain")],
    )
    def test_equals_its_definition(
        self, dtype: torch.dtype, shape: tuple[int, ...], affine: bool, slope: float | None, residual: str
    ) -> None:
        inputs = make_inputs(shape, affine=affine, residual=residual != "none", dtype=dtype)
        options = {"negative_slope": slope, "normalise_residual": residual == "normalised"}
        found = with_gradients(instance_norm(**inputs, **options), inputs)
        expected = exactly(inputs, **options)
        for name, value in expected.items():
            error = (found[name].double() - value).norm()
            # The gradient of what rounds to the other side of zero is another.
            kinked = 1e-3 if slope is not None and name != "y" else 1e-5
            assert error < (4e-3 if dtype == torch.bfloat16 else kinked) * value.norm(), name

    def test_gives_the_same_bits_again(self) -> None:
        inputs = make_inputs((2, 48, 64, 64, 64), residual=True, dtype=torch.bfloat16)
        first, again = (
            with_gradients(instance_norm(**inputs, negative_slope=0.01, normalise_residual=True), inputs)
            for _ in range(2)
        )
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_more_elements_than_32_bits_count(self) -> None:
        """A tensor repeated along an axis has the statistics of one copy, and so has the last copy its values."""
        copies, slabs = 48, 8
        one = make_inputs((1, 48, slabs, 360, 360), dtype=torch.bfloat16)["x"].detach()
        many = in_channels_last(one.repeat(1, 1, copies, 1, 1)).requires_grad_()
        assert many.numel() > 2**31
        y = instance_norm(many, negative_slope=0.01)
        (gradient,) = torch.autograd.grad(y, many, y)
        one.requires_grad_()
        expected = instance_norm(one, negative_slope=0.01)
        (expected_gradient,) = torch.autograd.grad(expected, one, expected)
        for found, value in ((y, expected), (gradient, expected_gradient)):
            torch.testing.assert_close(found[:, :, -slabs:], value, rtol=2**-6, atol=1e-4)
