"""``bench protocols``"""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.options import Changes


def protocols(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Show one protocol, field by field.")] = "",
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="With `author`: whose recipe.")] = "",
    set_: Changes = [],  # noqa: B006 - typer's form of a repeatable option
) -> None:
    """List the protocols and where they differ, or show every field of one: its value, its source, its meaning."""
    from bench.errors import BenchError
    from bench.plan import protocols_of
    from bench.protocol import AUTHOR, fields, load_protocol, preset_names, show

    if not name:
        if model or set_:
            raise BenchError(f"bench protocols {'--model' if model else '--set'}: of which protocol? Name one first")
        _compare()
        return
    if name == AUTHOR and not model:
        raise BenchError(f"bench protocols {AUTHOR}: whose? Say --model NAME, see `bench models`")
    protocol = protocols_of([model], name, set_)[model] if name == AUTHOR else load_protocol(name, set_)
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
