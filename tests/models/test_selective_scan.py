"""The selective scan: the chunked backend against the step-by-step oracle, and the contract of all backends."""

import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.errors import ModelError
from models.ops import backends, resolve_backend, selective_scan, torch_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def make_inputs(
    batch: int,
    channels: int,
    length: int,
    states: int,
    *,
    groups: int | None = None,
    step_range: tuple[float, float] = (-6.0, 2.0),
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Random arguments of a scan, requiring gradients; `step_range` is that of delta before softplus."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    low, high = step_range
    projection = (batch, states, length) if groups is None else (batch, groups, states, length)
    inputs = {
        "u": draw(batch, channels, length),
        "delta": low + (high - low) * torch.rand(batch, channels, length, generator=random, dtype=torch.float64),
        "A": -torch.exp(draw(channels, states)),
        "B": draw(*projection),
        "C": draw(*projection),
        "D": draw(channels),
        "z": draw(batch, channels, length),
        "delta_bias": draw(channels),
    }
    return {name: tensor.to(dtype).requires_grad_() for name, tensor in inputs.items()}


def output_and_gradients(inputs: dict[str, torch.Tensor], **options: object) -> dict[str, torch.Tensor]:
    """y and the gradient of a fixed weighting of it with respect to every input."""
    y = selective_scan(**inputs, **options)
    weights = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).view_as(y).to(y.dtype)
    gradients = torch.autograd.grad(y, list(inputs.values()), weights)
    return {"y": y.detach(), **dict(zip(inputs, gradients, strict=True))}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    for name, value in expected.items():
        scale = value.abs().max().clamp(min=1e-30).item()
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    per_group=st.integers(1, 5),
    groups=st.sampled_from([None, 1, 2, 3]),
    length=st.sampled_from([1, 2, 3, 7, 29, 63, 64, 65]),
    states=st.integers(1, 5),
    step_range=st.sampled_from([(-6.0, 2.0), (-30.0, 30.0), (25.0, 30.0), (-30.0, -25.0)]),
    softplus=st.booleans(),
    reverse=st.booleans(),
    step_elements=st.sampled_from([1, 40, 300, 2**16]),
    segment_elements=st.sampled_from([1, 100, 700, 2**20]),
)
def test_torch_backend_equals_the_oracle_in_value_and_every_gradient(
    batch: int,
    per_group: int,
    groups: int | None,
    length: int,
    states: int,
    step_range: tuple[float, float],
    softplus: bool,
    reverse: bool,
    step_elements: int,
    segment_elements: int,
) -> None:
    """Any shape, any split into lanes and segments, step sizes from vanishing to overwhelming."""
    if not softplus:  # without softplus a negative step is a growing state: keep it from overflowing
        step_range = (0.0, min(5.0, abs(step_range[1])))
    channels = per_group * (groups or 1)
    inputs = make_inputs(batch, channels, length, states, groups=groups, step_range=step_range)
    if not softplus:
        inputs["delta_bias"] = torch.rand(channels, dtype=torch.float64, requires_grad=True)
    options = {"delta_softplus": softplus, "reverse": reverse}
    expected = output_and_gradients(inputs, **options, backend="reference")
    with (
        patch.object(torch_scan, "_STEP_ELEMENTS", step_elements),
        patch.object(torch_scan, "_SEGMENT_ELEMENTS", segment_elements),
    ):
        found = output_and_gradients(inputs, **options, backend="torch")
    assert_same(found, expected, tolerance=1e-11)


@pytest.mark.parametrize("shape", [(2, 32, 700, 16), (1, 2100, 40, 16), (2, 3, 5000, 2)])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_torch_backend_equals_the_oracle_at_its_own_splits(shape: tuple[int, int, int, int], on_gpu: bool) -> None:
    """Real sizes of lanes and segments: many lanes, more states per step than a lane holds, long sequences."""
    inputs = make_inputs(*shape, dtype=torch.float32)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    expected = output_and_gradients(exact, delta_softplus=True, backend="reference")
    plan = torch_scan._plan
    with patch.object(torch_scan, "_plan", lambda length, width, _: plan(length, width, on_gpu)):
        found = output_and_gradients(inputs, delta_softplus=True, backend="torch")
    assert_same({name: value.double() for name, value in found.items()}, expected, tolerance=2e-5)


def test_on_a_gpu_a_scan_is_cut_into_few_large_operations() -> None:
    """At the finest scale of a volume of 128³ voxels: segments, and steps within and from lane to lane."""
    lanes, segment = torch_scan._plan(2**18, 192 * 16, on_gpu=True)
    segments, steps = -(-(2**18) // segment), segment // lanes
    assert segments * (steps + lanes) < 5000
    _, on_cpu_segment = torch_scan._plan(2**18, 192 * 16, on_gpu=False)
    assert segments * 50 < -(-(2**18) // on_cpu_segment)
    assert torch_scan._plan(8, 10**9, on_gpu=True) == (1, 1)


@pytest.mark.parametrize("backend", backends())
class TestBackendContract:
    """What holds for every backend."""

    def test_solves_the_recurrence_of_its_definition(self, backend: str) -> None:
        """One channel, one state, two steps, worked out by hand."""
        y = selective_scan(
            u=torch.tensor([[[2.0, 3.0]]]),
            delta=torch.tensor([[[0.5, 0.25]]]),
            A=torch.tensor([[-1.0]]),
            B=torch.tensor([[[5.0, 7.0]]]),
            C=torch.tensor([[[11.0, 13.0]]]),
            D=torch.tensor([0.1]),
            z=torch.tensor([[[1.0, -1.0]]]),
            backend=backend,
        )
        h1 = 0.5 * 5 * 2
        h2 = math.exp(-0.25) * h1 + 0.25 * 7 * 3
        silu = [1 / (1 + math.exp(-1)), -1 / (1 + math.exp(1))]
        expected = torch.tensor([[[(11 * h1 + 0.2) * silu[0], (13 * h2 + 0.3) * silu[1]]]])
        torch.testing.assert_close(y, expected)

    def test_gradients_agree_with_finite_differences(self, backend: str) -> None:
        inputs = make_inputs(2, 4, 11, 3, groups=2)
        assert torch.autograd.gradcheck(
            lambda *tensors: selective_scan(*tensors, delta_softplus=True, reverse=True, backend=backend),
            tuple(inputs.values()),
        )

    def test_group_serves_consecutive_channels(self, backend: str) -> None:
        inputs = make_inputs(2, 6, 9, 3, groups=2)
        whole = selective_scan(**inputs, backend=backend)
        for group, part in enumerate((slice(0, 3), slice(3, 6))):
            single = {name: inputs[name][:, part] for name in ("u", "delta", "z")}
            single |= {name: inputs[name][part] for name in ("A", "D", "delta_bias")}
            single |= {name: inputs[name][:, group] for name in ("B", "C")}
            torch.testing.assert_close(whole[:, part], selective_scan(**single, backend=backend))

    def test_reverse_is_the_scan_of_the_flipped_sequence(self, backend: str) -> None:
        inputs = make_inputs(2, 3, 10, 2)
        flipped = {
            name: tensor.flip(-1) if name in ("u", "delta", "B", "C", "z") else tensor
            for name, tensor in inputs.items()
        }
        torch.testing.assert_close(
            selective_scan(**inputs, reverse=True, backend=backend),
            selective_scan(**flipped, backend=backend).flip(-1),
        )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_inputs_have_an_fp32_state(self, backend: str, dtype: torch.dtype) -> None:
        """The result is the fp32 result on the same numbers, rounded once."""
        inputs = make_inputs(2, 4, 200, 3, dtype=dtype)
        exact = {name: tensor.detach().float().requires_grad_() for name, tensor in inputs.items()}
        expected = output_and_gradients(exact, delta_softplus=True, backend="reference")
        found = output_and_gradients(inputs, delta_softplus=True, backend=backend)
        assert all(value.dtype == dtype for value in found.values())
        rounding = torch.finfo(dtype).eps
        torch.testing.assert_close(found["y"].float(), expected["y"], rtol=rounding, atol=1e-5)
        assert_same({k: v.float() for k, v in found.items()}, expected, tolerance=4 * rounding)

    def test_autocast_changes_nothing(self, backend: str) -> None:
        """Forward and backward inside an autocast region equal those outside."""
        inputs = make_inputs(2, 4, 30, 3, dtype=torch.float32)
        expected = output_and_gradients(inputs, delta_softplus=True, backend=backend)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = output_and_gradients(inputs, delta_softplus=True, backend=backend)
        assert_same(found, expected, tolerance=1e-6)

    def test_optional_inputs_may_be_missing(self, backend: str) -> None:
        """No D, no z and no bias are D = 0, silu(z) = 1 and a bias of 0."""
        inputs = make_inputs(1, 2, 8, 3)
        core = {name: inputs[name] for name in ("u", "delta", "A", "B", "C")}
        torch.testing.assert_close(
            selective_scan(**core, backend=backend),
            selective_scan(**core, D=torch.zeros(2), delta_bias=torch.zeros(2), backend=backend),
        )

    def test_long_decay_leaves_no_nan(self, backend: str) -> None:
        """Steps that wipe the state out, over and over, underflow to zero and not to NaN."""
        inputs = make_inputs(1, 2, 500, 4, step_range=(60.0, 90.0), dtype=torch.float32)
        for value in output_and_gradients(inputs, delta_softplus=True, backend=backend).values():
            assert value.isfinite().all()


class PeakMemory(TorchDispatchMode):
    """Tracks the largest number of bytes that live storages held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.live = {key: item for key, item in self.live.items() if not item[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


@pytest.mark.parametrize("with_gradient", [False, True])
def test_memory_holds_one_segment_of_states_and_no_more(with_gradient: bool) -> None:
    """A longer sequence costs far less than its states would."""
    channels, states, lengths = 64, 64, (512, 1024)
    peaks = []
    for length in lengths:
        inputs = make_inputs(1, channels, length, states, dtype=torch.float32)
        with patch.object(torch_scan, "_SEGMENT_ELEMENTS", 64 * channels * states), PeakMemory() as memory:
            if with_gradient:
                output_and_gradients(inputs, backend="torch")
            else:
                with torch.no_grad():
                    selective_scan(**inputs, backend="torch")
        peaks.append(memory.peak)
    states_of_the_added_steps = 4 * channels * states * (lengths[1] - lengths[0])
    assert peaks[1] - peaks[0] < 0.7 * states_of_the_added_steps


def test_unknown_backend_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"'referense' is unknown. Did you mean 'reference'\?.*reference, torch"):
        selective_scan(**make_inputs(1, 2, 3, 1), backend="referense")


def test_default_backend_is_a_listed_one() -> None:
    assert resolve_backend(None, torch.zeros(1)) == "torch"
    assert "torch" in backends()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("u", (2, 4), r"u must be \(B, D, L\)"),
        ("u", (2, 4, 0), "L at least 1"),
        ("delta", (2, 4, 9), r"delta must be \(2, 4, 8\).*got \(2, 4, 9\)"),
        ("A", (3, 5), "D = 4"),
        ("B", (2, 6, 8), r"B must be \(2, 5, 8\)"),
        ("B", (2, 3, 5, 8), "3 groups in B do not divide the 4 channels"),
        ("C", (2, 2, 5, 8), r"C must be \(2, 5, 8\)"),
        ("D", (5,), r"D must be \(4,\)"),
        ("z", (2, 4, 7), r"z must be \(2, 4, 8\)"),
        ("delta_bias", (1,), r"delta_bias must be \(4,\)"),
    ],
)
def test_wrong_shape_is_named(name: str, shape: tuple[int, ...], message: str) -> None:
    inputs = make_inputs(2, 4, 8, 5)
    with pytest.raises(ModelError, match=message):
        selective_scan(**{**inputs, name: torch.zeros(shape)})


def test_integer_input_is_refused() -> None:
    inputs = make_inputs(1, 2, 3, 1)
    with pytest.raises(ModelError, match=r"floating point; got torch\.int64"):
        selective_scan(**{**inputs, "u": torch.zeros(1, 2, 3, dtype=torch.int64)})
