"""Jobs as Ray tasks, each in a process of its own, on one machine or a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.errors import BenchError
from bench.schedule.cluster import Needs, machines, room
from bench.schedule.process import Ending, carry_out

_POLL_S = 0.5
_HELD_POLL_S = 2.0
_FIT_POLL_S = 10.0
# How long a killed job's worker may take to notice.
_FAREWELL_S = 10.0


@dataclass(frozen=True)
class Task:
    """One order for the cluster.

    Attributes:
        key: names it; for a job, its record's key.
        title: for people.
        order: pickled `bench.engine.order.Order`.
        output: file that takes what it prints.
        needs: what it takes of a machine.
        limit_s: time after which its process is killed; None for never.
        after: keys of tasks that come before it, whatever their end.
    """

    key: str
    title: str
    order: bytes
    output: Path
    needs: Needs
    limit_s: float | None = None
    after: tuple[str, ...] = ()


class Desk(Protocol):
    """What surrounds the tasks: records, and whoever watches."""

    def settled(self, key: str) -> bool:
        """Whether another driver has brought this job to an end."""

    def free(self, key: str) -> bool:
        """Whether nobody runs this job any more."""

    def outcome(self, key: str) -> str:
        """Status of the job's record; ``complete`` for what has no record, such as a preparation."""

    def give_up(self, key: str, status: str, message: str) -> None:
        """Record a failure that the job could not record itself."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def show(self, queued: Sequence[str], submitted: Sequence[str]) -> None:
        """The keys that wait for others and those that Ray has; called twice a second."""


@dataclass
class _State:
    """What is known of the tasks that have not ended."""

    waiting: list[Task]
    submitted: dict[Any, Task] = field(default_factory=dict)
    held: list[Task] = field(default_factory=list)
    deaths: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    room: int = 1


def run_on_ray(tasks: Sequence[Task], desk: Desk, *, retries: int, stopped: Callable[[], bool]) -> None:
    """Have Ray run tasks until all have ended, in this order as far as there is room. Ray must be connected.

    A task whose process or machine dies goes on elsewhere from its last checkpoint, at most ``retries`` times, and then
    fails. One that another driver runs is waited for. How each ended stands in its record.

    Args:
        stopped: whether somebody asked to stop; tasks under way then save their state.

    Raises:
        KeyboardInterrupt: somebody asked twice; tasks under way are killed.
        BenchError: Ray itself is gone.
    """
    import ray

    remote = ray.remote(max_retries=0)(_task)
    state = _State(list(tasks))
    looked, fitted, stopping = 0.0, time.monotonic(), False
    _look_at_machines(state, desk)
    try:
        while state.waiting or state.submitted or state.held:
            if stopped() and not stopping:
                stopping = True
                state.waiting, state.held = [], []
                desk.say(f"stopping {len(state.submitted)} jobs: those that run finish a step and save their state")
                for reference in state.submitted:
                    ray.cancel(reference, force=False)
            _submit(state, remote)
            if not state.submitted:
                time.sleep(_POLL_S)
            done, _ = ray.wait(list(state.submitted), timeout=_POLL_S) if state.submitted else ([], None)
            for reference in done:
                task = state.submitted.pop(reference)
                _close(state, task, _ending(ray, reference), desk, retries, stopping)
            if time.monotonic() - looked > _HELD_POLL_S:
                looked = time.monotonic()
                _look_at_held(state, desk)
            if time.monotonic() - fitted > _FIT_POLL_S:
                fitted = time.monotonic()
                _look_at_machines(state, desk)
            with suppress(OSError):  # of a file system that is away for a while
                waiting = [task.key for task in (*state.waiting, *state.held)]
                desk.show(waiting, [task.key for task in state.submitted.values()])
    except KeyboardInterrupt:
        for reference in state.submitted:
            ray.cancel(reference, force=False)
        if state.submitted:
            ray.wait(list(state.submitted), num_returns=len(state.submitted), timeout=_FAREWELL_S)
        raise
    except ray.exceptions.RayError as error:
        raise BenchError(
            f"the connection to Ray was lost: {_last_line(error)}. Jobs that ran save their state and stop; run the "
            "same command again to go on, on a cluster that is up"
        ) from error


def _task(order: bytes, output: str, limit_s: float | None) -> Ending:
    return carry_out(order, Path(output), limit_s)


def _submit(state: _State, remote: Any) -> None:
    """What the machines have room for, and as much again: Ray starts it in this order, and an autoscaler sees that more
    is wanted; what must go on after an accident is not behind everything else.
    """
    ready = [task for task in state.waiting if state.ended.issuperset(task.after)]
    for task in ready[: max(0, 2 * state.room - len(state.submitted))]:
        needs = task.needs
        options = {
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "name": task.title,
            **({"memory": needs.memory_bytes} if needs.memory_bytes else {}),
        }
        reference = remote.options(**options).remote(task.order, str(task.output), task.limit_s)
        state.submitted[reference] = task
        state.waiting.remove(task)


def _ending(ray: Any, reference: Any) -> Ending | None:
    """How a task ended; None where it was cancelled before it began."""
    try:
        ending: Ending = ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return None
    except ray.exceptions.OutOfMemoryError:
        return Ending("died", "its machine ran out of main memory; --ram-gib sets more aside for each job")
    except ray.exceptions.RayTaskError as error:  # where the package is missing or another on that machine, say
        return Ending("refused", f"its machine cannot begin it: {_last_line(error)}")
    except ray.exceptions.RuntimeEnvSetupError as error:
        return Ending("refused", f"its machine cannot begin it: {_last_line(error)}")
    except ray.exceptions.RayError as error:
        return Ending("died", f"its worker or machine died ({type(error).__name__})")
    return ending


def _close(state: _State, task: Task, ending: Ending | None, desk: Desk, retries: int, stopping: bool) -> None:
    """What follows from a task's end."""
    if ending is None:
        return
    if ending.kind == "held":
        if not stopping:
            state.held.append(task)
            desk.say(f"{task.title}: {ending.message}; waiting for it")
        return
    status, message = "", ending.message
    if ending.kind == "done":
        status = desk.outcome(task.key)
        if stopping or status not in ("running", "interrupted"):
            state.ended.add(task.key)
            return
        message = "it was told to stop, though not by this command"
    if ending.kind == "refused" and stopping:  # a preparation, which has no record to say so
        return
    if ending.kind == "refused":
        _fail(state, task, "failed", message, desk)
    elif ending.kind == "overdue":
        _fail(state, task, "timeout", message, desk)
    elif not stopping:
        deaths = state.deaths[task.key] = state.deaths.get(task.key, 0) + 1
        if deaths > retries:
            _fail(state, task, "failed", f"{message}. It was tried {deaths} times", desk)
            return
        desk.say(f"{task.title}: {message}; it goes on from its last checkpoint ({deaths} of {retries} times)")
        state.waiting.insert(0, task)


def _fail(state: _State, task: Task, status: str, message: str, desk: Desk) -> None:
    state.ended.add(task.key)
    desk.give_up(task.key, status, message)


def _look_at_held(state: _State, desk: Desk) -> None:
    for task in list(state.held):
        if desk.settled(task.key):
            state.held.remove(task)
            state.ended.add(task.key)
        elif desk.free(task.key):
            state.held.remove(task)
            state.waiting.append(task)


def _look_at_machines(state: _State, desk: Desk) -> None:
    """Machines come and leave; what fits on none that is left waits, and says so."""
    there = machines()
    wanted = {task.needs for task in (*state.waiting, *state.submitted.values())}
    state.room = max([room(there, needs) for needs in wanted], default=1) or 1
    for needs in wanted:
        if not any(machine.fits(needs) for machine in there):
            desk.say(f"no machine is left that has {needs}; waiting for one. Ctrl-C stops, and loses nothing")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
