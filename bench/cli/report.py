"""``bench report``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Results, parse_seeds, split_names
from bench.store import DEFAULT_RESULTS


def report(
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Folder for report.html, report.md and figures/.")
    ] = Path("reports"),
    results: Results = DEFAULT_RESULTS,
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
        str, typer.Option("--convention", metavar="NAME", help="What empty masks score, as in `bench table`.")
    ] = "",
    published: Annotated[
        bool, typer.Option("--published", help="Also the SegMamba paper's Table 1, in a block of its own.")
    ] = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Let runs under different protocols or versions share a table.")
    ] = False,
    pictures: Annotated[
        int, typer.Option("--pictures", metavar="N", min=0, help="Cases of which slices are shown, for each network.")
    ] = 12,
    title: Annotated[str, typer.Option("--title", help="Of the page.")] = "Segmentation benchmark",
) -> None:
    """Write the report: one HTML page that works offline, and Markdown with its figures.

    Tables with their statistics, figures, every case with slices, protocol, provenance, and what `bench verify` finds.
    """
    from bench.cli.table import check_convention, choose_records, make_tables, say_why_apart
    from bench.progress import ConsoleWatcher
    from bench.report.costs import costs
    from bench.report.frame import differences, group_records
    from bench.report.published import segmamba_table1
    from bench.report.table import Choice
    from bench.report.write import write_report
    from bench.store import Store
    from bench.verify import verify

    check_convention(convention)
    watcher = ConsoleWatcher()
    records = Store(results).records()
    for record in records:
        for fault in record.faults:
            sys.stderr.write(f"damaged: {fault}\n")
    kept = choose_records(records, results, split_names(model), dataset, protocol, parse_seeds(seed) if seed else [])
    groups = group_records(kept, allow_mixed=allow_mixed, convention=convention)
    choice = Choice(tuple(split_names([metrics])), tuple(split_names([regions])))
    tables = make_tables(groups, choice, costs(records), segmamba_table1() if published else None)
    with watcher.bar("verifying", len(kept)) as bar:
        findings = verify(kept, bar.advance)
    for path in write_report(tables, findings, output, title, pictures, watcher):
        typer.echo(path)
    say_why_apart(groups, differences(groups))
