"""The page as text: structure, escaping, the same bytes each time, nothing from elsewhere."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.report.page import CaseBrowser, CaseEntry, Facts, Page, Section, Table, Text, render_page
from bench.report.page.cases import embedded
from bench.report.sheet import Cell, Column, Sheet

VOID = {"meta", "link", "input", "img", "br", "wbr"}
HOSTILE = "</script><b>x & 'y' \"z\"\u2028"


class Outline(HTMLParser):
    """Elements in order, with their attributes; fails where tags do not pair."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.text.setdefault(self._open[-1], []).append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == tag]


@pytest.fixture(scope="module")
def outline(page_file: Path) -> Outline:
    return Outline(page_file.read_text(encoding="utf-8"))


def test_its_structure_says_what_it_is(outline: Outline) -> None:
    count = Counter(tag for tag, _ in outline.elements)
    assert (count["h1"], count["nav"], count["main"], count["section"], count["h2"]) == (1, 1, 1, 5, 5)
    assert outline.attributes("html") == [{"lang": "en"}]
    sections = [section["id"] for section in outline.attributes("section")]
    assert [link["href"] for link in outline.attributes("a")][1:] == [f"#{name}" for name in sections]
    assert (count["table"], count["caption"]) == (3, 2)
    assert all("scope" in head for head in outline.attributes("th"))
    assert [picture["aria-label"] for picture in outline.attributes("svg")] == [
        "Lines of eight models",
        "Loss falls in all models",
    ]


def test_no_id_stands_twice(outline: Outline) -> None:
    ids = Counter(attributes["id"] for _, attributes in outline.elements if "id" in attributes)
    assert {name for name, count in ids.items() if count > 1} == set()
    referred = {attributes["aria-labelledby"] for _, attributes in outline.elements if "aria-labelledby" in attributes}
    assert referred <= ids.keys()


def test_nothing_is_fetched(outline: Outline, page_file: Path) -> None:
    for _, attributes in outline.elements:
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:"))
    text = page_file.read_text(encoding="utf-8")
    assert not re.findall(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text


def test_a_table_keeps_values_marks_and_blocks() -> None:
    sheet = Sheet(
        "T",
        (Column("name", numeric=False), Column("value", rule=True)),
        (
            (Cell("a", "key"), Cell("1.00", 1.004, best=True, mark="b")),
            (Cell("c"), Cell("–", math.nan)),
            (Cell("d", "d"), Cell("∞", math.inf)),
        ),
        ("b: a note",),
        {1: "Block"},
    )
    made = render_page(_page(Table(sheet)))
    assert '<th scope=row class="text" data-text="key">a</th>' in made
    assert '<td class="number rule" data-number="1.004"><strong>1.00</strong><sup>b</sup></td>' in made
    assert '<td class="number rule">–</td>' in made
    assert 'data-number="Infinity">∞' in made
    assert made.count("<tbody>") == 2
    assert (
        made.index("1.00<") < made.index('<th scope="rowgroup" colspan="2"><span>Block</span></th>') < made.index("–")
    )
    assert "<li>b: a note</li>" in made


def _page(*blocks: Table | Text | Facts) -> Page:
    return Page("Title", "", (Section("a", "A", blocks),), None, "")


def test_text_is_escaped() -> None:
    sheet = Sheet(HOSTILE, (Column(HOSTILE),), ((Cell(HOSTILE, HOSTILE, mark=HOSTILE),),), (HOSTILE,), {0: HOSTILE})
    page = Page(
        HOSTILE,
        HOSTILE,
        (Section("a", HOSTILE, (Text((HOSTILE,)), Facts(((HOSTILE, HOSTILE),)), Table(sheet))),),
        CaseBrowser((HOSTILE,), (HOSTILE,), (CaseEntry(HOSTILE, {HOSTILE: {HOSTILE: {HOSTILE: 0.5}}}, {}),)),
        HOSTILE,
    )
    made = render_page(page)
    assert "<b>" not in made
    outline = Outline(made)
    data, _ = outline.text["script"]
    assert not set(data) & set("<>&\u2028\u2029")
    assert json.loads(data)["cases"][0]["id"] == HOSTILE
    for tag in ("h1", "title", "h2", "p", "dt", "dd", "option", "footer", "li", "sup"):
        assert HOSTILE in outline.text[tag], tag


def test_the_same_content_gives_the_same_page(page_file: Path) -> None:
    """Also in another process, where strings hash otherwise."""
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('c', sys.argv[1]); m = u.module_from_spec(s); "
        "s.loader.exec_module(m); sys.stdout.buffer.write(m.render_page(m.example()).encode())"
    )
    conftest = Path(__file__).with_name("conftest.py")
    done = subprocess.run([sys.executable, "-c", code, conftest], capture_output=True, check=True)
    assert done.stdout == page_file.read_bytes()


def test_without_a_browser_of_cases_there_is_none() -> None:
    made = render_page(_page(Text(("words",))))
    assert "<h2" in made
    assert "cases_data" not in made.split("<script>")[0]


def test_scores_and_pictures_are_embedded() -> None:
    scores = {"m": {"WT": {"Dice": 0.5, "HD95": math.inf}, "ET": {"Dice": math.nan, "HD95": None}}}
    cases = (
        CaseEntry("c", scores, {"m": b"\x89PNG\r\n\x1a\nrest", "n": "<svg/>"}),
        CaseEntry("d", {"m": {"TC": {"HD95": 7.0}}}, {}),
    )
    assert json.loads(embedded(CaseBrowser(("m", "n"), ("Dice", "HD95"), cases))) == {
        "models": ["m", "n"],
        "regions": 3,
        "digits": [3, 3, 3, 2, 2, 2],
        "cases": [
            {
                "id": "c",
                "scores": {"m": [0.5, None, None, "Infinity", None, None]},
                "pictures": {
                    "m": "data:image/png;base64,iVBORw0KGgpyZXN0",
                    "n": "data:image/svg+xml;base64,PHN2Zy8+",
                },
            },
            {"id": "d", "scores": {"m": [None, None, None, None, None, 7.0]}, "pictures": {}},
        ],
    }


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ((CaseEntry("c", {}, {"m": b"GIF89a"}),), "a picture of c begins with b'GIF89a'"),
        ((CaseEntry("c", {}, {}), CaseEntry("c", {}, {})), "found c more than once"),
    ],
)
def test_what_cannot_be_embedded(cases: tuple[CaseEntry, ...], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        embedded(CaseBrowser(("m",), ("Dice",), cases))


@pytest.mark.parametrize("heavy", ["torch", "matplotlib", "pandas"])
def test_importing_it_is_light(heavy: str) -> None:
    code = f"import bench.report.page, sys; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
