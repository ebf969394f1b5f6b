"""A `Sheet` as text, Markdown, LaTeX or HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from tabulate import tabulate

from bench.report.sheet import Cell, Sheet

_TEXT_HEAD = 2  # lines of tabulate's "simple" before the first row

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
        "±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "α": r"$\alpha$",
        "τ": r"$\tau$", "χ": r"$\chi$", "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "Δ": r"$\Delta$",
        "–": "--", "…": r"\dots{}", "≈": r"$\approx$", "|": r"\textbar{}", "†": r"\dag{}", '"': "''",
    }
)  # fmt: skip


def render_sheet(sheet: Sheet, how: str) -> str:
    """One table as text; CSV is another matter, since it keeps full precision.

    Args:
        sheet: the table.
        how: ``text``, ``markdown``, ``latex`` (package booktabs; with T1 or not) or ``html`` (a fragment).
    """
    return _RENDERERS[how](sheet)


def latex_text(text: str) -> str:
    """Text with LaTeX's special characters escaped; what no 8-bit font has becomes ``?``."""
    escaped = text.translate(_LATEX)
    return "".join(character if ord(character) < 0x180 else "?" for character in escaped)


def _text(sheet: Sheet) -> str:
    lines = [sheet.title, ""] if sheet.title else []
    whole = Sheet("", sheet.columns, sheet.rows)
    table = _tabulated(whole, "simple", lambda cell: " ".join((cell.text + cell.mark).split()), str).split("\n")
    # In a cell a block's title would widen the first column.
    for number, title in sorted((sheet.break_before or {}).items(), reverse=True):
        table.insert(_TEXT_HEAD + number, title)
    lines += table
    return "\n".join([*lines, *(["", *sheet.notes] if sheet.notes else [])])


def _markdown(sheet: Sheet) -> str:
    def cell_text(cell: Cell) -> str:
        text = f"**{_pipe(cell.text)}**" if cell.best and cell.text else _pipe(cell.text)
        return text + (f"<sup>{_pipe(cell.mark)}</sup>" if cell.mark else "")

    lines = [f"**{_pipe(sheet.title)}**", ""] if sheet.title else []
    lines.append(_tabulated(sheet, "pipe", cell_text, lambda title: f"*{_pipe(title)}*"))
    return "\n".join([*lines, *(["", *(f"- {_pipe(note)}" for note in sheet.notes)] if sheet.notes else [])])


def _pipe(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _tabulated(sheet: Sheet, form: str, cell_text: Callable[[Cell], str], title_text: Callable[[str], str]) -> str:
    """Through tabulate, a block's title in a row of its own."""
    body: list[list[str]] = []
    breaks = sheet.break_before or {}
    for number, row in enumerate(sheet.rows):
        if number in breaks:
            body.append([title_text(breaks[number]), *[""] * (len(sheet.columns) - 1)])
        body.append([cell_text(cell) for cell in row])
    headers = [column.label if form != "pipe" else _pipe(column.label) for column in sheet.columns]
    aligned = tuple("right" if column.numeric else "left" for column in sheet.columns)
    return tabulate(body, headers, tablefmt=form, colalign=aligned if body else None, disable_numparse=True)


def _latex(sheet: Sheet) -> str:
    breaks = sheet.break_before or {}
    width = len(sheet.columns)
    lines = [f"% {_comment(sheet.title)}"] if sheet.title else []
    lines += [
        rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in sheet.columns)}}}",
        r"\toprule",
        " & ".join(latex_text(column.label) for column in sheet.columns) + r" \\",
        r"\midrule",
    ]
    for number, row in enumerate(sheet.rows):
        if number in breaks:
            rule = [r"\midrule"] if number else []
            lines += [*rule, rf"\multicolumn{{{width}}}{{l}}{{\itshape {latex_text(breaks[number])}}} \\"]
        cells = " & ".join(_latex_cell(cell) for cell in row)
        # Else the line break before it would take the row's beginning for its argument.
        lines.append(("{}" if cells.startswith(("[", "*")) else "") + cells + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if sheet.notes:  # a table without them, the convention for one, says something else
        notes = "\\par\n".join(latex_text(_comment(note)) for note in sheet.notes)
        lines += ["", r"{\footnotesize", notes + r"\par}"]
    return "\n".join(lines)


def _comment(text: str) -> str:
    return " ".join(text.split())


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text)
    if cell.best and text:
        text = rf"\textbf{{{text}}}"
    return text + (rf"\textsuperscript{{{latex_text(cell.mark)}}}" if cell.mark else "")


def _html(sheet: Sheet) -> str:
    breaks = sheet.break_before or {}
    head = "".join(f'<th scope="col">{html.escape(column.label)}</th>' for column in sheet.columns)
    lines = ["<table>"]
    if sheet.title:
        lines.append(f"<caption>{html.escape(sheet.title)}</caption>")
    lines += [f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for number, row in enumerate(sheet.rows):
        if number in breaks:
            lines.append(
                f'<tr><th scope="colgroup" colspan="{len(sheet.columns)}">{html.escape(breaks[number])}</th></tr>'
            )
        cells = [_html_cell(cell, first=not place) for place, cell in enumerate(row)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    lines += ["</tbody>", "</table>"]
    if sheet.notes:
        lines.append(f"<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in sheet.notes)}</ul>")
    return "\n".join(lines)


def _html_cell(cell: Cell, first: bool) -> str:
    text = html.escape(cell.text)
    text = f"<strong>{text}</strong>" if cell.best and text else text
    text += f"<sup>{html.escape(cell.mark)}</sup>" if cell.mark else ""
    return f'<th scope="row">{text}</th>' if first else f"<td>{text}</td>"


_RENDERERS: Mapping[str, Callable[[Sheet], str]] = MappingProxyType(
    {"text": _text, "markdown": _markdown, "latex": _latex, "html": _html}
)


def render_sheets(sheets: Sequence[Sheet], how: str) -> str:
    """Several, an empty line between them; as HTML a whole page."""
    body = "\n\n".join(render_sheet(sheet, how) for sheet in sheets)
    if how != "html":
        return body + "\n"
    head = '<meta charset="utf-8"><title>segmamba-bench</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'
