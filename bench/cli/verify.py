"""``bench verify``"""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.options import Results
from bench.store import DEFAULT_RESULTS


def verify(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN]...", help="Keys, their beginnings, or folders, of one or of many; by default all."
        ),
    ] = [],  # noqa: B006 - typer's form of a repeatable argument
    results: Results = DEFAULT_RESULTS,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail too.")] = False,
) -> None:
    """Check that each record holds what it claims: hashes, split, means, protocol, code.

    Exit status 0 means that every claim holds, 1 that one does not.
    """
    from bench.errors import BenchError
    from bench.progress import ConsoleWatcher
    from bench.store import Store, describe
    from bench.verify import verify as check

    store = Store(results)
    records = [record for run in runs for record in store.within(run)] if runs else store.records()
    if not records:
        raise BenchError(f"no record in {results}; expected some. Name another folder with --results")
    with ConsoleWatcher().bar("verifying", len(records)) as bar:
        findings = check(records, bar.advance)
    at_fault = {key for finding in findings if finding.severity == "error" for key in finding.records}
    for record in records:
        typer.echo(f"{'FAIL' if record.key in at_fault else 'ok  '}  {describe(record)}")
        for finding in findings:
            if finding.records == (record.key,):
                typer.echo(f"      {finding}")
    for finding in findings:
        if len(finding.records) > 1:
            typer.echo(f"FAIL  {', '.join(finding.records)}\n      {finding}")
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    typer.echo(f"{len(records)} records, {errors} errors, {warnings} warnings")
    if errors or (strict and warnings):
        raise typer.Exit(1)
