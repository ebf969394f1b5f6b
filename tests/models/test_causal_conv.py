"""The causal convolution: every backend against its definition, in value and every gradient."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.errors import ModelError
from models.ops.causal_conv import causal_conv
from models.ops.order import BACKWARD, FORWARD, Order

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = ("torch", "triton") if find_spec("triton") else ("torch",)


@pytest.fixture
def triton_conv() -> ModuleType:
    return pytest.importorskip("models.ops.triton_conv")


def make_inputs(
    batch: int, length: int, channels: int, taps: int, orders: int, *, dtype: torch.dtype = torch.float64, seed: int = 0
) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = {"x": (batch, length, channels), "weight": (orders, channels, taps), "bias": (orders, channels)}
    return {
        name: torch.randn(shape, generator=random, dtype=torch.float64).to(DEVICE, dtype).requires_grad_()
        for name, shape in shapes.items()
    }


def places(order: Order, length: int) -> list[int]:
    """Where the token of each step lies, as the definition of the order has it."""
    if order.kind == "forward":
        return list(range(length))
    if order.kind == "backward":
        return list(reversed(range(length)))
    run = length // order.slices
    return [start * run + turn for turn in range(run) for start in range(order.slices)]


def by_definition(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[Order]) -> Tensor:
    taps = weight.shape[2]
    found = []
    for order, kernel, shift in zip(orders, weight, bias, strict=True):
        walk = places(order, x.shape[1])
        tokens: list[Tensor] = [x[:, 0]] * len(walk)
        for step, place in enumerate(walk):
            total = shift.expand(x.shape[0], -1)
            for k in range(min(taps, step + 1)):
                total = total + kernel[:, taps - 1 - k] * x[:, walk[step - k]]
            tokens[place] = total / (1 + torch.exp(-total))
        found.append(torch.stack(tokens, dim=1))
    return torch.stack(found)


def with_gradients(u: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """u and the gradient of a fixed weighting of it with respect to every input."""
    gradients = torch.autograd.grad(u, list(inputs.values()), weighting(u))
    return {"u": u.detach(), **dict(zip(inputs, gradients, strict=True))}


def weighting(u: Tensor) -> Tensor:
    return torch.sin(torch.arange(u.numel(), dtype=torch.float64)).view(u.shape).to(u)


def exactly(inputs: dict[str, Tensor], orders: Sequence[Order]) -> dict[str, Tensor]:
    """`with_gradients` of the definition in fp64 on the same numbers, with the same weighting."""
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    u = by_definition(**exact, orders=orders)
    gradients = torch.autograd.grad(u, list(exact.values()), weighting(u).to(inputs["x"].dtype).double())
    return {"u": u.detach(), **dict(zip(inputs, gradients, strict=True))}


def rounding_of(backend: str, stored: torch.dtype | None) -> float:
    """Of a number rounded once, the error in units of its type's eps, with what fp32 adds."""
    # Triton's interpreter cuts off what bf16 cannot hold.
    return 1.001 if backend == "triton" and DEVICE == "cpu" and stored == torch.bfloat16 else 0.501


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, value in expected.items():
        scale = value.abs().max().clamp(min=1e-30).item()
        torch.testing.assert_close(
            found[name].double(), value, rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


ALL = (FORWARD, BACKWARD, Order("slices", 2))
CASES = {
    "forward": (2, 40, 3, 4, (FORWARD,)),
    "backward": (2, 40, 3, 4, (BACKWARD,)),
    "slices": (2, 40, 3, 4, (Order("slices", 5),)),
    "one slice": (1, 7, 2, 3, (Order("slices", 1),)),
    "slices of one token": (1, 7, 2, 3, (Order("slices", 7),)),
    "fewer slices than taps": (1, 12, 2, 4, (Order("slices", 2), Order("slices", 6))),
    "several blocks of tokens and channels": (1, 138, 33, 4, (FORWARD, BACKWARD, Order("slices", 6))),
    "two taps": (2, 34, 4, 2, ALL),
    "three taps": (2, 34, 4, 3, ALL),
    "an order twice": (1, 6, 2, 4, (BACKWARD, FORWARD, BACKWARD)),
    "fewer tokens than taps": (2, 2, 3, 4, ALL),
    "one token, one channel": (1, 1, 1, 4, (FORWARD, BACKWARD, Order("slices", 1))),
}


@pytest.mark.parametrize("backend", BACKENDS)
class TestBackendContract:
    """What holds for every backend."""

    @pytest.mark.parametrize("case", CASES)
    def test_equals_its_definition_in_value_and_every_gradient(self, backend: str, case: str) -> None:
        *shape, orders = CASES[case]
        inputs = make_inputs(*shape, len(orders))
        u = causal_conv(**inputs, orders=orders, backend=backend)
        assert u.is_contiguous()
        assert_same(with_gradients(u, inputs), exactly(inputs, orders), tolerance=1e-12)

    def test_gradients_agree_with_finite_differences(self, backend: str) -> None:
        inputs = make_inputs(1, 4, 2, 3, 3)
        assert torch.autograd.gradcheck(
            lambda *tensors: causal_conv(*tensors, ALL, backend=backend),
            tuple(inputs.values()),
            fast_mode=backend == "triton" and DEVICE == "cpu",  # interpreted
        )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_rounded_once(self, backend: str, dtype: torch.dtype) -> None:
        """Sums are fp32: that of x's gradient too, but of gradients before SiLU that may have been rounded."""
        inputs = make_inputs(1, 40, 5, 4, 3, dtype=dtype)
        found = with_gradients(causal_conv(**inputs, orders=ALL, backend=backend), inputs)
        assert all(value.dtype == dtype for value in found.values())
        expected, eps = exactly(inputs, ALL), torch.finfo(dtype).eps
        for name in ("u", "weight", "bias"):
            rounding = eps * rounding_of(backend, dtype if name == "u" else None)
            torch.testing.assert_close(found[name].double(), expected[name], rtol=rounding, atol=3e-6)
        assert_same(found, expected, tolerance=eps)

    def test_fp32_parameters_keep_their_precision_beside_half_precision_tokens(self, backend: str) -> None:
        inputs = make_inputs(1, 40, 5, 4, 3, dtype=torch.float32)
        inputs["x"] = inputs["x"].detach().bfloat16().requires_grad_()
        found = with_gradients(causal_conv(**inputs, orders=ALL, backend=backend), inputs)
        expected = exactly(inputs, ALL)
        assert {name: value.dtype for name, value in found.items()} == {
            "u": torch.bfloat16, "x": torch.bfloat16, "weight": torch.float32, "bias": torch.float32
        }  # fmt: skip
        torch.testing.assert_close(
            found["u"].double(), expected["u"], rtol=2**-7 * rounding_of(backend, torch.bfloat16), atol=1e-6
        )
        parameters = ("weight", "bias")
        assert_same({n: found[n] for n in parameters}, {n: expected[n] for n in parameters}, tolerance=1e-6)

    def test_autocast_changes_nothing(self, backend: str) -> None:
        inputs = make_inputs(1, 20, 3, 4, 3, dtype=torch.float32)
        expected = with_gradients(causal_conv(**inputs, orders=ALL, backend=backend), inputs)
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            found = with_gradients(causal_conv(**inputs, orders=ALL, backend=backend), inputs)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)

    @pytest.mark.parametrize("channels_first", [False, True])
    def test_tokens_may_lie_apart(self, backend: str, channels_first: bool) -> None:
        """x is part of a wider tensor, whose other part has no gradient; channels need not lie side by side."""
        inputs = make_inputs(2, 34, 3, 4, 3)
        wide = torch.cat([torch.full_like(inputs["x"], torch.nan), inputs["x"]], dim=2).detach()
        wide = (wide.mT.contiguous().mT if channels_first else wide).requires_grad_()
        found = with_gradients(
            causal_conv(wide[..., 3:], inputs["weight"], inputs["bias"], ALL, backend=backend),
            {"x": wide, "weight": inputs["weight"], "bias": inputs["bias"]},
        )
        assert (found["x"][..., :3] == 0).all()
        found["x"] = found["x"][..., 3:]
        assert_same(found, exactly(inputs, ALL), tolerance=1e-12)

    def test_far_from_zero_silu_is_the_identity_or_zero(self, backend: str) -> None:
        inputs = make_inputs(1, 6, 2, 1, 1, dtype=torch.float32)
        with torch.no_grad():
            inputs["weight"].fill_(1)
            inputs["bias"].copy_(torch.tensor([[300.0, -300.0]]))
        found = with_gradients(causal_conv(**inputs, orders=(FORWARD,), backend=backend), inputs)
        torch.testing.assert_close(found["u"][0, ..., 0], inputs["x"][..., 0] + 300)
        assert (found["u"][..., 1] == 0).all()
        torch.testing.assert_close(found["x"], weighting(found["u"])[0] * torch.tensor([1.0, 0.0], device=DEVICE))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"x": torch.zeros(4, 6)}, r"x must be \(B, L, C\), none of them 0; got \(4, 6\)"),
            ({"x": torch.zeros(1, 0, 6)}, r"none of them 0; got \(1, 0, 6\)"),
            ({"x": torch.zeros(1, 4, 6, dtype=torch.int64)}, "x must be floating point; got torch.int64"),
            ({"weight": torch.zeros(3, 5, 4)}, r"O = 2 as in orders, C = 6 as in x .*; got \(3, 5, 4\)"),
            ({"weight": torch.zeros(2, 6)}, r"weight must be \(O, C, K\).*; got \(2, 6\)"),
            ({"weight": torch.zeros(2, 6, 0)}, "K at least 1"),
            ({"bias": torch.zeros(6)}, r"bias must be \(2, 6\).*; got \(6,\)"),
            ({"orders": (FORWARD,)}, "O = 1 as in orders"),
            ({"orders": ()}, "orders must be at least one"),
            ({"orders": (FORWARD, Order("slices", 3))}, "4 tokens do not make 3 slices"),
        ],
    )
    def test_says_what_does_not_fit(self, backend: str, changes: dict[str, object], message: str) -> None:
        fitting = {
            "x": torch.zeros(1, 4, 6),
            "weight": torch.zeros(2, 6, 4),
            "bias": torch.zeros(2, 6),
            "orders": (FORWARD, BACKWARD),
        }
        arguments = {
            name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value
            for name, value in (fitting | changes).items()
        }
        with pytest.raises(ModelError, match=message):
            causal_conv(**arguments, backend=backend)


SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 3),
        "channels": st.sampled_from([1, 2, 5, 31, 32, 33, 40]),
        "taps": st.integers(1, 5),
        "run": st.integers(1, 30),
        "slices": st.lists(st.sampled_from([1, 2, 3, 6]), max_size=2),
        "straight": st.lists(st.sampled_from([FORWARD, BACKWARD]), min_size=1, max_size=2),
    }
)


def check_any_shape(backend: str, shape: dict[str, object]) -> None:
    orders = [*shape["straight"], *(Order("slices", count) for count in shape["slices"])]
    length = 6 * shape["run"] if shape["slices"] else shape["run"]
    inputs = make_inputs(shape["batch"], length, shape["channels"], shape["taps"], len(orders))
    found = with_gradients(causal_conv(**inputs, orders=orders, backend=backend), inputs)
    assert_same(found, exactly(inputs, orders), tolerance=1e-12)


@settings(max_examples=20, deadline=None)
@given(shape=SHAPES)
def test_torch_backend_equals_the_definition_for_any_shape(shape: dict[str, object]) -> None:
    check_any_shape("torch", shape)


@pytest.mark.skipif("triton" not in BACKENDS, reason="no triton")
@settings(max_examples=6, deadline=None)
@given(shape=SHAPES)
def test_triton_backend_equals_the_definition_for_any_shape(shape: dict[str, object]) -> None:
    check_any_shape("triton", shape)


class TestTriton:
    """What holds for the kernels alone."""

    def test_sums_of_several_blocks_of_tokens_are_shared_out_among_programs(self, triton_conv: ModuleType) -> None:
        orders = (FORWARD, Order("slices", 10))
        inputs = make_inputs(2, 150, 4, 4, 2)
        with patch.object(triton_conv, "_PROGRAMS", 1), patch.object(triton_conv, "_MOST_BLOCKS", 2):
            assert triton_conv._shared_out(inputs["x"], 2) == (3, 2)
            found = with_gradients(causal_conv(**inputs, orders=orders, backend="triton"), inputs)
        assert_same(found, exactly(inputs, orders), tolerance=1e-12)

    def test_long_sequences_have_offsets_of_64_bits(self, triton_conv: ModuleType) -> None:
        """From 2^31 elements between the first token and the end, between them in any one tensor."""

        def is_wide(stride: int, other: int) -> bool:
            x, out = (torch.empty_strided((1, 2**20, 4), (0, step, 1), device="meta") for step in (stride, other))
            return triton_conv._common([FORWARD], torch.empty(1, 4, 4), x, out)["WIDE"]

        assert [is_wide(*strides) for strides in ((4, 4), (2047, 4), (2048, 4), (4, 2048))] == [
            False,
            False,
            True,
            True,
        ]
        inputs = make_inputs(1, 34, 3, 4, 3)
        with patch.object(triton_conv, "_WIDE", 1):
            found = with_gradients(causal_conv(**inputs, orders=ALL, backend="triton"), inputs)
        assert_same(found, exactly(inputs, ALL), tolerance=1e-12)

    def test_gradient_of_tokens_goes_where_it_is_asked_to(self, triton_conv: ModuleType) -> None:
        inputs = {name: tensor.detach() for name, tensor in make_inputs(2, 34, 3, 4, 3).items()}
        u = triton_conv.forward(**inputs, orders=ALL)
        grad_u = weighting(u)
        expected = triton_conv.backward(grad_u, **inputs, orders=ALL)
        wide = torch.full((2, 34, 6), 7.0, dtype=torch.float64, device=DEVICE)
        found = triton_conv.backward(grad_u, **inputs, orders=ALL, out=wide[..., :3])
        assert found[0].data_ptr() == wide.data_ptr()
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert (wide[..., 3:] == 7).all()
        assert torch.equal(grad_u, weighting(u))  # left as it was
        exact = exactly({name: tensor.requires_grad_() for name, tensor in inputs.items()}, ALL)
        assert_same(dict(zip(("x", "weight", "bias"), found, strict=True)) | {"u": u}, exact, tolerance=1e-12)

    def test_gradients_are_of_the_types_of_what_they_belong_to(self, triton_conv: ModuleType) -> None:
        """Without autograd, which would cast them."""
        x, weight, bias = (tensor.detach() for tensor in make_inputs(1, 4, 2, 3, 1, dtype=torch.float16).values())
        for dtypes in ((torch.float16, torch.float32, torch.float32), (torch.float32, torch.float16, torch.bfloat16)):
            inputs = [tensor.to(dtype) for tensor, dtype in zip((x, weight, bias), dtypes, strict=True)]
            u = triton_conv.forward(*inputs, [BACKWARD])
            gradients = triton_conv.backward(u, *inputs, [BACKWARD])
            assert (u.dtype, *(gradient.dtype for gradient in gradients)) == (dtypes[0], *dtypes)
            assert all(gradient.is_contiguous() for gradient in gradients)

    def test_gradient_may_be_written_over_the_tokens(self, triton_conv: ModuleType) -> None:
        inputs = {name: tensor.detach() for name, tensor in make_inputs(1, 70, 3, 4, 3).items()}
        grad_u = weighting(triton_conv.forward(**inputs, orders=ALL))
        expected = triton_conv.backward(grad_u, **inputs, orders=ALL)
        found = triton_conv.backward(grad_u, **inputs, orders=ALL, out=inputs["x"])
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))

    def test_gradients_may_be_shared_between_orders_or_lie_apart(self, triton_conv: ModuleType) -> None:
        inputs = {name: tensor.detach() for name, tensor in make_inputs(2, 6, 3, 4, 3).items()}
        part = weighting(torch.empty(2, 6, 6))[..., 3:].double().to(DEVICE)
        for grad_u in (part.expand(3, -1, -1, -1), part[..., :1].expand(3, -1, -1, 3)):
            expected = triton_conv.backward(grad_u.contiguous(), **inputs, orders=ALL)
            found = triton_conv.backward(grad_u, **inputs, orders=ALL)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))

    @pytest.mark.parametrize("shape", [(2, 34, 4), (2, 3, 34)])
    def test_a_place_for_the_gradient_that_does_not_fit_is_an_error(
        self, triton_conv: ModuleType, shape: tuple[int, ...]
    ) -> None:
        inputs = {name: tensor.detach() for name, tensor in make_inputs(2, 34, 3, 4, 3).items()}
        out = torch.empty(shape, dtype=torch.float64, device=DEVICE)
        with pytest.raises(ModelError, match=r"out must be \(2, 34, 3\) with channels side by side; got \(2, 34, "):
            triton_conv.backward(torch.empty(3, 2, 34, 3), **inputs, orders=ALL, out=out.mT if shape[1] == 3 else out)


def test_unknown_backend_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"backend 'trito' is unknown. Did you mean 'triton'\?"):
        causal_conv(**make_inputs(1, 4, 2, 2, 1), orders=(FORWARD,), backend="trito")


def test_on_a_cpu_the_default_is_torch(triton_conv: ModuleType) -> None:
    inputs = {name: tensor.detach().cpu() for name, tensor in make_inputs(1, 4, 2, 2, 1).items()}
    with patch.object(triton_conv, "causal_conv", side_effect=AssertionError):
        causal_conv(**inputs, orders=(FORWARD,))


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
from models.ops.causal_conv import causal_conv
from models.ops.order import FORWARD
inputs = torch.ones(1, 4, 2), torch.ones(1, 2, 2), torch.ones(1, 2), (FORWARD,)
assert causal_conv(*inputs).shape == (1, 1, 4, 2)
try:
    causal_conv(*inputs, backend="triton")
except ModelError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert message in done.stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("channels", [96, 40])
def test_on_a_gpu_kernels_equal_torch_at_a_real_size(dtype: torch.dtype, channels: int) -> None:
    orders = (FORWARD, BACKWARD, Order("slices", 50))
    inputs = make_inputs(1, 20000, 2 * channels, 4, 3, dtype=dtype)
    weight, bias = (inputs[name][:, :channels].detach().requires_grad_() for name in ("weight", "bias"))
    inputs |= {"weight": weight, "bias": bias}

    def run(dtype: torch.dtype, **options: str) -> dict[str, Tensor]:
        cast = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in inputs.items()}
        u = causal_conv(cast["x"][..., :channels], cast["weight"], cast["bias"], orders, **options)
        return with_gradients(u, cast)

    expected = run(torch.float64, backend="torch")
    found = run(dtype)
    assert_same(found, expected, tolerance=2 * torch.finfo(dtype).eps if dtype == torch.bfloat16 else 1e-5)
