"""A report as one HTML page that needs no network, and as Markdown for a repository."""

from bench.report.page.content import (
    Block,
    CaseBrowser,
    CaseEntry,
    Code,
    Drawing,
    Facts,
    Page,
    Section,
    Table,
    Text,
)
from bench.report.page.html import render_page
from bench.report.page.markdown import render_markdown

__all__ = [
    "Block",
    "CaseBrowser",
    "CaseEntry",
    "Code",
    "Drawing",
    "Facts",
    "Page",
    "Section",
    "Table",
    "Text",
    "render_markdown",
    "render_page",
]
