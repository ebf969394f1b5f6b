"""Ctrl-C as a request, not an accident; and the end of the time that a job was given."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """The user, or the system, asked the run to stop; its state is on the disk."""


class TimedOut(Exception):
    """The job's time is over; its state is on the disk."""


class StopRequest:
    """Whether somebody asked to stop, or a job's time is over.

    Attributes:
        requested: set by whoever asks; it holds for every job.
        lost: set where the job at hand was taken over by another process.
        deadline: when the time is over, by `time.monotonic`; None for never.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.requested = False
        self.lost = False
        self.deadline = deadline

    @property
    def due(self) -> bool:
        """Whether to stop now."""
        return self.requested or self.lost or (self.deadline is not None and time.monotonic() >= self.deadline)

    def check(self) -> None:
        """Raise `Interrupted` or `TimedOut` if it is time to stop.

        Call it only where stopping loses nothing.
        """
        if self.due:
            raise Interrupted if self.requested or self.lost else TimedOut


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first SIGINT, SIGTERM or SIGHUP (a closed terminal) into a request; the second acts as usual."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    usual = {number: signal.getsignal(number) for number in signals}
    # What is ignored stays so: nohup wants it for SIGHUP.
    usual = {number: handler for number, handler in usual.items() if handler != signal.SIG_IGN}

    def ask(number: int, _frame: FrameType | None) -> None:
        request.requested = True
        signal.signal(number, usual[signal.Signals(number)])

    for number in usual:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
