"""A table as data, before it is text, LaTeX or HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column's head.

    Attributes:
        label: as it is printed, with the unit.
        numeric: set flush right, and sorted by value.
        rule: a line or more space before it, where a group of columns begins.
    """

    label: str
    numeric: bool = True
    rule: bool = False


@dataclass(frozen=True)
class Cell:
    """One entry.

    Attributes:
        text: as it is printed.
        value: what a reader sorts by; None sorts last.
        best: set in bold where a format has bold type.
        mark: a letter or sign set after the text, raised where a format can; the notes say what it means.
    """

    text: str
    value: float | str | None = None
    best: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table with a title and notes.

    Attributes:
        title: one line; may be empty.
        columns: in order.
        rows: of as many cells as there are columns.
        notes: lines under the table.
        break_before: numbers of rows before which a new block begins, and what it is called.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    break_before: Mapping[int, str] | None = None
