"""Selective scans alone: which there are, which are chosen, and the least that they move."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.profiling.plan import Request, check_request, make_settings
from bench.profiling.scans import SCANS, check_scan, choose_scans, least_bytes
from bench.profiling.setting import Machine, Mode, Setting
from bench.store import Store
from models.ops import backends

NO_GPU = {"triton": "it runs on a GPU", "mamba_ssm": "the package mamba-ssm is not installed"}
Plan = Callable[..., list[Setting]]


@pytest.fixture
def plan(machine: Machine, tmp_path: Path) -> Plan:
    """Settings for fields of a request of scans, where some backends cannot run."""

    def make(obstacles: dict[str, str] = NO_GPU, device: str = "cpu", **fields: Any) -> list[Setting]:
        where = replace(machine, device=device, obstacles=obstacles)
        return make_settings(Request(what="scan", **fields), where, Store(tmp_path))

    return make


def test_each_is_of_a_backend_that_there_is_and_each_backend_is_measured() -> None:
    assert {scan.backend for scan in SCANS.values()} == set(backends())
    assert {name: scan.layout for name, scan in SCANS.items()} == {
        "triton": "channels_last",
        "triton_channels_first": "channels_first",
        "mamba_ssm": "channels_first",
        "torch": "channels_last",
        "reference": "channels_last",
    }


@pytest.mark.parametrize(
    ("obstacles", "expected"),
    [
        (NO_GPU, ["torch"]),
        ({"mamba_ssm": "not installed"}, ["triton", "triton_channels_first", "torch"]),
        ({}, ["triton", "triton_channels_first", "mamba_ssm", "torch"]),
    ],
)
def test_by_default_all_are_measured_that_can_run_but_the_reference(
    obstacles: dict[str, str], expected: list[str]
) -> None:
    assert choose_scans([], obstacles) == expected
    assert choose_scans(["reference", "torch"], obstacles) == ["reference", "torch"]


@pytest.mark.parametrize("name", ["mamba_ssm", "triton", "triton_channels_first"])
def test_what_is_named_and_cannot_run_says_why(name: str, plan: Plan) -> None:
    with pytest.raises(BenchError, match=f"--model {name}: {NO_GPU[SCANS[name].backend]}"):
        plan(models=["torch", name])


def test_the_least_traffic_of_a_forward_pass_worked_out_by_hand() -> None:
    # B = 2, D = 3, L = 5, N = 4: u, delta, z and y have 30 values, B and C 40: 4·30 + 2·40 = 200 of four bytes.
    assert least_bytes("infer", 2, 3, 5, 4, 4) == 800


def test_the_least_traffic_of_a_training_pass_worked_out_by_hand() -> None:
    # The same 200; y's gradient, 30; the inputs again, 170; their gradients, 170: 570 of two bytes.
    assert least_bytes("train", 2, 3, 5, 4, 2) == 1140


def test_the_least_traffic_at_the_size_of_a_volume() -> None:
    # 96 channels of 64³ tokens in bf16: 2 · (4·96 + 2·16) · 262,144 bytes forward, 2 · (11·96 + 6·16) · 262,144 in all.
    modes: tuple[Mode, ...] = ("infer", "train")
    assert [least_bytes(mode, 1, 96, 64**3, 16, 2) for mode in modes] == [218_103_808, 603_979_776]


def test_by_default_96_channels_of_64_cubed_tokens(plan: Plan) -> None:
    found = plan()
    assert [(one.model, one.mode) for one in found] == [("torch", "infer"), ("torch", "train")]
    one = found[0]
    assert (one.in_channels, one.image_size, one.asked_size, one.batch) == (96, (64,) * 3, (64,) * 3, 1)
    assert (one.precision, one.backend, one.called) == ("fp32", "torch", "PyTorch")
    assert one.more == {"states": 16, "layout": "channels_last"}
    assert one.title == "torch 96 channels 64³ infer"
    assert {one.precision for one in plan(device="cuda:0")} == {"bf16"}


def test_all_channels_and_sizes_that_are_asked_for(plan: Plan) -> None:
    found = plan({}, channels=(8, 16), resolutions=(4, 6), mode="train", models=["mamba_ssm", "triton"], batch=2)
    assert [(one.in_channels, one.image_size[0], one.model) for one in found] == [
        (channels, edge, name) for channels in (8, 16) for edge in (4, 6) for name in ("mamba_ssm", "triton")
    ]
    assert {(one.mode, one.batch) for one in found} == {("train", 2)}


def test_layouts_are_measurements_of_their_own(plan: Plan, machine: Machine) -> None:
    found = plan({}, models=["triton", "triton_channels_first"], mode="infer")
    assert [(job["backend"], job["layout"]) for job in (one.job(machine) for one in found)] == [
        ("triton", "channels_last"),
        ("triton", "channels_first"),
    ]


def test_growth_takes_several_sizes(plan: Plan) -> None:
    assert [one.image_size[0] for one in plan(scaling=True, mode="infer")] == [8, 16, 32]
    assert [one.image_size[0] for one in plan(scaling=True, mode="infer", device="cuda:0")] == [8, 16, 32, 64]


def test_what_cudnn_may_try_makes_no_other_measurement_of_a_scan(plan: Plan) -> None:
    assert plan(cudnn_benchmark=False) == plan()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"models": ["tritn"]}, "unknown scan 'tritn': did you mean 'triton'"),
        ({"precision": "tf32"}, "--precision tf32 with --what scan.*expected fp32, bf16, fp16"),
        ({"backend": "torch"}, "--backend with --what scan: --model names the backends"),
        ({"channels_last": True}, "--channels-last with --what scan: --model names the layouts"),
        ({"compile": True}, "leave --compile out"),
        ({"changes": ["model_options.segmamba.d_state=8"]}, "leave --set out"),
        ({"channels": (0,)}, "--channels 0"),
        ({"scaling": True, "resolutions": (8, 16)}, "with 2 resolutions"),
        ({"run": "abc"}, "expected --what receptive-field"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(BenchError, match=told):
        check_request(Request(what="scan", **fields))


def test_all_can_be_checked_without_what_is_heavy() -> None:
    code = (
        "import sys; from bench.profiling.scans import SCANS, check_scan; "
        "[check_scan(name) for name in SCANS]; print({'torch', 'monai', 'models'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    with pytest.raises(BenchError, match="did you mean 'reference'"):
        check_scan("referenc")
