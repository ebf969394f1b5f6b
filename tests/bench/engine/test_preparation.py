"""Cases are prepared once, whoever else needs them at the same time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import data
from bench.engine import preparation as module
from bench.engine.interrupt import Interrupted, StopRequest
from bench.engine.preparation import Prepared, prepare_job
from bench.errors import BenchError
from bench.job import Job
from bench.lease import newest, take
from bench.plan import GridCell, make_plan, protocols_of
from bench.progress import SilentWatcher
from bench.store import Store
from data import prepare as arrays
from data.phantom import write_dataset

# Prepares a job's cases, slowly, and prints which of them it made itself.
_PREPARES = """
import pickle, sys, time
from pathlib import Path

import data
from bench.engine.interrupt import StopRequest
from bench.engine.preparation import prepare_job
from bench.progress import SilentWatcher
from data import prepare

usual, made = prepare.write_case, []

def write(case, folder, source):
    usual(case, folder, source)
    made.append(case.id)
    print(case.id, flush=True)
    time.sleep(float(sys.argv[3]))

prepare.write_case = write
job = pickle.loads(Path(sys.argv[1]).read_bytes())
prepare_job(job, data.open_dataset("phantom", Path(sys.argv[2])), 1, SilentWatcher(), StopRequest())
"""


class Said(SilentWatcher):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of 32³ voxels."""
    root = tmp_path_factory.mktemp("phantoms")
    write_dataset(root, cases=6, size=32, seed=1)
    return root


@pytest.fixture
def job(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """One that validates; the cache is the test's own."""
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_POLL_S", 0.05)
    protocols = protocols_of(["segresnet"], "demo", [])
    plan = make_plan([GridCell(data.open_dataset("phantom", phantoms), protocols)], [0], Store(tmp_path / "results"))
    return plan.jobs[0]


@pytest.fixture
def prepare(phantoms: Path, job: Job) -> Callable[..., Prepared]:
    """In this process."""

    def run(watcher: SilentWatcher | None = None, stop: StopRequest | None = None) -> Prepared:
        dataset = data.open_dataset("phantom", phantoms)
        return prepare_job(job, dataset, 1, watcher or SilentWatcher(), stop or StopRequest())

    return run


@pytest.fixture
def start(phantoms: Path, job: Job, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """In another process, with a pause after each case."""
    import pickle

    (tmp_path / "job").write_bytes(pickle.dumps(job))

    def run(pause_s: float = 0.1) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _PREPARES, str(tmp_path / "job"), str(phantoms), str(pause_s)],
            stdout=subprocess.PIPE,
            text=True,
        )

    return run


def _cache(root: Path) -> Path:
    (folder,) = (root / "cache" / "prepared").iterdir()
    return folder


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/*") if path.parent.name != "lease"}


def test_a_job_gets_every_case_that_it_needs(job: Job, prepare: Callable[..., Prepared], tmp_path: Path) -> None:
    made = prepare()
    split = job.split
    assert split.validation
    assert set(made.cases) == {*split.train, *split.validation, *split.test}
    assert {case.id for case in made.validation} == set(split.validation)
    assert {case.id for case in made.test} == set(split.test)
    assert newest(_cache(tmp_path)).released  # type: ignore[union-attr]


def test_two_that_prepare_at_the_same_time_make_each_case_once(
    job: Job, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    both = [start(), start(), start()]
    made = [line for process in both for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in both] == [0, 0, 0]
    assert sorted(made) == sorted({*job.split.train, *job.split.validation, *job.split.test})
    assert {path.name for path in _cache(tmp_path).iterdir()} == {*made, "lease"}, "nothing else is left"


def test_one_that_is_killed_is_succeeded_and_what_it_made_is_used(
    job: Job, start: Callable[..., subprocess.Popen[str]], prepare: Callable[..., Prepared], tmp_path: Path
) -> None:
    first = start(pause_s=60)
    assert first.stdout
    made = first.stdout.readline().strip()
    before = {path: when for path, when in _files(_cache(tmp_path)).items() if path.parent.name == made}
    assert before
    watcher, done = Said(), []
    waiting = threading.Thread(target=lambda: done.append(prepare(watcher)))
    waiting.start()
    until = time.monotonic() + 20
    while not watcher.said:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert watcher.said == [f"process {first.pid} on {os.uname().nodename} prepares these cases; waiting for it"]
    time.sleep(0.3)
    assert not done
    os.kill(first.pid, signal.SIGKILL)
    waiting.join(20)
    first.communicate()
    assert len(done[0].cases) == len({*job.split.train, *job.split.validation, *job.split.test})
    after = _files(_cache(tmp_path))
    assert {path: after[path] for path in before} == before
    assert len(watcher.said) == 1


def test_who_waits_can_be_stopped(prepare: Callable[..., Prepared], tmp_path: Path) -> None:
    prepare()
    (case, *_) = (path for path in _cache(tmp_path).iterdir() if path.name != "lease")
    for path in case.iterdir():
        path.unlink()
    watcher, stop = Said(), StopRequest()
    with take(_cache(tmp_path)) as _:  # type: ignore[union-attr]

        def ask() -> None:
            while not watcher.said:
                time.sleep(0.01)
            stop.requested = True

        threading.Thread(target=ask).start()
        with pytest.raises(Interrupted):
            prepare(watcher, stop)


def test_a_stop_between_two_cases_keeps_what_is_made_and_gives_the_cache_back(
    prepare: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, usual = StopRequest(), arrays.write_case

    def write(*arguments: object) -> None:
        usual(*arguments)  # type: ignore[arg-type]
        stop.requested = True

    monkeypatch.setattr(arrays, "write_case", write)
    with pytest.raises(Interrupted):
        prepare(stop=stop)
    cache = _cache(tmp_path)
    before = _files(cache)
    assert len({path.parent for path in before}) == 1
    assert newest(cache).released  # type: ignore[union-attr]
    monkeypatch.setattr(arrays, "write_case", usual)
    prepare()
    after = _files(cache)
    assert {path: after[path] for path in before} == before


def test_a_cache_that_is_whole_needs_no_lease_and_may_be_read_only(
    prepare: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare()
    cache = _cache(tmp_path)
    before = newest(cache)

    def refuse(folder: Path, *_: object) -> None:
        raise BenchError(f"cannot write {folder}")

    with monkeypatch.context() as patch:
        patch.setattr(module, "take", refuse)
        patch.setattr(arrays, "write_case", refuse)
        assert prepare().cases
    assert newest(cache) == before
    with take(cache) as _:  # type: ignore[union-attr]
        assert prepare().cases, "whoever prepares more of them is not waited for"
    facts = json.loads((cache / "lease" / f"{before.generation + 1:06d}.json").read_text())  # type: ignore[union-attr]
    assert facts["released"]
