"""Sheets as text, Markdown, LaTeX and HTML."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.report.render import render_sheet, render_sheets
from bench.report.sheet import Cell, Column, Sheet

NAME = "a_b & 100% #1 ~^\\ {x} $y$ <i>|</i>"
SHEET = Sheet(
    title="50 % of <b> & |",
    columns=(Column("model", numeric=False), Column("WT | Dice %")),
    rows=(
        (Cell("ours"), Cell("91.20 ± 0.30", 91.2, best=True, mark="†")),
        (Cell(NAME), Cell("80.10", 80.1)),
        (Cell("theirs"), Cell("92.00 (−0.80)", 92.0)),
    ),
    notes=("p <0.001 & x_y",),
    break_before={0: "here & now", 2: "published: <Table_1>"},
)


def test_text_is_as_it_stands_in_the_cells() -> None:
    lines = render_sheet(SHEET, "text").splitlines()
    assert lines[0] == SHEET.title
    assert lines[-1] == SHEET.notes[0]
    assert [line.rstrip().split("  ")[0] for line in lines[4:9]] == [
        "here & now",
        "ours",
        NAME,
        "published: <Table_1>",
        "theirs",
    ]
    ours, theirs = lines[5], lines[8]
    assert ours.endswith("91.20 ± 0.30†")
    assert len(ours) == len(theirs)  # numbers flush right
    assert "*" not in "".join(lines)


def test_markdown_keeps_pipes_within_cells_and_no_markup_of_names() -> None:
    lines = render_sheet(SHEET, "markdown").splitlines()
    assert lines[0] == r"**50 % of &lt;b> & \|**"
    rows = [line for line in lines if line.startswith("|")]
    assert {row.replace(r"\|", "").count("|") for row in rows} == {3}
    assert rows[0].split("|")[2].strip().startswith("WT \\")
    assert rows[1].split("|")[2].strip().endswith("-:"), "numbers are set flush right"
    body = [row.replace(r"\|", "¦").split("|") for row in rows[2:]]
    assert [cells[1].strip() for cells in body] == [
        "*here & now*",
        "ours",
        NAME.replace("|", "¦").replace("<", "&lt;"),
        "*published: &lt;Table_1>*",
        "theirs",
    ]
    assert body[1][2].strip() == "**91.20 ± 0.30**<sup>†</sup>"
    assert "**" not in body[2][2] + body[4][2]


class _Seen(HTMLParser):
    """Elements in order with their attributes, and the text of each."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.tags[-1][0], data))


def test_html_escapes_and_says_what_each_head_is_of() -> None:
    seen = _Seen()
    seen.feed(render_sheet(SHEET, "html"))
    assert ("caption", SHEET.title) in seen.texts
    texts = [text for _, text in seen.texts]
    assert NAME in texts
    assert SHEET.notes[0] in texts
    assert not {"b", "i"} & {tag for tag, _ in seen.tags}
    heads = [attributes for tag, attributes in seen.tags if tag == "th"]
    scopes = [head["scope"] for head in heads]
    assert scopes == ["col", "col", "colgroup", "row", "row", "colgroup", "row"]
    assert {head.get("colspan") for head in heads if head["scope"] == "colgroup"} == {"2"}
    assert [text for tag, text in seen.texts if tag == "strong"] == ["91.20 ± 0.30"]
    assert [text for tag, text in seen.texts if tag == "sup"] == ["†"]
    names = [text for tag, text in seen.texts if tag == "th"]
    assert names[2:] == ["here & now", "ours", NAME, "published: <Table_1>", "theirs"]
    page = render_sheets([SHEET, SHEET], "html")
    assert page.startswith("<!doctype html>")
    assert page.count("<table>") == 2


def test_latex_compiles_with_marks_block_titles_and_any_name(tmp_path: Path) -> None:
    body = render_sheets([SHEET, SHEET], "latex")
    lines = [line for line in body.split("\n\n")[0].splitlines() if not line.startswith("%")]
    assert lines[4] == r"\multicolumn{2}{l}{\itshape here \& now} \\"
    assert lines[5] == r"ours & \textbf{91.20 $\pm$ 0.30}\textsuperscript{\dag{}} \\"
    assert lines[7] == r"\midrule"
    assert lines[8].startswith(r"\multicolumn{2}{l}{\itshape published: ")
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    source = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + body + "\\end{document}"
    (tmp_path / "table.tex").write_text(source)
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "table.tex"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()[-2000:]
    if shutil.which("pdftotext") is not None:
        subprocess.run(["pdftotext", "-layout", "table.pdf"], cwd=tmp_path, check=True)
        printed = (tmp_path / "table.txt").read_text()
        assert all(character in printed for character in "_&%#~{}$<>|±†−")


def test_latex_takes_no_beginning_of_a_row_for_an_argument_and_needs_no_font_encoding() -> None:
    sheet = Sheet("", (Column("model", numeric=False),), ((Cell('"a"'),), (Cell("[b]"),), (Cell("*c"),)))
    lines = render_sheet(sheet, "latex").splitlines()
    assert [line for line in lines if line.endswith(r"\\")][1:] == [r"''a'' \\", r"{}[b] \\", r"{}*c \\"]
