"""``python -m bench.profiling.process FOLDER``: makes one measurement in a process of its own.

It imports what it needs, then reads its order from standard input, so that one can stand by while another measures;
what it finds it leaves in the folder. Whoever started it keeps the input open: its end means that nobody waits any
more, and the process ends at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.engine.device import choose_device
from bench.engine.memory import is_out_of_memory, peak, reset_peak
from bench.errors import BenchError
from bench.profiling.clock import Repeater
from bench.profiling.driver import Driver
from bench.profiling.instruments import Instruments
from bench.profiling.measures import MEASURES
from bench.profiling.order import ANSWER, NEWS, Answer, Order
from bench.profiling.setting import Setting
from bench.provenance import collect, hardware
from data.errors import DataError
from models.errors import ModelError
from models.ops import resolve_backend, set_default_backend

_NEWS_INTERVAL_S = 0.5


def main() -> None:
    """Carry the order out."""
    folder = Path(sys.argv[1])
    # Where memory runs out the system should end this process and no other.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    line = sys.stdin.readline()
    if not line:
        return
    threading.Thread(target=_follow, name="lifeline", daemon=True).start()
    order = Order.from_json(line)
    sys.argv = list(order.command) or sys.argv
    answer = _facts(order) if order.setting is None else _measure(order, order.setting, folder)
    draft = folder / f".{ANSWER}"
    draft.write_text(json.dumps(asdict(answer)))
    draft.replace(folder / ANSWER)


def _facts(order: Order) -> Answer:
    """What machine this is."""
    try:
        device = choose_device(order.device)
    except BenchError as error:
        return Answer("refused", str(error))
    known = hardware(device)
    found = {
        "device": str(device),
        "hardware": known.get("gpu") or f"{known['cpu']}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "backend": resolve_backend(None, torch.empty(0)) if device.type == "cpu" else _gpu_backend(device),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    }
    return Answer("complete", found=found)


def _gpu_backend(device: torch.device) -> str:
    return resolve_backend(None, torch.empty(0, device=device))


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


def _follow() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
