"""Which jobs another driver has seen to since this one began."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import store as module
from bench.job import Job
from bench.lease import take
from bench.schedule.settled import Settled
from bench.store import Record, Store

FAILURES = ["failed", "oom", "nan", "timeout"]


@pytest.fixture(autouse=True)
def _seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records tell time in seconds, of which each look at the clock takes one."""
    times = (f"2026-01-01T00:00:{second:02d}+00:00" for second in range(60))
    monkeypatch.setattr(module, "now", lambda: next(times))


def _end(root: Path, job: Job, status: str) -> Record:
    record = Store(root).open_run(job)
    record.write_cases({})
    return record.finish(status)


def test_what_has_no_record_has_not_ended(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    assert Settled(Store(tmp_path), [make_job()])(make_job().key) is None


@pytest.mark.parametrize("status", ["complete", *FAILURES])
def test_what_has_ended_since_is_told(tmp_path: Path, make_job: Callable[..., Job], status: str) -> None:
    job = make_job()
    settled = Settled(Store(tmp_path), [job])
    _end(tmp_path, job, status)
    assert settled(job.key) == Store(tmp_path).get(job.key)


@pytest.mark.parametrize("status", FAILURES)
def test_a_failure_of_before_is_not_one_of_since(tmp_path: Path, make_job: Callable[..., Job], status: str) -> None:
    job = make_job()
    _end(tmp_path, job, status)
    settled = Settled(Store(tmp_path), [job])
    assert settled(job.key) is None
    with take(tmp_path / job.key) as _:  # type: ignore[union-attr]
        record = Store(tmp_path).open_run(job)
        assert settled(job.key) is None, "under way"
    assert settled(job.key) is None, "interrupted"
    record.finish(status)
    assert settled(job.key) is not None


def test_what_stopped_early_has_not_ended(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    job = make_job()
    settled = Settled(Store(tmp_path), [job])
    _end(tmp_path, job, "interrupted")
    assert settled(job.key) is None
    (tmp_path / job.key / "record.json").write_text("{")
    assert settled(job.key) is None, "damaged"
