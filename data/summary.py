"""What a prepared dataset is, in a few numbers: a file beside its cases, and lines for people."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import DataError
from data.preparation import Preparation
from data.prepared import StoredCase

SUMMARY = "summary.json"


def write_summary(folder: Path, cases: Iterable[StoredCase], preparation: Preparation) -> dict[str, Any]:
    """Count over prepared cases and keep the counts in ``folder/summary.json``; returns them.

    Shapes are in voxels, spacings in mm, both (D, H, W), each as smallest, median and largest per axis;
    ``voxels`` and ``cases_with`` are by label value, in the prepared grid.

    Raises:
        DataError: a case cannot be read, or the file cannot be written.
    """
    facts = [_read(case.folder / "case.json") for case in cases]
    voxels: dict[str, int] = {}
    cases_with: dict[str, int] = {}
    for case in facts:
        for value, count in case["voxels"].items():
            voxels[value] = voxels.get(value, 0) + count
            cases_with[value] = cases_with.get(value, 0) + 1
    by_value = sorted(voxels, key=int)
    summary = {
        "cases": len(facts),
        "bytes": sum(case["bytes"] for case in facts),
        "preparation": preparation.to_dict(),
        "shape": _range([case["shape"] for case in facts]),
        "spacing_mm": _range([case["spacing_mm"] for case in facts]),
        "prepared_shape": _range([case["prepared_shape"] for case in facts]),
        "prepared_spacing_mm": _range([case["prepared_spacing_mm"] for case in facts]),
        "voxels": {value: voxels[value] for value in by_value},
        "cases_with": {value: cases_with[value] for value in by_value},
    }
    _write(folder / SUMMARY, json.dumps(summary, indent=1))
    return summary


def _range(triples: list[list[float]]) -> dict[str, list[float]]:
    values = np.array(triples)
    return {
        "smallest": values.min(axis=0).tolist(),
        "median": np.median(values, axis=0).tolist(),
        "largest": values.max(axis=0).tolist(),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}. Prepare the dataset again.") from error


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        scratch.write_text(text)
        scratch.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}. Free some space there, or set BENCH_CACHE_DIR to a folder on "
            "another disk."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()
