"""Jobs one after another in this process, and what other processes make of them meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.job import Job
from bench.lease import Held
from bench.schedule.inline import run_inline
from bench.schedule.settled import Settled
from bench.store import Record, Store


@pytest.fixture
def jobs(make_job: Callable[..., Job]) -> list[Job]:
    return [make_job(seed=seed) for seed in range(3)]


class Runner:
    """Ends each job with a status of its own; those in ``held`` are another process's."""

    def __init__(self, root: Path, statuses: dict[int, str] | None = None) -> None:
        self.store = Store(root)
        self.statuses = statuses or {}
        self.held: set[int] = set()
        self.asked: list[int] = []

    def __call__(self, job: Job) -> Record:
        self.asked.append(job.seed)
        if job.seed in self.held:
            raise Held("process 7 on there runs it")
        return self.end(job)

    def end(self, job: Job) -> Record:
        record = self.store.open_run(job)
        record.write_cases({})
        return record.finish(self.statuses.get(job.seed, "complete"))


def _statuses(records: Sequence[Record]) -> list[tuple[int, str]]:
    return [(record.content["job"]["seed"], record.status) for record in records]


def test_jobs_run_in_order_and_one_that_fails_does_not_stop_the_next(tmp_path: Path, jobs: list[Job]) -> None:
    records = run_inline(jobs, Runner(tmp_path, {0: "oom", 1: "timeout"}))
    assert _statuses(records) == [(0, "oom"), (1, "timeout"), (2, "complete")]


def test_one_that_is_interrupted_stops_the_next(tmp_path: Path, jobs: list[Job]) -> None:
    runner = Runner(tmp_path, {1: "interrupted"})
    assert _statuses(run_inline(jobs, runner)) == [(0, "complete"), (1, "interrupted")]
    assert runner.asked == [0, 1]


def test_whoever_asks_to_stop_as_a_job_ends_begins_no_other(tmp_path: Path, jobs: list[Job]) -> None:
    runner = Runner(tmp_path, {0: "failed"})
    assert _statuses(run_inline(jobs, runner, stopped=lambda: bool(runner.asked))) == [(0, "failed")]
    assert runner.asked == [0]
    assert run_inline(jobs, runner, stopped=lambda: True) == []
    assert runner.asked == [0]


def test_a_disk_that_takes_no_record_stops_all(tmp_path: Path, jobs: list[Job]) -> None:
    def refuse(_job: Job) -> Record:
        raise BenchError(f"cannot write {tmp_path}")

    with pytest.raises(BenchError, match="cannot write"):
        run_inline(jobs, refuse)


def test_a_held_job_is_left_for_last_and_run_once_it_is_free(tmp_path: Path, jobs: list[Job]) -> None:
    runner, said = Runner(tmp_path), []
    runner.held = {0}

    def say(text: str) -> None:
        said.append(text)
        runner.held = {0} if runner.asked.count(0) < 3 else set()

    def run(job: Job) -> Record:
        if runner.asked.count(0) == 3:
            runner.held.clear()
        return runner(job)

    assert _statuses(run_inline(jobs, run, say=say, poll_s=0.01)) == [(1, "complete"), (2, "complete"), (0, "complete")]
    assert runner.asked == [0, 1, 2, 0, 0, 0]
    assert said == [f"{jobs[0].key}  segmamba, seed 0: process 7 on there runs it; left for later"], "once"


@pytest.mark.parametrize("status", ["complete", "failed", "oom", "nan", "timeout"])
def test_what_another_process_made_of_a_held_job_is_accepted(tmp_path: Path, jobs: list[Job], status: str) -> None:
    runner = Runner(tmp_path, {0: status})
    runner.held = {0}
    settled = Settled(runner.store, jobs)

    def run(job: Job) -> Record:
        if job.seed == 2:
            runner.end(jobs[0])
        return runner(job)

    records = run_inline(jobs, run, settled=settled, poll_s=0.01)
    assert _statuses(records) == [(1, "complete"), (2, "complete"), (0, status)]
    assert runner.asked == [0, 1, 2]


def test_what_another_process_left_unfinished_goes_on_here(tmp_path: Path, jobs: list[Job]) -> None:
    runner = Runner(tmp_path, {0: "interrupted"})
    runner.held = {0}

    def run(job: Job) -> Record:
        if job.seed == 2:
            runner.end(jobs[0])
            runner.held, runner.statuses = set(), {}
        return runner(job)

    records = run_inline(jobs, run, settled=Settled(runner.store, jobs), poll_s=0.01)
    assert _statuses(records)[-1] == (0, "complete")
    assert runner.asked == [0, 1, 2, 0]


def test_what_another_process_ended_before_its_turn_is_not_run(tmp_path: Path, jobs: list[Job]) -> None:
    runner = Runner(tmp_path, {2: "nan"})
    settled = Settled(runner.store, jobs)
    runner.end(jobs[2])
    assert _statuses(run_inline(jobs, runner, settled=settled))[-1] == (2, "nan")
    assert runner.asked == [0, 1]


def test_waiting_for_another_process_can_be_stopped(tmp_path: Path, jobs: list[Job]) -> None:
    runner = Runner(tmp_path)
    runner.held = {0, 1, 2}
    looks, begun = iter([False] * 5), time.monotonic()
    assert run_inline(jobs, runner, stopped=lambda: next(looks, True), poll_s=60) == []
    assert runner.asked == [0, 1, 2]
    assert time.monotonic() - begun < 10
