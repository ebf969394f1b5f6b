"""What a page holds. Text is plain text: it is escaped for HTML and for Markdown, never interpreted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bench.errors import BenchError
from bench.report.sheet import Sheet

BROWSER_ANCHOR = "cases"
# No underscore and no "=": with these the page makes ids of its own and the case browser's fragments.
_ANCHOR = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Text:
    """Running text."""

    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Lines kept as they are: commands, configuration."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table that readers can sort.

    Raises:
        BenchError: a row has more or fewer cells than there are columns, or a block begins at a row that is not there.
    """

    sheet: Sheet

    def __post_init__(self) -> None:
        sheet = self.sheet
        for number, row in enumerate(sheet.rows):
            if len(row) != len(sheet.columns):
                raise BenchError(
                    f"row {number} of the table {sheet.title!r} has {len(row)} cells; expected {len(sheet.columns)}, "
                    "one for each column."
                )
        for number in sheet.break_before or {}:
            if not 0 <= number < len(sheet.rows):
                raise BenchError(
                    f"a block of the table {sheet.title!r} begins before row {number}; expected one of its "
                    f"{len(sheet.rows)} rows, counted from 0."
                )


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        title: printed under it.
        svg: a whole SVG document that refers to nothing outside itself.
        description: what a reader who cannot see it should know.
    """

    title: str
    svg: str
    description: str


@dataclass(frozen=True)
class Facts:
    """Names and their values: provenance, fields of a protocol."""

    items: tuple[tuple[str, str], ...]


Block = Text | Code | Table | Drawing | Facts


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an entry in the contents.

    Attributes:
        anchor: its name in links: lower-case letters, digits and hyphens, a letter first.
        title: one line.
        blocks: in order.

    Raises:
        BenchError: the anchor is none.
    """

    anchor: str
    title: str
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        if not _ANCHOR.fullmatch(self.anchor):
            raise BenchError(
                f"found {self.anchor!r} as the anchor of the section {self.title!r}; expected lower-case letters, "
                "digits and hyphens, a letter first."
            )


@dataclass(frozen=True)
class CaseEntry:
    """One case as the browser of cases shows it.

    Attributes:
        case: its id.
        scores: model to region to metric to value; what is missing, None or NaN is shown as missing.
        pictures: model to a PNG file's bytes or an SVG document; models may be missing.
    """

    case: str
    scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    pictures: Mapping[str, bytes | str]


@dataclass(frozen=True)
class CaseBrowser:
    """Every case of every model.

    Attributes:
        models: in the order in which they are offered; the first is shown first.
        metrics: keys of the scores, as they are printed, with the unit.
        cases: in order.
    """

    models: tuple[str, ...]
    metrics: tuple[str, ...]
    cases: tuple[CaseEntry, ...]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: one line.
        subtitle: one line; may be empty.
        sections: in order.
        browser: shown after the sections under the anchor ``cases``.
        made: when and by what; part of the page, so that the same content gives the same bytes.

    Raises:
        BenchError: two sections share an anchor, or one has the browser's.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    browser: CaseBrowser | None
    made: str

    def __post_init__(self) -> None:
        anchors = [section.anchor for section in self.sections] + [BROWSER_ANCHOR] * (self.browser is not None)
        twice = sorted({anchor for anchor in anchors if anchors.count(anchor) > 1})
        if twice:
            raise BenchError(
                f"found the anchor {', '.join(twice)} more than once; expected one of its own per section."
            )
