"""The selective scan: backends against the step-by-step oracle, and the contract of all of them."""

import math
import sys
import types
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.errors import ModelError
from models.ops import Order, backends, resolve_backend, scan_orders, selective_scan, torch_scan
from models.ops import scan as scan_module
from models.ops.launch import Launches
from models.ops.scan import Backend
from models.ops.triton_scan import function as triton_function

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _runs_here(backend: str) -> bool:
    try:
        return resolve_backend(backend, torch.zeros(1, device=DEVICE)) == backend
    except ModelError:
        return False


# What Triton's interpreter takes seconds for is tested there on less.
INTERPRETED = DEVICE == "cpu"
HERE = [name for name in backends() if _runs_here(name)]
EXACT = [name for name in HERE if name != "mamba_ssm"]  # which has no fp64


def widest(backend: str) -> torch.dtype:
    """The type of the highest precision that a backend knows."""
    return torch.float64 if backend in EXACT else torch.float32


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
    return {name: tensor.to(DEVICE, dtype).requires_grad_() for name, tensor in inputs.items()}


def output_and_gradients(
    inputs: dict[str, torch.Tensor], scan: Callable[..., torch.Tensor] = selective_scan, **options: object
) -> dict[str, torch.Tensor]:
    """y and the gradient of a fixed weighting of it with respect to every input."""
    y = scan(**inputs, **options)
    weights = torch.linspace(-1, 2, y.numel(), dtype=torch.float64, device=y.device).reshape(y.shape).to(y.dtype)
    gradients = torch.autograd.grad(y, list(inputs.values()), weights)
    return {"y": y.detach(), **dict(zip(inputs, gradients, strict=True))}


def scan_unlike_orders(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor,
    D: torch.Tensor | None = None, z: torch.Tensor | None = None, delta_bias: torch.Tensor | None = None,
    *, orders: tuple[Order, ...], **options: object,
) -> torch.Tensor:  # fmt: skip
    """`scan_orders` of the tensors of `make_inputs`, with parameters and inputs that differ from order to order."""

    def unlike(tensor: torch.Tensor | None) -> torch.Tensor | None:
        if tensor is None:
            return None
        return torch.stack([tensor * (1 + 0.25 * index) for index in range(len(orders))])

    def by_token(projection: torch.Tensor) -> torch.Tensor:
        return (projection[:, None] if projection.dim() == 3 else projection).permute(0, 3, 1, 2)

    return scan_orders(
        unlike(u.mT), unlike(delta.mT), unlike(A), unlike(by_token(B)), unlike(by_token(C)), unlike(D),
        None if z is None else z.mT, unlike(delta_bias), orders=orders, **options,
    )  # fmt: skip


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
        inputs["delta_bias"] = torch.rand(channels, dtype=torch.float64, device=DEVICE, requires_grad=True)
    options = {"delta_softplus": softplus, "reverse": reverse}
    expected = output_and_gradients(inputs, **options, backend="reference")
    with (
        patch.object(torch_scan, "_STEP_ELEMENTS", step_elements),
        patch.object(torch_scan, "_SEGMENT_ELEMENTS", segment_elements),
    ):
        found = output_and_gradients(inputs, **options, backend="torch")
    assert_same(found, expected, tolerance=1e-11)


@settings(max_examples=4 if INTERPRETED else 40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    batch=st.integers(1, 2),
    per_group=st.integers(1, 5),
    groups=st.sampled_from([None, 1, 2]),
    length=st.sampled_from([1, 3, 8, 13]),
    states=st.sampled_from([1, 2, 3, 5]),
    step_range=st.sampled_from([(-6.0, 2.0), (-30.0, 30.0), (25.0, 30.0), (-30.0, -25.0)]),
    softplus=st.booleans(),
    kinds=st.lists(st.sampled_from(["forward", "backward", "slices"]), min_size=1, max_size=2),
    present=st.sets(st.sampled_from(["D", "z", "delta_bias"])),
    chunk=st.sampled_from([4, 8]),
    stretch=st.sampled_from([4, 8]),
    unroll=st.sampled_from([1, 2, 4]),
    sweep=st.sampled_from([1, 2, 4, 8]),
    rows=st.sampled_from([1, 2, 128]),
    programs=st.sampled_from([1, 2048]),
)
@example(  # runs of slices that turn within a chunk, and a chunk that the sequence does not fill
    batch=2,
    per_group=3,
    groups=2,
    length=12,
    states=2,
    step_range=(-6.0, 2.0),
    softplus=True,
    kinds=["slices", "backward"],
    present={"D", "z", "delta_bias"},
    chunk=8,
    stretch=4,
    unroll=2,
    sweep=4,
    rows=1,
    programs=1,
)
def test_triton_backend_equals_the_oracle_in_value_and_every_gradient(
    batch: int,
    per_group: int,
    groups: int | None,
    length: int,
    states: int,
    step_range: tuple[float, float],
    softplus: bool,
    kinds: list[str],
    present: set[str],
    chunk: int,
    stretch: int,
    unroll: int,
    sweep: int,
    rows: int,
    programs: int,
) -> None:
    """Any shape, any optional input missing, any orders, at once or in turn, any split into chunks, blocks and rows."""
    if not softplus:
        step_range = (0.0, min(5.0, abs(step_range[1])))
    channels = per_group * (groups or 1)
    inputs = make_inputs(batch, channels, length, states, groups=groups, step_range=step_range)
    if not softplus:
        inputs["delta_bias"] = torch.rand(channels, dtype=torch.float64, device=DEVICE, requires_grad=True)
    inputs = {name: value for name, value in inputs.items() if name in present or name in ["u", "delta", "A", "B", "C"]}
    slices = next(number for number in (4, 3, 2, 1) if length % number == 0)
    options = {"delta_softplus": softplus, "orders": tuple(Order(kind, slices) for kind in kinds)}
    expected = output_and_gradients(inputs, scan_unlike_orders, **options, backend="reference")
    with (
        patch.object(triton_function, "_CHUNKS", (chunk, chunk)),
        patch.object(triton_function, "_STRETCH", stretch),
        patch.object(triton_function, "_UNROLL", unroll),
        patch.object(triton_function, "_UNROLL_ENDS", unroll),
        patch.object(triton_function, "_UNROLL_SWEEP", sweep),
        patch.object(triton_function, "_UNROLL_GRADIENTS", unroll),
        patch.object(triton_function, "_BLOCK", 4),
        patch.object(triton_function, "_CARRY_ROWS", rows),
        patch.object(triton_function, "_PROGRAMS", programs),
        patch.object(triton_function, "launches", lambda *_: Launches()),  # these constants are not for others
    ):
        found = output_and_gradients(inputs, scan_unlike_orders, **options, backend="triton")
    assert_same(found, expected, tolerance=5e-9)  # PyTorch's softplus is the identity above 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_blocks_are_added_up_and_written_nowhere_else(dtype: torch.dtype) -> None:
    """Where gradients of B and C go as columns of something wider, without the states that filled up a power of two."""
    orders, batch, length, groups, states, blocks = 2, 2, 5, 2, 3, 3
    shape = (orders, batch, length, groups * blocks * triton_function._BLOCK)
    plan = triton_function.Plan.of([Order("forward"), Order("backward")], shape, groups, states, softplus=True)
    assert (plan.states, plan.blocks) == (4, blocks)
    parts = torch.randn(orders, blocks, batch, length, groups, plan.states, 2, device=DEVICE)
    wide = torch.full((orders, batch + 1, length, groups, 1 + 2 * states + 1), 9.0, dtype=dtype, device=DEVICE)
    before, at_B, at_C, after = wide[:, :batch].split([1, states, states, 1], dim=-1)
    with patch.object(triton_function, "_ADDED_PAIRS", 16):  # four rows a program, which ten rows do not fill
        triton_function._add_blocks(Launches(), plan, parts, at_B, at_C)
    expected = parts.sum(1)[..., :states, :]
    tolerance = torch.finfo(dtype).eps
    torch.testing.assert_close(at_B.float(), expected[..., 0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(at_C.float(), expected[..., 1], rtol=tolerance, atol=tolerance)
    assert all((untouched == 9).all() for untouched in (before, after, wide[:, batch:]))


def test_is_one_node_for_autograd_and_its_result_may_be_changed() -> None:
    """Each view that autograd sees costs the host time, and short sequences wait for it; mamba-ssm's can be changed."""
    inputs = make_inputs(2, 4, 6, 2, groups=2)
    y = selective_scan(**inputs, delta_softplus=True, backend="triton")
    node = y.grad_fn.next_functions[0][0].next_functions[0][0]
    assert type(node).__name__ == "_ScanSequenceBackward"
    assert {type(one).__name__ for one, _ in node.next_functions if one is not None} == {"AccumulateGrad"}
    expected = torch.autograd.grad(y.sum(), inputs["u"], retain_graph=True)
    y *= 2
    torch.testing.assert_close(torch.autograd.grad(y.sum(), inputs["u"])[0], 2 * expected[0])


def test_past_the_end_of_a_sequence_nothing_grows() -> None:
    """Where step sizes are the small difference of large numbers, the bias alone would let a state overflow."""
    inputs = make_inputs(1, 2, 5, 2, dtype=torch.float32)
    inputs["A"] = torch.ones(2, 2, device=DEVICE, requires_grad=True)
    inputs["delta_bias"] = torch.full((2,), 200.0, device=DEVICE, requires_grad=True)
    inputs["delta"] = torch.full((1, 2, 5), -199.5, device=DEVICE, requires_grad=True)
    expected = output_and_gradients(inputs, backend="reference")
    assert_same(output_and_gradients(inputs, backend="triton"), expected, tolerance=1e-5)


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


@pytest.mark.skipif(INTERPRETED, reason="no GPU here")
@pytest.mark.parametrize("backend", [name for name in HERE if name != "reference"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2**-7), (torch.float16, 2**-9)]
)
@pytest.mark.parametrize("shape", [(2, 96, 3000, 16), (1, 40, 1500, 64), (1, 384, 512, 7), (3, 768, 64, 16)])
def test_on_a_gpu_every_backend_equals_the_oracle_at_real_shapes(
    backend: str, dtype: torch.dtype, tolerance: float, shape: tuple[int, int, int, int]
) -> None:
    """Value and every gradient against fp64 on the same numbers, relative to the largest."""
    inputs = make_inputs(*shape, step_range=(-6.0, 1.0), dtype=dtype)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    expected = output_and_gradients(exact, delta_softplus=True, backend="reference")
    found = output_and_gradients(inputs, delta_softplus=True, backend=backend)
    assert_same({name: value.double() for name, value in found.items()}, expected, tolerance)


@pytest.mark.skipif(INTERPRETED, reason="no GPU here")
def test_on_a_gpu_a_scan_is_the_same_to_the_last_bit_each_time() -> None:
    inputs = make_inputs(2, 96, 4096, 16, dtype=torch.bfloat16)
    first, second = (output_and_gradients(inputs, delta_softplus=True, backend="triton") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("backend", HERE)
class TestBackendContract:
    """What holds for every backend."""

    def test_solves_the_recurrence_of_its_definition(self, backend: str) -> None:
        """One channel, one state, two steps, worked out by hand."""
        y = selective_scan(
            u=torch.tensor([[[2.0, 3.0]]], device=DEVICE),
            delta=torch.tensor([[[0.5, 0.25]]], device=DEVICE),
            A=torch.tensor([[-1.0]], device=DEVICE),
            B=torch.tensor([[[5.0, 7.0]]], device=DEVICE),
            C=torch.tensor([[[11.0, 13.0]]], device=DEVICE),
            D=torch.tensor([0.1], device=DEVICE),
            z=torch.tensor([[[1.0, -1.0]]], device=DEVICE),
            backend=backend,
        )
        h1 = 0.5 * 5 * 2
        h2 = math.exp(-0.25) * h1 + 0.25 * 7 * 3
        silu = [1 / (1 + math.exp(-1)), -1 / (1 + math.exp(1))]
        expected = torch.tensor([[[(11 * h1 + 0.2) * silu[0], (13 * h2 + 0.3) * silu[1]]]], device=DEVICE)
        torch.testing.assert_close(y, expected)

    def test_gradients_agree_with_finite_differences(self, backend: str) -> None:
        if backend not in EXACT:
            pytest.skip("no fp64")
        if backend == "triton" and INTERPRETED:
            pytest.skip("slow if interpreted; its gradients are compared with those of the oracle")
        inputs = make_inputs(2, 4, 11, 3, groups=2) if backend != "triton" else make_inputs(1, 2, 5, 2, groups=2)
        assert torch.autograd.gradcheck(
            lambda *tensors: selective_scan(*tensors, delta_softplus=True, reverse=True, backend=backend),
            tuple(inputs.values()),
        )

    def test_group_serves_consecutive_channels(self, backend: str) -> None:
        inputs = make_inputs(2, 6, 9, 3, groups=2, dtype=widest(backend))
        whole = selective_scan(**inputs, delta_softplus=True, backend=backend)
        for group, part in enumerate((slice(0, 3), slice(3, 6))):
            single = {name: inputs[name][:, part] for name in ("u", "delta", "z")}
            single |= {name: inputs[name][part] for name in ("A", "D", "delta_bias")}
            single |= {name: inputs[name][:, group] for name in ("B", "C")}
            alone = selective_scan(**single, delta_softplus=True, backend=backend)
            torch.testing.assert_close(whole[:, part], alone)

    def test_reverse_is_the_scan_of_the_flipped_sequence(self, backend: str) -> None:
        inputs = make_inputs(2, 3, 10, 2, dtype=widest(backend))
        flipped = {
            name: tensor.flip(-1) if name in ("u", "delta", "B", "C", "z") else tensor
            for name, tensor in inputs.items()
        }
        torch.testing.assert_close(
            selective_scan(**inputs, delta_softplus=True, reverse=True, backend=backend),
            selective_scan(**flipped, delta_softplus=True, backend=backend).flip(-1),
        )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_inputs_have_an_fp32_state(self, backend: str, dtype: torch.dtype) -> None:
        """The result is the fp32 result on the same numbers, rounded once."""
        inputs = make_inputs(1, 4, 40 if backend == "triton" and INTERPRETED else 200, 3, dtype=dtype)
        exact = {name: tensor.detach().float().requires_grad_() for name, tensor in inputs.items()}
        expected = output_and_gradients(exact, delta_softplus=True, backend="reference")
        found = output_and_gradients(inputs, delta_softplus=True, backend=backend)
        assert all(value.dtype == dtype for value in found.values())
        rounding = torch.finfo(dtype).eps
        torch.testing.assert_close(found["y"].float(), expected["y"], rtol=rounding, atol=1e-5)
        assert_same({k: v.float() for k, v in found.items()}, expected, tolerance=4 * rounding)

    def test_autocast_changes_nothing(self, backend: str) -> None:
        """Forward and backward inside an autocast region equal those outside."""
        inputs = make_inputs(1, 4, 20, 3, dtype=torch.float32)
        expected = output_and_gradients(inputs, delta_softplus=True, backend=backend)
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            found = output_and_gradients(inputs, delta_softplus=True, backend=backend)
        assert_same(found, expected, tolerance=1e-6)

    def test_optional_inputs_may_be_missing(self, backend: str) -> None:
        """No D, no z and no bias are D = 0, silu(z) = 1 and a bias of 0."""
        inputs = make_inputs(1, 2, 8, 3, dtype=widest(backend))
        core = {name: inputs[name] for name in ("u", "delta", "A", "B", "C")}
        torch.testing.assert_close(
            selective_scan(**core, backend=backend),
            selective_scan(
                **core, D=torch.zeros_like(inputs["D"]), delta_bias=torch.zeros_like(inputs["D"]), backend=backend
            ),
        )

    def test_long_decay_leaves_no_nan(self, backend: str) -> None:
        """Steps that wipe the state out, over and over, underflow to zero and not to NaN."""
        length = 50 if backend == "triton" and INTERPRETED else 500
        inputs = make_inputs(1, 2, length, 4, step_range=(60.0, 90.0), dtype=torch.float32)
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
    plan = torch_scan._plan
    for length in lengths:
        inputs = make_inputs(1, channels, length, states, dtype=torch.float32)
        with (
            patch.object(torch_scan, "_SEGMENT_ELEMENTS", 64 * channels * states),
            patch.object(torch_scan, "_plan", lambda length, width, _: plan(length, width, False)),
            PeakMemory() as memory,
        ):
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


def test_backend_that_cannot_run_here_says_why() -> None:
    tensor = torch.zeros(1, 2, 3)
    with pytest.raises(ModelError, match="up to 64 states per channel and there are 65"):
        resolve_backend("triton", tensor.to(DEVICE), states=65)
    missing = pytest.raises(ModelError, match=r"'mamba_ssm' cannot scan this: .*segmamba-bench\[cuda\]")
    with patch.object(scan_module, "find_spec", lambda _: None), missing:
        resolve_backend("mamba_ssm", tensor)
    with patch.object(scan_module, "triton_obstacle", lambda _: "too hot"), pytest.raises(ModelError, match="too hot"):
        resolve_backend("triton", tensor)


def test_an_installed_kernel_is_given_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """mamba-ssm's function, played by the oracle: contiguous inputs of one type, parameters in fp32."""
    seen: dict[str, torch.Tensor] = {}

    def selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        seen.update(u=u, delta=delta, B=B, C=C, z=z, A=A, D=D, delta_bias=delta_bias)
        return selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, backend="reference")

    module = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    module.selective_scan_fn = selective_scan_fn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    ours = "models.ops.mamba_ssm_scan"
    monkeypatch.setitem(sys.modules, ours, types.ModuleType(ours))  # so that what is imported here is forgotten again
    del sys.modules[ours]
    inputs = make_inputs(2, 4, 9, 3, groups=2, dtype=torch.bfloat16)
    monkeypatch.setattr(scan_module, "_mamba_ssm_obstacle", lambda _u, _states: None)
    scan = scan_module._BACKENDS["mamba_ssm"].load()
    monkeypatch.setitem(scan_module._BACKENDS, "mamba_ssm", Backend(lambda: scan, lambda _u, _states: None))
    found = selective_scan(**inputs, delta_softplus=True, reverse=True, backend="mamba_ssm")
    expected = selective_scan(**inputs, delta_softplus=True, reverse=True, backend="reference")
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    assert all(
        seen[name].is_contiguous() and seen[name].dtype == torch.bfloat16 for name in ("u", "delta", "B", "C", "z")
    )
    assert all(seen[name].dtype == torch.float32 for name in ("A", "D", "delta_bias"))


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
        selective_scan(**{**inputs, name: torch.zeros(shape, device=DEVICE)})


def test_integer_input_is_refused() -> None:
    inputs = make_inputs(1, 2, 3, 1)
    with pytest.raises(ModelError, match=r"floating point; got torch\.int64"):
        selective_scan(**{**inputs, "u": torch.zeros(1, 2, 3, dtype=torch.int64)})
