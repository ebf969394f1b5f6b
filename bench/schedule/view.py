"""A sweep as it is watched: a table that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.schedule.states import FAILED, ORDER, JobState

_REFRESH_S = 2.0
_PLAIN_INTERVAL_S = 60.0
_COLOURS = {"running": "cyan", "complete": "green", "queued": "", "interrupted": "yellow"}
# What a table takes besides its rows: its head, how many more there are, how many of each state, the cursor.
_OTHER_ROWS = 4


def count(states: Sequence[JobState]) -> str:
    """How many there are of each state: ``2 running, 20 queued, 2 complete``."""
    found = Counter(state.state for state in states)
    return ", ".join(f"{found[name]} {name}" for name in ORDER if found[name]) or "no jobs"


def table(states: Sequence[JobState], most: int = 0) -> Table:
    """Jobs as rows, in the order given.

    Args:
        most: rows that are shown at most; 0 for all.
    """
    shown = states[:most] if most else states
    several = {name: len({getattr(state, name) for state in states}) > 1 for name in ("dataset", "protocol", "fold")}
    made = Table(box=None, pad_edge=False, header_style="bold")
    short = ("key", "model", *(name for name, differ in several.items() if differ), "seed", "state", "doing")
    for name in (*short, "Dice", "left", "where", "message"):
        made.add_column(name, no_wrap=name not in ("protocol", "message"), overflow="fold")
    for state in shown:
        colour = "red" if state.state in FAILED else _COLOURS.get(state.state, "")
        cells = [state.key, state.model, *(getattr(state, name) for name, differ in several.items() if differ)]
        rest = [state.doing, "" if state.dice is None else f"{state.dice:.3f}", _duration(state.left_s), state.where]
        rest.append(state.message.splitlines()[0] if state.message else "")
        # As texts, since brackets in a name would be markup.
        made.add_row(*map(Text, (*cells, state.seed)), Text(state.state, style=colour), *map(Text, rest))
    return made


class SweepView:
    """Shows a sweep while it runs. A context manager.

    Args:
        states: reads how the jobs stand, given the keys that wait; called every two seconds.
        console: standard error, so that standard output stays the result's alone.
    """

    def __init__(self, states: Callable[[Sequence[str]], list[JobState]], console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._states = states
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._known: dict[str, str] = {}
        self._looked = self._told = float("-inf")

    def __enter__(self) -> SweepView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, waiting: Sequence[str], notes: Sequence[str] = (), *, now: bool = False) -> None:
        """Look again, if it is time or ``now``.

        Args:
            waiting: keys of the jobs that have not begun.
            notes: lines on what is under way besides jobs.
        """
        clock = time.monotonic()
        if not now and clock - self._looked < _REFRESH_S:
            return
        self._looked = clock
        states = self._states(waiting)
        if self._live is not None:
            self._live.update(_page(states, notes, self.console.height), refresh=True)
            return
        for state in states:
            if self._known.get(state.key) != state.state and state.state != "queued":
                self.say(_line(state))
            self._known[state.key] = state.state
        if clock - self._told >= _PLAIN_INTERVAL_S:
            self._told = clock
            for text in (*notes, count(states)):
                self.say(text)
            for state in states:
                if state.state == "running":
                    self.say(f"  {_line(state)}")


def _page(states: Sequence[JobState], notes: Sequence[str], height: int) -> RenderableType:
    ordered = sorted(states, key=lambda state: ORDER.index(state.state))
    most = max(1, height - _OTHER_ROWS - len(notes))  # what does not fit is counted
    more = [Text(f"and {len(ordered) - most} more")] if len(ordered) > most else []
    return Group(table(ordered, most), *more, *map(Text, notes), Text(count(states)))


def _line(state: JobState) -> str:
    where = f" on {state.where}" if state.where else ""
    dice = "" if state.dice is None else f", Dice {state.dice:.3f}"
    left = f", about {_duration(state.left_s)} left" if state.left_s else ""
    fold = f", fold {state.fold}" if state.fold else ""
    doing = f", {state.doing}" if state.doing else ""
    message = f": {state.message.splitlines()[0]}" if state.message else ""
    head = f"{state.key}  {state.model} on {state.dataset}, seed {state.seed}{fold}: {state.state}"
    return head + where + doing + dice + left + message


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
