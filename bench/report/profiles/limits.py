"""Tables of what is not a time: receptive fields, the largest cubes that fit, operators of one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.profiles.cells import GIB, UNKNOWN, Field, count, make_sheet, quantity, share
from bench.report.profiles.groups import MODES, Group, Measurement
from bench.report.profiles.notes import company, failures, machine
from bench.report.settings import size_text
from bench.report.sheet import Cell, Column, Sheet

# What a trial says that failed for want of memory.
OUT_OF_MEMORY = "out of memory"
_LARGEST = {"infer": "largest inference", "train": "largest training"}


def field_sheets(group: Group) -> list[Sheet]:
    """Effective receptive fields: how far from a voxel lies what its logits depend on."""
    rows = sorted(group.members, key=lambda row: (row.voxels, _farthest_first(row), row.label))
    fields = [
        Field(Column("network", numeric=False), lambda row: Cell(row.label, row.label), always=True),
        Field(Column("size", numeric=False), lambda row: Cell(row.size, row.voxels), always=True),
        Field(Column("r50 voxels", rule=True), _status_or(lambda found: found["radii"]["r50"]), always=True),
        _of("r90 voxels", lambda found: found["radii"]["r90"]),
        _of("r99 voxels", lambda found: found["radii"]["r99"]),
        Field(Column("beyond half %"), lambda row: share(row.found.get("beyond_half"))),
        Field(Column("seen %"), lambda row: share(row.found.get("seen"))),
        Field(Column("above 10⁻⁶ %"), lambda row: share(row.found.get("seen_1e6"))),
        *(_offset(axis, rule=axis == "D") for axis in "DHW"),
        _of("parameters M", lambda found: found["parameters"] * 1e-6, rule=True),
        Field(Column("inputs"), lambda row: count(row.found.get("inputs"))),
    ]
    notes = [
        *failures(rows),
        "Energy: the square of the gradient of the central voxel's logits with respect to the image, summed over "
        "classes and channels. r50, r90 and r99: distances from that voxel within which 50, 90 and 99 % of it lie; "
        "beyond half: what lies farther than half of the way to the nearest face.",
        "Seen: voxels with any gradient; above 10⁻⁶: with more than a millionth of the largest energy. Norms over the "
        "whole image let every voxel count a little.",
        "Offset: of the energy's centroid from the central voxel, in voxels; an even energy in an even edge has −0.5.",
        *company(rows),
        machine(group, rows),
    ]
    return [make_sheet(f"Effective receptive fields {group.told}", fields, rows, notes)]


@dataclass(frozen=True)
class _Limit:
    """The measurements of one network, by mode."""

    label: str
    batch: int
    of_mode: dict[str, Measurement]


def ceiling_sheets(group: Group) -> list[Sheet]:
    """The largest cubes on which networks run within some memory, for inference and training beside each other."""
    found: dict[tuple[str, int], dict[str, Measurement]] = {}
    for member in group.members:
        found.setdefault((member.label, member.batch), {})[member.mode] = member
    rows = [_Limit(label, batch, of_mode) for (label, batch), of_mode in found.items()]
    rows.sort(key=lambda row: (row.batch, *(-_edge(row.of_mode.get(mode)) for mode in ("train", "infer")), row.label))
    fields: list[Field[_Limit]] = [
        Field(Column("network", numeric=False), lambda row: Cell(row.label, row.label), always=True),
        Field(Column("batch"), lambda row: count(row.batch)),
        *(field for mode in MODES for field in _limit_fields(mode)),
    ]
    notes = [
        *failures(group.members),
        "Sizes are doubled until one does not fit, then the gap is halved; a size is taken to fit where a larger one "
        "does. Memory: what tensors took at that size.",
        *_stopped(group.members),
        *company(group.members),
        machine(group, group.members),
    ]
    return [make_sheet(f"Largest cubes {group.told}", fields, rows, notes)]


def operator_sheets(group: Group) -> list[Sheet]:
    """Where the time of one pass goes, a table for each measurement of which that is known."""
    sheets = []
    for row in (row for mode in MODES for row in group.of_mode(mode)):
        if not (listed := row.found.get("operators")):
            continue
        fields: list[Field[dict[str, Any]]] = [
            Field(Column("operator", numeric=False), lambda one: Cell(one["name"], one["name"]), always=True),
            Field(Column("calls"), lambda one: count(one["calls"]), always=True),
            Field(Column("time ms"), lambda one: quantity(one["seconds"], 1e3), always=True),
            Field(Column("share %"), lambda one: share(one["share"]), always=True),
        ]
        title = f"Operators of {row.name}, {MODES[row.mode]} {group.told}"
        note = "By the time of an operator's own, without that of operators inside it, in one pass by torch.profiler."
        sheets.append(make_sheet(title, fields, listed, [note]))
    return sheets


def _status_or(value: Callable[[Any], float]) -> Callable[[Measurement], Cell]:
    return lambda row: quantity(value(row.found)) if row.complete else Cell(row.record.status)


def _of(label: str, value: Callable[[Any], float], rule: bool = False) -> Field[Measurement]:
    return Field(Column(label, rule=rule), lambda row: quantity(value(row.found)) if row.complete else UNKNOWN)


def _offset(axis: str, rule: bool) -> Field[Measurement]:
    def cell(row: Measurement) -> Cell:
        if not row.complete:
            return UNKNOWN
        value = float(row.found["axes"][axis])
        return Cell(f"{value:+.1f}".replace("-", "−"), value)

    return Field(Column(f"offset {axis}", rule=rule), cell)


def _farthest_first(row: Measurement) -> float:
    return -float(row.found["radii"]["r90"]) if row.complete else math.inf


def _edge(row: Measurement | None) -> int:
    return int(row.found["edge"]) if row is not None and row.complete else -1


def _limit_fields(mode: str) -> Iterator[Field[_Limit]]:
    def cube(row: _Limit) -> Cell:
        one = row.of_mode.get(mode)
        if one is None:
            return UNKNOWN
        if not one.complete:
            return Cell(one.record.status)
        edge, finished = _edge(one), one.found.get("finished", True)
        if not edge:
            return Cell("none", 0) if finished else UNKNOWN
        return Cell(("" if finished else "≥ ") + size_text((edge,) * 3), edge)

    def memory(row: _Limit) -> Cell:
        one = row.of_mode.get(mode)
        return UNKNOWN if one is None or not one.complete else quantity(one.found.get("peak_memory_bytes"), 1 / GIB)

    yield Field(Column(_LARGEST[mode], rule=True), cube)
    yield Field(Column(f"{MODES[mode]} GiB"), memory)


def _stopped(rows: Sequence[Measurement]) -> Iterator[str]:
    """Searches that ended for want of time, and sizes that failed for want of anything but memory."""
    complete = [row for row in rows if row.complete]
    if unfinished := [row for row in complete if not row.found.get("finished", True)]:
        told = ", ".join(f"{row.label} ({MODES[row.mode]})" for row in unfinished)
        yield f"≥ the time limit came before the search was over: {told}."
    for row in complete:
        failed = [trial for trial in row.found.get("tried", ()) if not trial["fits"]]
        # Of the sizes that are too large the smallest is what stopped it.
        nearest = min(failed, key=lambda trial: trial["image_size"][0], default=None)
        if nearest is not None and nearest["why"] != OUT_OF_MEMORY:
            size = size_text(nearest["image_size"])
            yield f"{row.label}, {MODES[row.mode]}: what {size} failed with is not a lack of memory: {nearest['why']}"
