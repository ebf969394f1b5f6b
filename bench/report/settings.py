"""Which records are measurements of what networks cost, and how one was made, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.store import Record

WHATS = ("network", "mixer", "scan", "volume", "receptive-field", "ceiling")
# What every measurement's job has.
_FIELDS = frozenset(
    (
        *("what", "model", "model_options", "image_size", "mode", "batch", "in_channels", "classes", "precision"),
        *("compile", "channels_last", "cudnn_benchmark", "backend", "hardware", "torch"),
    )
)
# A processor's name ends in the number of its threads, a GPU's does not.
_THREADS = re.compile(r", \d+ threads?$")


def is_profile(record: Record) -> bool:
    """Whether a record is a measurement that tables can show."""
    job = record.content.get("job", {})
    return record.kind == "profile" and job.keys() >= _FIELDS and job["what"] in WHATS


def scan_backend(record: Record) -> str | None:
    """By what a profile's selective scans were computed; None where it was counted that there are none."""
    operations = (record.content.get("measured") or {}).get("operations")
    if operations is not None and not operations.get("scan"):
        return None
    return str(record.content["job"]["backend"])


def size_text(size: Sequence[int]) -> str:
    """``64³`` for cubes, else ``64×64×96``, in the order of ``size``."""
    return f"{size[0]}³" if len(size) == 3 and len(set(size)) == 1 else "×".join(map(str, size))


def on_gpu(hardware: str) -> bool:
    """Whether a profile's hardware is a GPU."""
    return not _THREADS.search(hardware)


def option_words(job: Mapping[str, Any]) -> list[str]:
    """Precision, and what differs from a plain run, of a profile's job; cuDNN's choice only where there is cuDNN."""
    words = [str(job["precision"])]
    words += ["compiled"] * bool(job["compile"]) + ["channels last"] * bool(job["channels_last"])
    words += ["fused kernels"] * bool(job.get("fused")) + ["CUDA graph"] * bool(job.get("graph"))
    return words + ["cudnn.benchmark off"] * (on_gpu(str(job["hardware"])) and not job["cudnn_benchmark"])
