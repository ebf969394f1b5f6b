"""How far a job is, where others can read it: ``progress.json`` in its record.

It is for looking on. Nothing depends on it, so a disk that refuses it stops no training.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.progress import Bar, Watcher

PROGRESS = "progress.json"
_INTERVAL_S = 2.0


@dataclass(frozen=True)
class Progress:
    """What a job is at.

    Attributes:
        title: of the piece of work, e.g. ``training``.
        done, total: its units, e.g. steps.
        note: what the piece of work says of itself.
        left_s: how long it will still take at the pace so far, in seconds; None while that cannot be told.
        host: where it runs.
        gpus: numbers of the GPUs that it has been given, as CUDA_VISIBLE_DEVICES lists them; empty if nothing does.
        at: when this was written, in seconds since the epoch.
    """

    title: str
    done: int
    total: int
    note: str
    left_s: float | None
    host: str
    gpus: str
    at: float


def read_progress(folder: Path) -> Progress | None:
    """How far the job of a record is, as it last said; None where it said nothing that can be read."""
    try:
        return Progress(**json.loads((folder / PROGRESS).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def forget_progress(folder: Path) -> None:
    """Take away what a job said that has ended."""
    with suppress(OSError):
        (folder / PROGRESS).unlink(missing_ok=True)


class RecordWatcher:
    """Passes everything on to another watcher, and keeps the progress of the latest bar in a record's folder."""

    def __init__(self, folder: Path, inner: Watcher) -> None:
        self._folder, self._inner = folder, inner
        forget_progress(folder)  # of an attempt that was killed

    def say(self, text: str) -> None:
        self._inner.say(text)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        with self._inner.bar(title, total, done) as bar:
            yield _RecordBar(self._folder, bar, title, total, done)


class _RecordBar:
    def __init__(self, folder: Path, inner: Bar, title: str, total: int, done: int) -> None:
        self._folder, self._inner, self._title, self._total, self._done = folder, inner, title, total, done
        self._begun, self._before = time.monotonic(), done
        self._written = 0.0
        self._write("")

    def advance(self, note: str = "", units: int = 1) -> None:
        self._done += units
        self._inner.advance(note, units)
        self._write(note)

    def note(self, text: str) -> None:
        self._inner.note(text)
        self._write(text)

    def _write(self, note: str) -> None:
        now = time.monotonic()
        if self._written and now - self._written < _INTERVAL_S and self._done < self._total:
            return
        self._written = now
        since = self._done - self._before
        progress = Progress(
            title=self._title,
            done=self._done,
            total=self._total,
            note=note,
            left_s=(now - self._begun) / since * (self._total - self._done) if since else None,
            host=platform.node(),
            gpus=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            at=time.time(),
        )
        draft = self._folder / f".{PROGRESS}.{os.getpid()}"
        with suppress(OSError):  # without waiting for the disk, which a checkpoint does
            draft.write_text(json.dumps(asdict(progress)))
            draft.replace(self._folder / PROGRESS)
