"""``bench profile`` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bench.profiling.setting import Machine, Setting
from bench.store import Record, Store

MACHINE = Machine("cpu", "a processor, 2 threads", "2.11", "torch", 2)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Setting]]:
    """Nothing is measured; each setting ends with a status. Gives the settings that were asked for."""

    def script(status: str = "complete", error: BaseException | None = None) -> list[Setting]:
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
        monkeypatch.setattr("bench.profiling.suite.ask_machine", lambda *_: MACHINE)
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
        (("--device", "cuda:7"), "cuda:7"),
    ],
)
def test_mistakes_are_told(bench: Callable, arguments: tuple[str, ...], told: str) -> None:
    answer = bench("profile", *arguments)
    assert answer.status == 2
    assert told in answer.err
    assert "Traceback" not in answer.err
