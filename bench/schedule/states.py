"""How far each job is, from the results folder alone: what ``bench status`` prints and a sweep shows of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.live import read_progress
from bench.store import Record, Store
from bench.sweep import Sweep

# In the order of a listing: what is under way first, what ended last.
ORDER = ("running", "queued", "interrupted", "failed", "oom", "nan", "timeout", "damaged", "complete")
FAILED = ("failed", "oom", "nan", "timeout", "damaged")


@dataclass(frozen=True)
class JobState:
    """One job as it stands.

    Attributes:
        key: of its record.
        model, dataset, protocol: their names; the protocol's title.
        seed: of the job; empty where it has none.
        fold: of a cross-validation, else empty.
        state: one of `ORDER`: ``queued`` where a sweep at work has still to begin it, ``interrupted`` where it can go
            on from a checkpoint or has not begun and nobody is about to.
        doing: the piece of work under way, with its count, e.g. ``training 120/1000``.
        dice: mean Dice of the test cases, or as long as there is none of the last validation; None before it.
        left_s: how long the piece of work under way will take, in seconds.
        where: machine and GPUs.
        message: why it failed.
    """

    key: str
    model: str
    dataset: str
    protocol: str
    seed: str
    fold: str
    state: str
    doing: str = ""
    dice: float | None = None
    left_s: float | None = None
    where: str = ""
    message: str = ""


def all_states(store: Store, sweeps: Sequence[Sweep]) -> list[JobState]:
    """Of every training that has a record, and of those that a sweep has still to begin."""
    pending: dict[str, tuple[Mapping[str, Any], bool]] = {}
    for sweep in sweeps:
        at_work = sweep.at_work
        for job in sweep.jobs:
            pending[job["key"]] = job, at_work or pending.get(job["key"], ({}, False))[1]
    states = []
    for record in store.records():
        told, awaited = pending.pop(record.key, ({}, False))
        if record.kind == "run" or told or record.faults:
            # What failed may have done so in this very sweep, and need not wait for another turn.
            queued = awaited and record.status in ("interrupted", "damaged")
            states.append(_of_record(record, told, queued))
    states += [_unbegun(job, "queued" if at_work else "interrupted") for job, at_work in pending.values()]
    return sorted(states, key=lambda state: ORDER.index(state.state) if state.state in ORDER else len(ORDER))


def states_of(store: Store, jobs: Iterable[Mapping[str, Any]], queued: Iterable[str]) -> list[JobState]:
    """Of certain jobs, as a sweep sees them.

    Args:
        jobs: as in `bench.sweep.Sweep`.
        queued: keys of those that wait; whatever came of an earlier attempt.
    """
    waits = set(queued)
    states = []
    for job in jobs:
        record = store.get(job["key"])
        states.append(_of_record(record, job, job["key"] in waits) if record else _unbegun(job, "queued"))
    return states


def _of_record(record: Record, told: Mapping[str, Any], queued: bool) -> JobState:
    job = {**record.content.get("job", {}), **{name: told[name] for name in ("model", "dataset") if name in told}}
    status = record.status
    if queued and status not in ("running", "complete"):
        status = "queued"
    row = record.last_epoch() or {}
    doing, left, where = "", None, ""
    if status == "running":
        progress = read_progress(record.folder)
        if progress is None:
            doing = "starting"
        else:
            doing, left = f"{progress.title} {progress.done}/{progress.total}", progress.left_s
            where = progress.host + (f" GPU {progress.gpus}" if progress.gpus else "")
    elif status in ("interrupted", "queued"):
        doing = f"after step {row['step']:g}" if row.get("step") else ""
    dice = record.content.get("mean_dice") if status == "complete" else row.get("dice")
    message = "; ".join(record.faults) or str(record.content.get("message", ""))
    return JobState(
        key=record.key,
        model=str(job.get("model", "?")),
        dataset=str(job.get("dataset", "?")),
        protocol=str(record.content.get("protocol_title", told.get("protocol", ""))),
        seed=_text(job.get("seed")),
        fold=_text(job.get("fold")),
        state=status,
        doing=doing,
        dice=dice,
        left_s=left,
        where=where,
        message=message if status in FAILED else "",
    )


def _unbegun(job: Mapping[str, Any], state: str) -> JobState:
    return JobState(
        key=str(job["key"]),
        model=str(job.get("model", "?")),
        dataset=str(job.get("dataset", "?")),
        protocol=str(job.get("protocol", "")),
        seed=_text(job.get("seed")),
        fold=_text(job.get("fold")),
        state=state,
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)
