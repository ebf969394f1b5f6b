"""``bench table``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Results, parse_seeds, split_names
from bench.store import DEFAULT_RESULTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.costs import Costs
    from bench.report.frame import Group
    from bench.report.published import PublishedTable
    from bench.report.table import Choice, Table
    from bench.store import Record

FORMATS = ("text", "markdown", "csv", "latex", "html")


def table(
    results: Results = DEFAULT_RESULTS,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, markdown, csv, latex or html.")
    ] = "text",
    model: Annotated[list[str], typer.Option("--model", metavar="NAME[,NAME…]", help="Only these networks.")] = [],  # noqa: B006
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="Only this dataset.")] = "",
    protocol: Annotated[str, typer.Option("--protocol", metavar="NAME", help="Only this protocol.")] = "",
    seed: Annotated[str, typer.Option("--seed", metavar="N[,N…]", help="Only these seeds.")] = "",
    metrics: Annotated[
        str, typer.Option("--metrics", metavar="NAME[,NAME…]", help="dice, hd95, nsd, sensitivity, precision, …")
    ] = "dice,hd95",
    regions: Annotated[
        str, typer.Option("--regions", metavar="NAME[,NAME…]", help="Such as WT,Avg; by default all.")
    ] = "",
    convention: Annotated[
        str,
        typer.Option(
            "--convention",
            metavar="NAME",
            help="What empty masks score: brats, segmamba; or lesionwise for BraTS 2023's ranking metric.",
        ),
    ] = "",
    sort: Annotated[
        str,
        typer.Option("--sort", metavar="KEY", help="dice, hd95, WT_dice, model, latency_s, …; else the first metric."),
    ] = "",
    stats: Annotated[
        bool, typer.Option("--stats", help="Also intervals, paired tests, tiers, stability of the ranking.")
    ] = False,
    published: Annotated[
        bool,
        typer.Option("--published", help="Also the SegMamba paper's Table 1, in a block of its own."),
    ] = False,
    allow_mixed: Annotated[
        bool,
        typer.Option(
            "--allow-mixed", help="Let runs under different protocols, splits or versions share a table, and say so."
        ),
    ] = False,
) -> None:
    """Print the scores of what has been run: one table for each dataset, protocol, split and version of the code."""
    from bench.errors import BenchError, unknown
    from bench.report.costs import costs
    from bench.report.frame import differences, group_records
    from bench.report.published import segmamba_table1
    from bench.report.table import Choice
    from bench.store import Store

    if format_ not in FORMATS:
        raise BenchError(unknown("format", format_, FORMATS))
    check_convention(convention)
    records = Store(results).records()
    for record in records:
        for fault in record.faults:
            sys.stderr.write(f"damaged: {fault}\n")
    kept = choose_records(records, results, split_names(model), dataset, protocol, parse_seeds(seed) if seed else [])
    groups = group_records(kept, allow_mixed=allow_mixed, convention=convention)
    choice = Choice(tuple(split_names([metrics])), tuple(split_names([regions])), sort)
    tables = make_tables(groups, choice, costs(records), segmamba_table1() if published else None)
    typer.echo(_printed(tables, format_, stats), nl=False)
    say_why_apart(groups, differences(groups))


def check_convention(name: str) -> None:
    """See that a convention is known, or none is named.

    Raises:
        BenchError: it is not; the message suggests the nearest and lists all.
    """
    from bench.errors import BenchError, unknown
    from bench.metrics import CONVENTIONS
    from bench.report.frame import LESIONWISE

    if name and name not in (*CONVENTIONS, LESIONWISE):
        raise BenchError(unknown("convention", name, [*CONVENTIONS, LESIONWISE]))


def choose_records(
    records: Sequence[Record], results: Path, names: Sequence[str], dataset: str, protocol: str, seeds: Sequence[int]
) -> list[Record]:
    """The records that pass the filters; an empty filter lets all pass.

    Raises:
        BenchError: none does.
    """
    from bench.errors import BenchError
    from bench.store import describe

    kept = []
    for record in records:
        job = record.content.get("job", {})
        if (
            job
            and record.kind != "profile"
            and (not names or job["model"] in names)
            and (not dataset or job["dataset"] == dataset)
            and (not protocol or job.get("protocol", {}).get("name", protocol) == protocol)
            and (not seeds or job.get("seed", seeds[0]) in seeds)
        ):
            kept.append(record)
    if not kept:
        there = [describe(record) for record in records]
        raise BenchError(
            f"no record in {results} to show"
            + (f" with these filters; there are:\n  {chr(10).join(there)}" if there else "")
            + "\nMake one with: bench run --model segmamba --dataset phantom"
        )
    return kept


def make_tables(
    groups: Sequence[Group], choice: Choice, costs: Costs | None, published: PublishedTable | None
) -> list[Table]:
    """A table of each group. One that cannot be made as asked is left out, and the reason told, if others can.

    Raises:
        BenchError: none can be made; the first reason.
    """
    from bench.errors import BenchError
    from bench.report.table import make_table

    tables, refusals = [], []
    for group in groups:
        try:
            tables.append(make_table(group, choice, costs=costs, published=published))
        except BenchError as error:
            refusals.append(error)
    if refusals and not tables:
        raise refusals[0]
    for refusal in refusals:
        sys.stderr.write(f"a table is left out: {refusal}\n")
    return tables


def _printed(tables: Sequence[Table], format_: str, with_statistics: bool) -> str:
    from bench.report.render import render_sheets
    from bench.report.table import csv_context, table_csv, table_sheet

    if not with_statistics:
        return table_csv(tables) if format_ == "csv" else render_sheets([table_sheet(one) for one in tables], format_)

    import pandas as pd

    from bench.report.statistics import first_tier, statistics, statistics_frame, statistics_sheets

    sheets, frames = [], []
    for one in tables:
        found = statistics(one)
        if found is None:
            sheets.append(table_sheet(one))
            continue
        sheets += [table_sheet(one, first_tier(found)), *statistics_sheets(found, one)]
        frames.append(statistics_frame(found).assign(**csv_context(one), protocol=one.group.protocol))
    if format_ == "csv":
        return pd.concat(frames, ignore_index=True).to_csv(index=False) if frames else ""
    return render_sheets(sheets, format_)


def say_why_apart(groups: Sequence[Group], told: Sequence[str]) -> None:
    """Tell in what the runs of several tables differ."""
    if told:
        sys.stderr.write(
            f"{len(groups)} tables, since these differ and are not mixed (--allow-mixed mixes them):\n"
            + "".join(f"  {line}\n" for line in told)
        )
