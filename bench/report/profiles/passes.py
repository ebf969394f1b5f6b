"""Tables of timed passes: inferences and training steps of networks and of token mixers, and whole volumes."""

from __future__ import annotations

from collections.abc import Callable

from bench.report.profiles.cells import GIB, UNKNOWN, Field, count, make_sheet, number, quantity
from bench.report.profiles.groups import MODES, Group, Measurement
from bench.report.profiles.notes import FEW, notes
from bench.report.sheet import Cell, Column, Sheet

_PARTS = ("forward", "backward", "optimiser")
_TITLES = {"network": "Networks", "mixer": "Token mixers"}
_ON_GPU = {
    "allocated": "peak_allocated_bytes",
    "reserved": "peak_reserved_bytes",
    "driver": "driver_bytes",
}
_ON_CPU = {"allocated": "peak_allocated_bytes", "process": "peak_process_bytes"}


def pass_sheets(group: Group) -> list[Sheet]:
    """Inferences and training steps of networks or mixers, a table each; mixers in a block for each width."""
    sheets = []
    for mode, title in MODES.items():
        rows = group.of_mode(mode)
        blocks = {}
        if group.what == "mixer":
            rows.sort(key=_width)
            blocks = {
                place: f"{_width(row)} channels"
                for place, row in enumerate(rows)
                if place == 0 or _width(row) != _width(rows[place - 1])
            }
        if rows:
            name = f"{_TITLES[group.what]}, {title} {group.told}"
            sheets.append(make_sheet(name, _pass_fields(group, mode), rows, notes(group, rows), blocks))
    return sheets


def volume_sheets(group: Group) -> list[Sheet]:
    """Sliding windows over whole volumes, with mirror images under without."""
    rows = sorted(group.members, key=lambda row: (row.voxels, row.batch, row.label, row.job["flips"]))
    fields = [
        _text("network", lambda row: row.label),
        _text("patch", lambda row: row.size),
        _text("mirror images", lambda row: f"all {row.job['flips']}" if row.job["flips"] > 1 else "none"),
        _count("windows", lambda row: row.found.get("windows")),
        _count("at once", lambda row: row.found.get("at_once")),
        *_time_fields("case s", 1.0),
        _figure("Mvoxel/s", lambda row: row.found.get("voxels_per_s"), 1e-6),
        *_memory_fields(group),
        *_last_fields(),
    ]
    return [make_sheet(f"Whole volumes, inference {group.told}", fields, rows, notes(group, rows))]


def _pass_fields(group: Group, mode: str) -> list[Field[Measurement]]:
    fields = [
        _text("mixer" if group.what == "mixer" else "network", lambda row: row.label),
        _text("size", lambda row: row.size),
        *([_count("tokens", lambda row: row.voxels)] if group.what == "mixer" else []),
        _count("batch", lambda row: row.batch),
        _figure("parameters M", lambda row: row.found.get("parameters"), 1e-6),
        _figure("operations GMAC", lambda row: row.found.get("gmacs")),
        *_time_fields("time ms", 1e3),
        *(_part(name) for name in _PARTS),
        _figure("first pass s", lambda row: (row.found.get("time") or {}).get("first_s")),
        _figure("Mvoxel/s", lambda row: row.found.get("voxels_per_s"), 1e-6),
    ]
    if mode == "infer":
        fields.append(_figure("TFLOP/s", _reached, 1e-12))
    return [*fields, *_memory_fields(group), *_last_fields()]


def _time_fields(label: str, scale: float) -> list[Field[Measurement]]:
    def median(row: Measurement) -> Cell:
        return quantity(row.seconds, scale) if row.complete else Cell(row.record.status)

    def spread(row: Measurement) -> Cell:
        time = row.found.get("time") if row.complete else None
        if not time:
            return UNKNOWN
        low, high = scale * time["p10_s"], scale * time["p90_s"]
        return Cell(f"{number(low)}–{number(high)}", low)

    unit = label.rpartition(" ")[2]
    return [
        Field(Column(label, rule=True), median, always=True),
        Field(Column(f"p10–p90 {unit}"), spread),
    ]


def _part(name: str) -> Field[Measurement]:
    return _figure(f"{name} ms", lambda row: (row.found.get("time") or {}).get("parts", {}).get(name), 1e3)


def _memory_fields(group: Group) -> list[Field[Measurement]]:
    # Features of a few thousand tokens take thousandths of a GiB.
    unit, scale = ("MiB", 2.0**-20) if group.what == "mixer" else ("GiB", 1 / GIB)

    def cell(name: str) -> Callable[[Measurement], Cell]:
        return lambda row: quantity(row.memory(name), scale, at_least=not row.complete)

    names = _ON_GPU if group.on_gpu else _ON_CPU
    return [
        Field(Column(f"{label} {unit}", rule=place == 0), cell(name))
        for place, (label, name) in enumerate(names.items())
    ]


def _last_fields() -> list[Field[Measurement]]:
    def repeats(row: Measurement) -> Cell:
        time = row.found.get("time") if row.complete else None
        if not time:
            return UNKNOWN
        return Cell(str(time["repeats"]), time["repeats"], mark="" if time["median_low_s"] is not None else FEW)

    return [
        _figure("energy J", lambda row: row.found.get("energy_j")),
        Field(Column("repeats", rule=True), repeats, always=True),
    ]


def _text(label: str, text: Callable[[Measurement], str]) -> Field[Measurement]:
    return Field(Column(label, numeric=False), lambda row: Cell(text(row), text(row)), always=True)


def _figure(label: str, value: Callable[[Measurement], float | None], scale: float = 1.0) -> Field[Measurement]:
    return Field(Column(label), lambda row: quantity(value(row), scale))


def _count(label: str, value: Callable[[Measurement], int | None]) -> Field[Measurement]:
    return Field(Column(label), lambda row: count(value(row)))


def _reached(row: Measurement) -> float | None:
    """Floating-point operations a second, two for each multiply-accumulate."""
    gmacs = row.found.get("gmacs")
    return None if not gmacs or not row.seconds else 2e9 * gmacs * row.batch / row.seconds


def _width(row: Measurement) -> int:
    return int(row.job["in_channels"])
