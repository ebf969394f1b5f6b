"""``bench evaluate``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Results
from bench.store import DEFAULT_RESULTS


def evaluate(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="Folder of label maps.")],
    references: Annotated[Path, typer.Argument(metavar="REFERENCES", help="Folder of references, or a dataset.")],
    name: Annotated[str, typer.Option("--name", help="Enter them in the table under this name.")] = "",
    dataset: Annotated[str, typer.Option("--dataset", help="Whose labels and regions they follow.")] = "brats2023",
    convention: Annotated[str, typer.Option("--convention", help="What an empty mask scores.")] = "brats",
    challenge: Annotated[
        str,
        typer.Option(
            "--challenge",
            metavar="NAME",
            help="BraTS 2023 challenge whose settings score lesions one by one, or 'none'; by default the dataset's.",
        ),
    ] = "",
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, help="Cases at a time.")] = 1,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Score anybody's predictions, and put them in the table if they are given a name."""
    import tempfile

    import data
    from bench.external import match_files, record_external
    from bench.progress import ConsoleWatcher
    from bench.report.frame import group_records
    from bench.report.render import render_sheets
    from bench.report.table import make_table, table_sheet
    from bench.store import Store

    card = data.card(dataset)
    settings = None if challenge == "none" else challenge or card.lesionwise or None
    watcher = ConsoleWatcher()
    matches = match_files(predictions, references)
    watcher.say(matches.describe())
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(results if name else Path(scratch))
        record = record_external(
            name or predictions.name,
            predictions,
            references,
            matches,
            card,
            convention,
            store,
            watcher,
            settings,
            workers,
        )
        sheets = [table_sheet(make_table(group)) for group in group_records([record])]
        typer.echo(render_sheets(sheets, "text"), nl=False)
