"""The table: rows networks, columns regions and their average, with what a reader must know under it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.errors import BenchError, unknown
from bench.report.costs import COSTS, Cost, Costs
from bench.report.footer import footer
from bench.report.frame import AVERAGE, LESIONWISE, Group, case_scores, challenge, row_labels
from bench.report.published import PublishedTable
from bench.report.rows import Row, make_rows, options_text
from bench.report.sheet import Cell, Column, Sheet
from bench.report.shown import DEFAULT_METRICS, Metric, metrics

ALIKE = "†"
# Below it the exact distribution of the signed-rank statistic has visible steps.
FEW_CASES = 20
ALIKE_BY = "paired Wilcoxon tests over cases, Holm, level 0.05"


@dataclass(frozen=True)
class Choice:
    """What a table shows.

    Attributes:
        metrics: names, see `bench.report.shown.METRICS`.
        regions: which, `AVERAGE` among them; empty for all.
        sort: ``dice``, ``hd95`` or another metric for its average, ``REGION_METRIC``, ``model``, or a cost's name.
    """

    metrics: tuple[str, ...] = DEFAULT_METRICS
    regions: tuple[str, ...] = ()
    sort: str = ""


@dataclass(frozen=True)
class Table:
    """A table and its footer.

    Attributes:
        group: the records it rests on.
        scores: of its complete records, see `bench.report.frame.case_scores`.
        metrics: its columns, within each region.
        regions: in the dataset's order, the average last.
        rows: the best first, then those that lack folds others have, failures last.
        costs: the figures beside the scores, if there are profiles.
        published: what a paper states, if it was asked for.
        footer: lines under the table.
    """

    group: Group
    scores: pd.DataFrame
    metrics: tuple[Metric, ...]
    regions: tuple[str, ...]
    rows: tuple[Row, ...]
    costs: Costs | None
    published: PublishedTable | None
    footer: tuple[str, ...]

    def best(self, region: str, metric: Metric) -> str | None:
        """Label of the row with the best mean; None where there is nothing to compare."""
        where = region, metric.name
        found = {row.label: row.mean[where] for row in self.rows if where in row.mean and not row.lacks}
        if len(found) < 2 or not metric.ranked:
            return None
        return (min if metric.lower_is_better else max)(found, key=lambda label: found[label])

    @property
    def shown_costs(self) -> tuple[Cost, ...]:
        """Those of which any row has a figure."""
        return tuple(cost for name, cost in COSTS.items() if any(name in row.costs for row in self.rows))


def make_table(
    group: Group, choice: Choice | None = None, *, costs: Costs | None = None, published: PublishedTable | None = None
) -> Table:
    """Aggregate one group of records.

    Raises:
        BenchError: a metric, region or order that there is not, or scores that the records do not hold.
    """
    choice = choice or Choice()
    chosen = metrics(choice.metrics)
    labels = row_labels(group)
    scores = case_scores(group, labels)
    known = list(dict.fromkeys(scores["region"])) or list(group.records[0].content.get("data", {}).get("regions", {}))
    regions = tuple(choice.regions or (*known, AVERAGE))
    for region in regions:
        if known and region not in (*known, AVERAGE):
            raise BenchError(unknown("region", region, [*known, AVERAGE]))
    _check_measured(scores, chosen)
    by_lesions = group.convention == LESIONWISE or any(metric.name.startswith("lesion_") for metric in chosen)
    settings = challenge(group) if by_lesions else ""
    rows = make_rows(group, labels, scores, chosen, costs)
    rows.sort(key=_order(choice.sort or chosen[0].name, chosen, (*known, AVERAGE)))
    shown = published if published is not None and set(published.regions) <= set(known) else None
    lines = footer(
        group,
        rows,
        scores,
        chosen,
        challenge=settings,
        costs=costs,
        published=published,
        published_is_shown=shown is not None,
    )
    return Table(group, scores, chosen, regions, tuple(rows), costs, shown, tuple(lines))


def table_sheet(table: Table, alike: Mapping[tuple[str, str], Sequence[str]] | None = None) -> Sheet:
    """A table as a `Sheet`; Dice in percent, as in the SegMamba paper's Table 1.

    Args:
        table: the table.
        alike: (region, metric) to the rows that are not distinguishable from the best, which are marked.
    """
    mixed = table.group.mixed
    columns = [Column("model", numeric=False), *(Column(name, numeric=False) for name in _mixed_columns(mixed))]
    for region in table.regions:
        columns += [Column(f"{region} {metric.label}", rule=not n) for n, metric in enumerate(table.metrics)]
    columns += [Column(cost.label, rule=not n) for n, cost in enumerate(table.shown_costs)]
    columns += [Column("cases", rule=True), Column("seeds")]
    best = {(region, metric.name): table.best(region, metric) for region in table.regions for metric in table.metrics}
    rows = [
        (
            Cell(row.label + ("*" if row.remarks else ""), row.label),
            *([Cell(row.protocol, row.protocol)] if "protocol" in mixed else []),
            *(
                _score_cell(row, region, metric, best, alike or {})
                for region in table.regions
                for metric in table.metrics
            ),
            *(_cost_cell(row, cost) for cost in table.shown_costs),
            Cell(str(row.cases or ""), row.cases or None),
            Cell(str(row.seeds or ""), row.seeds or None),
        )
        for row in table.rows
    ]
    breaks = {}
    if table.published is not None:
        breaks = {0: "here", len(rows): f"published: {table.published.title}"}
        rows += _published_rows(table, len(columns))
    notes = list(table.footer)
    if alike:
        few = max((row.cases for row in table.rows), default=0)
        told = f"; with {few} cases it may mean too few cases" if few < FEW_CASES else ""
        notes.insert(0, f"{ALIKE} not distinguishable from the best of the column, itself marked: {ALIKE_BY}{told}.")
    return Sheet("", tuple(columns), tuple(rows), tuple(notes), breaks)


def table_csv(tables: Sequence[Table]) -> str:
    """Tables as one CSV, in full precision: fractions and mm."""
    buffer = io.StringIO()
    pd.concat([_csv_frame(table) for table in tables], ignore_index=True).to_csv(buffer, index=False)
    return buffer.getvalue()


def _mixed_columns(mixed: Sequence[str]) -> list[str]:
    return ["protocol"] if "protocol" in mixed else []


def _check_measured(scores: pd.DataFrame, chosen: Sequence[Metric]) -> None:
    for metric in chosen:
        measured = scores.groupby("key")[metric.name].count()
        if len(bare := measured[measured == 0]):
            without = ", ".join(dict.fromkeys(scores.loc[scores["key"].isin(bare.index), "model"]))
            raise BenchError(
                f"{metric.label} was not measured for {without}: the records are older than this metric, or their "
                "dataset has no settings for it. Leave the metric out of --metrics, or those networks out of --model"
            )


def _order(sort: str, chosen: Sequence[Metric], regions: Sequence[str]) -> Callable[[Row], Any]:
    """A key for sorting rows; what has no value comes last.

    Raises:
        BenchError: there is no such order.
    """
    if sort == "model":
        return lambda row: (not row.seeds, row.lacks, row.label)
    if sort in COSTS:
        return lambda row: (not row.seeds, row.lacks, sort not in row.costs, row.costs.get(sort, 0.0), row.label)
    orders = {metric.name: (AVERAGE, metric) for metric in chosen}
    orders |= {f"{region}_{metric.name}": (region, metric) for region in regions for metric in chosen}
    if sort not in orders:
        raise BenchError(unknown("order for --sort", sort, [*orders, "model", *COSTS]))
    region, metric = orders[sort]
    sign = 1.0 if metric.lower_is_better else -1.0
    where = region, metric.name
    return lambda row: (not row.seeds, row.lacks, where not in row.mean, sign * row.mean.get(where, 0.0), row.label)


def _score_cell(
    row: Row,
    region: str,
    metric: Metric,
    best: Mapping[tuple[str, str], str | None],
    alike: Mapping[tuple[str, str], Sequence[str]],
) -> Cell:
    where = region, metric.name
    if where not in row.mean:
        return Cell(row.status if row.status != "complete" else "–")
    text = metric.text(row.mean[where])
    if row.std:
        text += f" ± {metric.text(row.std[where])}"
    mark = ALIKE if row.label in alike.get(where, ()) else ""
    return Cell(text, metric.scale * row.mean[where], best[where] == row.label, mark)


def _cost_cell(row: Row, cost: Cost) -> Cell:
    if cost.name not in row.costs:
        return Cell("–")
    value = cost.scale * row.costs[cost.name]
    return Cell(f"{value:,.{cost.digits}f}", value)


def _published_rows(table: Table, width: int) -> list[tuple[Cell, ...]]:
    """What a paper states, with the difference of ours behind it where the two can be compared."""
    assert table.published is not None
    rows = []
    comparable = table.group.dataset == table.published.dataset and table.group.convention != LESIONWISE
    for stated in table.published.rows:
        found = [[row for row in table.rows if row.model == name and row.as_published] for name in stated.models]
        # Of several rows of one network the reader would not know which is meant.
        ours = next((alike[0] for alike in found if len(alike) == 1), None)
        cells = [Cell(stated.name, stated.name), *(Cell("") for _ in _mixed_columns(table.group.mixed))]
        for region in table.regions:
            for metric in table.metrics:
                value = published_score(stated.scores, region, metric.name, table.published.regions)
                text = "" if value is None else metric.text(value)
                mine = ours.mean.get((region, metric.name)) if ours else None
                if value is not None and mine is not None and comparable:
                    text += f" ({metric.scale * (mine - value):+.2f})".replace("-", "−")
                cells.append(Cell(text, None if value is None else metric.scale * value))
        rows.append((*cells, *(Cell("") for _ in range(width - len(cells)))))
    return rows


def published_score(
    scores: Mapping[tuple[str, str], float], region: str, metric: str, regions: Sequence[str]
) -> float | None:
    """A published mean, or for `AVERAGE` the mean over the regions; None where there is none."""
    if region != AVERAGE:
        return scores.get((region, metric))
    found = [scores[one, metric] for one in regions if (one, metric) in scores]
    return sum(found) / len(found) if len(found) == len(regions) else None


def _csv_frame(table: Table) -> pd.DataFrame:
    rows = []
    for row in table.rows:
        cells = {
            f"{region}_{metric.name}{suffix}": values[region, metric.name]
            for suffix, values in (("", row.mean), ("_std", row.std))
            for region in table.regions
            for metric in table.metrics
            if (region, metric.name) in values
        }
        rows.append(
            {
                "model": row.model,
                "label": row.label,
                "model_options": options_text(row.options),
                **csv_context(table),
                "protocol": row.protocol,
                "status": row.status,
                "seeds": row.seeds,
                "cases": row.cases,
                **({"folds": row.folds} if row.folds else {}),
                **cells,
                **row.costs,
                "remarks": "; ".join(row.remarks),
            }
        )
    if table.published is not None:
        for stated in table.published.rows:
            cells = {
                f"{region}_{metric.name}": value
                for region in table.regions
                for metric in table.metrics
                if (value := published_score(stated.scores, region, metric.name, table.published.regions)) is not None
            }
            context = {"model": stated.name, "label": stated.name, "dataset": table.published.dataset}
            rows.append({**context, "status": "published", **cells, "remarks": table.published.source})
    return pd.DataFrame(rows)


def csv_context(table: Table) -> dict[str, str]:
    """What tells one table's rows from another's."""
    return {
        "dataset": table.group.dataset,
        "data_fingerprint": table.group.data_fingerprint,
        "convention": table.group.convention,
        "code": " and ".join(table.group.facets.get("code", ())),
    }
