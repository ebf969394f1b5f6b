"""What long work tells whoever watches: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

_PLAIN_INTERVAL_S = 10.0


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, note: str = "") -> None:
        """One unit is done; ``note`` says something about it, e.g. the loss."""

    def note(self, text: str) -> None:
        """Say something about the unit under way."""


class Watcher(Protocol):
    """Somebody to tell."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def bar(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Bar]:
        """Begin a piece of work of ``total`` units, ``done`` of which are done already."""


class ConsoleWatcher:
    """Tells a console on standard error, so that standard output stays the result's alone."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        if not self.console.is_terminal:
            yield _PlainBar(self, title, total, done)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            Remaining(),
        )
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=self.console) as progress:
            yield _LiveBar(progress, progress.add_task(title, total=total, completed=done, note=""))


class _LiveBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, note: str = "") -> None:
        self._progress.update(self._task, advance=1, note=note)

    def note(self, text: str) -> None:
        self._progress.update(self._task, note=text)


class _PlainBar:
    """A line every ten seconds and one at the end, for logs and pipes."""

    def __init__(self, watcher: ConsoleWatcher, title: str, total: int, done: int) -> None:
        self._watcher, self._title, self._total, self._done = watcher, title, total, done
        self._spoken = time.monotonic()

    def advance(self, note: str = "") -> None:
        self._done += 1
        self._speak(note, always=self._done == self._total)

    def note(self, text: str) -> None:
        self._speak(text, always=False)

    def _speak(self, note: str, *, always: bool) -> None:
        if always or time.monotonic() - self._spoken >= _PLAIN_INTERVAL_S:
            self._spoken = time.monotonic()
            self._watcher.say(f"{self._title} {self._done}/{self._total} {note}".rstrip())
