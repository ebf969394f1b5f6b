"""``bench status``: how far everything is, from the results folder alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import status as module
from bench.job import Job
from bench.lease import take
from bench.live import RecordWatcher
from bench.progress import SilentWatcher
from bench.store import Store
from bench.sweep import OpenSweep

Bench = Callable[..., object]


@pytest.fixture
def status(bench: Bench, tmp_path: Path) -> Callable[..., list[str]]:
    """The lines that are printed."""

    def call(*arguments: object) -> list[str]:
        answer = bench("status", "--results", tmp_path / "results", *arguments)
        assert answer.status == 0, answer.err
        assert answer.err == ""
        return [line.rstrip() for line in answer.out.splitlines()]

    return call


def test_an_empty_folder_has_no_jobs(status: Callable[..., list[str]], tmp_path: Path) -> None:
    assert status() == ["no jobs"]
    assert not (tmp_path / "results").exists()
    assert status("--watch") == ["no jobs"], "nothing to wait for"


def test_every_job_has_a_line(
    status: Callable[..., list[str]], tmp_path: Path, make_job: Callable[..., Job], complete_record: Callable
) -> None:
    root = tmp_path / "results"
    done = complete_record(root)
    failed, running, queued = (make_job(seed=seed) for seed in (1, 2, 3))
    Store(root).open_run(failed).finish("oom", message="CUDA out of memory\nTraceback")
    Store(root).open_run(running)
    with take(root / running.key) as _, OpenSweep(root, [running, queued]):  # type: ignore[union-attr]
        with RecordWatcher(root / running.key, SilentWatcher()).bar("training", 300, 60):
            pass
        lines = status()
    assert lines[0].split() == ["key", "model", "seed", "state", "doing", "Dice", "left", "where", "message"]
    assert lines[1].split()[:6] == [running.key, "segmamba", "2", "running", "training", "60/300"]
    assert lines[2].split() == [queued.key, "segmamba", "3", "queued"]
    assert lines[3].split() == [failed.key, "segmamba", "1", "oom", "CUDA", "out", "of", "memory"]
    assert lines[4].split()[:4] == [done.key, "segmamba", "0", "complete"]
    assert lines[5:] == ["1 running, 1 queued, 1 oom, 1 complete"]


def test_a_stopped_sweep_says_which_command_goes_on(
    status: Callable[..., list[str]], tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "run", "--model", "all"])
    with OpenSweep(tmp_path / "results", [make_job(seed=7)]):
        pass
    lines = status()
    assert lines[1].split() == [make_job(seed=7).key, "segmamba", "7", "interrupted"]
    assert lines[2] == "1 interrupted"
    assert lines[3].startswith("stopped early; the same command goes on: cd ")
    assert lines[3].endswith("&& bench run --model all")


def test_a_killed_run_was_interrupted_and_its_command_goes_on(
    status: Callable[..., list[str]], phantoms: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    run = subprocess.Popen(
        [
            *(sys.executable, "-c", "from bench.cli.app import main; main()", "run", "--model", "segresnet"),
            *("--dataset", "phantom", "--data-dir", str(phantoms), "--results", str(results), "--seed", "0,1"),
            *("--set", "train.steps=4000", "--set", "train.steps_per_epoch=1", "--set", "evaluate.untrained=false"),
            *("--set", "data.patch_size=16", "--set", "validation.every_epochs=none"),
        ],
        env={**os.environ, "BENCH_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while not any(len(path.read_text().splitlines()) > 2 for path in results.glob("*/history.csv")):
            assert time.monotonic() < until
            time.sleep(0.1)
        lines = status()
        assert lines[1].split()[2:5] == ["0", "running", "training"]
        assert lines[2].split()[2:4] == ["1", "queued"]
        assert lines[3] == "1 running, 1 queued"
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    lines = status()
    assert {tuple(line.split()[2:4]) for line in lines[1:3]} == {("0", "interrupted"), ("1", "interrupted")}
    assert any("after step " in line for line in lines[1:3])
    assert lines[3] == "2 interrupted"
    assert lines[4].startswith("stopped early; the same command goes on: ")
    assert "run --model segresnet" in lines[4]


def test_watching_ends_when_nothing_runs(
    status: Callable[..., list[str]], tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REFRESH_S", 0.05)
    store, job = Store(tmp_path / "results"), make_job()
    lease = store.take(job.key)
    record = store.open_run(job, lease)

    def end() -> None:
        record.finish("failed", message="a bug")
        assert lease
        lease.release()

    threading.Timer(0.5, end).start()
    begun = time.monotonic()
    lines = status("--watch")
    assert time.monotonic() - begun > 0.4
    assert "1 failed" in "\n".join(lines)


def test_a_long_message_and_names_in_brackets_keep_to_one_line(
    status: Callable[..., list[str]], tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    Store(tmp_path / "results").open_run(make_job()).finish("failed", message="[red]no " + "case " * 20)
    lines = status()
    assert len(lines) == 3
    assert "[red]no case" in lines[1]
