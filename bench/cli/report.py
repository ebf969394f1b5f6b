"""``bench report``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Results, Values, parse_folds, parse_seeds, split_names
from bench.store import DEFAULT_RESULTS


def report(
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Folder for report.html, report.md and figures/.")
    ] = Path("reports"),
    results: Results = DEFAULT_RESULTS,
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

    Tables with their statistics, figures, every case with slices, protocol, provenance, and what `bench verify` finds;
    what was measured of networks by `bench profile`.
    """
    from bench.progress import ConsoleWatcher
    from bench.report.select import Request, select
    from bench.report.table import Choice
    from bench.report.write import write_report
    from bench.verify import verify

    found = select(
        Request(
            results=results,
            models=split_names(model),
            dataset=dataset,
            protocol=protocol,
            seeds=parse_seeds(seed) if seed else [],
            convention=convention,
            choice=Choice(tuple(split_names([metrics])), tuple(split_names([regions]))),
            published=published,
            allow_mixed=allow_mixed,
            folds=parse_folds(fold) if fold else [],
            changes=set_,
            profiles_alone=True,
        )
    )
    sys.stderr.write("".join(f"{line}\n" for line in found.told))
    watcher = ConsoleWatcher()
    with watcher.bar("verifying", len(found.records)) as bar:
        findings = verify(found.records, bar.advance)
    for path in write_report(found.tables, findings, output, title, pictures, watcher, found.profiles):
        typer.echo(path)
