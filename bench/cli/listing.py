"""``bench models`` and ``bench datasets``"""

from __future__ import annotations

from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="[NAME]", help="Show one card in full.")]


def list_models(name: Name = "") -> None:
    """List the networks, or show one's card."""
    import models

    if name:
        _print_card(models.card(name))
        typer.echo(f"{'options':15} " + ", ".join(f"{o}={v}" for o, v in models.options(name).items()))
        return
    rows = []
    for card in map(models.card, models.names()):
        size = f"multiples of {card.size_multiple}, from {card.minimum_size}"
        rows.append([card.name, card.family, f"{card.parameters_4to4:,}", size, f"{card.paper} ({card.year})"])
    _print_rows(["name", "family", "parameters", "size", "paper"], rows)


def list_datasets(name: Name = "") -> None:
    """List the datasets, or show one's card."""
    import data

    if name:
        _print_card(data.card(name))
        return
    rows = [[c.name, " ".join(c.channels), " ".join(c.regions), c.title] for c in map(data.card, data.names())]
    _print_rows(["name", "channels", "regions", "title"], rows)


def _print_rows(headers: list[str], rows: list[list[str]]) -> None:
    from tabulate import tabulate

    typer.echo(tabulate(rows, headers, disable_numparse=True))


def _print_card(card: object) -> None:
    for field, value in vars(card).items():
        if isinstance(value, dict) or hasattr(value, "items"):
            value = ", ".join(f"{key}: {item}" for key, item in value.items())
        elif isinstance(value, tuple):
            value = "; ".join(map(str, value))
        typer.echo(f"{field:15} {value}")
