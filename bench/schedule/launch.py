"""From a plan to tasks for Ray: what each job takes of a machine, in what order, and what surrounds them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.engine.order import Order
from bench.errors import BenchError
from bench.job import Job
from bench.lease import PATIENCE_S, Watch
from bench.live import read_progress
from bench.schedule.cluster import GIB, Machine, Needs, check_fits
from bench.schedule.estimate import longest_first
from bench.schedule.ray_tasks import Task, run_on_ray
from bench.schedule.settled import Settled
from bench.schedule.states import states_of
from bench.schedule.view import SweepView
from bench.store import Record, Store
from bench.sweep import OpenSweep, summary

SCHEDULERS = ("auto", "inline", "ray")
_MOST_CPUS = 16
_PREPARE_CPUS = 8
# What a process takes where no earlier record tells.
_USUAL_BYTES = {"cuda": 4 * GIB, "cpu": 2 * GIB}
_MARGIN = 1.25
# After its time a job still ends the case under way and saves its state.
_OVERTIME_S = 900.0
# How long a job whose machine died may seem to be run by it still.
_MOURNING_S = 1.5 * PATIENCE_S


@dataclass(frozen=True)
class Wishes:
    """What somebody asked for of the scheduler; 0 leaves the choice here.

    Attributes:
        gpus: GPUs of each job; below 1 a share of one.
        cpus: cores of each job.
        ram_gib: main memory set aside for each job.
        retries: how often a job goes on whose process or machine died.
    """

    gpus: float = 1.0
    cpus: int = 0
    ram_gib: float = 0.0
    retries: int = 3

    def __post_init__(self) -> None:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise BenchError(f"--gpus-per-job {self.gpus:g}: expected a whole number, or a share of one GPU below 1")

    @property
    def devices(self) -> int:
        """Devices of each job, that of which it has a share included."""
        return max(1, int(self.gpus))


def choose_scheduler(asked: str, address: str, device_type: str, jobs: int) -> str:
    """``inline`` or ``ray``; ``auto`` takes Ray where several jobs are to run on GPUs, or a cluster is named.

    Raises:
        BenchError: there is no such scheduler, or Ray is not installed.
    """
    if asked not in SCHEDULERS:
        raise BenchError(f"--scheduler {asked!r}: expected one of {', '.join(SCHEDULERS)}")
    if asked == "inline" and address:
        raise BenchError(
            f"--scheduler inline runs jobs in this process, but --ray-address {address} names a cluster; expected one "
            "of them"
        )
    address = address or os.environ.get("RAY_ADDRESS", "")
    wanted = asked == "ray" or (asked == "auto" and bool(address or (device_type == "cuda" and jobs > 1)))
    if wanted and importlib.util.find_spec("ray") is None:
        if asked == "ray" or address:
            raise BenchError("Ray is not installed: pip install 'ray[tune]', or run with --scheduler inline")
        return "inline"
    return "ray" if wanted else "inline"


def choose_device_type(asked: str, machines: Sequence[Machine]) -> str:
    """``cuda`` where any machine has GPUs, unless the CPU was asked for.

    Raises:
        BenchError: a certain GPU was asked for, which Ray hands out.
    """
    kind, _, number = asked.partition(":")
    if kind not in ("", "cpu", "cuda"):
        raise BenchError(f"--device {asked!r}: expected cpu or cuda")
    if number:
        raise BenchError(
            f"--device {asked}: with Ray it is Ray that hands out GPUs; expected cpu or cuda. Choose GPUs with "
            "CUDA_VISIBLE_DEVICES, or run with --scheduler inline"
        )
    return kind or ("cuda" if any(machine.gpus for machine in machines) else "cpu")


def choose_needs(
    wishes: Wishes, device_type: str, machines: Sequence[Machine], jobs: Sequence[Job], records: Sequence[Record]
) -> Needs:
    """What each job takes: as wished, else its share of the smallest machine that can run it.

    Raises:
        BenchError: no machine has it.
    """
    gpus = wishes.gpus if device_type == "cuda" else 0.0
    # A cluster's head often has no cores for jobs.
    asked = Needs(max(1, wishes.cpus), gpus, int(wishes.ram_gib * GIB))
    able = [machine for machine in machines if machine.fits(asked)]
    if wishes.cpus:
        cpus = wishes.cpus
    elif gpus:
        cpus = min((int(machine.cpus / machine.gpus * gpus) for machine in able), default=1)
        cpus = max(1, min(cpus, _MOST_CPUS * wishes.devices))
    else:
        cpus = max(1, min((int(machine.cpus) for machine in able), default=1))
    if wishes.ram_gib:
        memory = int(wishes.ram_gib * GIB)
    else:
        smallest = min((machine.memory_bytes for machine in able), default=0)
        memory = int(min(_memory(device_type, jobs, records), smallest))
    needs = Needs(cpus, gpus, memory)
    check_fits(machines, needs)
    return needs


def run_sweep(
    jobs: Sequence[Job],
    store: Store,
    template: Callable[[Job], Order],
    settled: Settled,
    needs: Needs,
    *,
    retries: int,
    view: SweepView,
    stopped: Callable[[], bool],
) -> list[Record]:
    """Run jobs on the Ray that is connected, longest first, and see to it that each has a record of how it ended.

    The cases of jobs that are prepared alike are prepared by a task of their own, without a GPU, before them.

    Args:
        template: the order of a job.
        settled: made when the jobs were planned.
        stopped: whether somebody asked to stop.

    Returns:
        The records of those that ended, in the order of ``jobs``.

    Raises:
        KeyboardInterrupt: somebody asked twice to stop.
    """
    by_key = {job.key: job for job in jobs}
    ordered = [job for job, _ in longest_first(jobs, store.records())]
    with OpenSweep(store.root, ordered) as sweep, view:
        preparing, tasks = _tasks(ordered, template, needs, store, sweep.folder)
        desk = _RecordDesk(store, by_key, view, sweep.folder, settled)
        run_on_ray([*preparing, *tasks], desk, retries=retries, stopped=stopped)
        desk.settle_up(stopped)
        view.show([], now=True)
        if not stopped():
            sweep.finished()
    return [record for job in jobs if (record := store.get(job.key)) is not None]


def view_of(store: Store, jobs: Sequence[Job]) -> SweepView:
    """The view of a sweep of these jobs."""
    told = [summary(job) for job in jobs]
    return SweepView(lambda waiting: states_of(store, told, waiting))


def _tasks(
    jobs: Sequence[Job], template: Callable[[Job], Order], needs: Needs, store: Store, folder: Path
) -> tuple[list[Task], list[Task]]:
    """Preparations, and the jobs that come after them."""
    preparing: dict[str, Task] = {}
    tasks = []
    for job in jobs:
        order = template(job)
        name = f"prepare-{_alike(job)}"
        if name not in preparing:
            workers, place = min(_PREPARE_CPUS, needs.cpus), folder.resolve() / name
            alone = replace(order, kind="prepare", prepare_workers=workers, watched=place)
            preparing[name] = Task(
                key=name,
                title=f"preparing {job.dataset}",
                order=pickle.dumps(alone),
                output=place / "output.txt",
                needs=Needs(workers),
            )
        tasks.append(
            Task(
                key=job.key,
                title=f"{job.key}  {job.title}",
                order=pickle.dumps(order),
                output=store.root.resolve() / job.key / "output.txt",
                needs=needs,
                limit_s=limit_of(order),
                after=(name,),
            )
        )
    return list(preparing.values()), tasks


class _RecordDesk:
    """The records of a sweep, for its tasks."""

    def __init__(self, store: Store, jobs: Mapping[str, Job], view: SweepView, folder: Path, settled: Settled) -> None:
        self._store, self._jobs, self._view, self._folder = store, jobs, view, folder
        self._settled = settled
        self._watch = Watch()
        # Failures that cannot be recorded yet, since a dead machine holds the record.
        self._owed: dict[str, tuple[str, str]] = {}

    def settled(self, key: str) -> bool:
        return self._settled(key) is not None

    def free(self, key: str) -> bool:
        try:
            lease = self._store.take(key, self._watch)
        except BenchError:  # a disk that refuses for a while: what waits can wait
            lease = None
        if lease is None:
            return False
        # A machine that has not watched the dead holder for as long can take the record only once it was given back.
        lease.release()
        return True

    def outcome(self, key: str) -> str:
        if key not in self._jobs:
            return "complete"
        record = self._store.get(key)
        return record.status if record is not None else "interrupted"

    def give_up(self, key: str, status: str, message: str) -> None:
        if key in self._jobs:
            self._owed[key] = status, message
            self._pay()
        else:  # the jobs come upon the same fault, and record it
            self.say(f"{key} {status}: {message}")

    def settle_up(self, stopped: Callable[[], bool], poll_s: float = 1.0) -> None:
        """Record the failures that could not be recorded yet; what is still held then, somebody runs by now."""
        until = time.monotonic() + _MOURNING_S
        while self._owed and not stopped() and time.monotonic() < until:
            time.sleep(poll_s)
            self._pay()

    def _pay(self) -> None:
        for key in list(self._owed):
            if self.free(key):
                self._store.give_up(self._jobs[key], *self._owed.pop(key))

    def say(self, text: str) -> None:
        self._view.say(text)

    def show(self, queued: Sequence[str], submitted: Sequence[str]) -> None:
        self._pay()
        progress = (read_progress(self._folder / key) for key in submitted if key not in self._jobs)
        notes = [f"{one.title} cases {one.done}/{one.total} on {one.host}" for one in progress if one is not None]
        self._view.show([*queued, *submitted], notes)


def _alike(job: Job) -> str:
    """Equal for jobs whose cases are prepared alike."""
    fields = job.protocol.data.model_dump(mode="json", include={"normalise", "storage", "spacing_mm"})
    same = [job.dataset, job.data_fingerprint, fields, job.split.sha256]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:8]


def _memory(device_type: str, jobs: Sequence[Job], records: Sequence[Record]) -> float:
    """The largest that any run of these networks in patches of this size took, and more; else what is usual."""
    wanted = {(job.model, job.dataset, job.protocol.data.patch_size) for job in jobs}
    peaks = []
    for record in records:
        job = record.content.get("job", {})
        if record.kind != "run":
            continue
        patch = job["protocol"].get("data", {}).get("patch_size")
        if (job["model"], job["dataset"], tuple(patch or ())) in wanted:
            parts = record.content.get("memory", {}).values()
            peaks += [part.get("peak_process_bytes", 0) for part in parts if isinstance(part, dict)]
    return max([_MARGIN * peak for peak in peaks], default=0.0) or _USUAL_BYTES[device_type]


def limit_of(order: Order) -> float | None:
    """Seconds after which the process of an order with a time limit is killed: it had time enough to save its state."""
    return None if order.timeout_s is None else order.timeout_s + max(_OVERTIME_S, 0.1 * order.timeout_s)


def passed_on() -> dict[str, str]:
    """Variables of this process that say where data and caches lie."""
    found = {name: value for name, value in os.environ.items() if name.startswith("BENCH_")}
    # Elsewhere a relative folder would be another one.
    absolute = {name: str(Path(value).expanduser().resolve()) for name, value in found.items() if name.endswith("_DIR")}
    return found | {name: path for name, path in absolute.items() if found[name]}
