"""What long work tells whoever watches: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

_PLAIN_INTERVAL_S = 10.0


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, note: str = "", units: int = 1) -> None:
        """That many units are done; ``note`` says something about them, e.g. the loss."""

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


class SilentWatcher:
    """Tells nobody."""

    def say(self, text: str) -> None:
        pass

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:  # noqa: ARG002
        yield _SilentBar()


class InnerWatcher(SilentWatcher):
    """Tells of a piece of work inside another one, in the note of that one's bar."""

    def __init__(self, outer: Bar) -> None:
        self._outer = outer

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        yield _InnerBar(self._outer, title, total, done)


class _SilentBar:
    def advance(self, note: str = "", units: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _InnerBar:
    def __init__(self, outer: Bar, title: str, total: int, done: int) -> None:
        self._outer, self._title, self._total, self._done = outer, title, total, done

    def advance(self, note: str = "", units: int = 1) -> None:
        self._done += units
        self.note(note)

    def note(self, text: str) -> None:
        self._outer.note(f"{self._title} {self._done}/{self._total} {text}".rstrip())


class _LiveBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, note: str = "", units: int = 1) -> None:
        self._progress.update(self._task, advance=units, note=note)

    def note(self, text: str) -> None:
        self._progress.update(self._task, note=text)


class _PlainBar:
    """A line every ten seconds and one at the end, for logs and pipes."""

    def __init__(self, watcher: ConsoleWatcher, title: str, total: int, done: int) -> None:
        self._watcher, self._title, self._total, self._done = watcher, title, total, done
        self._begun_with, self._begun = done, time.monotonic()
        self._spoken = self._begun

    def advance(self, note: str = "", units: int = 1) -> None:
        self._done += units
        self._speak(note, always=units > 0 and self._done == self._total)

    def note(self, text: str) -> None:
        self._speak(text, always=False)

    def _speak(self, note: str, *, always: bool) -> None:
        if always or time.monotonic() - self._spoken >= _PLAIN_INTERVAL_S:
            self._spoken = time.monotonic()
            self._watcher.say(f"{self._title} {self._done}/{self._total}{self._left()} {note}".rstrip())

    def _left(self) -> str:
        """How long it will go on, at the pace so far."""
        since = self._done - self._begun_with
        if not since or self._done >= self._total:
            return ""
        left_s = (self._spoken - self._begun) / since * (self._total - self._done)
        return f" (about {timedelta(seconds=round(left_s))} left)"
