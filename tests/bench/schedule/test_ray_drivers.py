"""Drivers that die, that are asked to stop, and that work side by side, with real Ray on this machine."""

from __future__ import annotations

import os
import signal
import time

import pytest
from sweeping import Sweeps, process_of, trainings

pytestmark = pytest.mark.alone
HERE = ("--scheduler", "ray", "--device", "cpu", "--cpus-per-job", "1")


def test_a_killed_driver_leaves_no_training_and_the_next_one_goes_on(sweeps: Sweeps) -> None:
    first = sweeps.start(*HERE, "--seed", "0,1,2")
    sweeps.wait(lambda: sweeps.killable(1) and any(r.status == "complete" for r in sweeps.records().values()))
    done = {seed: record for seed, record in sweeps.records().items() if record.status == "complete"}
    files = {path: path.stat().st_mtime_ns for record in done.values() for path in record.folder.rglob("*")}
    first.kill()
    first.communicate()
    sweeps.wait(lambda: not trainings(), seconds=20)
    stopped = {seed: r for seed, r in sweeps.records().items() if r.status == "interrupted"}
    assert stopped
    second = sweeps.start(*HERE, "--seed", "0,1,2")
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0, out
    assert [record.status for record in sweeps.records().values()] == ["complete"] * 3
    assert {path: path.stat().st_mtime_ns for path in files} == files, "what was finished is not touched"
    for record in stopped.values():
        assert "going on from step" in (record.folder / "output.txt").read_text()
    assert not trainings()


def test_ctrl_c_saves_what_runs_and_drops_what_waits(sweeps: Sweeps) -> None:
    run = sweeps.start(*HERE, "--seed", "0,1,2")
    sweeps.wait(lambda: sweeps.killable(2))
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 130, out
    assert sorted(record.status for record in sweeps.records().values()) == ["interrupted", "interrupted"], out
    assert all(record.content["status"] == "interrupted" for record in sweeps.records().values()), "by themselves"
    assert not trainings()


def test_ctrl_c_twice_kills(sweeps: Sweeps) -> None:
    run = sweeps.start(*HERE, "--seed", "0", pause_s=30)
    sweeps.wait(lambda: bool(trainings()) and any(r.status == "running" for r in sweeps.records().values()))
    time.sleep(2)
    run.send_signal(signal.SIGINT)
    time.sleep(2)
    assert trainings(), "a step of half a minute is not over yet"
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=30)
    assert run.returncode != 0
    sweeps.wait(lambda: not trainings(), seconds=10)


def test_two_drivers_train_every_job_once(sweeps: Sweeps) -> None:
    both = [sweeps.start(*HERE, "--seed", "0,1,10"), sweeps.start(*HERE, "--seed", "10,1,0")]
    outs = [run.communicate(timeout=180)[0] for run in both]
    assert [run.returncode for run in both] == [1, 1], outs
    records = sweeps.records()
    assert {seed: record.status for seed, record in records.items()} == {0: "complete", 1: "complete", 10: "failed"}
    for record in records.values():
        assert (record.folder / "log.txt").read_text().count("begin shaky") == 1, "nobody began it a second time"


def test_a_job_that_kills_its_process_each_time_fails_in_the_end(sweeps: Sweeps) -> None:
    run = sweeps.start(*HERE, "--seed", "0", "--retries", "1", pause_s=1)
    seen: set[int] = set()
    while run.poll() is None and len(seen) < 2:
        for record in sweeps.running(steps=0):
            if (number := process_of(record)) not in seen and number in trainings():
                seen.add(number)
                os.kill(number, signal.SIGKILL)
        time.sleep(0.2)
    out, _ = run.communicate(timeout=60)
    (record,) = sweeps.records().values()
    assert run.returncode == 1, out
    assert record.status == "failed"
    assert "was killed by SIGKILL" in record.content["message"]
    assert "tried 2 times" in record.content["message"]
