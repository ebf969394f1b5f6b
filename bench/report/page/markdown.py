"""Content to Markdown as GitHub shows it, with drawings as files beside it."""

from __future__ import annotations

import re
from urllib.parse import quote

from bench.report.page.blocks import blocks
from bench.report.page.content import Block, Code, Drawing, Facts, Page, Table, Text
from bench.report.sheet import Cell, Sheet

# An underscore within a word means nothing; escaping it would only spoil names for those who read the source.
_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
_AT_START = re.compile(r"^(\d+)([.)])(?=\s|$)|^([#+=-])")


def render_markdown(page: Page, figures: str) -> tuple[str, dict[str, bytes | str]]:
    """The page without its browser of cases, and the files that it links to.

    Args:
        figures: folder of the drawings, relative to the Markdown file, with forward slashes.

    Returns:
        the text, and name relative to it to content of each drawing.
    """
    parts = [f"# {_line(page.title)}"]
    if page.subtitle:
        parts.append(_line(page.subtitle))
    files: dict[str, bytes | str] = {}
    for section in page.sections:
        parts.append(f"## {_line(section.title)}")
        for number, block in enumerate(section.blocks, start=1):
            name = f"{figures.rstrip('/')}/{section.anchor}-{number}.svg"
            parts += _block(block, name)
            if isinstance(block, Drawing):
                files[name] = block.svg
    if page.browser:
        parts.append(f"The page in HTML also shows each of the {len(page.browser.cases)} cases with its scores.")
    parts.append(_line(page.made))
    return "\n\n".join(part for part in parts if part) + "\n", files


def _block(block: Block, name: str) -> list[str]:
    match block:
        case Text(paragraphs):
            return [_line(paragraph) for paragraph in paragraphs]
        case Code(text):
            longest = max((len(run) for run in re.findall("`+", text)), default=0)
            fence = "`" * max(3, longest + 1)
            return [f"{fence}\n{text.rstrip()}\n{fence}"]
        case Facts(items):
            return ["\n".join(f"- **{_text(key)}**: {_text(value)}" for key, value in items)]
        case Drawing(title, _, description):
            return [f"![{_text(description)}]({quote(name)})", f"*{_text(title)}*"]
        case Table(sheet):
            notes = "\n".join(f"- {_line(note)}" for note in sheet.notes)
            return [f"**{_text(sheet.title)}**" if sheet.title else "", _table(sheet), notes]


def _table(sheet: Sheet) -> str:
    rows = [
        [_text(column.label) for column in sheet.columns],
        ["---:" if column.numeric else ":---" for column in sheet.columns],
    ]
    for heading, cells in blocks(sheet):
        if heading is not None:
            rows.append([f"**{_text(heading)}**"] + [""] * (len(sheet.columns) - 1))
        rows += [[_cell(cell) for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(cell: Cell) -> str:
    text = f"**{_text(cell.text)}**" if cell.best and cell.text else _text(cell.text)
    return f"{text}<sup>{_text(cell.mark)}</sup>" if cell.mark else text


def _text(plain: str) -> str:
    """Plain text as Markdown that shows the same, on one line."""
    one_line = " ".join(plain.split())
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        one_line = one_line.replace(sign, entity)
    return _MARKUP.sub(r"\\\g<0>", one_line)


def _line(plain: str) -> str:
    """The same where it begins a line, so that it starts no list, heading or rule."""
    return _AT_START.sub(lambda found: f"{found[1]}\\{found[2]}" if found[1] else f"\\{found[3]}", _text(plain))
