"""``bench run --dry-run``: what would run, what is skipped and why, what it needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from bench.lease import take
from bench.schedule import cluster
from bench.store import Store

Bench = Callable[..., object]


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def plan(tiny_run: Bench) -> Callable[..., list[str]]:
    """The lines that are printed."""

    def call(*arguments: object) -> list[str]:
        answer = tiny_run("--dry-run", *arguments)
        assert answer.status == 0, answer.err
        return answer.out.splitlines()

    return call


def _keys(lines: list[str]) -> list[str]:
    return [line.split()[1] for line in lines if line.startswith("  run ")]


def _protocol(lines: list[str]) -> str:
    return lines[2].partition(", protocol ")[2]


def test_a_grid_is_told_in_its_order_and_nothing_is_written(
    plan: Callable[..., list[str]], phantoms: Path, tmp_path: Path
) -> None:
    lines = plan("--seed", "0,1", "--model", "unetr", "--set", "model_options.unetr.feature_size=4")
    assert lines[:2] == ["scheduler: inline", "4 jobs: 4 to run, 0 complete"]
    told = [re.sub(r"[0-9a-f]{16}", "KEY", line) for line in lines[2:6]]
    assert told == [
        f"  run      KEY  {model} on phantom, seed {seed}, protocol {_protocol(lines)}"
        for seed in (0, 1)
        for model in ("segresnet", "unetr")
    ]
    assert len(set(_keys(lines))) == 4
    assert lines[6:] == [f"dataset phantom: {phantoms}"]
    assert not (tmp_path / "results").exists()


def test_the_keys_are_those_that_will_be_run_and_what_is_complete_is_skipped(
    plan: Callable[..., list[str]], tiny_run: Bench, tmp_path: Path
) -> None:
    planned = _keys(plan())
    assert tiny_run("--set", "evaluate.untrained=true").status == 0
    (record,) = Store(tmp_path / "results").records()
    assert planned == [record.key]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*")}
    lines = plan("--seed", "0,1")
    assert lines[1:3] == [
        "2 jobs: 1 to run, 1 complete",
        f"  skipped  {record.key}  segresnet on phantom, seed 0: complete",
    ]
    assert [line.split()[1] for line in lines if line.startswith("  run ")] != [record.key]
    assert plan("--seed", "0")[:2] == ["scheduler: inline", "1 jobs: 0 to run, 1 complete"]

    seconds = record.content["times"]["train_s"] + record.content["times"]["last_test_s"]
    cpu = record.content["provenance"]["hardware"]["cpu"]
    for scheduler in ("inline", "ray"):
        lines = plan("--scheduler", scheduler, "--seed", "0,1,2", "--model", "segresnet,unetr")
        told = f", about {timedelta(seconds=round(seconds))}"
        assert [told in line for line in lines if " segresnet " in line and line.startswith("  run ")] == [True] * 2
        assert [", about " in line for line in lines if " unetr " in line] == [False] * 3
        total = timedelta(seconds=round(2 * seconds))
        assert f"one after the other 2 of the 5 take about {total}, by records of {cpu}" in lines
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*")} == before


def test_what_an_earlier_attempt_left_is_told(plan: Callable[..., list[str]], tiny_run: Bench, tmp_path: Path) -> None:
    tiny_run()
    (record,) = Store(tmp_path / "results").records()
    path = record.folder / "record.json"
    complete = path.read_text()

    def told(status: str, step: int | None = None) -> str:
        path.write_text(complete.replace('"status": "complete"', f'"status": "{status}"'))
        (record.folder / "history.csv").write_text("step,loss\n" + (f"{step},0.5\n" if step else ""))
        return plan()[2].partition(f", protocol {record.content['protocol_title']}")[2].partition("; ")[2]

    assert told("interrupted", 1) == "interrupted, goes on from its checkpoint (after step 1)"
    assert told("timeout") == "timeout, goes on from its checkpoint"
    assert told("oom", 1) == "oom before, is tried again"
    assert told("running", 1) == "interrupted, goes on from its checkpoint (after step 1)"
    with take(record.folder) as _:  # type: ignore[union-attr]
        assert told("running") == "somebody runs it now, which is waited for"


def test_with_ray_machines_and_needs_are_told_without_starting_it(
    plan: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def refuse(**_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(cluster, "_cores", lambda: range(8))
    monkeypatch.setattr(cluster, "_available_bytes", lambda: 32 * cluster.GIB)
    lines = plan("--scheduler", "ray", "--device", "cpu", "--cpus-per-job", "3", "--ram-gib", "8", "--seed", "0,1,2")
    assert lines[:5] == [
        "scheduler: ray",
        "machines:",
        "  this machine: 8 CPU cores, 32 GiB",
        "each job takes 3 CPU cores, 8.0 GiB of memory; 2 run at the same time",
        "3 jobs: 3 to run, 0 complete",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--scheduler", "slurm"), ["--scheduler 'slurm'", "auto, inline, ray"]),
        (("--scheduler", "inline", "--gpus-per-job", "0.5"), ["--gpus-per-job 0.5", "--scheduler ray"]),
        (("--scheduler", "inline", "--ray-address", "there:1"), ["there:1", "--scheduler inline"]),
        (("--gpus-per-job", "1.5"), ["--gpus-per-job 1.5", "whole number"]),
        (("--scheduler", "ray", "--device", "cuda:1"), ["--device cuda:1", "Ray that hands out GPUs"]),
        (("--scheduler", "ray", "--device", "tpu"), ["--device 'tpu'", "cpu or cuda"]),
        (("--scheduler", "ray", "--device", "cpu", "--cpus-per-job", "1000"), ["1000 CPU cores", "this machine"]),
        (("--scheduler", "ray", "--device", "cpu", "--ram-gib", "99999"), ["99999.0 GiB", "--ram-gib"]),
        (("--gpus-per-job", "3"), ["--gpus-per-job 3", "train.batch_size=2"]),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_what_cannot_be_is_refused_dry_or_not(
    tiny_run: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: list[str],
    dry: bool,
) -> None:
    from contextlib import nullcontext

    monkeypatch.setattr(cluster, "connected", lambda _address, gpus=0: nullcontext([cluster.this_machine(gpus)]))
    answer = tiny_run(*(["--dry-run"] if dry else []), *arguments)
    assert answer.status == 2, answer.out
    for word in words:
        assert word in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_no_machine_has_is_refused(tiny_run: Bench) -> None:
    answer = tiny_run("--dry-run", "--scheduler", "ray", "--device", "cuda")
    assert answer.status == 2
    assert "1 GPU" in answer.err
    assert "this machine" in answer.err
