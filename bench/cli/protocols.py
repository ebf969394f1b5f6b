"""``bench protocols``"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Changes


def protocols(
    name: Annotated[
        str, typer.Argument(metavar="[NAME|FILE]", help="Show one protocol, field by field; or what `bench tune` made.")
    ] = "",
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="With `author` or a file: whose fields.")] = "",
    set_: Changes = [],  # noqa: B006 - typer's form of a repeatable option
) -> None:
    """List the protocols and where they differ, or show every field of one: its value, its source, its meaning."""
    from bench.errors import BenchError
    from bench.plan import protocols_of
    from bench.protocol import AUTHOR, fields, load_protocol, preset_names, show
    from bench.tuned import names_file

    if not name:
        if model or set_:
            raise BenchError(f"bench protocols {'--model' if model else '--set'}: of which protocol? Name one first")
        _compare()
        return
    if names_file(name) and not model:
        _show_file(Path(name))
        return
    if name == AUTHOR and not model:
        raise BenchError(f"bench protocols {AUTHOR}: whose? Say --model NAME, see `bench models`")
    own = name == AUTHOR or names_file(name)
    protocol = protocols_of([model], name, set_)[model] if own else load_protocol(name, set_)
    typer.echo(f"{protocol.title}: {protocol.description}\n")
    values = protocol.values()
    for field, meaning in fields().items():
        source = protocol.sources.get(field, "")
        if field in [change.partition("=")[0] for change in protocol.changes]:
            source = "changed with --set"
        typer.echo(f"{field} = {show(values[field])}" + (f"   [{source}]" if source else ""))
        typer.echo(f"    {meaning}")
    for option, given in protocol.model_options.items():
        typer.echo(f"model_options.{option}: " + ", ".join(f"{key}={show(value)}" for key, value in given.items()))
    typer.echo(f"\npresets: {', '.join(preset_names())}")


def _show_file(path: Path) -> None:
    from tabulate import tabulate

    from bench.protocol import show
    from bench.tuned import read_tuned

    tuned = read_tuned(path)
    typer.echo(f"{tuned.name}: {tuned.description}")
    if tuned.changes:
        typer.echo(f"changes of {tuned.base}: {', '.join(tuned.changes)}")
    searched = ", ".join(f"{field}={text}" for field, text in tuned.search["space"].items())
    typer.echo(f"searched: {searched}\n")
    told = ("own_setting_dice", "validation_dice", "complete", "stopped_early", "failed", "steps", "device_seconds")
    fields = dict.fromkeys(field for own in tuned.models.values() for field in own)
    rows = [
        [model, *(show(own.get(field, "")) for field in fields), *(_plain(tuned.found.get(model, {}), n) for n in told)]
        for model, own in tuned.models.items()
    ]
    headers = ["model", *fields, *(name.replace("_", " ") for name in told)]
    typer.echo(tabulate(rows, headers, disable_numparse=True))
    typer.echo(f"\nevery field of one network: bench protocols {path} --model {next(iter(tuned.models))}")


def _plain(facts: Mapping[str, object], name: str) -> str:
    value = facts.get(name, "")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _compare() -> None:
    from tabulate import tabulate

    from bench.protocol import fields, load_protocol, preset_names, show

    presets = [load_protocol(name) for name in preset_names()]
    for protocol in presets:
        typer.echo(f"{protocol.name}: {protocol.description}")
    values = [protocol.values() for protocol in presets]
    rows = [
        [field, *(show(value[field]) for value in values)]
        for field in fields()
        if len({show(value[field]) for value in values}) > 1
    ]
    typer.echo("\nWhere they differ:\n")
    typer.echo(tabulate(rows, ["field", *(protocol.name for protocol in presets)], disable_numparse=True))
