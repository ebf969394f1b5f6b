"""What a reader of measured costs must know, in the lines under a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.report.profiles.cells import number
from bench.report.profiles.groups import Group, Measurement
from bench.report.settings import scan_backend

FEW = "†"
# How a profile's count of operations calls what came out of compiled extensions.
UNSEEN = "code outside of PyTorch"
_MESSAGE_CHARACTERS = 200


def notes(group: Group, rows: Sequence[Measurement]) -> list[str]:
    """The lines under a table of passes, in order."""
    found = [*failures(rows), *times(rows), *_memory(group, rows), *_operations(group, rows)]
    if any(row.found.get("energy_j") is not None for row in rows):
        found.append("Energy: of the whole device during one pass, by the driver's counter.")
    return [*found, *company(rows), machine(group, rows)]


def failures(rows: Sequence[Measurement]) -> list[str]:
    """Why rows have no figures, and how far they came."""
    lines = []
    for row in rows:
        if row.complete:
            continue
        content = row.record.content
        told = "; ".join(row.record.faults) or str(content.get("message", ""))
        told = " ".join(told.split())
        told = told if len(told) <= _MESSAGE_CHARACTERS else f"{told[:_MESSAGE_CHARACTERS].rstrip()}…"
        reached = str(row.found.get("reached") or "")
        at = f" ({reached})" if reached and reached not in told else ""
        lines.append(f"{row.name}: {row.record.status}{at}{': ' + told if told else ''}")
    return lines


def company(rows: Sequence[Measurement]) -> list[str]:
    """Beside what else rows were measured."""
    told = _by(rows, lambda row: [str(note) for note in row.record.content.get("notes") or ()])
    return [f"Measured while {'; '.join(f'{note}: {_names(alike)}' for note, alike in told.items())}."] if told else []


def machine(group: Group, rows: Sequence[Measurement]) -> str:
    """What measured: software, and what was chosen on it."""
    chosen = () if group.what == "scan" else _chosen(group, rows)
    codes = _by(rows, lambda row: [row.record.code])
    told = [f"{group.hardware}, PyTorch {group.shared['torch']}", *chosen, f"code {' and '.join(codes)}"]
    return f"{', '.join(told)}."


def _chosen(group: Group, rows: Sequence[Measurement]) -> Iterator[str]:
    if group.on_gpu:
        yield f"cudnn.benchmark {'on' if group.shared['cudnn_benchmark'] else 'off'}"
    backends = sorted({backend for row in rows if (backend := scan_backend(row.record))})
    if backends:
        sure = any((row.found.get("operations") or {}).get("scan") for row in rows)
        yield f"selective scan{'' if sure else 's, if any,'} by {' and '.join(backends)}"


def times(rows: Sequence[Measurement]) -> Iterator[str]:
    """How often passes were repeated."""
    timed = [row for row in rows if row.complete and row.found.get("time")]
    for rule, alike in _by(timed, lambda row: [str(row.found["time"]["rule"])]).items():
        whose = "" if len(alike) == len(timed) else f" of {_names(alike)}"
        yield f"Times{whose}: medians, repeated {rule}."
    if any(row.found["time"]["median_low_s"] is None for row in timed):
        yield f"{FEW} too few repeats for an interval of the median."


def _memory(group: Group, rows: Sequence[Measurement]) -> list[str]:
    if not any(row.found.get("memory") for row in rows):
        return []
    told = "allocated is the most that tensors took, "
    if group.on_gpu:
        told += "reserved what PyTorch's allocator held for them, driver what the process took of the device"
    else:
        told += "process the most that the whole process held"
    later = "; ≥ is what a measurement had reached that came to no end" if any(not row.complete for row in rows) else ""
    return [f"Memory: {told}{later}."]


def _operations(group: Group, rows: Sequence[Measurement]) -> Iterator[str]:
    counted = [(row, row.found["operations"]) for row in rows if row.found.get("operations")]
    if not counted:
        return
    reached = "" if rows[0].mode != "infer" else "; TFLOP/s takes two operations for each"
    one = "of one inference of one image" if group.what == "network" else "of one forward pass"
    yield f"Operations: multiply-accumulates {one}{reached}."
    shares: dict[str, list[float]] = {}
    for row, operations in counted:
        total = sum(operations.get(name, 0) for name in ("convolution", "matrix_product", "scan"))
        if operations.get("scan", 0) > 0:
            shares.setdefault(row.label, []).append(operations["scan"] / total)
    if shares:
        told = (f"{label} {_range([100 * share for share in found])} %" for label, found in sorted(shares.items()))
        yield f"Of them in selective scans: {', '.join(told)}."
    totals: dict[str, int] = {}
    for _, operations in counted:
        for name, values in operations.get("uncounted", {}).items():
            totals[name] = max(totals.get(name, 0), values)
    unseen = {row.label: None for row, operations in counted if UNSEEN in operations.get("uncounted", {})}
    if unseen:
        yield (
            f"{', '.join(unseen)}: a part of the work is done by {UNSEEN}, where nobody can count it: operations"
            f"{' and TFLOP/s are' if reached else ' are'} those of the rest."
        )
    if names := [name for name in sorted(totals, key=lambda name: -totals[name]) if name != UNSEEN]:
        yield f"Without a formula and not counted, most values first: {', '.join(names)}."


def _range(values: Sequence[float]) -> str:
    low, high = number(min(values), 2), number(max(values), 2)
    return low if low == high else f"{low}–{high}"


def _by(
    rows: Sequence[Measurement], keys: Callable[[Measurement], Sequence[str]]
) -> Mapping[str, Sequence[Measurement]]:
    """Rows by what is said of them, in their order."""
    found: dict[str, list[Measurement]] = {}
    for row in rows:
        for key in keys(row):
            found.setdefault(key, []).append(row)
    return found


def _names(rows: Sequence[Measurement]) -> str:
    return ", ".join(dict.fromkeys(row.name for row in rows))
