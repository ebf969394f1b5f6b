"""``python -m bench.profiling.process``: measurements, each in a fork of this process.

It imports what all of them need, and does nothing that a fork could not bear: no thread, no GPU. Then it reads lines
from standard input, each a folder and an order, and forks one process for each, which leaves what it finds in the
folder. Whoever started it keeps the input open: its end means that nobody waits any more, and all ends at once.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import models
from bench.engine.device import choose_device
from bench.engine.memory import is_out_of_memory, peak, reset_peak
from bench.errors import BenchError
from bench.profiling.clock import Repeater
from bench.profiling.driver import Driver
from bench.profiling.instruments import Instruments
from bench.profiling.measures import MEASURES
from bench.profiling.operations import count_operations
from bench.profiling.order import ANSWER, ENDED, NEWS, OUTPUT, STARTED, Answer, Order
from bench.profiling.setting import Setting
from bench.provenance import collect, hardware
from data.errors import DataError
from models.errors import ModelError
from models.ops import backends, resolve_backend, set_default_backend

_NEWS_INTERVAL_S = 0.5
_POLL_S = 0.05


def main() -> None:
    """Serve until the input ends."""
    root, given = Path(sys.argv[1]), b""
    _preload()
    child: int | None = None
    folder = root
    while True:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], None if child is None else _POLL_S)
        if readable:
            data = os.read(sys.stdin.fileno(), 2**16)
            if not data:
                break
            given += data
        if child is not None:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                _publish(folder / ENDED, str(os.waitstatus_to_exitcode(status)))
                child = None
        if child is None and b"\n" in given:
            line, _, given = given.partition(b"\n")
            name, order = json.loads(line)
            folder = Path(name)
            child = _fork(order, folder)
            _publish(folder / STARTED, str(child))
    if child is not None:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    shutil.rmtree(root, ignore_errors=True)  # nobody is left to tidy up


def _fork(order: str, folder: Path) -> int:
    """Begin a process that carries an order out; returns its number."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        output = os.open(folder / OUTPUT, os.O_WRONLY | os.O_CREAT)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # Where memory runs out the system should end this process and no other.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        _carry_out(Order.from_json(order), folder)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # what the interpreter does in the end is for the process that it began in


def _carry_out(order: Order, folder: Path) -> None:
    sys.argv = list(order.command) or sys.argv
    answer = _facts(order) if order.setting is None else _measure(order, order.setting, folder)
    _publish(folder / ANSWER, json.dumps(asdict(answer)))


def _publish(file: Path, text: str) -> None:
    """Let a file appear whole."""
    draft = file.with_name(f".{file.name}")
    draft.write_text(text)
    draft.replace(file)


def _preload() -> None:
    """Import what measurements will; what cannot be imported here is theirs to complain of."""
    for module in pkgutil.iter_modules(models.__path__):
        with suppress(Exception):
            importlib.import_module(f"models.{module.name}")
    with suppress(Exception):
        count_operations(nn.Conv3d(1, 1, 1, device="meta"), 1, (1, 1, 1))  # shapes alone take an import of their own


def _facts(order: Order) -> Answer:
    """What machine this is."""
    try:
        device = choose_device(order.device)
    except BenchError as error:
        return Answer("refused", str(error))
    known = hardware(device)
    found = {
        "device": str(device),
        "hardware": known.get("gpu") or _processor(known["cpu"], torch.get_num_threads()),
        "torch": torch.__version__,
        "backend": resolve_backend(None, torch.empty(0, device=device)),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "obstacles": _obstacles(device),
    }
    return Answer("complete", found=found)


def _obstacles(device: torch.device) -> dict[str, str]:
    """Why backends of the selective scan cannot run on the device."""
    found = {}
    for name in backends():
        try:
            resolve_backend(name, torch.empty(0, device=device))
        except ModelError as error:
            found[name] = str(error)
    return found


def _processor(name: str, threads: int) -> str:
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def _measure(order: Order, setting: Setting, folder: Path) -> Answer:
    device = choose_device(order.device)
    driver = Driver(device)
    company, used_before = driver.company(), driver.used_bytes()
    deadline = time.monotonic() + order.limit_s
    torch.backends.cudnn.benchmark = setting.cudnn_benchmark
    news = _News(folder / NEWS)
    tools = Instruments(
        device=device,
        repeater=Repeater(device, deadline, on_pass=news),
        driver=driver,
        used_before=used_before,
        deadline=deadline,
        on_pass=news,
        operators=order.operators,
        trace=Path(order.trace) if order.trace else None,
    )
    notes = (company,) if company else ()
    found: dict[str, Any] = {}
    status, message = "complete", ""
    try:
        if setting.backend:
            set_default_backend(setting.backend)
        news("building")
        reset_peak(device)
        found = MEASURES[setting.what](setting, tools)
    except (BenchError, DataError, ModelError) as error:
        status, message = ("oom" if "not enough memory" in str(error) else "refused"), str(error)
    except Exception as error:  # whatever a network raises is a row of the table
        status, message = ("oom" if is_out_of_memory(error) else "failed"), f"{type(error).__name__}: {error}"
        if status == "oom":
            found = {"reached": news.last, "memory": peak(device)}
        else:
            sys.excepthook(*sys.exc_info())
    for name, content in tools.files.items():
        (folder / name).write_bytes(content)
    return Answer(status, message, found, collect(device), notes, tuple(tools.files))


class _News:
    """Leaves what is going on where whoever waits can read it."""

    def __init__(self, path: Path) -> None:
        self.last = ""
        self._path = path
        self._written = 0.0

    def __call__(self, what: str) -> None:
        self.last = what
        now = time.monotonic()
        if now - self._written < _NEWS_INTERVAL_S:
            return
        self._written = now
        with suppress(OSError):
            self._path.write_text(what)


if __name__ == "__main__":
    main()
