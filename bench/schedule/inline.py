"""The scheduler that needs none: jobs one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.job import Job
from bench.store import Record


def run_inline(jobs: Sequence[Job], run: Callable[[Job], Record]) -> list[Record]:
    """Run jobs in order; one that fails does not stop the next, one that is interrupted does."""
    records = []
    for job in jobs:
        records.append(run(job))
        if records[-1].status == "interrupted":
            break
    return records
