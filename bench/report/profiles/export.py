"""What was measured, as one table for machines."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.report.settings import is_profile
from bench.store import Record

# Long lists, which are read from the records.
_LISTS = ("operators", "tried", "radial", "uncounted")


def profiles_csv(records: Sequence[Record]) -> str:
    """All measurements among the records as CSV, a row each, in full precision and in the units of the records.

    Columns are the fields of the job, then what was measured, parts with a dot before them (``time.median_s``,
    ``memory.peak_allocated_bytes``), bytes, seconds and joules; lists of operators and of trials are left out.
    """
    rows = []
    for record in filter(is_profile, records):
        content = record.content
        rows.append(
            {
                "key": record.key,
                "status": record.status,
                **dict(_flat(content["job"])),
                "asked_size": _text(content.get("asked_size")),
                **dict(_flat(content.get("measured") or {})),
                "code": record.code,
                "notes": "; ".join(map(str, content.get("notes") or ())),
                "message": content.get("message", ""),
            }
        )
    buffer = io.StringIO()
    # As objects: a column that some rows lack would make decimals of its whole numbers.
    pd.DataFrame(rows, dtype=object).to_csv(buffer, index=False)
    return buffer.getvalue() if rows else ""


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if name in _LISTS:
            continue
        if isinstance(value, Mapping) and name != "model_options":
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", _text(value) if isinstance(value, (list, tuple, Mapping)) else value


def _text(value: Any) -> str:
    """Sizes as they are written on the command line, options as JSON."""
    if isinstance(value, Mapping):
        return json.dumps(dict(value), sort_keys=True)
    return "" if value is None else "x".join(map(str, value))
