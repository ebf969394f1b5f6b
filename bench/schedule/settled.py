"""Which jobs another driver has seen to since this one made its plan."""

from __future__ import annotations

from collections.abc import Sequence

from bench.job import Job
from bench.store import NEVER, Record, Store


class Settled:
    """Remembers how the records of jobs were, and tells which of them have ended since.

    A job that failed before may be run again; one that fails elsewhere while this driver is at work need not.

    Args:
        jobs: as planned, none of them complete.

    Attributes:
        before: how the last attempt at each job had ended, by key, see `bench.store.Record.end`.
    """

    def __init__(self, store: Store, jobs: Sequence[Job]) -> None:
        self._store = store
        records = {job.key: store.get(job.key) for job in jobs}
        self.before = {key: NEVER if record is None else record.end for key, record in records.items()}

    def __call__(self, key: str) -> Record | None:
        """The record of a job that has ended since, in whatever way; else None."""
        record = self._store.get(key)
        return record if record is not None and record.settled_since(self.before[key]) else None
