"""Figures as files and as text: the same figure gives the same bytes, whenever and wherever it is written."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from html import escape
from pathlib import Path
from typing import Literal, get_args

import matplotlib
from matplotlib.figure import Figure

from bench.atomic import atomic_file
from bench.errors import BenchError, unknown
from bench.report.figures.style import house_style

Format = Literal["svg", "png", "pdf"]
FORMATS: tuple[str, ...] = get_args(Format)
PNG_DPI = 200
_NO_METADATA = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def save(figure: Figure, path: Path, format: Format | None = None) -> None:
    """Write a figure, whole or not at all; an existing file is replaced.

    Args:
        format: by default what the name ends in. PNG has 200 dots per inch, SVG keeps text as text.

    Raises:
        BenchError: the format is unknown, or the file system refuses.
    """
    chosen = format or path.suffix.removeprefix(".").lower()
    if chosen not in FORMATS:
        raise BenchError(unknown("format of a figure", chosen, FORMATS))
    content = _render(figure, chosen, salt="")
    with atomic_file(path) as file:
        file.write(content)


def to_svg(figure: Figure, salt: str) -> str:
    """A figure as one ``<svg>`` element to be put into an HTML page.

    Args:
        salt: unlike those of the page's other figures: it begins every id, and the style sheet keeps to this figure.
            Letters, digits, ``-`` and ``_``, a letter first.

    Raises:
        BenchError: the salt cannot begin an id.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", salt, flags=re.ASCII):
        raise BenchError(
            f"found the salt {salt!r}; expected letters, digits, - and _, a letter first, e.g. 'dice-WT'. Choose "
            "another."
        )
    text = _render(figure, "svg", salt).decode()
    text = text[text.index("<svg") :]
    seen: Counter[str] = Counter()

    def once(found: re.Match[str]) -> str:  # parts of a kind share a name, which a page allows one of them only
        seen[found[1]] += 1
        return f'id="{salt}-{found[1]}{f"-{seen[found[1]]}" if seen[found[1]] > 1 else ""}"'

    text = re.sub(r'\bid="([^"]*)"', once, text)
    text = re.sub(r'href="#', f'href="#{salt}-', text)
    text = re.sub(r"url\(#", f"url(#{salt}-", text)
    # A style sheet inside of an SVG holds for the page that it stands in.
    text = text.replace('<style type="text/css">*{', f'<style type="text/css">#{salt} *{{', 1)
    title = escape(figure.get_suptitle().replace("\n", " "))
    return text.replace("<svg ", f'<svg id="{salt}" role="img" aria-label="{title}" ', 1)


def _render(figure: Figure, format: str, salt: str) -> bytes:
    buffer = io.BytesIO()
    with house_style(), matplotlib.rc_context({"svg.hashsalt": _hash_salt(salt)}):
        figure.savefig(buffer, format=format, dpi=PNG_DPI, metadata=_NO_METADATA[format])
    return buffer.getvalue()


def _hash_salt(salt: str) -> str:
    # matplotlib takes an empty salt for none and draws a random one.
    return hashlib.sha256(salt.encode()).hexdigest()
