"""``bench profile`` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.profiling.setting import Machine, Setting
from bench.store import Record, Store

MACHINE = Machine("cpu", "a processor, 2 threads", "2.11", "torch", 2)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Setting]]:
    """Nothing is measured; each setting ends with a status. Gives the settings that were asked for."""

    def script(
        status: str = "complete", error: BaseException | None = None, machine: Machine = MACHINE
    ) -> list[Setting]:
        asked: list[Setting] = []

        def measure(settings: Sequence[Setting], store: Store, *_: Any) -> list[Record]:
            asked.extend(settings)
            if error is not None:
                raise error
            told = {"message": "no room"} if status != "complete" else {}
            return [
                store.open_profile(one.job(MACHINE), hardware="a processor", measured={}, notes=[]).finish(
                    status, **told
                )
                for one in settings
            ]

        monkeypatch.setattr("bench.profiling.apart.Apart", lambda: nullcontext())
        monkeypatch.setattr("bench.profiling.suite.ask_machine", lambda *_: machine)
        monkeypatch.setattr("bench.profiling.suite.measure_all", measure)
        return asked

    return script


def test_a_network_is_measured_kept_and_shown(bench: Callable, tmp_path: Path) -> None:
    small = ("--model", "segresnet", "--set", "model_options.segresnet.init_filters=8", "--device", "cpu")
    answer = bench("profile", *small, "--resolution", "9,16", "--output", tmp_path / "out", "--operators", 2)
    assert answer.status == 0, answer.err
    for text in ("inference", "training", "8³ (asked 9³)", "16³", "convolution_backward", "forward ms"):
        assert text in answer.out
    records = Store(tmp_path / "results").records()
    assert [(record.kind, record.status) for record in records] == [("profile", "complete")] * 4
    assert json.loads((records[0].folder / "record.json").read_text())["provenance"]["command"][1:3] == [
        "profile",
        "--model",
    ]
    assert "segresnet" in (tmp_path / "out" / "profiles.md").read_text()
    shown = bench("profile", "--show")
    assert shown.out == answer.out
    only = bench("profile", "--show", "--resolution", 16, "--format", "csv")
    assert len(only.out.splitlines()) == 3
    assert bench("verify").status == 0


def test_options_reach_the_settings(bench: Callable, scripted: Callable) -> None:
    asked = scripted()
    answer = bench(
        *("profile", "--model", "unetr,segmamba", "--resolution", "64, 96", "--mode", "train", "--batch", 2),
        *("--precision", "tf32", "--channels", 2, "--classes", 3, "--compile", "--channels-last"),
        *("--no-cudnn-benchmark", "--backend", "reference"),
    )
    assert answer.status == 0
    assert [(one.model, one.image_size[0], one.mode) for one in asked] == [
        (name, size, "train") for size in (64, 96) for name in ("unetr", "segmamba")
    ]
    one = asked[0]
    assert (one.batch, one.precision, one.in_channels, one.classes) == (2, "tf32", 2, 3)
    assert (one.compile, one.channels_last, one.cudnn_benchmark, one.backend) == (True, True, False, "reference")
    asked.clear()
    assert bench("profile", "--model", "unetr", "--mode", "infer", "--optimised").status == 0
    assert asked[0].channels_last
    assert bench("profile", "--model", "unetr", "--mode", "infer", "--fused").status == 2


def test_other_measurements_are_reached(bench: Callable, scripted: Callable) -> None:
    asked = scripted("timeout")
    bench("profile", "--ceiling", 0.5, "--model", "unetr", "--mode", "infer")
    bench("profile", "--what", "volume", "--shape", "10,20,30", "--overlap", 0.25, "--model", "unetr")
    bench("profile", "--what", "receptive-field", "--inputs", 2, "--model", "unetr")
    bench("profile", "--what", "mixer", "--model", "conv_3", "--channels", 32, "--resolution", 4, "--mode", "infer")
    assert [(one.what, dict(one.more)) for one in asked] == [
        ("ceiling", {"limit_bytes": 2**29}),
        ("volume", {"shape": [10, 20, 30], "overlap": 0.25, "flips": 1}),
        ("volume", {"shape": [10, 20, 30], "overlap": 0.25, "flips": 8}),
        ("receptive-field", {"inputs": 2, "run": ""}),
        ("mixer", {}),
    ]


def test_a_scan_is_measured_beside_its_floor_and_shown(
    bench: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # without it a CPU has no backend but PyTorch's
    asked = ("profile", "--what", "scan", "--resolution", 4, "--channels", 8, "--time-limit", 2)
    answer = bench(*asked, "--device", "cpu", "--output", tmp_path / "out")
    assert answer.status == 0, answer.err
    records = Store(tmp_path / "results").records()
    assert {(record.content["job"]["model"], record.status) for record in records} == {("torch", "complete")}
    for text in ("Selective scans on", "forward ms", "forward + backward ms", "inference ÷ floor", "training ÷ floor"):
        assert text in answer.out
    assert bench("profile", "--show", "--what", "scan").out == answer.out
    csv = bench("profile", "--show", "--format", "csv").out
    assert all(name in csv.splitlines()[0] for name in ("floor_s", "copy_bytes_per_s", "bytes", "tokens"))
    for how in ("markdown", "html", "latex"):
        assert "Selective scans on" in bench("profile", "--show", "--format", how).out
    assert "Selective scans on" in (tmp_path / "out" / "profiles.md").read_text()
    assert bench("verify").status == 0


def test_a_scan_that_cannot_run_here_is_told_before_anything_runs(bench: Callable, scripted: Callable) -> None:
    asked = scripted()
    told = {"mamba_ssm": "the package mamba-ssm is not installed"}
    answer = bench("profile", "--what", "scan", "--model", "mamba_ssm")
    assert answer.status == 0
    assert [one.model for one in asked] == ["mamba_ssm", "mamba_ssm"]
    asked = scripted(machine=replace(MACHINE, obstacles=told))
    answer = bench("profile", "--what", "scan", "--model", "torch,mamba_ssm")
    assert (answer.status, asked) == (2, [])
    assert "error: --model mamba_ssm: the package mamba-ssm is not installed" in answer.err


def test_a_measurement_that_failed_is_a_row_and_status_1(bench: Callable, scripted: Callable) -> None:
    scripted("oom")
    answer = bench("profile", "--model", "unetr")
    assert answer.status == 1
    assert "oom" in answer.out
    assert bench("profile", "--show").status == 0


def test_an_interrupt_says_that_nothing_is_lost(bench: Callable, scripted: Callable) -> None:
    scripted(error=KeyboardInterrupt())
    answer = bench("profile", "--model", "unetr")
    assert answer.status == 130
    assert "goes on from there" in answer.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--resolution", "64,x"), "--resolution '64,x'"),
        (("--resolution", "0"), "whole numbers from 1"),
        (("--shape", "64,64"), "three whole numbers"),
        (("--format", "pdf"), "unknown format 'pdf'"),
        (("--ceiling", "8", "--what", "volume"), "leave one of them out"),
        (("--show",), "make one with: bench profile --resolution 64"),
        (("--what", "networks"), "did you mean 'network'"),
        (("--what", "scan", "--model", "mamba_sm"), "did you mean 'mamba_ssm'"),
        (("--what", "scan", "--precision", "tf32"), "expected fp32, bf16, fp16"),
        (("--what", "scan", "--scaling", "--resolution", "8,16"), "with 2 resolutions"),
        (("--device", "cuda:7"), "cuda:7"),
    ],
)
def test_mistakes_are_told(bench: Callable, arguments: tuple[str, ...], told: str) -> None:
    answer = bench("profile", *arguments)
    assert answer.status == 2
    assert told in answer.err
    assert "Traceback" not in answer.err
