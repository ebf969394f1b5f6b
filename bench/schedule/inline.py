"""The scheduler that needs none: jobs one after another in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bench.job import Job
from bench.lease import Held
from bench.store import Record

_POLL_S = 2.0


def run_inline(
    jobs: Sequence[Job],
    run: Callable[[Job], Record],
    *,
    settled: Callable[[str], Record | None] = lambda _key: None,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _text: None,
    poll_s: float = _POLL_S,
) -> list[Record]:
    """Run jobs in order; one that fails does not stop the next, one that is interrupted does.

    A job that another process runs is left for last, and its end waited for.

    Args:
        run: raises `bench.lease.Held` for such a job.
        settled: the record of a job that another process has brought to an end, by key, else None.
        stopped: whether somebody asked to stop.
        say: takes a line for whoever watches.
        poll_s: time between two looks at jobs that others run, in seconds.
    """
    records: list[Record] = []
    queue, told = list(jobs), set()
    while queue and not stopped():
        held = []
        for job in queue:
            if stopped():
                return records
            try:
                records.append(settled(job.key) or run(job))
            except Held as reason:
                held.append(job)
                if job.key not in told:
                    say(f"{job.key}  {job.model}, seed {job.seed}: {reason}; left for later")
                    told.add(job.key)
                continue
            if records[-1].status == "interrupted":
                return records
        queue = held
        until = time.monotonic() + (poll_s if queue else 0)
        while time.monotonic() < until and not stopped():
            time.sleep(0.1)
    return records
