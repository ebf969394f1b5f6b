"""A job in a process of its own, and whatever may happen to it or to the one that waits for it."""

from __future__ import annotations

import _thread
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import data
from bench.engine.order import ANSWER, ORDER, Order
from bench.job import Job
from bench.lease import newest, take
from bench.live import read_progress
from bench.plan import GridCell, make_plan, protocols_of
from bench.schedule import process as module
from bench.schedule.process import Ending, carry_out
from bench.store import WEIGHTS, Record, Store
from data.phantom import write_dataset

CHANGES = (
    *("train.steps_per_epoch=1", "validation.every_epochs=none", "evaluate.untrained=false"),
    *("evaluate.checkpoint=last", "data.patch_size=16", "infer.mirror_axes=none"),
    *("model_options.segresnet.init_filters=8",),
)

# The one that waits, in a process that can be killed.
_PARENT = """
import sys
from pathlib import Path
from bench.schedule.process import carry_out

carry_out(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases of 32³ voxels."""
    root = tmp_path_factory.mktemp("phantoms")
    write_dataset(root, cases=4, size=32, seed=1)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of prepared cases, shared by these tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def order(phantoms: Path, cache: Path, tmp_path: Path) -> Callable[..., Order]:
    """A job of so many steps, to be carried out in results of the test's own."""

    def make(steps: int = 2, **more: object) -> Order:
        dataset = data.open_dataset("phantom", phantoms)
        protocols = protocols_of(["segresnet"], "demo", (*CHANGES, f"train.steps={steps}"))
        plan = make_plan([GridCell(dataset, protocols)], [0], Store(tmp_path / "results"))
        environment = {"BENCH_CACHE_DIR": str(cache)}
        made = Order("run", plan.jobs[0], dataset.card, phantoms, tmp_path / "results", "cpu", environment=environment)
        return replace(made, **more)  # type: ignore[arg-type]

    return make


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that were started; nothing of them is left in the end."""
    found: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: object, **more: object) -> None:
            super().__init__(*arguments, **more)  # type: ignore[call-overload]
            found.append(self)

    monkeypatch.setattr(module.subprocess, "Popen", Popen)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield found
    for process in found:
        assert not _group(process.pid)


def _carry_out(order: Order, limit_s: float | None = None) -> Ending:
    return carry_out(pickle.dumps(order), _output(order), limit_s)


def _output(order: Order) -> Path:
    return order.results / order.job.key / "output.txt"


def _record(order: Order) -> Record | None:
    return Store(order.results).get(order.job.key)


def _group(number: int) -> list[int]:
    """The processes of a group, zombies aside."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == number and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def _wait(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def _steps(order: Order) -> int:
    record = _record(order)
    return int(((record.last_epoch() if record else None) or {}).get("step", 0))


def _meanwhile(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def test_what_a_killed_process_began_another_ends(
    order: Callable[..., Order], started: list[subprocess.Popen[bytes]]
) -> None:
    asked = order(steps=20, checkpoint_interval_s=0.0, command=("bench", "run", "--model", "segresnet"))

    def kill() -> None:
        _wait(lambda: _steps(asked) >= 3)
        os.kill(started[0].pid, signal.SIGKILL)

    _meanwhile(kill)
    ending = _carry_out(asked)
    assert ending.kind == "died"
    assert "was killed by SIGKILL (the system kills so where its memory runs out)" in ending.message
    dead = _record(asked)
    assert dead
    assert dead.status == "interrupted"
    assert newest(dead.folder).released, "for it: other machines would wait a minute"  # type: ignore[union-attr]
    assert _carry_out(asked) == Ending("done")
    record = _record(asked)
    assert record
    assert record.status == "complete"
    assert record.content["provenance"]["command"] == ["bench", "run", "--model", "segresnet"]
    output = _output(asked).read_text()
    assert "going on from step" in output
    assert read_progress(record.folder) is None
    assert newest(record.folder).released  # type: ignore[union-attr]


def test_a_keyboard_interrupt_saves_the_state(
    order: Callable[..., Order], started: list[subprocess.Popen[bytes]]
) -> None:
    asked = order(steps=4000)

    def interrupt() -> None:
        _wait(lambda: _steps(asked) >= 3)
        _thread.interrupt_main()

    _meanwhile(interrupt)
    assert _carry_out(asked).kind == "done"
    record = _record(asked)
    assert record
    assert record.content["status"] == "interrupted", "written by itself"
    assert (record.folder / WEIGHTS).exists()
    assert len(started) == 1


def test_who_waits_in_vain_is_not_waited_for(order: Callable[..., Order], tmp_path: Path) -> None:
    """Killed with SIGKILL, the waiting process tells nobody anything; the job notices, saves its state and ends."""
    asked = order(steps=4000)
    (tmp_path / "order").write_bytes(pickle.dumps(asked))
    (tmp_path / "tmp").mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path / "order"), str(_output(asked))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "tmp")},
    )
    _wait(lambda: _steps(asked) >= 3)
    number = newest(_record(asked).folder).facts["pid"]  # type: ignore[union-attr]
    assert _group(number) == [number]
    assert number != parent.pid
    parent.kill()
    parent.wait()
    _wait(lambda: not _group(number), seconds=10)
    record = _record(asked)
    assert record
    assert record.content["status"] == "interrupted", "written by itself"
    assert (record.folder / WEIGHTS).exists()
    assert newest(record.folder).released  # type: ignore[union-attr]
    assert list((tmp_path / "tmp").glob("bench-job-*")) == []


def test_a_second_keyboard_interrupt_kills(order: Callable[..., Order], started: list[subprocess.Popen[bytes]]) -> None:
    def interrupt() -> None:
        _wait(lambda: started)
        os.kill(started[0].pid, signal.SIGSTOP)  # it does not answer
        for _ in range(2):
            _thread.interrupt_main()
            time.sleep(1)

    _meanwhile(interrupt)
    ending = _carry_out(order())
    assert ending.kind == "died"
    assert "SIGKILL" in ending.message


def test_what_was_asked_while_it_was_kept_away_is_heard(order: Callable[..., Order], tmp_path: Path) -> None:
    """Ray blocks SIGINT in its processes, which their children inherit."""
    asked = order(kind="prepare", environment={"BENCH_CACHE_DIR": str(tmp_path / "cache")})
    (tmp_path / ORDER).write_bytes(pickle.dumps(asked))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.engine.process", str(tmp_path)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        process.send_signal(signal.SIGINT)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert process.wait(30) == 0
    assert process.stdin
    process.stdin.close()
    assert json.loads((tmp_path / ANSWER).read_text()) == {"kind": "refused", "message": "stopped on request"}


def test_one_that_does_not_end_in_its_time_is_killed(
    order: Callable[..., Order], started: list[subprocess.Popen[bytes]]
) -> None:
    begun = time.monotonic()
    assert _carry_out(order(), limit_s=0.5) == Ending("overdue", "killed, since it had not ended after 0.5 s")
    assert time.monotonic() - begun < 5
    assert len(started) == 1


def test_a_job_that_somebody_runs_is_held(order: Callable[..., Order], started: list[subprocess.Popen[bytes]]) -> None:
    asked = order()
    with take(asked.results / asked.job.key) as _:  # type: ignore[union-attr]
        ending = _carry_out(asked)
    assert ending == Ending("held", ending.message)
    assert f"process {os.getpid()} on " in ending.message
    assert _record(asked) is None
    assert started


@pytest.mark.parametrize("harm", ["files", "root", "cases"])
def test_data_that_are_not_as_planned_are_refused(
    order: Callable[..., Order], started: list[subprocess.Popen[bytes]], tmp_path: Path, harm: str
) -> None:
    asked = order()
    if harm == "files":
        job: Job = replace(asked.job, data_fingerprint="0" * 64)
        asked = replace(asked, job=job)
        words = "Every machine must see the same files"
    elif harm == "root":
        asked = replace(asked, root=tmp_path / "nowhere")
        words = "nowhere"
    else:
        (tmp_path / "empty").mkdir()
        asked = replace(asked, root=tmp_path / "empty")
        words = "empty"
    ending = _carry_out(asked)
    assert ending.kind == "refused", ending
    assert words in ending.message
    assert _record(asked) is None
    assert started


def test_cases_alone_are_prepared_without_a_record(
    order: Callable[..., Order], started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    asked = order(
        kind="prepare", watched=place, prepare_workers=2, environment={"BENCH_CACHE_DIR": str(tmp_path / "cache")}
    )
    assert carry_out(pickle.dumps(asked), place / "output.txt") == Ending("done")
    progress = read_progress(place)
    assert progress
    assert (progress.title, progress.done, progress.total) == ("preparing", 4, 4)
    assert len(list((tmp_path / "cache" / "prepared").glob("phantom-*/*/case.json"))) == 4
    assert not asked.results.exists()
    assert started


def test_an_order_that_cannot_be_read_is_a_death_with_the_last_line_printed(
    started: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    ending = carry_out(b"no pickle", tmp_path / "output.txt")
    assert ending.kind == "died"
    assert "its process ended with status 1; the last that it printed: _pickle.UnpicklingError" in ending.message
    assert started


def test_folders_called_as_ours_where_it_is_begun_disturb_nothing(
    order: Callable[..., Order],
    started: list[subprocess.Popen[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("data", "models", "bench"):
        (tmp_path / "work" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    asked = replace(order(), root=tmp_path / "nowhere")
    assert _carry_out(asked).kind == "refused"
    assert started
