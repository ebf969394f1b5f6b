"""One training over several devices of this machine: torchrun's ranks, whose gradients are averaged."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bench.engine.diverged import Diverged
from bench.engine.execution import Execution
from bench.engine.fit import DoesNotFit
from bench.engine.group import Group
from bench.engine.interrupt import Interrupted, StopRequest, TimedOut
from bench.engine.memory import is_out_of_memory, peak, reset_peak
from bench.engine.task import TrainingTask
from bench.errors import BenchError
from bench.live import RecordWatcher
from bench.progress import ConsoleWatcher, SilentWatcher

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A validation on whole volumes may keep the others waiting for long.
_PATIENCE = timedelta(hours=6)
# A launcher that is stopped leaves its heartbeat's thread running. If that thread holds the last reference to the timer
# that ends it, it joins itself, and Python reports what is no news to anybody; so what a stop left behind is kept.
_stopped: list[SignalException] = []


@dataclass(frozen=True)
class Outcome:
    """How a rank ended.

    Attributes:
        kind: ``done``, ``interrupted``, ``timeout``, ``nan``, ``oom``, ``tight`` where a step does not fit in the
            memory that it may take, or ``failed`` for what the message explains.
        message: for people.
        execution: how the steps were carried out, if it came that far.
        memory: the rank's peaks, see `bench.engine.memory.peak`.
        at: when it ended, in seconds since the epoch.
    """

    kind: str
    message: str
    execution: Execution | None
    memory: dict[str, int]
    at: float


class RankOutOfMemory(BenchError):
    """A device ran out of memory."""


def train_in_ranks(
    task: TrainingTask,
    ranks: int,
    device_type: str,
    stop: StopRequest,
    on_execution: Callable[[Execution], None],
) -> dict[str, int]:
    """Train with one process a device, which share each batch; the checkpoints in the record's folder are the result.

    The patches are those that one process would see, and gradients are means, so that the result is that of one process
    up to the order of sums.

    Args:
        task: what to train.
        ranks: how many processes.
        device_type: ``cuda`` (NCCL) or ``cpu`` (gloo).
        stop: its deadline holds for all; a signal during the training reaches them itself.
        on_execution: is told how the steps are carried out.

    Returns:
        The largest of each memory peak.

    Raises:
        Diverged, Interrupted, TimedOut, BenchError: as `bench.engine.train.train`.
        RankOutOfMemory: a device ran out of memory.
    """
    left = None if stop.deadline is None else stop.deadline - time.monotonic()
    patience: dict[str, Any] = {}
    if "shutdown_timeout" in LaunchConfig.__dataclass_fields__:  # else the launcher kills after 30 s what still saves
        patience["shutdown_timeout"] = 1800
    with tempfile.TemporaryDirectory(prefix="bench-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.1,
            start_method="spawn",
            **patience,
        )
        crash = ""
        if stop.requested:
            raise Interrupted
        try:
            with _own_signals_after():
                elastic_launch(config, _rank)(task, device_type, left, folder)
        except ChildFailedError as error:
            crash = str(error)
        except SignalException as signalled:  # the ranks got it too, and saved their state
            _stopped.append(signalled)
            crash = "stopped by a signal"
        outcomes = [pickle.loads(path.read_bytes()) for path in sorted(Path(folder).glob("*.pickle"))]
    for outcome in outcomes:
        if outcome.execution is not None:
            on_execution(outcome.execution)
            break
    _raise_worst(outcomes, ranks, crash)
    return {name: max(outcome.memory[name] for outcome in outcomes) for name in outcomes[0].memory}


def _raise_worst(outcomes: list[Outcome], ranks: int, crash: str) -> None:
    # Of what is alike the first: the others fail because one did.
    by_kind = {outcome.kind: outcome for outcome in sorted(outcomes, key=lambda one: -one.at)}
    errors: dict[str, type[Exception]] = {
        "tight": DoesNotFit,
        "nan": Diverged,
        "oom": RankOutOfMemory,
        "failed": BenchError,
    }
    for kind, error in errors.items():
        if kind in by_kind:
            raise error(by_kind[kind].message)
    if "interrupted" in by_kind or crash == "stopped by a signal":
        raise Interrupted
    if "timeout" in by_kind:
        raise TimedOut
    if len(outcomes) < ranks:
        raise BenchError(f"{ranks - len(outcomes)} of {ranks} processes ended without a word: {crash or 'killed'}")


def _rank(task: TrainingTask, device_type: str, left_s: float | None, folder: str) -> None:
    """What each process does; its outcome goes to a file, since an exit status cannot tell enough."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device(device_type, int(os.environ["LOCAL_RANK"])) if device_type == "cuda" else torch.device("cpu")
    stop = StopRequest(None if left_s is None else time.monotonic() + left_s)
    _stop_gently(stop)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    chosen: list[Execution] = []
    reset_peak(device)
    kind, message = "done", ""
    try:
        watcher = RecordWatcher(task.folder, ConsoleWatcher()) if rank == 0 else SilentWatcher()
        task.run(task.network(device), device, watcher, stop, chosen.append, Group(rank, size))
    except Interrupted:
        kind = "interrupted"
    except TimedOut:
        kind = "timeout"
    except Diverged as error:
        kind, message = "nan", str(error)
    except DoesNotFit as error:
        kind, message = "tight", str(error)
    except Exception as error:
        kind = "oom" if is_out_of_memory(error) else "failed"
        message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    outcome = Outcome(kind, message, chosen[0] if chosen else None, peak(device), time.time())
    scratch = Path(folder) / f".{rank}"
    scratch.write_bytes(pickle.dumps(outcome))
    scratch.replace(Path(folder) / f"{rank}.pickle")
    if kind in ("oom", "tight", "nan", "failed"):
        # The others may be waiting for this one's part of a sum; a failed process ends them.
        os._exit(1)
    distributed.destroy_process_group()
    if kind == "interrupted":
        # A launcher that was asked to stop collects no results, and a rank that returns would wait for it.
        os._exit(0)


@contextmanager
def _own_signals_after() -> Iterator[None]:
    """The launcher puts handlers of its own in place and leaves them there; and what it logs of a stop is no news."""
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.ERROR)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*_ASKING, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_gently(stop: StopRequest) -> None:
    """Every signal is a request: the terminal and the launcher both pass Ctrl-C on, and the second must not kill."""

    def ask(_number: int, _frame: FrameType | None) -> Any:
        stop.requested = True

    for number in _ASKING:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup wants it so
            signal.signal(number, ask)
