"""From a plan to tasks for Ray, without Ray: choices, needs, and what surrounds the tasks."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import data
from bench import lease as leases
from bench.engine.order import Order
from bench.errors import BenchError
from bench.job import Job
from bench.lease import take
from bench.schedule import launch
from bench.schedule.cluster import GIB, Machine, Needs
from bench.schedule.launch import (
    Wishes,
    choose_device_type,
    choose_needs,
    choose_scheduler,
    passed_on,
    run_sweep,
    view_of,
)
from bench.schedule.ray_tasks import Desk, Task
from bench.schedule.settled import Settled
from bench.store import Record, Store
from bench.sweep import sweeps

CPUS = Machine("cpus", cpus=8, gpus=0, memory_bytes=16 * GIB)
GPUS = Machine("gpus", cpus=64, gpus=4, memory_bytes=256 * GIB)
FEW_CORES = Machine("few cores", cpus=2, gpus=4, memory_bytes=32 * GIB)
HEAD = Machine("head", cpus=0, gpus=0, memory_bytes=1 * GIB)


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("asked", "address", "device", "jobs", "chosen"),
    [
        ("auto", "", "cpu", 1, "inline"),
        ("auto", "", "cpu", 9, "inline"),
        ("auto", "", "cuda", 1, "inline"),
        ("auto", "", "cuda", 2, "ray"),
        ("auto", "there:6379", "cpu", 1, "ray"),
        ("inline", "", "cuda", 9, "inline"),
        ("ray", "", "cpu", 1, "ray"),
        ("ray", "there:6379", "cuda", 9, "ray"),
    ],
)
def test_auto_takes_ray_for_several_jobs_on_gpus_and_for_clusters(
    asked: str, address: str, device: str, jobs: int, chosen: str
) -> None:
    assert choose_scheduler(asked, address, device, jobs) == chosen


def test_a_cluster_of_the_environment_counts_unless_inline_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "there:6379")
    assert choose_scheduler("auto", "", "cpu", 1) == "ray"
    assert choose_scheduler("inline", "", "cpu", 1) == "inline"


@pytest.mark.parametrize(
    ("asked", "address", "words"),
    [
        ("slurm", "", "--scheduler 'slurm': expected one of auto, inline, ray"),
        ("inline", "there:6379", "--ray-address there:6379 names a cluster"),
    ],
)
def test_a_scheduler_that_cannot_be_meant_is_refused(asked: str, address: str, words: str) -> None:
    with pytest.raises(BenchError) as told:
        choose_scheduler(asked, address, "cpu", 1)
    assert words in str(told.value)


def test_without_ray_jobs_run_inline_unless_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda _name: None)
    assert choose_scheduler("auto", "", "cuda", 9) == "inline"
    for asked, address in (("ray", ""), ("auto", "there:6379")):
        with pytest.raises(BenchError, match="Ray is not installed: pip install"):
            choose_scheduler(asked, address, "cuda", 9)


def test_the_device_is_what_machines_have_unless_asked_for() -> None:
    assert choose_device_type("", [CPUS]) == "cpu"
    assert choose_device_type("", [CPUS, GPUS]) == "cuda"
    assert choose_device_type("cpu", [GPUS]) == "cpu"
    assert choose_device_type("cuda", [CPUS]) == "cuda", "that none has one is told with the needs"
    with pytest.raises(BenchError, match="Ray that hands out GPUs"):
        choose_device_type("cuda:1", [GPUS])
    with pytest.raises(BenchError, match=r"--device 'mps'.*cpu or cuda"):
        choose_device_type("mps", [GPUS])


def test_shares_and_whole_numbers_of_gpus_can_be_wished_for() -> None:
    assert [Wishes(gpus=number).devices for number in (0.25, 1, 4)] == [1, 1, 4]
    with pytest.raises(BenchError, match=r"--gpus-per-job 1\.5.*whole number, or a share"):
        Wishes(gpus=1.5)


def _needs(wishes: Wishes, device: str, machines: Sequence[Machine]) -> Needs:
    return choose_needs(wishes, device, machines, [], [])


@pytest.mark.parametrize(
    ("wishes", "device", "machines", "needs"),
    [
        (Wishes(), "cpu", [CPUS], Needs(8, 0, 2 * GIB)),
        (Wishes(), "cpu", [CPUS, GPUS], Needs(8, 0, 2 * GIB)),
        (Wishes(), "cpu", [HEAD, CPUS], Needs(8, 0, 2 * GIB)),
        (Wishes(cpus=16), "cpu", [CPUS, HEAD, GPUS], Needs(16, 0, 2 * GIB)),
        (Wishes(), "cuda", [CPUS, GPUS], Needs(16, 1, 4 * GIB)),
        (Wishes(gpus=0.25), "cuda", [GPUS], Needs(4, 0.25, 4 * GIB)),
        (Wishes(gpus=4), "cuda", [GPUS], Needs(64, 4, 4 * GIB)),
        (Wishes(), "cuda", [FEW_CORES], Needs(1, 1, 4 * GIB)),
        (Wishes(), "cuda", [FEW_CORES, GPUS], Needs(1, 1, 4 * GIB)),
        (Wishes(cpus=3, ram_gib=10.5), "cuda", [FEW_CORES, GPUS], Needs(3, 1, int(10.5 * GIB))),
        (Wishes(gpus=2), "cpu", [CPUS], Needs(8, 0, 2 * GIB)),
        (Wishes(), "cuda", [Machine("huge", 512, 4, 999 * GIB)], Needs(16, 1, 4 * GIB)),
        (Wishes(), "cpu", [Machine("tight", 2, 0, GIB)], Needs(2, 0, GIB)),
        (Wishes(cpus=8), "cpu", [Machine("tight", 2, 0, GIB), CPUS], Needs(8, 0, 2 * GIB)),
    ],
)
def test_a_job_takes_its_share_of_the_smallest_machine_that_can_run_it(
    wishes: Wishes, device: str, machines: Sequence[Machine], needs: Needs
) -> None:
    assert _needs(wishes, device, machines) == needs


@pytest.mark.parametrize(
    ("wishes", "device", "machines", "words"),
    [
        (Wishes(cpus=1000), "cpu", [CPUS], "1000 CPU cores"),
        (Wishes(), "cuda", [CPUS], "1 GPU"),
        (Wishes(gpus=5), "cuda", [GPUS, GPUS], "5 GPUs"),
        (Wishes(ram_gib=999), "cpu", [CPUS], "999.0 GiB of memory"),
        (Wishes(), "cpu", [HEAD], "1 CPU core"),
        (Wishes(), "cpu", [], "(none)"),
    ],
)
def test_what_no_machine_has_is_refused(wishes: Wishes, device: str, machines: Sequence[Machine], words: str) -> None:
    with pytest.raises(BenchError) as told:
        _needs(wishes, device, machines)
    assert words in str(told.value)


def test_memory_is_what_such_jobs_took_before_and_more(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    def run(job: Job, *peaks: int) -> None:
        memory = {f"part {n}": {"peak_process_bytes": peak} for n, peak in enumerate(peaks)}
        Store(tmp_path).open_run(job).finish("failed", memory={**memory, "note": "none"})

    run(make_job(seed=1), 5 * GIB, 6 * GIB)
    run(make_job(seed=2), 4 * GIB)
    run(make_job(changes=("data.patch_size=64",)), 9 * GIB)
    run(make_job(model="unetr"), 10 * GIB)
    records = Store(tmp_path).records()

    def memory(*jobs: Job) -> float:
        return choose_needs(Wishes(), "cpu", [CPUS], jobs, records).memory_bytes / GIB

    assert memory(make_job(seed=3)) == 7.5
    assert memory(make_job(seed=3), make_job(model="unetr", seed=3)) == 12.5
    assert memory(make_job(model="segresnet")) == 2


def test_variables_of_the_bench_alone_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"BENCH_CACHE_DIR": "/c", "HOME": "/h", "A_BENCH_": "x"})
    assert passed_on() == {"BENCH_CACHE_DIR": "/c"}


class Scene:
    """A sweep whose tasks are carried out by the test."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.text, self.stop = Store(root), StringIO(), False
        self.tasks: list[Task] = []
        self.act: Callable[[Desk], None] = lambda _desk: None
        monkeypatch.setattr(launch, "run_on_ray", self._run)

    def _run(self, tasks: Sequence[Task], desk: Desk, *, retries: int, stopped: Callable[[], bool]) -> None:
        assert retries == 3
        assert not stopped()
        self.tasks = list(tasks)
        self.act(desk)

    def template(self, job: Job, **more: Any) -> Order:
        here = Path("/data"), self.store.root.resolve()
        return Order("run", job, data.card("phantom"), *here, "cpu", prepare_workers=99, **more)

    def sweep(self, jobs: Sequence[Job], needs: Needs = Needs(4), **order: Any) -> list[Record]:  # noqa: B008
        view = view_of(self.store, jobs)
        view.console = Console(file=self.text, width=200)
        view._live = None
        return run_sweep(
            jobs,
            self.store,
            lambda job: self.template(job, **order),
            Settled(self.store, jobs),
            needs,
            retries=3,
            view=view,
            stopped=lambda: self.stop,
        )

    def end(self, job: Job, status: str = "complete") -> Record:
        record = self.store.open_run(job)
        record.write_cases({})
        return record.finish(status)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path / "results", monkeypatch)


def test_cases_are_prepared_once_for_jobs_that_are_alike_and_before_them(
    scene: Scene, make_job: Callable[..., Job]
) -> None:
    jobs = [
        make_job(seed=1),
        make_job(model="unetr"),
        make_job(changes=("data.normalise=box",)),
        make_job(fingerprint="e" * 64),
        make_job(cases=5),
    ]
    assert len({job.protocol.data.normalise for job in jobs}) == 2
    scene.sweep(jobs, Needs(4, 1, GIB))
    preparing, running = scene.tasks[:4], scene.tasks[4:]
    assert [pickle.loads(task.order).kind for task in preparing] == ["prepare"] * 4
    assert all(task.needs == Needs(4) and task.after == () and task.limit_s is None for task in preparing)
    assert [task.key for task in running] == [job.key for job in jobs]
    assert all(task.needs == Needs(4, 1, GIB) for task in running)
    names = [task.after for task in running]
    assert names[0] == names[1], "networks share"
    assert len(set(names)) == 4
    assert {name for (name,) in names} == {task.key for task in preparing}
    first = pickle.loads(preparing[0].order)
    assert first.prepare_workers == 4
    assert first.watched == preparing[0].output.parent
    assert pickle.loads(running[0].order).job.key == jobs[0].key
    assert running[0].output == scene.store.root / jobs[0].key / "output.txt"


def test_a_job_that_has_its_time_is_killed_only_well_after_it(scene: Scene, make_job: Callable[..., Job]) -> None:
    scene.sweep([make_job()], timeout_s=3600.0)
    assert scene.tasks[1].limit_s == 4500
    scene.sweep([make_job()], timeout_s=36000.0)
    assert scene.tasks[1].limit_s == 39600


def test_the_longest_job_begins_first_and_records_come_in_the_order_asked_for(
    scene: Scene, make_job: Callable[..., Job]
) -> None:
    jobs = [make_job(seed=1), make_job(seed=2, changes=("train.steps=900",))]
    record = scene.store.open_run(make_job(seed=3))
    record.write_history([{"step": 300, "step_s": 1.0}])
    record.finish("failed")
    scene.act = lambda _desk: [scene.end(job) for job in reversed(jobs)]  # type: ignore[assignment,return-value]
    assert [record.key for record in scene.sweep(jobs)] == [job.key for job in jobs]
    assert [task.key for task in scene.tasks[1:]] == [jobs[1].key, jobs[0].key]


def test_a_sweep_is_there_until_all_its_jobs_have_ended(scene: Scene, make_job: Callable[..., Job]) -> None:
    def see(_desk: Desk) -> None:
        (found,) = sweeps(scene.store.root)
        assert found.at_work

    scene.act = see
    scene.sweep([make_job()])
    assert sweeps(scene.store.root) == []

    def stop(_desk: Desk) -> None:
        scene.stop = True

    scene.act = stop
    scene.sweep([make_job()])
    assert [found.at_work for found in sweeps(scene.store.root)] == [False]


def test_the_desk_tells_how_jobs_stand(scene: Scene, make_job: Callable[..., Job]) -> None:
    job, other = make_job(seed=1), make_job(seed=2)

    def act(desk: Desk) -> None:
        assert desk.outcome("prepare-1234") == "complete"
        assert desk.outcome(job.key) == "interrupted", "it has no record"
        assert not desk.settled(job.key)
        scene.end(job, "nan")
        assert desk.outcome(job.key) == "nan"
        assert desk.settled(job.key)
        desk.give_up("prepare-1234", "failed", "no such folder")
        desk.give_up(other.key, "timeout", "killed, since it had not ended after 9 s")
        assert desk.outcome(other.key) == "timeout"

    scene.act = act
    scene.sweep([job, other])
    text = scene.text.getvalue()
    assert "prepare-1234 failed: no such folder" in text
    assert "seed 2: timeout: killed, since it had not ended after 9 s" in text


def test_a_preparation_is_shown_while_it_is_under_way(scene: Scene, make_job: Callable[..., Job]) -> None:
    job = make_job()

    def act(desk: Desk) -> None:
        place = scene.tasks[0].output.parent
        place.mkdir(parents=True)
        told = {"title": "preparing", "done": 3, "total": 9, "note": "", "left_s": None, "host": "there", "gpus": ""}
        (place / "progress.json").write_text(json.dumps({**told, "at": 0}))
        desk.show([job.key], [scene.tasks[0].key])

    scene.act = act
    scene.sweep([job])
    assert "preparing cases 3/9 on there\n1 queued\n" in scene.text.getvalue()


def _elsewhere(folder: Path) -> None:
    """Make the newest lease that of a machine which is gone."""
    path = max((folder / "lease").glob("*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "gone", "host": "gone"}))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """By which holders are judged and the desk waits: two seconds pass with each look at it."""
    clock = SimpleNamespace(now=0.0)

    def monotonic() -> float:
        clock.now += 2
        return clock.now

    fake = SimpleNamespace(monotonic=monotonic, time=lambda: 0.0, sleep=lambda _seconds: None)
    monkeypatch.setattr(leases, "time", fake)
    monkeypatch.setattr(launch, "time", fake)
    return clock


def test_a_job_of_a_dead_machine_can_be_taken_anywhere_once_the_desk_has_watched_it(
    scene: Scene,
    make_job: Callable[..., Job],
    clock: SimpleNamespace,  # noqa: ARG001
) -> None:
    """Another machine has watched nothing and would wait for the dead one for ever."""
    job = make_job()
    folder = scene.store.root / job.key
    lost = take(folder, beat_s=1000)
    _elsewhere(folder)

    def act(desk: Desk) -> None:
        looks = 0
        while not desk.free(job.key):
            looks += 1
            assert looks < 20
            assert take(folder) is None
        assert looks > 10
        with take(folder) as lease:  # type: ignore[union-attr]
            assert not desk.free(job.key), "somebody has taken it up"
            lease.check()

    scene.act = act
    scene.sweep([job])
    assert lost
    lost.release()


def test_a_disk_that_refuses_for_a_while_frees_nothing_and_stops_nothing(
    scene: Scene, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()

    def refuse(*_: object) -> None:
        raise BenchError("cannot write there: Input/output error")

    def act(desk: Desk) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(scene.store, "take", refuse)
            assert not desk.free(job.key)
        assert desk.free(job.key)

    scene.act = act
    scene.sweep([job])


@pytest.mark.parametrize("when", ["while others run", "at the end"])
def test_the_last_failure_of_a_dead_machine_is_recorded_once_it_was_watched(
    scene: Scene,
    make_job: Callable[..., Job],
    clock: SimpleNamespace,  # noqa: ARG001
    when: str,
) -> None:
    job = make_job()
    folder = scene.store.root / job.key
    lost = take(folder, beat_s=1000)
    _elsewhere(folder)

    def act(desk: Desk) -> None:
        desk.give_up(job.key, "failed", "its machine died. It was tried 4 times")
        assert scene.store.get(job.key) is None
        if when == "while others run":
            for _ in range(40):
                desk.show([], [])
            assert desk.outcome(job.key) == "failed"

    scene.act = act
    (record,) = scene.sweep([job])
    assert record.status == "failed"
    assert "tried 4 times" in record.content["message"]
    assert lost
    lost.release()


def test_what_somebody_else_runs_by_now_is_not_given_up(
    scene: Scene,
    make_job: Callable[..., Job],
    clock: SimpleNamespace,  # noqa: ARG001
) -> None:
    job = make_job()
    with scene.store.take(job.key) as _:  # type: ignore[union-attr]
        scene.act = lambda desk: desk.give_up(job.key, "failed", "its machine died")
        assert scene.sweep([job]) == []
        assert scene.store.get(job.key) is None
