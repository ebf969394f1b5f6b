"""Every case of every network, with its scores, and slices of some."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.report import figures
from bench.report.cases_shown import Choice, ShownCase, Unavailable, choose, load
from bench.report.page import CaseBrowser, CaseEntry
from bench.report.shown import Metric
from bench.report.table import Table
from bench.store import Record

_PNG_DPI = 110


def choose_cases(tables: Sequence[Table], most: int) -> list[str]:
    """Cases to be shown as pictures: the best, median and worst of each network, then evenly by average Dice.

    Args:
        tables: whose cases.
        most: how many; fewer where there are fewer.
    """
    chosen: dict[str, None] = {}
    for table in tables:
        for _, scores in table.scores.groupby("model", sort=False):
            one = scores[scores["run"] == scores["run"].iloc[0]]
            chosen |= dict.fromkeys(choice.case for choice in choose(one))
    everyone = pd.concat([table.scores for table in tables], ignore_index=True)
    ranked = everyone.groupby("case")["dice"].mean().round(12).reset_index().sort_values(["dice", "case"])["case"]
    step = max(len(ranked) // max(most, 1), 1)
    chosen |= dict.fromkeys(map(str, [*ranked.iloc[::step], *ranked]))
    return list(chosen)[:most]


def draw_extremes(table: Table, on_picture: Callable[[str], None]) -> Figure | None:
    """The best, the median and the worst case of each network's first seed; None where no voxels can be had.

    Args:
        table: whose networks.
        on_picture: told each network and case before it is read.
    """
    by_key = {record.key: record for record in table.group.records}
    there: list[str] = []

    def cells() -> Iterator[tuple[str, Choice, ShownCase | Unavailable]]:  # one volume at a time
        for row in table.rows:
            mine = table.scores[table.scores["model"] == row.label]
            one = mine[mine["run"] == mine["run"].iloc[0]] if row.seeds else mine
            for choice in choose(one) if row.seeds else ():
                on_picture(f"{row.label}, {choice.case}")
                shown = load(by_key[_key_of(one, choice.case)], choice.case)
                there.extend([] if isinstance(shown, Unavailable) else [choice.case])
                yield row.label, choice, shown

    try:
        figure = figures.case_panel(cells(), "Best, median and worst case of each network")
    except BenchError:  # more regions than can be told apart by colour
        return None
    return figure if there else None


def make_browser(
    tables: Mapping[str, Table], pictured: Sequence[str], on_picture: Callable[[str], None]
) -> tuple[CaseBrowser | None, list[str]]:
    """The browser, and why pictures are missing.

    Args:
        tables: by what is put behind the names of its networks; empty for nothing.
        pictured: cases of which slices are drawn, for each network's first seed.
        on_picture: told each network and case before it is drawn.
    """
    scores: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
    pictures: dict[str, dict[str, bytes | str]] = {}
    models, reasons = [], []
    metrics: dict[str, Metric] = {}
    for suffix, table in tables.items():
        metrics |= {metric.label: metric for metric in table.metrics}
        by_key = {record.key: record for record in table.group.records}
        for row in table.rows:
            if not row.seeds:
                continue
            name = f"{row.label} {suffix}".strip()
            models.append(name)
            mine = table.scores[table.scores["model"] == row.label]
            for case, found in mine.groupby("case"):
                scores.setdefault(str(case), {})[name] = _scores(found, table.metrics)
            one = mine[mine["run"] == mine["run"].iloc[0]]
            for case in pictured:
                if case not in set(one["case"]):
                    continue
                on_picture(f"{name}, {case}")
                drawn = _picture(by_key[_key_of(one, case)], case, f"{name}, {case}")
                if isinstance(drawn, Unavailable):
                    reasons.append(f"{name}: {drawn.reason}")
                else:
                    pictures.setdefault(case, {})[name] = drawn
    if not models:
        return None, []
    entries = tuple(CaseEntry(case, scores[case], pictures.get(case, {})) for case in sorted(scores))
    return CaseBrowser(tuple(models), tuple(metrics), entries), list(dict.fromkeys(reasons))


def _key_of(scores: pd.DataFrame, case: str) -> str:
    """Of the record in which a case was tested: in a cross-validation, that of its fold."""
    return str(scores.loc[scores["case"] == case, "key"].iloc[0])


def _scores(found: pd.DataFrame, metrics: Sequence[Metric]) -> dict[str, dict[str, float | None]]:
    """Region to metric to the mean over seeds, as printed."""
    means = found.groupby("region", sort=False)[[metric.name for metric in metrics]].mean()
    return {
        str(region): {
            metric.label: None if pd.isna(row[metric.name]) else metric.scale * float(row[metric.name])
            for metric in metrics
        }
        for region, row in means.iterrows()
    }


def _picture(record: Record, case: str, title: str) -> bytes | Unavailable:
    shown = load(record, case)
    if isinstance(shown, Unavailable):
        return shown
    try:
        figure = figures.slices(
            shown.image,
            shown.reference,
            shown.prediction,
            shown.regions,
            shown.spacing_mm,
            f"{title}, {shown.channel}",
            shown.affine,
        )
    except BenchError as error:  # more regions than can be told apart by colour
        return Unavailable(str(error))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return buffer.getvalue()
