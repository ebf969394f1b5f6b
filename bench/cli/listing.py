"""``bench models`` and ``bench datasets``"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from models.card import ModelCard

Name = Annotated[str, typer.Argument(metavar="[NAME]", help="Show one card in full.")]


def list_models(name: Name = "") -> None:
    """List the networks, or show one's card."""
    import models

    if name:
        _print_card(models.card(name))
        typer.echo(f"{'options':16} " + ", ".join(f"{o}={v!r}" for o, v in models.options(name).items()))
        return
    rows = []
    for card in map(models.card, models.names()):
        paper = f"{card.paper.partition(',')[0]} ({card.year})"
        rows.append([card.name, card.family, f"{card.parameters_4to4:,}", _gmacs(card), _sizes(card), paper])
    _print_rows(["name", "family", "parameters", "GMACs at 128³", "size (D, H, W)", "paper"], rows)
    typer.echo(
        "\nParameters and multiply-accumulates (two floating-point operations each) of one inference with 4 input and"
        " 4 output channels and default options; those of selective scans stand apart. A fixed network takes the"
        " size it was built for only."
        f"\n--model all: {', '.join(models.SEGMAMBA_TABLE_1)} (Table 1 of the SegMamba paper)."
    )


def list_datasets(name: Name = "") -> None:
    """List the datasets, or show one's card."""
    import data

    if name:
        _print_card(data.card(name))
        return
    rows = [[c.name, " ".join(c.channels), " ".join(c.regions), c.title] for c in map(data.card, data.names())]
    _print_rows(["name", "channels", "regions", "title"], rows)


def _gmacs(card: ModelCard) -> str:
    if card.gmacs_128 is None:
        return "not counted"
    return f"{card.gmacs_128:,.1f}" + (f" + {card.scan_gmacs_128:.1f} scan" if card.scan_gmacs_128 >= 0.05 else "")


def _sizes(card: ModelCard) -> str:
    import models

    multiples = sorted(set(card.size_multiples))
    volume = card.volume_multiple(models.options(card.name))
    rule = f"multiples of {'/'.join(map(str, multiples))}, from {card.minimum_size}"
    rule += f", D·H·W of {volume}" if volume > 1 else ""
    return f"{rule}; fixed" if card.fixed_size else rule


def _print_rows(headers: list[str], rows: list[list[str]]) -> None:
    from tabulate import tabulate

    typer.echo(tabulate(rows, headers, disable_numparse=True))


def _print_card(card: object) -> None:
    for field, value in vars(card).items():
        for number, line in enumerate(_lines(value)):
            typer.echo(f"{'' if number else field:16} {line}")


def _lines(value: object) -> list[str]:
    """A fact as lines: a sentence each, and what is short on one."""
    if isinstance(value, Mapping):
        return [", ".join(f"{key}: {item}" for key, item in value.items())]
    if not isinstance(value, tuple):
        return ["none" if value is None else str(value)]
    parts = [str(part) for part in value] or ["none"]
    return parts if any(" " in part for part in parts) else [", ".join(parts)]
