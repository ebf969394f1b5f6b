"""One order in a process of its own: its own process group, its own file of output, an end whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.engine.order import ANSWER, ORDER
from bench.errors import BenchError
from bench.lease import take

_PROGRAM = "bench.engine.process"
_POLL_S = 0.5
_TAIL_BYTES = 2000


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        kind: ``done``, ``held`` and ``refused`` as its answer says (see `bench.engine.order.Answer`); ``died`` without
            one; ``overdue`` where it was killed since its time, and more, was over.
        message: for people.
    """

    kind: Literal["done", "held", "refused", "died", "overdue"]
    message: str = ""


def carry_out(
    order: bytes, output: Path, limit_s: float | None = None, asked: Callable[[], bool] = lambda: False
) -> Ending:
    """Have an order carried out by a process of its own, and wait for its end.

    A KeyboardInterrupt, such as Ray raises where a task is cancelled, asks the process to save its state and stop; a
    second kills it. If this process dies, that one notices and stops.

    Args:
        order: a pickled `bench.engine.order.Order`.
        output: file to which standard output and error are appended.
        limit_s: time after which a process that does not end by itself is killed; None for never.
        asked: whether somebody asks for what a KeyboardInterrupt does, which reaches the main thread only.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-job-") as folder, output.open("ab") as file:
        (Path(folder) / ORDER).write_bytes(order)
        process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-m", _PROGRAM, folder],  # folders here may be called as our packages are
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            overdue = _attend(process, limit_s, asked)
        finally:
            with suppress(OSError):
                process.stdin.close()
        _kill(process)  # what is left of its group
        if overdue:
            _give_back(output.parent)
            return Ending("overdue", f"killed, since it had not ended after {limit_s:g} s")
        try:
            return Ending(**json.loads((Path(folder) / ANSWER).read_text()))
        except (OSError, ValueError, TypeError):
            _give_back(output.parent)
            return Ending("died", f"its process {_described(process.returncode)}{_tail(output)}")


def _attend(process: subprocess.Popen[bytes], limit_s: float | None, asked: Callable[[], bool]) -> bool:
    """Wait for the end; returns whether time ran out."""
    begun, interrupts, overdue = time.monotonic(), 0, False
    while True:
        try:
            process.wait(_POLL_S)
            return overdue
        except subprocess.TimeoutExpired:
            if limit_s is not None and time.monotonic() - begun > limit_s:
                overdue = True
                _kill(process)
            elif not interrupts and asked():
                interrupts = 1
                _signal(process, signal.SIGINT)
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts == 1:
                _signal(process, signal.SIGINT)
            else:
                _kill(process)


def _give_back(folder: Path) -> None:
    """A dead process's lease, which other machines would wait for."""
    with suppress(BenchError):
        lease = take(folder)
        if lease is not None:
            lease.release()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _kill(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGKILL)


def _described(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (the system kills so where its memory runs out)" if -status == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def _tail(output: Path) -> str:
    """The last line of what it printed."""
    try:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"; the last that it printed: {last}" if last else ""
