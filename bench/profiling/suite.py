"""Many measurements, one after the other, each a record."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.key import key_of
from bench.profiling.apart import Apart, Outcome
from bench.profiling.order import Order
from bench.profiling.setting import OF_TOKENS, Machine, Setting
from bench.progress import Bar, Watcher
from bench.provenance import software
from bench.store import Record, Store, code_name

# What a measurement ends in that another try under the same code would end in too.
_LASTING = ("complete", "oom")
_ASKING_LIMIT_S = 300.0


@dataclass(frozen=True)
class Conduct:
    """How measurements are made; nothing here is part of a record's key.

    Attributes:
        device: as typed; empty for the GPU if there is one.
        limit_s: seconds that each may take.
        again: whether what has been measured before is measured anew.
        operators: how many operators of each network are listed by the time that they take; 0 for none.
        traces: folder for Chrome traces; None for none.
    """

    device: str
    limit_s: float
    again: bool = False
    operators: int = 0
    traces: Path | None = None


def ask_machine(apart: Apart, device: str) -> Machine:
    """What machine a device name stands for, from a process of its own: a GPU should find nobody on it afterwards.

    Raises:
        BenchError: there is no such device, or PyTorch does not start.
    """
    answer = apart.carry_out(Order(device, None, _ASKING_LIMIT_S)).answer
    if answer.status != "complete":
        raise BenchError(answer.message)
    return Machine(**answer.found)


def measure_all(
    settings: Sequence[Setting], store: Store, machine: Machine, conduct: Conduct, apart: Apart, watcher: Watcher
) -> list[Record]:
    """Measure what has not been measured, and keep each result as soon as it is there.

    What the same commit has measured on the same hardware is not measured again; under changed code, whose state nobody
    can name, everything is.

    Returns:
        The record of each setting, in their order.

    Raises:
        BenchError: a request that cannot be met, or results that cannot be written.
    """
    settings = list({key_of(setting.job(machine)): setting for setting in settings}.values())
    known = {} if conduct.again or conduct.traces else _known(settings, store, machine, conduct.operators)
    left = [setting for setting in settings if key_of(setting.job(machine)) not in known]
    if known:
        watcher.say(f"{len(known)} of {len(settings)} were measured before by this version; --again measures them anew")
    records = dict(known)
    with watcher.bar("profiling", len(settings), len(known)) as bar:
        for setting in left:
            bar.note(setting.title)
            order = Order(
                device=machine.device,
                setting=setting,
                limit_s=conduct.limit_s,
                operators=conduct.operators,
                trace="" if conduct.traces is None else str(_trace(conduct.traces, setting).resolve()),
                command=tuple(sys.argv),
            )
            outcome = apart.carry_out(order, _telling(bar, setting.title))
            if outcome.answer.status == "refused":
                raise BenchError(f"{setting.title}: {outcome.answer.message}")
            record = _keep(setting, outcome, store, machine)
            records[record.key] = record
            if record.status != "complete":
                watcher.say(f"{setting.title}: {record.status}: {outcome.answer.message}")
            bar.advance(setting.title)
    return [records[key_of(setting.job(machine))] for setting in settings]


def _telling(bar: Bar, title: str) -> Callable[[str], None]:
    return lambda news: bar.note(f"{title}: {news}")


def _known(settings: Sequence[Setting], store: Store, machine: Machine, operators: int) -> dict[str, Record]:
    facts = software()
    if facts["code"]["dirty"]:
        return {}
    code = code_name(facts)
    found = {}
    for setting in settings:
        record = store.get(key_of(setting.job(machine)))
        if record is None or record.status not in _LASTING or record.code != code:
            continue
        listed = record.content.get("measured", {}).get("operators", ())
        if record.status == "oom" or len(listed) >= operators:
            found[record.key] = record
    return found


def _keep(setting: Setting, outcome: Outcome, store: Store, machine: Machine) -> Record:
    answer = outcome.answer
    facts: dict[str, Any] = {
        "hardware": machine.hardware,
        "measured": answer.found,
        "provenance": answer.provenance,
        "notes": list(answer.notes),
    }
    if setting.called:
        facts["title"] = setting.called
    if setting.asked_size != setting.image_size:
        facts["asked_size"] = list(setting.asked_size)
    record = store.open_profile(setting.job(machine), **facts)
    for name, content in outcome.files.items():
        record.attach(name, content)
    return record.finish(answer.status, **({"message": answer.message} if answer.message else {}))


def _trace(folder: Path, setting: Setting) -> Path:
    size = "x".join(map(str, setting.image_size))
    width = f"-{setting.in_channels}" if setting.what in OF_TOKENS else ""
    return folder / f"{setting.model}{width}-{size}-{setting.mode}.json.gz"
