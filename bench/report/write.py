"""A report in its files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench import __version__
from bench.atomic import atomic_file, write_text
from bench.progress import Watcher
from bench.report.browser import choose_cases, draw_extremes, make_browser
from bench.report.compose import STEPS, Part, drawing, section, sections
from bench.report.frame import distinct_facets
from bench.report.page import CaseBrowser, Page, Section, Text, render_markdown, render_page
from bench.report.profiles import measured_section
from bench.report.table import Table
from bench.store import Record, now
from bench.verify import Finding

FIGURES = "figures"
_OURS = re.compile(r"[a-z-]+(-\d+)?-\d+\.svg")


def write_report(
    tables: Sequence[Table],
    findings: Sequence[Finding],
    folder: Path,
    title: str,
    pictures: int,
    watcher: Watcher,
    profiles: Sequence[Record] = (),
) -> list[Path]:
    """Write ``report.html``, and ``report.md`` with ``figures/``; each file is there whole or as it was.

    Args:
        tables: what is reported, a part each.
        findings: of `bench.verify` on their records.
        folder: where.
        title: of the page.
        pictures: of how many cases slices are drawn, for each network.
        watcher: is shown the progress.
        profiles: measurements, which stand in a section of their own.

    Raises:
        BenchError: the disk refuses.
    """
    names = _names(tables)
    parts = [
        Part(table, name, number, _unlike(table, tables), findings)
        for number, (table, name) in enumerate(zip(tables, names, strict=True), 1)
    ]
    made: list[Section] = []
    with watcher.bar("report", STEPS * len(parts)) as bar:
        for part in parts:
            made += sections(part, lambda step, part=part: bar.advance(f"{part.name} {step}".strip()))  # type: ignore[misc]
    if (measured := measured_section(profiles)) is not None:
        made.append(measured)
    if pictures:
        made += _extremes(parts, watcher)
    scored = {
        f"[{name}]" if name else "": table for name, table in zip(names, tables, strict=True) if len(table.scores)
    }
    browser: CaseBrowser | None = None
    reasons: list[str] = []
    if scored:
        pictured = choose_cases(list(scored.values()), pictures)
        shown = sum(row.seeds > 0 for table in scored.values() for row in table.rows)
        with watcher.bar("slices", shown * len(pictured)) as bar:
            browser, reasons = make_browser(scored, pictured, bar.advance)
    if reasons:
        made.append(Section("no-slices", "Slices that are missing", (Text(tuple(reasons)),)))
    made_by = f"Made {now()} by segmamba-bench {__version__}."
    page = Page(title, _subtitle(tables, profiles), tuple(made), browser, made_by)
    markdown, files = render_markdown(page, FIGURES)
    for name, content in files.items():
        if isinstance(content, str):
            write_text(folder / name, content)
        else:
            with atomic_file(folder / name) as file:
                file.write(content)
    for stale in set((folder / FIGURES).glob("*.svg")) - {folder / name for name in files}:
        if _OURS.fullmatch(stale.name):
            stale.unlink()
    write_text(folder / "report.md", markdown)
    write_text(folder / "report.html", render_page(page))
    return [folder / "report.html", folder / "report.md"]


def _extremes(parts: Sequence[Part], watcher: Watcher) -> list[Section]:
    """A section of slices for each table whose voxels are at hand."""
    made = []
    with watcher.bar("best, median, worst", sum(3 * len(part.models) for part in parts)) as bar:
        for part in parts:
            if len(part.table.scores) and (figure := draw_extremes(part.table, bar.advance)) is not None:
                told = "Best, median and worst case of each network, by Dice averaged over the regions."
                blocks = [drawing(part, "extremes", figure, told)]
                made.append(section(part, "slices", "Best, median, worst", blocks))
    return made


def _names(tables: Sequence[Table]) -> list[str]:
    """What the tables are called; empty for a single one."""
    return [f"table {number}" for number in range(1, len(tables) + 1)] if len(tables) != 1 else [""]


def _unlike(table: Table, tables: Sequence[Table]) -> str:
    """In what a table's runs differ from those of the others."""
    facets = table.group.facets
    shown = distinct_facets([other.group for other in tables])
    told = [
        f"{name} {' and '.join(values)}"
        for name, values in facets.items()
        if name in shown and any(other.group.facets.get(name) != values for other in tables)
    ]
    return ", ".join(told)


def _subtitle(tables: Sequence[Table], profiles: Sequence[Record]) -> str:
    if not tables:
        hardware = dict.fromkeys(str(record.content["job"]["hardware"]) for record in profiles)
        return f"Measured on {', '.join(hardware)}"
    datasets = dict.fromkeys(table.group.dataset for table in tables)
    protocols = dict.fromkeys(table.group.protocol for table in tables)
    return f"{', '.join(datasets)}; protocol {', '.join(protocols)}"
