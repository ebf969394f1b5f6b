"""Columns of figures whose sizes span many orders of magnitude."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from bench.report.sheet import Cell, Column, Sheet

Row = TypeVar("Row")

GIB = 2**30
UNKNOWN = Cell("–")


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, and all that stand before the point."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    # What rounds up to the next power of ten has a digit more before the point.
    rounded = float(f"{value:.{digits - 1}e}")
    after = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded if after else value:,.{after}f}"


def quantity(value: float | None, scale: float = 1.0, at_least: bool = False) -> Cell:
    """A figure in the unit of its column; ``at_least`` where it is what a measurement that ended early had reached."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return Cell(("≥ " if at_least else "") + number(scale * value), scale * value)


def count(value: float | None) -> Cell:
    """How many."""
    return UNKNOWN if value is None else Cell(f"{value:,.0f}", value)


def share(part: float | None) -> Cell:
    """A fraction in percent."""
    return UNKNOWN if part is None else Cell(f"{100 * part:.1f}", 100 * part)


@dataclass(frozen=True)
class Field(Generic[Row]):
    """One column.

    Attributes:
        column: its head.
        cell: of a row.
        always: whether it is shown where no row has anything to show in it.
    """

    column: Column
    cell: Callable[[Row], Cell]
    always: bool = False


def make_sheet(
    title: str,
    fields: Sequence[Field[Row]],
    rows: Sequence[Row],
    notes: Sequence[str],
    blocks: Mapping[int, str] | None = None,
) -> Sheet:
    """The table of some rows; columns in which nobody has anything are left out."""
    cells = [[field.cell(row) for field in fields] for row in rows]
    kept = [n for n, field in enumerate(fields) if field.always or any(row[n].value is not None for row in cells)]
    return Sheet(
        title,
        tuple(fields[n].column for n in kept),
        tuple(tuple(row[n] for n in kept) for row in cells),
        tuple(notes),
        blocks or None,
    )
