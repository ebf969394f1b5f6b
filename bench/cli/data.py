"""``bench data``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.opening import open_dataset
from bench.cli.options import DataDir

app = typer.Typer(help="Make and check datasets.", no_args_is_help=True)


@app.command()
def phantom(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")],
    cases: Annotated[int, typer.Option("--cases", metavar="N", help="How many patients.")] = 24,
    size: Annotated[int, typer.Option("--size", metavar="S", help="Voxels along each edge.")] = 64,
    seed: Annotated[int, typer.Option("--seed", metavar="K", help="Seed of the whole set.")] = 0,
) -> None:
    """Write synthetic brains with gliomas in the layout of BraTS2023."""
    from bench.progress import ConsoleWatcher
    from data.phantom import write_dataset

    with ConsoleWatcher().bar("phantoms", cases) as bar:
        write_dataset(output, cases=cases, size=size, seed=seed, on_case=bar.advance)
    typer.echo(f"{cases} cases in {output}; use them with --dataset phantom --data-dir {output}")


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="See `bench datasets`.")],
    data_dir: DataDir = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Cases read at the same time.")] = 2,
) -> None:
    """Read every file of a dataset and report what is wrong, case by case."""
    from bench.progress import ConsoleWatcher
    from data.check import check_dataset

    watcher = ConsoleWatcher()
    opened = open_dataset(dataset, data_dir, watcher)
    total = len(opened.survey().cases)
    with watcher.bar("checking", total) as bar:
        findings = check_dataset(opened, on_case=bar.advance, workers=workers)
    for finding in findings:
        typer.echo(f"{finding.severity}: {finding}")
    errors = sum(finding.severity == "error" for finding in findings)
    typer.echo(f"{total} cases in {opened.root}: {errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise typer.Exit(1)
