"""Measurements in processes of their own, so that what one of them leaves behind helps or harms no other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bench.profiling.order import ANSWER, NEWS, Answer, Order

_PROGRAM = "bench.profiling.process"
_POLL_S = 0.1
_GRACE_S = 5.0
_TAIL_BYTES = 2000
# With fewer the process that stands by would take a core from the one that measures.
_CORES_TO_STAND_BY = 4


def _ignore(_what: str) -> None:
    pass


@dataclass(frozen=True)
class Outcome:
    """How a measurement ended.

    Attributes:
        answer: what the process left; its status may also be ``timeout``.
        files: what lay beside it, by name.
    """

    answer: Answer
    files: dict[str, bytes]


class _Process:
    """One that has begun to import what it needs, and waits for its order."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bench-profile-"))
        self.output = (self.folder / "output.txt").open("wb")
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-u", "-m", _PROGRAM, str(self.folder)],  # folders here may be called as ours are
            stdin=subprocess.PIPE,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def send(self, order: Order) -> None:
        """Hand it its order."""
        assert self.popen.stdin is not None
        with suppress(OSError):  # of one that died meanwhile, which its end tells
            self.popen.stdin.write(order.to_json().encode() + b"\n")
            self.popen.stdin.flush()

    def close(self) -> None:
        """End it, and all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        assert self.popen.stdin is not None
        with suppress(OSError):
            self.popen.stdin.close()
        self.output.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Apart:
    """Carries orders out, one after the other, each in a fresh process.

    Args:
        stand_by: whether the next process starts while one measures. It saves the seconds of its imports, which on a
            GPU are most of a measurement; on a CPU they would disturb it.
    """

    def __init__(self, stand_by: bool = False) -> None:
        self.stand_by = stand_by and (os.cpu_count() or 1) >= _CORES_TO_STAND_BY
        self._next: _Process | None = None

    def __enter__(self) -> Apart:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._next is not None:
            self._next.close()
            self._next = None

    def carry_out(self, order: Order, on_news: Callable[[str], None] = _ignore, more: bool = False) -> Outcome:
        """Have one order carried out.

        Args:
            order: what to measure. The process is killed once its limit, and a little, is over.
            on_news: told now and then what the process is at.
            more: whether another order will follow.
        """
        process, self._next = self._next or _Process(), None
        try:
            process.send(order)
            if more and self.stand_by:
                self._next = _Process()
            return _attend(process, order.limit_s, on_news)
        finally:
            process.close()


def _attend(process: _Process, limit_s: float, on_news: Callable[[str], None]) -> Outcome:
    begun, news, resident = time.monotonic(), "", 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.popen.wait(_POLL_S)
            break
        with suppress(OSError):
            news = (process.folder / NEWS).read_text()
        resident = _resident_bytes(process.popen.pid) or resident
        on_news(news)
        if time.monotonic() - begun > limit_s + _GRACE_S:
            return Outcome(_killed("timeout", f"not done within {limit_s:g} s; it was at: {news}", resident, news), {})
    try:
        content = json.loads((process.folder / ANSWER).read_text())
        answer = Answer(**{**content, "notes": tuple(content["notes"]), "files": tuple(content["files"])})
        return Outcome(answer, {name: (process.folder / name).read_bytes() for name in answer.files})
    except (OSError, ValueError, TypeError, KeyError):
        return Outcome(_ended(process, resident, news), {})


def _ended(process: _Process, resident: int, news: str) -> Answer:
    """What to say of a process that left no answer."""
    status = process.popen.returncode
    if status == -signal.SIGKILL:  # not by us
        message = f"killed by the system, as it does where memory runs out; it held {resident / 2**30:.1f} GiB"
        return _killed("oom", message, resident, news)
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return _killed("failed", f"its process {how}{_tail(process.folder / 'output.txt')}", resident, news)


def _killed(status: str, message: str, resident: int, news: str) -> Answer:
    return Answer(status, message, {"reached": news, "memory": {"peak_process_bytes": resident}})


def _resident_bytes(pid: int) -> int:
    """The largest resident size of a process so far; 0 where nobody tells."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _tail(output: Path) -> str:
    """The last line that it printed."""
    try:
        text = output.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")
    return f"; the last that it printed: {last}" if last else ""
