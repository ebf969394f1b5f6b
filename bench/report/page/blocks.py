"""The rows of a sheet, block by block."""

from __future__ import annotations

from bench.report.sheet import Cell, Sheet

Rows = tuple[tuple[Cell, ...], ...]


def blocks(sheet: Sheet) -> list[tuple[str | None, Rows]]:
    """Heading and rows of each block; rows before the first heading have None."""
    headings = dict(sheet.break_before or {})
    starts = sorted({0, *headings})
    ends = [*starts[1:], len(sheet.rows)]
    return [(headings.get(start), sheet.rows[start:end]) for start, end in zip(starts, ends, strict=True)]
