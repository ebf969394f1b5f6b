"""Tables of selective scans: backends beside each other, and beside what their traffic with memory costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.report.profiles.cells import UNKNOWN, Field, count, make_sheet, number, quantity
from bench.report.profiles.groups import MODES, Group, Measurement
from bench.report.profiles.notes import FEW, company, failures, machine, times
from bench.report.sheet import Cell, Column, Sheet

# The kernel that others are compared with: the one published with Mamba.
_PUBLISHED = "mamba_ssm"
_PASSES = {"infer": "forward", "train": "forward + backward"}
_LAYOUTS = {"channels_last": "channels last", "channels_first": "channels first"}
# Packages whose kernels backends are, whose versions a record's provenance has.
_PACKAGES = {"triton": "triton", "mamba_ssm": "mamba-ssm"}
_MIB = 2.0**-20


@dataclass(frozen=True)
class _Row:
    """The measurements of one scan at one size, by mode, and those of the published kernel at that size."""

    of_mode: Mapping[str, Measurement]
    published: Mapping[str, Measurement]

    @property
    def any(self) -> Measurement:
        return next(iter(self.of_mode.values()))

    @property
    def place(self) -> tuple[object, ...]:
        """By width and tokens, then the fastest first, forward before backward."""
        seconds = [one.seconds if (one := self.of_mode.get(mode)) else None for mode in MODES]
        known = [(value is None, value or 0.0) for value in seconds]
        return _width(self.any), self.any.voxels, self.any.batch, *known, self.any.label


def scan_sheets(group: Group) -> list[Sheet]:
    """One table of all scans of a group, forward alone and with the backward pass beside each other."""
    rows = _rows(group.members)
    modes = [mode for mode in MODES if any(mode in row.of_mode for row in rows)]
    fields: list[Field[_Row]] = [
        Field(Column("backend", numeric=False), lambda row: _words(str(row.any.job["backend"])), always=True),
        Field(Column("layout", numeric=False), lambda row: _words(_layout(row.any)), always=True),
        Field(Column("channels"), lambda row: count(_width(row.any))),
        Field(Column("tokens"), lambda row: count(row.any.voxels)),
        Field(Column("batch"), lambda row: count(row.any.batch)),
        *(field for mode in modes for field in _mode_fields(mode)),
    ]
    return [make_sheet(f"Selective scans {group.told}", fields, rows, _notes(group, rows))]


def _rows(members: Sequence[Measurement]) -> list[_Row]:
    found: dict[tuple[object, ...], dict[str, Measurement]] = {}
    published: dict[tuple[object, ...], dict[str, Measurement]] = {}
    for member in members:
        size = _width(member), tuple(member.job["image_size"]), member.batch
        found.setdefault((*size, member.label), {})[member.mode] = member
        if member.job["backend"] == _PUBLISHED:
            published.setdefault(size, {})[member.mode] = member
    rows = [_Row(of_mode, published.get(key[:-1], {})) for key, of_mode in found.items()]
    return sorted(rows, key=lambda row: row.place)


def _mode_fields(mode: str) -> Iterator[Field[_Row]]:
    def time(row: _Row) -> Cell:
        one = row.of_mode.get(mode)
        if one is None:
            return UNKNOWN
        if one.seconds is None:
            return Cell(one.record.status)
        cell = quantity(one.seconds, 1e3)
        few = one.found["time"]["median_low_s"] is None
        return Cell(cell.text, cell.value, mark=FEW if few else "")

    def memory(row: _Row) -> Cell:
        one = row.of_mode.get(mode)
        return UNKNOWN if one is None else quantity(one.memory("peak_allocated_bytes"), _MIB, at_least=not one.complete)

    yield Field(Column(f"{_PASSES[mode]} ms", rule=True), time, always=True)
    yield Field(Column(f"{MODES[mode]} floor ms"), lambda row: quantity(_floor(row.of_mode.get(mode)), 1e3))
    yield Field(Column(f"{MODES[mode]} ÷ floor"), lambda row: quantity(_over_floor(row.of_mode.get(mode))))
    yield Field(Column(f"{MODES[mode]} speed-up"), lambda row: quantity(_speed_up(row, mode)))
    yield Field(Column(f"{MODES[mode]} peak MiB"), memory)


def _floor(one: Measurement | None) -> float | None:
    return None if one is None or not one.complete else one.found.get("floor_s")


def _over_floor(one: Measurement | None) -> float | None:
    floor = _floor(one)
    return None if one is None or not floor or one.seconds is None else one.seconds / floor


def _speed_up(row: _Row, mode: str) -> float | None:
    """Seconds of the published kernel over those of another."""
    one, other = row.of_mode.get(mode), row.published.get(mode)
    if one is None or other is None or one is other or not one.seconds or other.seconds is None:
        return None
    return other.seconds / one.seconds


def _notes(group: Group, rows: Sequence[_Row]) -> list[str]:
    members = [row.of_mode[mode] for mode in MODES for row in rows if mode in row.of_mode]
    found = [
        *failures(members),
        *times(members),
        "Inference: forward without gradients; training: forward and backward of a fixed gradient of what comes out, "
        "with the gradients of all that goes in. Step sizes are those of a freshly initialised Mamba.",
        "Layout of tensors (B, D, L) with D channels and L tokens: channels last are transposed views of (B, L, D), as "
        "layers have them; channels first are contiguous, and what a backend copies then is part of its time.",
        *_floors(members),
    ]
    if any(_speed_up(row, mode) for row in rows for mode in MODES):
        found.append("Speed-up: the time of the published kernel, mamba_ssm, over that of the row.")
    found.append("Peak: the most that tensors took, inputs and gradients included.")
    return [*found, *company(members), *_versions(members), machine(group, members)]


def _floors(members: Sequence[Measurement]) -> Iterator[str]:
    rates = [1e-9 * rate for one in members if (rate := one.found.get("copy_bytes_per_s"))]
    if rates:
        low, high = number(min(rates)), number(max(rates))
        told = low if low == high else f"{low}–{high}"
        yield (
            "Floor: what the least traffic takes at the bandwidth of a copy, read and written, which each process "
            f"measured for itself ({told} GB/s). Inference reads u, delta, z, B and C and writes y; training also "
            "reads y's gradient and the inputs once more, and writes their gradients. What stays in a cache from pass "
            "to pass may take less."
        )


def _versions(members: Sequence[Measurement]) -> Iterator[str]:
    """Of the packages that bring kernels, as far as records tell."""
    found: dict[str, None] = {}
    for one in members:
        package = _PACKAGES.get(str(one.job["backend"]), "")
        version = (one.record.content.get("provenance") or {}).get("packages", {}).get(package)
        if version:
            found[f"{package} {version}"] = None
    if found:
        yield f"Kernels by {', '.join(sorted(found))}."


def _words(text: str) -> Cell:
    return Cell(text, text)


def _layout(one: Measurement) -> str:
    layout = str(one.job.get("layout", ""))
    return _LAYOUTS.get(layout, layout)


def _width(one: Measurement) -> int:
    return int(one.job["in_channels"])
