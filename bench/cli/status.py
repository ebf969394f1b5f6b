"""``bench status``"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Results
from bench.store import DEFAULT_RESULTS

if TYPE_CHECKING:
    from rich.console import RenderableType

_REFRESH_S = 2.0
_PLAIN_WIDTH = 10_000


def status(
    results: Results = DEFAULT_RESULTS,
    watch: Annotated[bool, typer.Option("--watch", help="Go on looking until nothing runs; Ctrl-C leaves.")] = False,
) -> None:
    """How far every job is, from the results folder alone: on any machine that sees it, now or later."""
    from rich.console import Console
    from rich.live import Live

    # A pipe has no width; a line for each job is what is looked for in it.
    console = Console() if sys.stdout.isatty() else Console(width=_PLAIN_WIDTH)
    if not watch:
        console.print(_page(results)[0])
        return
    page, at_work = _page(results)
    with Live(page, console=console, auto_refresh=False) as live:
        while at_work:
            time.sleep(_REFRESH_S)
            page, at_work = _page(results)
            live.update(page, refresh=True)


def _page(results: Path) -> tuple[RenderableType, bool]:
    from rich.console import Group
    from rich.text import Text

    from bench.schedule.states import all_states
    from bench.schedule.view import count, table
    from bench.store import Store
    from bench.sweep import sweeps

    found = sweeps(results)
    states = all_states(Store(results), found)
    stopped = [sweep for sweep in found if not sweep.at_work]
    lines = [Text(count(states))]
    lines += [Text(f"stopped early; the same command goes on: {sweep.command}") for sweep in stopped]
    page = Group(table(states), *lines) if states else Group(*lines)
    return page, any(state.state in ("running", "queued") for state in states)
