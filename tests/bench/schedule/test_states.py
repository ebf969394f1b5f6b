"""How far each job is, from the results folder alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.job import Job
from bench.lease import Lease, take
from bench.live import RecordWatcher
from bench.progress import SilentWatcher
from bench.schedule.states import JobState, all_states, states_of
from bench.store import Record, Store
from bench.sweep import OpenSweep, summary, sweeps

_KILLED = """
import os, signal, sys
from pathlib import Path
from bench.lease import take

take(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[Job], Record]]:
    """Opens a job's record and holds it."""
    held: list[Lease] = []

    def begin(job: Job) -> Record:
        store = Store(tmp_path)
        lease = store.take(job.key)
        assert lease
        held.append(lease)
        store.open_run(job, lease)
        record = store.get(job.key)
        assert record
        return record

    yield begin
    for lease in held:
        lease.release()


def _end(root: Path, job: Job, status: str, **facts: object) -> Record:
    record = Store(root).open_run(job)
    record.write_cases({})
    return record.finish(status, **facts)


def _states(root: Path) -> dict[str, JobState]:
    return {state.key: state for state in all_states(Store(root), sweeps(root))}


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert _states(tmp_path) == {}
    assert _states(tmp_path / "nowhere") == {}


def test_a_job_under_way_says_what_it_is_at(
    tmp_path: Path, make_job: Callable[..., Job], running: Callable[[Job], Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr("bench.live.platform.node", lambda: "there")
    job = make_job(seed=4)
    record = running(job)
    state = _states(tmp_path)[job.key]
    assert (state.state, state.doing, state.where, state.left_s, state.dice) == ("running", "starting", "", None, None)
    with RecordWatcher(record.folder, SilentWatcher()).bar("training", 300, 120):
        state = _states(tmp_path)[job.key]
    assert (state.state, state.doing, state.where) == ("running", "training 120/300", "there GPU 3")
    assert (state.model, state.dataset, state.protocol, state.seed, state.fold) == (
        *("segmamba", "phantom", job.protocol.title),
        *("4", ""),
    )


def test_the_dice_of_the_last_validation_is_that_of_a_job_under_way(
    tmp_path: Path, make_job: Callable[..., Job], running: Callable[[Job], Record]
) -> None:
    job = make_job()
    record = running(job)
    (record.folder / "history.csv").write_text("step,loss,dice\n20,0.5,0.25\n40,0.4,0.75\n")
    assert _states(tmp_path)[job.key].dice == 0.75


def test_a_killed_job_was_interrupted_and_goes_on_after_its_last_step(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    job = make_job()
    Store(tmp_path).open_run(job)
    folder = tmp_path / job.key
    (folder / "history.csv").write_text("step,loss\n20,0.5\n")
    with RecordWatcher(folder, SilentWatcher()).bar("training", 300, 25):
        pass
    subprocess.run([sys.executable, "-c", _KILLED, str(folder)], check=False)
    state = _states(tmp_path)[job.key]
    assert (state.state, state.doing, state.where, state.left_s) == ("interrupted", "after step 20", "", None)


@pytest.mark.parametrize("status", ["failed", "oom", "nan", "timeout"])
def test_a_failure_says_why(tmp_path: Path, make_job: Callable[..., Job], status: str) -> None:
    job = make_job()
    _end(tmp_path, job, status, message="it was\ntoo large")
    state = _states(tmp_path)[job.key]
    assert (state.state, state.message) == (status, "it was\ntoo large")
    _end(tmp_path, job, "interrupted", message="stopped on request")
    assert _states(tmp_path)[job.key].message == "", "nothing to be sorry for"


def test_what_is_complete_has_the_dice_of_its_test(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    job = make_job()
    (tmp_path / job.key).mkdir()
    (tmp_path / job.key / "history.csv").write_text("step,dice\n20,0.25\n")
    _end(tmp_path, job, "complete", mean_dice=0.5)
    state = _states(tmp_path)[job.key]
    assert (state.state, state.dice, state.doing) == ("complete", 0.5, "")


def test_a_damaged_record_is_listed_with_what_is_wrong(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    job = make_job()
    _end(tmp_path, job, "complete")
    (tmp_path / job.key / "record.json").write_text("{")
    state = _states(tmp_path)[job.key]
    assert (state.state, state.model) == ("damaged", "?")
    assert "is no record" in state.message


def test_what_a_sweep_at_work_has_not_begun_is_queued(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    fresh, stopped, failed = (make_job(seed=seed) for seed in range(3))
    Store(tmp_path).open_run(stopped)
    _end(tmp_path, failed, "failed", message="a bug")
    with OpenSweep(tmp_path, [fresh, stopped, failed]):
        found = _states(tmp_path)
        assert found[fresh.key].state == "queued"
        assert found[fresh.key].seed == "0"
        assert found[stopped.key].state == "queued", "it waits for its turn"
        assert found[failed.key].state == "failed", "perhaps in this sweep"
    found = _states(tmp_path)
    assert found[fresh.key].state == "interrupted", "nobody is about to begin it"
    assert found[stopped.key].state == "interrupted"


def test_of_two_sweeps_of_a_job_one_at_work_will_do(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    job = make_job()
    with OpenSweep(tmp_path, [job]):
        pass
    for _ in range(2):  # their names, and so their order, are drawn
        with OpenSweep(tmp_path, [job]) as sweep:
            assert _states(tmp_path)[job.key].state == "queued"
            sweep.finished()


def test_what_runs_stands_first_and_what_is_complete_last(
    tmp_path: Path, make_job: Callable[..., Job], running: Callable[[Job], Record]
) -> None:
    jobs = [make_job(seed=seed) for seed in range(5)]
    _end(tmp_path, jobs[0], "complete")
    _end(tmp_path, jobs[1], "nan")
    Store(tmp_path).open_run(jobs[2])
    running(jobs[3])
    with OpenSweep(tmp_path, [jobs[4]]):
        states = all_states(Store(tmp_path), sweeps(tmp_path))
    assert [state.state for state in states] == ["running", "queued", "interrupted", "nan", "complete"]


def test_what_is_no_training_is_not_listed(tmp_path: Path) -> None:
    Store(tmp_path).open_external("theirs", {"dataset": "phantom", "convention": "brats", "references": {}})
    assert _states(tmp_path) == {}


def test_a_sweep_sees_its_own_jobs_and_which_of_them_wait(
    tmp_path: Path, make_job: Callable[..., Job], running: Callable[[Job], Record]
) -> None:
    fresh, again, over, begun, other = (make_job(seed=seed) for seed in range(5))
    _end(tmp_path, again, "failed", message="the first time")
    _end(tmp_path, over, "oom", message="too large")
    running(begun)
    _end(tmp_path, other, "complete")
    told = [summary(job) for job in (fresh, again, over, begun)]
    found = states_of(Store(tmp_path), told, [fresh.key, again.key, begun.key])
    assert [(state.key, state.state, state.message) for state in found] == [
        (fresh.key, "queued", ""),
        (again.key, "queued", ""),
        (over.key, "oom", "too large"),
        (begun.key, "running", ""),
    ]


def test_folds_are_told_apart(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    jobs = [make_job(changes=("split.folds=3",), fold=fold) for fold in (0, 2)]
    Store(tmp_path).open_run(jobs[0])
    found = states_of(Store(tmp_path), [summary(job) for job in jobs], [])
    assert [state.fold for state in found] == ["0", "2"]


def test_a_job_taken_by_hand_is_under_way_though_nobody_says_what_it_is_at(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    job = make_job()
    Store(tmp_path).open_run(job)
    with take(tmp_path / job.key) as _:  # type: ignore[union-attr]
        assert _states(tmp_path)[job.key].state == "running"
