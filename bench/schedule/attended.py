"""A job in a process of its own, followed from its record while it trains: what it validates, and how it ends."""

from __future__ import annotations

import pickle
import threading
import time
from dataclasses import dataclass

from bench.engine.order import Order
from bench.lease import Watch
from bench.schedule.launch import limit_of
from bench.schedule.process import carry_out
from bench.search.trials import validations
from bench.store import Store

_POLL_S = 0.2
_HELD_POLL_S = 2.0


@dataclass(frozen=True)
class Validation:
    """A score while training.

    Attributes:
        step: optimiser steps before it.
        dice: mean over the validation cases, 0..1.
    """

    step: int
    dice: float


@dataclass(frozen=True)
class Ended:
    """The end of a job.

    Attributes:
        status: of its record.
        message: why it failed.
    """

    status: str
    message: str = ""


class Attended:
    """Has a job carried out, by a thread, and tells what its record says.

    A process that dies goes on from its last checkpoint, at most ``retries`` times. Where another process runs the job,
    its end is waited for.

    Args:
        order: to run the job.
        retries: see above.
    """

    def __init__(self, order: Order, retries: int) -> None:
        self._order, self._retries = order, retries
        self._store = Store(order.results)
        self._folder = self._store.root / order.job.key
        # After the last step there is nothing left to stop, and the test follows.
        self._total = order.job.protocol.train.total_steps or 0
        self._told = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job", daemon=True)
        self._thread.start()

    def next(self, wait_s: float) -> Validation | Ended | None:
        """The next validation before the end of the training, then the end; None where neither comes in time."""
        until = time.monotonic() + wait_s
        while True:
            running = self._thread.is_alive()
            for step, dice in validations(self._folder):
                if self._told < step < self._total:
                    self._told = step
                    return Validation(step, dice)
            if not running:
                return self._end()
            if time.monotonic() >= until:
                return None
            self._thread.join(_POLL_S)

    def stop(self) -> None:
        """Let the job save its state and stop, and wait until it has."""
        self._stop.set()
        self._thread.join()

    def _end(self) -> Ended:
        record = self._store.get(self._order.job.key)
        if record is None:
            return Ended("interrupted")
        return Ended(record.status, "; ".join(record.faults) or str(record.content.get("message", "")))

    def _run(self) -> None:
        deaths = 0
        while not self._stop.is_set():
            ending = carry_out(
                pickle.dumps(self._order), self._folder / "output.txt", limit_of(self._order), self._stop.is_set
            )
            if ending.kind == "held":
                self._wait_until_free()
                continue
            if ending.kind == "refused":
                self._give_up("failed", ending.message)
                return
            if ending.kind == "overdue":
                self._give_up("timeout", ending.message)
                return
            message = ending.message
            if ending.kind == "done":
                record = self._store.get(self._order.job.key)
                if record is not None and record.status not in ("running", "interrupted"):
                    return
                message = "it was told to stop, though not by this command"
            deaths += 1
            if deaths > self._retries and not self._stop.is_set():
                self._give_up("failed", f"{message}. It was tried {deaths} times")
                return

    def _give_up(self, status: str, message: str) -> None:
        if not self._stop.is_set():
            self._store.give_up(self._order.job, status, message)

    def _wait_until_free(self) -> None:
        watch = Watch()
        while not self._stop.wait(_HELD_POLL_S):
            lease = self._store.take(self._order.job.key, watch)
            if lease is not None:
                lease.release()
                return
