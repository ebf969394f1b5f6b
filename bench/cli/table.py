"""``bench table``"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Results, Values, parse_folds, parse_seeds, split_names
from bench.store import DEFAULT_RESULTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.table import Table

FORMATS = ("text", "markdown", "csv", "latex", "html")


def table(
    results: Results = DEFAULT_RESULTS,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, markdown, csv, latex or html.")
    ] = "text",
    model: Annotated[list[str], typer.Option("--model", metavar="NAME[,NAME…]", help="Only these networks.")] = [],  # noqa: B006
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="Only this dataset.")] = "",
    protocol: Annotated[str, typer.Option("--protocol", metavar="NAME", help="Only this protocol.")] = "",
    set_: Values = [],  # noqa: B006
    seed: Annotated[str, typer.Option("--seed", metavar="N[,N…]", help="Only these seeds.")] = "",
    fold: Annotated[str, typer.Option("--fold", metavar="K[,K…]", help="Only these folds of cross-validations.")] = "",
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
    """Print the scores of what has been run: one table for each dataset, protocol, split and version of the code.

    The folds of a cross-validation share a row: every case counts once for each seed.
    """
    from bench.errors import BenchError, unknown
    from bench.report.select import Request, select
    from bench.report.table import Choice

    if format_ not in FORMATS:
        raise BenchError(unknown("format", format_, FORMATS))
    found = select(
        Request(
            results=results,
            models=split_names(model),
            dataset=dataset,
            protocol=protocol,
            seeds=parse_seeds(seed) if seed else [],
            convention=convention,
            choice=Choice(tuple(split_names([metrics])), tuple(split_names([regions])), sort),
            published=published,
            allow_mixed=allow_mixed,
            folds=parse_folds(fold) if fold else [],
            changes=set_,
        )
    )
    typer.echo(_printed(found.tables, format_, stats), nl=False)
    sys.stderr.write("".join(f"{line}\n" for line in found.told))


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
