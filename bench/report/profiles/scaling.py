"""How time and memory grow with the size of an image or the number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.report.profiles.cells import UNKNOWN, Field, count, make_sheet
from bench.report.profiles.groups import MODES, OF_TOKENS, Group, Measurement, group
from bench.report.profiles.notes import machine
from bench.report.settings import size_text
from bench.report.sheet import Cell, Column, Sheet
from bench.stats.scaling import PowerLaw, fit_power_law
from bench.store import Record

LEAST_SIZES = 3
_GROWING = ("network", *OF_TOKENS)


@dataclass(frozen=True)
class Series:
    """One network, mixer or scan in one mode at several sizes.

    Attributes:
        label: its name.
        mode: ``infer`` or ``train``.
        batch: images at once.
        channels: of the features of a mixer or scan; of a network's image.
        members: by size, those among them that came to no end.
    """

    label: str
    mode: str
    batch: int
    channels: int
    members: tuple[Measurement, ...]

    @property
    def sizes(self) -> int:
        """How many different sizes were measured to their end."""
        return len({member.voxels for member in self.members if member.complete})


def growing(group_: Group) -> list[Series]:
    """The series of a group, whatever their length."""
    found: dict[tuple[str, int, int, str], list[Measurement]] = {}
    for mode in MODES:
        for member in group_.of_mode(mode):
            key = mode, int(member.job["in_channels"]), member.batch, member.label
            found.setdefault(key, []).append(member)
    return [
        Series(label, mode, batch, channels, tuple(found[mode, channels, batch, label]))
        for mode, channels, batch, label in sorted(found)
    ]


def scaling_sheets(records: Sequence[Record]) -> list[Sheet]:
    """Exponents of time and of memory as powers of the voxels of an image, or of the tokens of a mixer or scan.

    One table for each group of measurements that agree in hardware and in how they were made, with those networks,
    mixers or scans of which at least three sizes were measured to their end; none where there are no such.
    """
    sheets = []
    for one in group(records):
        rows = [series for series in growing(one) if series.sizes >= LEAST_SIZES] if one.what in _GROWING else []
        if rows:
            sheets.append(_sheet(one, rows))
    return sheets


def _sheet(group_: Group, rows: Sequence[Series]) -> Sheet:
    by_tokens = group_.what in OF_TOKENS
    n = "tokens" if by_tokens else "voxels"
    fields = [
        Field[Series](Column(group_.what, numeric=False), _text(lambda row: row.label), True),
        *([Field[Series](Column("channels"), lambda row: count(row.channels))] if by_tokens else []),
        Field[Series](Column("mode", numeric=False), _text(lambda row: MODES[row.mode]), True),
        Field[Series](Column("batch"), lambda row: count(row.batch)),
        Field[Series](Column(n if by_tokens else "sizes", numeric=False), _text(_sizes), True),
        *_exponent_fields("time", _seconds),
        *_exponent_fields("memory", _bytes),
    ]
    notes = [
        f"Exponents p of time ∝ {n}^p and memory ∝ {n}^p, by least squares on logarithms; intervals by how far the "
        "points lie off a straight line, wide where there are three. At the end: between the two largest sizes, where "
        "what every pass costs, whatever its size, such as the launch of kernels, weighs least.",
        "Memory is what tensors took, weights and optimiser included; these do not grow, so that its exponent lies "
        "below that of the features alone.",
        *_left_out(rows),
        machine(group_, [member for row in rows for member in row.members]),
    ]
    title = "Growth with the number of tokens" if by_tokens else "Growth with the size of the image"
    return make_sheet(f"{title} {group_.told}", fields, rows, notes)


def _exponent_fields(what: str, value: Callable[[Measurement], float | None]) -> list[Field[Series]]:
    def fit(row: Series) -> PowerLaw | None:
        known = [(float(m.voxels), found) for m in row.members if (found := value(m))]
        if len({x for x, _ in known}) < LEAST_SIZES:
            return None
        return fit_power_law([x for x, _ in known], [y for _, y in known])

    def exponent(row: Series) -> Cell:
        law = fit(row)
        return UNKNOWN if law is None else Cell(_signed(law.exponent), law.exponent)

    def last(row: Series) -> Cell:
        known = sorted({float(m.voxels): found for m in row.members if (found := value(m))}.items())[-2:]
        if fit(row) is None:
            return UNKNOWN
        law = fit_power_law([x for x, _ in known], [y for _, y in known])
        return Cell(_signed(law.exponent), law.exponent)

    def interval(row: Series) -> Cell:
        law = fit(row)
        if law is None or law.low is None or law.high is None:
            return UNKNOWN
        return Cell(f"{_signed(law.low)} to {_signed(law.high)}", law.high - law.low)

    return [
        Field(Column(f"{what} exponent", rule=True), exponent, always=True),
        Field(Column(f"{what} 95 %"), interval),
        Field(Column(f"{what} at the end"), last, always=True),
    ]


def _seconds(member: Measurement) -> float | None:
    return member.seconds


def _bytes(member: Measurement) -> float | None:
    return member.found.get("peak_memory_bytes") if member.complete else None


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _text(text: Callable[[Series], str]) -> Callable[[Series], Cell]:
    return lambda row: Cell(text(row), text(row))


def _sizes(row: Series) -> str:
    complete = [member for member in row.members if member.complete]
    return ", ".join(dict.fromkeys(size_text(member.job["image_size"]) for member in complete))


def _left_out(rows: Sequence[Series]) -> list[str]:
    lost = [member for row in rows for member in row.members if not member.complete]
    told = ", ".join(f"{member.name} in {MODES[member.mode]} ({member.record.status})" for member in lost)
    return [f"Without {told}."] if told else []
