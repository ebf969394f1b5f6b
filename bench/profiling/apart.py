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

from bench.errors import BenchError
from bench.profiling.order import ANSWER, ENDED, NEWS, OUTPUT, STARTED, Answer, Order

_PROGRAM = "bench.profiling.process"
_POLL_S = 0.1
_GRACE_S = 5.0
# A process that forks others has imported everything by then.
_START_LIMIT_S = 300.0
_TAIL_BYTES = 2000


@dataclass(frozen=True)
class Outcome:
    """How a measurement ended.

    Attributes:
        answer: what the process left; its status may also be ``timeout``.
        files: what lay beside it, by name.
    """

    answer: Answer
    files: dict[str, bytes]


def ignore(_what: str) -> None:
    """Nobody asks what a process is at."""


class Apart:
    """Carries orders out, one after the other, each in a fresh process.

    One process imports what all need and does nothing else; each order is a fork of it, which saves the seconds of the
    imports, and begins without a GPU context, kernels that were chosen, or memory that was asked for.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="bench-profile-"))
        self._count = 0
        with (self._folder / OUTPUT).open("wb") as output:
            self._parent = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-u",
                    "-m",
                    _PROGRAM,
                    str(self._folder),
                ],  # folders here may be called as our packages are
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Apart:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _kill(self._parent.pid)
        self._parent.wait()
        assert self._parent.stdin is not None
        with suppress(OSError):
            self._parent.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def carry_out(self, order: Order, on_news: Callable[[str], None] = ignore) -> Outcome:
        """Have one order carried out.

        Args:
            order: what to measure. The process is killed once its limit, and a little, is over.
            on_news: told now and then what the process is at.

        Raises:
            BenchError: no process could be started.
        """
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        pid = self._start(order, folder)
        try:
            return _attend(pid, folder, order.limit_s, on_news)
        finally:
            _kill(pid)
            self._wait(folder / ENDED)

    def _start(self, order: Order, folder: Path) -> int:
        """Number of the process that has begun."""
        assert self._parent.stdin is not None
        with suppress(OSError):  # of one that died, which shows below
            self._parent.stdin.write(json.dumps([str(folder), order.to_json()]).encode() + b"\n")
            self._parent.stdin.flush()
        if not self._wait(folder / STARTED):
            raise BenchError(f"PyTorch and the networks could not be loaded{tail(self._folder / OUTPUT)}")
        return int((folder / STARTED).read_text())

    def _wait(self, file: Path) -> bool:
        until = time.monotonic() + _START_LIMIT_S
        while not file.exists():
            if self._parent.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(_POLL_S / 5)
        return True


def _attend(pid: int, folder: Path, limit_s: float, on_news: Callable[[str], None]) -> Outcome:
    begun, news, resident = time.monotonic(), "", 0
    while not (folder / ENDED).exists():
        time.sleep(_POLL_S)
        with suppress(OSError):
            news = (folder / NEWS).read_text()
        resident = _resident_bytes(pid) or resident
        on_news(news)
        if time.monotonic() - begun > limit_s + _GRACE_S:
            return Outcome(_killed("timeout", f"not done within {limit_s:g} s; it was at: {news}", resident, news), {})
    try:
        content = json.loads((folder / ANSWER).read_text())
        answer = Answer(**{**content, "notes": tuple(content["notes"]), "files": tuple(content["files"])})
        return Outcome(answer, {name: (folder / name).read_bytes() for name in answer.files})
    except (OSError, ValueError, TypeError, KeyError):
        return Outcome(_ended(folder, resident, news), {})


def _ended(folder: Path, resident: int, news: str) -> Answer:
    """What to say of a process that left no answer."""
    status = int((folder / ENDED).read_text())
    if status == -signal.SIGKILL:  # not by us
        message = f"killed by the system, as it does where memory runs out; it held {resident / 2**30:.1f} GiB"
        return _killed("oom", message, resident, news)
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return _killed("failed", f"its process {how}{tail(folder / OUTPUT)}", resident, news)


def _killed(status: str, message: str, resident: int, news: str) -> Answer:
    return Answer(status, message, {"reached": news, "memory": {"peak_process_bytes": resident}})


def _kill(pid: int) -> None:
    """End a process, and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _resident_bytes(pid: int) -> int:
    """The largest resident size of a process so far; 0 where nobody tells."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def tail(output: Path) -> str:
    """The last line of what was printed there, to be put behind a sentence."""
    try:
        text = output.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")
    return f"; the last that it printed: {last}" if last else ""
