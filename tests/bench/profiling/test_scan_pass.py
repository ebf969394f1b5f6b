"""What is measured of a selective scan is the scan that was asked for, on the inputs that were asked for."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import BenchError
from bench.profiling import bandwidth
from bench.profiling.clock import Repeater, Rule, Stopwatch, ignore
from bench.profiling.driver import Driver
from bench.profiling.instruments import Instruments
from bench.profiling.measures import MEASURES
from bench.profiling.operations import scan_flops
from bench.profiling.scan_pass import STEP_MAX, STEP_MIN, Draw, Inputs, draw_inputs, measure_scan, scan_work
from bench.profiling.scans import SCANS
from bench.profiling.setting import Setting
from models.errors import ModelError
from models.ops import selective_scan

# Without a GPU Triton's kernels run in its interpreter.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HERE = [name for name in SCANS if name != "mamba_ssm" or (torch.cuda.is_available() and find_spec("mamba_ssm"))]
C, TOKENS, N = 32, 12, 16
MIB = 2**20


def make_setting(name: str = "torch", mode: str = "infer", **changes: Any) -> Setting:
    stated = {
        "batch": 2,
        "in_channels": C,
        "classes": C,
        "precision": "fp32",
        "backend": SCANS[name].backend,
        **changes,
    }
    return Setting("scan", name, {}, (2, 3, 2), mode, **stated)  # type: ignore[arg-type]


def make_tools(operators: int = 0) -> Instruments:
    repeater = Repeater(DEVICE, rule=Rule(least=2, enough=2, at_least_s=0, at_most_s=0))
    return Instruments(DEVICE, repeater, Driver(DEVICE), None, math.inf, lambda _what: None, operators)


def draw(layout: str = "channels_last", dtype: torch.dtype = torch.float32, channels: int = C) -> Inputs:
    cpu = torch.device("cpu")
    return draw_inputs((2, channels, TOKENS), Draw(layout, dtype, cpu))  # type: ignore[arg-type]


def given(setting: Setting) -> list[Tensor]:
    """What a pass starts from: its inputs, and of a training pass the gradient."""
    return list(scan_work(setting, DEVICE).starts_from())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is a small one."""
    monkeypatch.setattr(bandwidth, "COPIED_BYTES", {"cpu": MIB, "cuda": MIB})


def _steps(inputs: Inputs) -> Tensor:
    return F.softplus(inputs.delta.float() + inputs.delta_bias[:, None])


def test_step_sizes_are_those_of_a_fresh_mamba() -> None:
    steps = _steps(draw(channels=512))
    assert STEP_MIN * 0.999 <= steps.min() < 1.1 * STEP_MIN
    assert STEP_MAX * 0.9 < steps.max() <= STEP_MAX * 1.001
    of_channels = steps.log().mean((0, 2)).sort().values
    expected = torch.linspace(steps.log().min(), steps.log().max(), 512)
    assert (of_channels - expected).abs().max() < 0.1 * (expected[-1] - expected[0])
    spread = steps.amax((0, 2)) / steps.amin((0, 2))
    assert (spread > 1.2).all()
    assert (spread < 1.6).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_step_sizes_stay_so_in_half_precision(dtype: torch.dtype) -> None:
    torch.testing.assert_close(_steps(draw(dtype=dtype)), _steps(draw()), rtol=0.01, atol=0)


def test_states_fade_as_slowly_as_mambas() -> None:
    assert torch.equal(draw().A, -torch.arange(1.0, N + 1).expand(C, N))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_inputs_lie_as_layers_or_as_mamba_ssm_have_them(layout: str) -> None:
    inputs = draw(layout)
    for name in ("u", "delta", "z", "B", "C"):
        tensor = getattr(inputs, name)
        assert tensor.shape == (2, N if name in "BC" else C, TOKENS)
        assert tensor.is_contiguous() == (layout == "channels_first")
        assert tensor.mT.is_contiguous() == (layout == "channels_last")
        assert torch.equal(tensor, getattr(draw(), name))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_what_grows_with_the_tokens_has_the_precision_and_parameters_have_fp32(
    precision: str, dtype: torch.dtype
) -> None:
    setting = make_setting(mode="train", precision=precision)
    *inputs, grad_y = given(setting)
    found = Inputs(*inputs)
    assert {found.u.dtype, found.delta.dtype, found.z.dtype, found.B.dtype, found.C.dtype, grad_y.dtype} == {dtype}
    assert {found.A.dtype, found.D.dtype, found.delta_bias.dtype} == {torch.float32}
    y = scan_work(make_setting(precision=precision), DEVICE)(ignore)
    assert isinstance(y, Tensor)
    assert y.dtype == dtype


@pytest.mark.parametrize("name", HERE)
def test_a_forward_pass_is_mambas_scan_without_gradients(name: str) -> None:
    work = scan_work(make_setting(name), DEVICE)
    inputs = Inputs(*work.starts_from())
    y = work(ignore)
    assert isinstance(y, Tensor)
    assert not y.requires_grad
    torch.testing.assert_close(y, selective_scan(*inputs, True, backend="reference"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HERE)
def test_a_training_pass_has_the_gradients_of_all_that_goes_in(name: str) -> None:
    work = scan_work(make_setting(name, "train"), DEVICE)
    *inputs, grad_y = work.starts_from()
    parts: list[str] = []
    found = work(parts.append)
    expected = torch.autograd.grad(selective_scan(*inputs, True, backend="reference"), inputs, grad_y)
    assert parts == ["forward", "backward"]
    assert isinstance(found, tuple)
    assert len(found) == 8
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_gradient_is_random_and_lies_as_what_comes_out() -> None:
    for name, last in (("torch", True), ("triton_channels_first", False)):
        grad_y = given(make_setting(name, "train"))[-1]
        assert (grad_y.shape, grad_y.mT.is_contiguous()) == ((2, C, TOKENS), last)
        assert 0.9 < grad_y.std() < 1.1
        assert not grad_y.requires_grad


def test_the_published_kernel_is_called_as_its_users_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    result = torch.zeros(2, C, TOKENS)

    def selective_scan_of_its_tensors(*arguments: Any) -> Tensor:
        calls.append(arguments)
        assert not torch.is_grad_enabled()
        return result

    module = ModuleType("models.ops.mamba_ssm_scan")
    module.selective_scan = selective_scan_of_its_tensors  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    work = scan_work(make_setting("mamba_ssm", precision="bf16"), DEVICE)
    inputs = tuple(work.starts_from())
    assert work(ignore) is result  # and no copy of it
    ((*passed, softplus),) = calls
    assert softplus is True
    assert [tensor.data_ptr() for tensor in passed] == [tensor.data_ptr() for tensor in inputs]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("mode", "time", "values"),
    [
        # 2·32·12 = 768 values of u, 2·16·12 = 384 of B.
        ("infer", "latency_s", 4 * 768 + 2 * 384),
        ("train", "train_step_s", 11 * 768 + 6 * 384),
    ],
)
def test_what_is_measured(mode: str, time: str, values: int) -> None:
    found = measure_scan(make_setting(mode=mode), make_tools())
    assert set(found) == {
        *("time", "memory", "peak_memory_bytes", "energy_j", "voxels_per_s", "gmacs", "operations", time),
        *("tokens", "bytes", "copy_bytes_per_s", "floor_s"),
    }
    assert found[time] == found["time"]["median_s"] > 0
    assert (found["tokens"], found["bytes"]) == (TOKENS, 4 * values)
    assert found["voxels_per_s"] == pytest.approx(2 * TOKENS / found[time])
    assert found["floor_s"] == pytest.approx(found["bytes"] / found["copy_bytes_per_s"])
    # Of one sequence forward, in both modes: for each value nine operations a state, and one each for skip and gate.
    assert found["operations"]["scan"] == scan_flops(1, C, TOKENS, N, skip=True, gate=True) // 2 == 32 * 12 * 73
    assert found["gmacs"] == found["operations"]["scan"] / 1e9
    # Inputs and what comes out; with gradients both twice.
    assert found["peak_memory_bytes"] >= (1 if mode == "infer" else 2) * 4 * (4 * 768 + 2 * 384)
    assert set(found["time"]["parts"]) == (set() if mode == "infer" else {"forward", "backward"})


@pytest.mark.usefixtures("quick")
def test_the_least_traffic_is_that_of_the_precision() -> None:
    found = measure_scan(make_setting(precision="bf16"), make_tools())
    assert found["bytes"] == 2 * (4 * 768 + 2 * 384)


@pytest.mark.usefixtures("quick")
def test_operators_are_listed_where_asked_for() -> None:
    found = measure_scan(make_setting(), make_tools(operators=1))
    first, rest = found["operators"]
    assert first["share"] + rest["share"] == pytest.approx(1)


@pytest.mark.skipif(find_spec("mamba_ssm") is not None, reason="the package is installed")
def test_a_kernel_that_is_not_installed_is_said_to_be_missing() -> None:
    with pytest.raises(ModelError, match="mamba-ssm is not installed"):
        measure_scan(make_setting("mamba_ssm"), make_tools())


def test_an_unknown_scan_is_said_to_be_unknown() -> None:
    with pytest.raises(BenchError, match="unknown scan 'cuda'"):
        measure_scan(replace(make_setting(), model="cuda"), make_tools())


def test_it_is_among_what_can_be_measured() -> None:
    assert MEASURES["scan"] is measure_scan


def test_a_copy_reads_and_writes_what_it_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "COPIED_BYTES", {"cpu": MIB})
    real = Stopwatch.time

    def time(self: Stopwatch, work: Any) -> tuple[float, dict[str, float]]:
        real(self, work)
        return 0.25, {}

    monkeypatch.setattr(Stopwatch, "time", time)
    told: list[str] = []
    forgotten: list[torch.device] = []
    monkeypatch.setattr(bandwidth, "reset_peak", forgotten.append)
    assert bandwidth.copy_bytes_per_s(torch.device("cpu"), on_pass=told.append) == 2 * MIB / 0.25
    assert forgotten == [torch.device("cpu")]  # no peak of memory is that of the copy
    assert set(told) == {"copying for the bandwidth"}


def test_no_cache_holds_what_is_copied() -> None:
    assert bandwidth.COPIED_BYTES == {"cuda": 2**30, "cpu": 2**28}
