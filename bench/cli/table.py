"""``bench table``"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bench.cli.options import Results, parse_seeds, split_names
from bench.store import DEFAULT_RESULTS


def table(
    results: Results = DEFAULT_RESULTS,
    format_: Annotated[str, typer.Option("--format", metavar="FORMAT", help="text, markdown, csv or latex.")] = "text",
    model: Annotated[list[str], typer.Option("--model", help="Only these networks.")] = [],  # noqa: B006
    dataset: Annotated[str, typer.Option("--dataset", help="Only this dataset.")] = "",
    protocol: Annotated[str, typer.Option("--protocol", help="Only this protocol.")] = "",
    seed: Annotated[str, typer.Option("--seed", help="Only these seeds.")] = "",
    mix_protocols: Annotated[
        bool, typer.Option("--mix-protocols", help="Let runs under different protocols share a table, and say so.")
    ] = False,
) -> None:
    """Print Dice and HD95 of what has been run, one table per dataset and protocol."""
    from bench.errors import BenchError, unknown
    from bench.report.frame import group_records
    from bench.report.table import make_table, render
    from bench.store import Store, describe

    formats = ("text", "markdown", "csv", "latex")
    if format_ not in formats:
        raise BenchError(unknown("format", format_, formats))
    names = split_names(model)
    seeds = parse_seeds(seed) if seed else []
    kept = []
    for record in Store(results).records():
        for fault in record.faults:
            sys.stderr.write(f"damaged: {fault}\n")
        job = record.content.get("job", {})
        if (
            job
            and (not names or job["model"] in names)
            and (not dataset or job["dataset"] == dataset)
            and (not protocol or job.get("protocol", {}).get("name", protocol) == protocol)
            and (not seeds or job.get("seed", seeds[0]) in seeds)
        ):
            kept.append(record)
    if not kept:
        there = [describe(record) for record in Store(results).records()]
        raise BenchError(
            f"no record in {results} to show"
            + (f" with these filters; there are:\n  {chr(10).join(there)}" if there else "")
            + "\nMake one with: bench run --model segmamba --dataset phantom"
        )
    typer.echo(render([make_table(group) for group in group_records(kept, mix_protocols)], format_), nl=False)  # type: ignore[arg-type]
