"""What a page cannot hold is refused where it is made."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.report.page import CaseBrowser, Page, Section, Table
from bench.report.sheet import Cell, Column, Sheet


@pytest.mark.parametrize("anchor", ["", "Results", "1st", "a b", "a_b", "case=1"])
def test_an_anchor_is_a_plain_name(anchor: str) -> None:
    with pytest.raises(BenchError, match="as the anchor of the section 'Title'"):
        Section(anchor, "Title", ())


def test_anchors_are_unique_and_the_browser_has_one() -> None:
    with pytest.raises(BenchError, match="anchor a more than once"):
        Page("", "", (Section("a", "", ()), Section("b", "", ()), Section("a", "", ())), None, "")
    cases = (Section("cases", "", ()),)
    assert Page("", "", cases, None, "").sections == cases
    with pytest.raises(BenchError, match="anchor cases more than once"):
        Page("", "", cases, CaseBrowser((), (), ()), "")


def test_rows_are_as_long_as_the_head() -> None:
    with pytest.raises(BenchError, match="row 1 of the table 'T' has 2 cells; expected 1"):
        Table(Sheet("T", (Column("a"),), ((Cell("1"),), (Cell("1"), Cell("2")))))


@pytest.mark.parametrize("row", [-1, 1])
def test_a_block_begins_at_a_row(row: int) -> None:
    with pytest.raises(BenchError, match=f"begins before row {row}"):
        Table(Sheet("T", (Column("a"),), ((Cell("1"),),), break_before={row: "x"}))
