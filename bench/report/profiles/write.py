"""What was measured, in files and as a section of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.atomic import write_text
from bench.report import figures
from bench.report.page import Block, Drawing, Section, Table
from bench.report.profiles.drawn import drawn
from bench.report.profiles.scaling import scaling_sheets
from bench.report.profiles.sheets import measurement_sheets
from bench.report.render import render_sheets
from bench.report.sheet import Sheet
from bench.store import Record

TITLE = "What they cost, measured"
ANCHOR = "measured"
_FILE = "profiles.md"
# No name that a report gives its figures, which it takes away when it is written again into the same folder.
_PREFIX = "profile_"


def profiles_sheets(records: Sequence[Record]) -> list[Sheet]:
    """All tables of the measurements among the records: the measurements themselves, then the exponents of growth."""
    return [*measurement_sheets(records), *scaling_sheets(records)]


def write_profiles(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write ``profiles.md`` with all tables, and its figures as ``figures/*.svg``.

    Each file is there whole or as it was; figures of an earlier call that are no longer linked are removed.

    Args:
        records: of which the measurements are shown.
        folder: where; it is made if need be.

    Returns:
        the Markdown file, then the figures.

    Raises:
        BenchError: the disk refuses.
    """
    made = []
    parts = [f"# {TITLE}", render_sheets(profiles_sheets(records), "markdown").strip()]
    for one in drawn(records):
        path = folder / "figures" / f"{_PREFIX}{one.name}.svg"
        figures.save(one.figure, path)
        made.append(path)
        parts.append(f"![{one.title}](figures/{path.name})")
    for stale in set((folder / "figures").glob(f"{_PREFIX}*.svg")) - set(made):
        stale.unlink()
    write_text(folder / _FILE, "\n\n".join(parts) + "\n")
    return [folder / _FILE, *made]


def measured_section(records: Sequence[Record]) -> Section | None:
    """The report's section on measured costs; None where nothing was measured."""
    blocks: list[Block] = [Table(sheet) for sheet in profiles_sheets(records)]
    blocks += [Drawing(one.title, figures.to_svg(one.figure, one.name), one.title) for one in drawn(records)]
    return Section(ANCHOR, TITLE, tuple(blocks)) if blocks else None
