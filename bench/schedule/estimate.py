"""How long jobs will take, as far as earlier records tell; the longest begin first, so that none is left for last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.job import Job
from bench.store import Record

_SPEED = ("channels_last", "compile", "fused", "graph")


@dataclass(frozen=True)
class Estimate:
    """Seconds until a job's end, without preparation, and the hardware whose times they are; none of a budget."""

    seconds: float
    hardware: str = ""


def longest_first(jobs: Sequence[Job], records: Sequence[Record]) -> list[tuple[Job, Estimate | None]]:
    """Jobs with what they are expected to take. Those of which nothing is known come first: they may be long."""
    timed = [(job, expected(job, records)) for job in jobs]
    return sorted(timed, key=lambda pair: float("-inf") if pair[1] is None else -pair[1].seconds)


def expected(job: Job, records: Sequence[Record]) -> Estimate | None:
    """How long until a job's end; None where nothing tells.

    A run of the same network under the same protocol counts most, then the time of a step of the same network in
    patches and batches of the same size, then that of a profile; of several those with the same options of speed, and
    of these the shortest. Steps that are done already are not counted.
    """
    mine = job.to_dict()
    total = job.protocol.train.total_steps
    own = next((record for record in records if record.key == job.key), None)
    done = _steps(own) if own is not None else 0
    left = 1.0 if not total else max(0.0, 1 - done / total)
    runs = [record for record in records if record.kind == "run" and record.content]
    for record in runs:
        theirs = record.content["job"]
        same = theirs["protocol"] == mine["protocol"] and _network(theirs) == _network(mine)
        if same and record.status == "complete" and theirs["data_fingerprint"] == mine["data_fingerprint"]:
            times = record.content.get("times", {})
            if (train := times.get("train_s")) is not None:
                return Estimate(float(train) * left + float(times.get("last_test_s", 0.0)), _hardware(record))
    if job.protocol.train.gpu_seconds is not None:
        return Estimate(job.protocol.train.gpu_seconds)
    step = _step([own] if own else [], mine) or _step(runs, mine) or _profiled_step(records, mine)
    return None if step is None or total is None else Estimate(step.seconds * total * left, step.hardware)


def _network(job: Any) -> str:
    return json.dumps([job["model"], job.get("model_options", {})], sort_keys=True)


def _size(job: Any) -> tuple[Any, ...]:
    """Of what a step works on; records of old may lack a field."""
    data, train = (job["protocol"].get(name, {}) for name in ("data", "train"))
    return data.get("patch_size"), train.get("batch_size"), train.get("precision")


def _steps(record: Record) -> int:
    row = record.last_epoch()
    return 0 if row is None else int(row.get("step") or 0)


def _hardware(record: Record) -> str:
    """Of a run."""
    hardware = record.content.get("provenance", {}).get("hardware", {})
    return str(hardware.get("gpu") or hardware.get("cpu") or "")


def _unlike(options: Any, mine: Any) -> int:
    """How many options of speed differ; one that is not there is off."""
    train = mine["protocol"]["train"]
    return sum(bool(options.get(name)) != bool(train.get(name)) for name in _SPEED)


def _best(found: Iterable[tuple[int, float, str]]) -> Estimate | None:
    """Of (options that differ, seconds, hardware)."""
    nearest = min(found, default=None)
    return None if nearest is None else Estimate(*nearest[1:])


def _step(runs: Iterable[Record], mine: Any) -> Estimate | None:
    """A step of the last epoch of such a run."""
    found = []
    for record in runs:
        theirs = record.content.get("job", {})
        if record.kind != "run" or _network(theirs) != _network(mine) or _size(theirs) != _size(mine):
            continue
        row = record.last_epoch() or {}
        if seconds := sum(row.get(name) or 0.0 for name in ("step_s", "data_wait_s")):
            found.append((_unlike(theirs["protocol"].get("train", {}), mine), seconds, _hardware(record)))
    return _best(found)


def _profiled_step(records: Iterable[Record], mine: Any) -> Estimate | None:
    """The network's training step on images and in batches of the same size."""
    found = []
    for record in records:
        if record.kind != "profile" or record.status != "complete":
            continue
        theirs = record.content["job"]
        size = theirs.get("image_size"), theirs.get("batch"), theirs.get("precision")
        same = (theirs.get("what"), theirs.get("mode")) == ("network", "train") and size == _size(mine)
        if not same or _network(theirs) != _network(mine):
            continue
        seconds = record.content.get("measured", {}).get("train_step_s")
        if isinstance(seconds, (int, float)):
            found.append((_unlike(theirs, mine), float(seconds), str(theirs.get("hardware", ""))))
    return _best(found)
