"""The report as Markdown."""

from __future__ import annotations

from bench.report.page import (
    CaseBrowser,
    CaseEntry,
    Code,
    Drawing,
    Facts,
    Page,
    Section,
    Table,
    Text,
    render_markdown,
)
from bench.report.sheet import Cell, Column, Sheet

SHEET = Sheet(
    "Scores",
    (Column("model", numeric=False), Column("Dice %")),
    (
        (Cell("a_b|c", "a"), Cell("91.20", 0.912, best=True, mark="a")),
        (Cell("_d_", "d"), Cell("oom")),
    ),
    ("a: not as published", "1. of two"),
    {1: "Others"},
)


def test_every_block() -> None:
    page = Page(
        "Title",
        "Subtitle",
        (
            Section(
                "all",
                "All of it",
                (
                    Text(("One * two\nlines.", "# no heading")),
                    Code("x = '```'\n"),
                    Table(SHEET),
                    Drawing("A figure", "<svg/>", "What [it] shows"),
                    Facts((("Commit", "0ae216e"), ("Free text", "<b> & more"))),
                ),
            ),
        ),
        CaseBrowser((), (), (CaseEntry("c", {}, {}), CaseEntry("d", {}, {}))),
        "Made today",
    )
    text, files = render_markdown(page, "my figures")
    assert files == {"my figures/all-4.svg": "<svg/>"}
    assert (
        text
        == r"""# Title

Subtitle

## All of it

One \* two lines.

\# no heading

````
x = '```'
````

**Scores**

| model | Dice % |
| :--- | ---: |
| a_b\|c | **91.20**<sup>a</sup> |
| **Others** |  |
| \_d\_ | oom |

- a: not as published
- 1\. of two

![What \[it\] shows](my%20figures/all-4.svg)

*A figure*

- **Commit**: 0ae216e
- **Free text**: &lt;b&gt; &amp; more

The page in HTML also shows each of the 2 cases with its scores.

Made today
"""
    )


def test_an_empty_page() -> None:
    assert render_markdown(Page("T", "", (), None, ""), "figures") == ("# T\n", {})
