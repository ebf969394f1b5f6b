"""What a report says: the sections of each table, with its statistics, figures and provenance."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.metrics import CONVENTIONS
from bench.report import figures
from bench.report.costs import COSTS
from bench.report.frame import AVERAGE, code_version, row_labels, tidy
from bench.report.page import Block, Code, Drawing, Facts, Section, Text
from bench.report.page import Table as TableBlock
from bench.report.sheet import Cell, Column, Sheet
from bench.report.shown import Metric
from bench.report.statistics import Statistics, first_tier, statistics, statistics_sheets
from bench.report.table import Table, table_sheet
from bench.store import Record
from bench.verify import Finding

OnStep = Callable[[str], None]
STEPS = 3


@dataclass(frozen=True)
class Part:
    """One table with everything that belongs to it.

    Attributes:
        table: the table.
        name: tells it from the others in headings and anchors; empty where there is one only.
        number: its place, from 1.
        unlike: in what it differs from the others; empty for a single one.
        findings: of `bench.verify`.
    """

    table: Table
    name: str
    number: int
    unlike: str
    findings: Sequence[Finding]

    @property
    def models(self) -> list[str]:
        """Its rows with numbers, the best first."""
        return [row.label for row in self.table.rows if row.seeds]


def sections(part: Part, on_step: OnStep) -> list[Section]:
    """The sections of one part.

    Args:
        part: table and name.
        on_step: told the title of each of the `STEPS` pieces of work before it begins.
    """
    on_step("statistics")
    found, refusal = None, ""
    try:
        found = statistics(part.table)
    except BenchError as error:  # a table of different cases, which somebody asked for, has no statistics
        refusal = str(error)
    made = [_results(part, found)]
    on_step("figures")
    if found is not None:
        made += [*_cases(part), _differences(part, found), *_cost(part, found)]
    elif refusal:
        made.append(section(part, "differences", "What the differences are worth", [Text((refusal,))]))
    made += list(_training(part))
    on_step("provenance")
    return [*made, _protocol(part), _provenance(part)]


def section(part: Part, anchor: str, title: str, blocks: Sequence[Block]) -> Section:
    """A section of one table, whose anchor and title say of which."""
    suffix = f"-{part.number}" if part.name else ""
    return Section(f"{anchor}{suffix}", f"{title}: {part.name}" if part.name else title, tuple(blocks))


def _results(part: Part, found: Statistics | None) -> Section:
    sheet = table_sheet(part.table, first_tier(found) if found else None)
    told = [Text((f"Other tables differ from this one in what it is of: {part.unlike}.",))] if part.unlike else []
    return section(part, "results", "Results", [*told, TableBlock(sheet)])


def _cases(part: Part) -> list[Section]:
    """All cases of each ranked metric, where a region is shown."""
    table = part.table
    convention = table.group.convention if table.group.convention in CONVENTIONS else None
    ranked = [metric for metric in table.metrics if metric.ranked]
    frame = tidy(table.scores, ranked, [region for region in table.regions if region != AVERAGE])
    blocks: list[Block] = []
    for metric in ranked if len(frame) else ():
        figure = figures.cases(frame, metric.name, convention, part.models)
        title = f"{metric.label} of every test case, by region."
        blocks.append(drawing(part, f"cases-{metric.name}", figure, title))
    return [section(part, "distribution", "Every case", blocks)] if blocks else []


def _differences(part: Part, found: Statistics) -> Section:
    """Statistics and their figures, for the average over regions or the one region that is shown."""
    table = part.table
    blocks: list[Block] = [TableBlock(sheet) for sheet in statistics_sheets(found, table)]
    region = AVERAGE if AVERAGE in table.regions else table.regions[0]
    for metric in table.metrics if found.frame["model"].nunique() > 1 else ():
        if metric.ranked:
            blocks += list(_difference_figures(part, found, region, metric))
    return section(part, "differences", "What the differences are worth", blocks)


def _difference_figures(part: Part, found: Statistics, region: str, metric: Metric) -> Iterator[Drawing]:
    where = f"{region}, {metric.label}"
    drawn = figures.significance(found.pairs, region, metric.name)
    yield drawing(part, f"significance-{metric.name}", drawn, f"All pairs, {where}: effect and corrected p.")
    cases = part.table.scores["case"].nunique()
    if cases > 1:
        drawn = figures.rank_stability(found.stability.models, found.stability.tau, region, metric.name, part.models)
        yield drawing(part, f"stability-{metric.name}", drawn, f"Stability of the ranking, {where}.")
    tests = found.friedman.tests
    test = tests[(tests["region"] == region) & (tests["metric"] == metric.name)].iloc[0]
    if not test["reason"]:
        cliques = found.friedman.cliques
        chosen = cliques[(cliques["region"] == region) & (cliques["metric"] == metric.name)]
        groups = [tuple(rows["model"]) for _, rows in chosen.groupby("clique")]
        drawn = figures.critical_difference(tests, found.friedman.ranks, groups, region, metric.name)
        yield drawing(part, f"ranks-{metric.name}", drawn, f"Average ranks and critical difference, {where}.")


def _cost(part: Part, found: Statistics) -> list[Section]:
    """Dice against each cost that is known of two networks or more."""
    chosen = found.summary[found.summary["metric"] == "dice"]
    region = AVERAGE if AVERAGE in part.table.regions else part.table.regions[0]
    means = chosen[chosen["region"] == region].rename(columns={"mean_low": "low", "mean_high": "high"})
    profiles = pd.DataFrame([{"model": row.label, **row.costs} for row in part.table.rows if row.seeds and row.costs])
    blocks: list[Block] = []
    for x, cost in COSTS.items() if len(means) else ():
        if len(profiles) > 1 and x in profiles and profiles[x].notna().sum() > 1:
            figure = figures.cost(means[["model", "mean", "low", "high"]], profiles, x, part.models)
            blocks.append(
                drawing(part, f"cost-{x.replace('_', '-')}", figure, f"Mean Dice ({region}) against {cost.title}.")
            )
    return [section(part, "cost", "What it costs", blocks)] if blocks else []


def _training(part: Part) -> Iterator[Section]:
    labels = row_labels(part.table.group)
    histories = []
    for record in part.table.group.records:
        path = record.folder / "history.csv"
        if record.kind == "run" and record.status == "complete" and path.exists():
            job = record.content["job"]
            seed = f"{job['seed']}, fold {job['fold']}" if "fold" in job else job["seed"]  # a curve for each
            histories.append(pd.read_csv(path).assign(model=labels[record.key], seed=seed))
    if histories:
        figure = figures.training(pd.concat(histories, ignore_index=True), part.models)
        yield section(part, "training", "Training", [drawing(part, "training", figure, "Loss and validation Dice.")])


def _protocol(part: Part) -> Section:
    blocks: list[Block] = []
    runs = [record for record in part.table.group.records if record.kind == "run"]
    stated: dict[str, list[str]] = {}
    for record in runs:
        text = "\n".join(f"{name} = {value}" for name, value in _flat(record.content["job"]["protocol"]))
        stated.setdefault(text, []).append(record.content["job"]["model"])
    for text, models in stated.items():
        if len(stated) > 1:
            blocks.append(Text((f"Of {', '.join(dict.fromkeys(models))}:",)))
        blocks.append(Code(text))
    return section(part, "protocol", "Protocol", blocks or [Text(("None: all predictions come from elsewhere.",))])


def _flat(tree: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{before}{name}", "none" if shown in ("", "None") else shown


def _provenance(part: Part) -> Section:
    group = part.table.group
    facts = [(name, " | ".join(values)) for name, values in group.facets.items()]
    folded = ["fold"] if any("fold" in record.content["job"] for record in group.records) else []
    columns = ("record", "model", "seed", *folded, "status", "code", "torch", "hardware", "ended", "checks")
    rows = []
    for record in group.records:
        provenance = record.content.get("provenance", {})
        hardware = provenance.get("hardware", {})
        wrong = [finding for finding in part.findings if record.key in finding.records]
        texts = (
            record.key,
            record.content["job"]["model"],
            str(record.content["job"].get("seed", "")),
            *(str(record.content["job"].get(name, "")) for name in folded),
            record.status,
            code_version(record),
            provenance.get("packages", {}).get("torch", ""),
            hardware.get("gpu") or hardware.get("cpu", ""),
            record.content.get("ended", ""),
            _checks(wrong),
        )
        rows.append(tuple(Cell(str(text), str(text)) for text in texts))
    told = [f"{', '.join(finding.records)}: {finding}" for finding in _of(part.findings, group.records)]
    sheet = Sheet("", tuple(Column(name, numeric=False) for name in columns), tuple(rows), tuple(told))
    commands = [record.content.get("provenance", {}).get("command", []) for record in group.records]
    blocks: list[Block] = [Facts(tuple(facts))] if facts else []
    blocks.append(TableBlock(sheet))
    # Where the program lay on that machine tells nobody anything.
    shown = [shlex.join([Path(command[0]).name, *map(str, command[1:])]) for command in commands if command]
    if shown:
        blocks.append(Code("\n".join(dict.fromkeys(shown))))
    return section(part, "provenance", "Provenance", blocks)


def _of(findings: Sequence[Finding], records: Sequence[Record]) -> list[Finding]:
    keys = {record.key for record in records}
    return [finding for finding in findings if keys & set(finding.records)]


def _checks(findings: Sequence[Finding]) -> str:
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        return f"{errors} error{'s' if errors > 1 else ''}"
    return f"{len(findings)} warning{'s' if len(findings) > 1 else ''}" if findings else "passed"


def drawing(part: Part, name: str, figure: Figure, title: str) -> Drawing:
    """A figure of one table; ``name`` keeps its ids apart from those of the others."""
    return Drawing(title, figures.to_svg(figure, f"{name}-{part.number}"), title)
