"""How long jobs will take, as far as earlier records tell; the longest begin first, so that none is left for last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.job import Job
from bench.store import Record


def longest_first(jobs: Sequence[Job], records: Sequence[Record]) -> list[tuple[Job, float | None]]:
    """Jobs with the seconds they are expected to take. Those of which nothing is known come first: they may be long."""
    timed = [(job, expected_s(job, records)) for job in jobs]
    return sorted(timed, key=lambda pair: float("-inf") if pair[1] is None else -pair[1])


def expected_s(job: Job, records: Sequence[Record]) -> float | None:
    """Seconds until a job's end, without preparation; None where nothing tells.

    A run of the same network under the same protocol counts most, then the time of a step of the same network in
    patches and batches of the same size, then that of a profile. Steps that are done already are not counted.
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
                return float(train) * left + float(times.get("last_test_s", 0.0))
    if job.protocol.train.gpu_seconds is not None:
        return job.protocol.train.gpu_seconds
    step = next((found for record in (*([own] if own else []), *runs) if (found := _step_s(record, mine))), None)
    if step is None:
        step = next((found for record in records if (found := _profiled_step_s(record, mine))), None)
    return None if step is None or total is None else step * total * left


def _network(job: Any) -> str:
    return json.dumps([job["model"], job.get("model_options", {})], sort_keys=True)


def _size(job: Any) -> tuple[Any, ...]:
    """Of what a step works on; records of old may lack a field."""
    data, train = (job["protocol"].get(name, {}) for name in ("data", "train"))
    return data.get("patch_size"), train.get("batch_size"), train.get("precision")


def _steps(record: Record) -> int:
    row = record.last_epoch()
    return 0 if row is None else int(row.get("step") or 0)


def _step_s(record: Record, mine: Any) -> float | None:
    """Of a run's last epoch."""
    theirs = record.content.get("job", {})
    if record.kind != "run" or _network(theirs) != _network(mine) or _size(theirs) != _size(mine):
        return None
    row = record.last_epoch() or {}
    return sum(row.get(name) or 0.0 for name in ("step_s", "data_wait_s")) or None


def _profiled_step_s(record: Record, mine: Any) -> float | None:
    """Of the network's training step on images and in batches of the same size; its options of speed may differ."""
    if record.kind != "profile" or record.status != "complete":
        return None
    theirs = record.content["job"]
    size = theirs.get("image_size"), theirs.get("batch"), theirs.get("precision")
    same = (theirs.get("what"), theirs.get("mode")) == ("network", "train") and size == _size(mine)
    if not same or _network(theirs) != _network(mine):
        return None
    value = record.content.get("measured", {}).get("train_step_s")
    return float(value) if isinstance(value, (int, float)) else None
