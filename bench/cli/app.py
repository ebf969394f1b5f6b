"""The command ``bench``: one file per verb, and one place where errors become messages."""

from __future__ import annotations

import sys

import typer

from bench import __version__
from bench.cli import data as data_verbs
from bench.cli import evaluate, listing, predict, profile, protocols, report, run, status, table, tune, verify
from bench.errors import BenchError
from data.errors import DataError
from models.errors import ModelError

app = typer.Typer(
    name="bench",
    help="Train, evaluate and compare 3D medical image segmentation networks under one protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("tune")(tune.tune)
app.command("status")(status.status)
app.command("profile")(profile.profile)
app.command("table")(table.table)
app.command("models")(listing.list_models)
app.command("datasets")(listing.list_datasets)
app.command("protocols")(protocols.protocols)
app.add_typer(data_verbs.app, name="data")
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
app.command("verify")(verify.verify)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        typer.echo(f"segmamba-bench {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a user's mistake is a message and exit status 2, never a traceback."""
    try:
        app()
    except (BenchError, DataError, ModelError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
