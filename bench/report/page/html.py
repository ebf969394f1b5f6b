"""Content to one HTML file that works offline."""

from __future__ import annotations

import math
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bench.report.page import cases, svg
from bench.report.page.blocks import blocks
from bench.report.page.content import BROWSER_ANCHOR, Block, Drawing, Page
from bench.report.sheet import Cell

_STYLES = ("page.css", "blocks.css", "browser.css", "print.css")
_SCRIPTS = ("sort.js", "browser.js")


def render_page(page: Page) -> str:
    """One HTML document with its styles, scripts, drawings and pictures; the same content gives the same text.

    A policy within the page forbids its reader's browser to load anything and to run any script but its own.

    Raises:
        BenchError: a drawing or a picture cannot be embedded.
    """
    script = "\n(() => {\n" + "\n".join(_read(name) for name in _SCRIPTS) + "})();\n"
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            browser_anchor=BROWSER_ANCHOR,
            regions=cases.regions(page.browser) if page.browser else (),
            data=Markup(cases.embedded(page.browser)) if page.browser else "",
            style=Markup("\n".join(_read(name) for name in _STYLES)),
            script=Markup(script),
            script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        )
    )


def _environment() -> Environment:
    made = Environment(
        autoescape=True,
        loader=FunctionLoader(_read),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {"blocks": blocks, "inline": _inline, "kind": _kind, "sort_key": _sort_key}
    return made


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _kind(block: Block) -> str:
    return type(block).__name__


def _inline(drawing: Drawing, name: str) -> Markup:
    return Markup(svg.inline(drawing.svg, name, drawing.description))


def _sort_key(cell: Cell) -> dict[str, str]:
    """Attributes that hold a cell's value for the script; none where it is missing."""
    if isinstance(cell.value, str):
        return {"data-text": cell.value}
    if cell.value is None or math.isnan(cell.value):
        return {}
    # JavaScript spells infinity out.
    return {"data-number": repr(float(cell.value)).replace("inf", "Infinity")}
