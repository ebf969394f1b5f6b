"""Work on many cases, in threads, that can be stopped between two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from data.volume import CaseFiles

_Result = TypeVar("_Result")


def each_case(
    work: Callable[[CaseFiles], _Result],
    cases: Sequence[CaseFiles],
    on_case: Callable[[str], None] | None = None,
    workers: int = 1,
) -> list[_Result]:
    """``work`` done on every case; the results in the order of ``cases``.

    Threads suffice: gzip, numpy and scipy do most of their work outside Python's lock.

    Args:
        on_case: called in the calling thread with each case's id once it is done. What it raises ends the work: cases
            under way are finished, no other is begun.
        workers: cases at a time; 1 stays in the calling thread.
    """

    def announce(case: CaseFiles) -> None:
        if on_case is not None:
            on_case(case.id)

    if workers <= 1:
        results = []
        for case in cases:
            results.append(work(case))
            announce(case)
        return results
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        futures = {pool.submit(work, case): case for case in cases}
        for future in as_completed(futures):
            future.result()
            announce(futures[future])
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)
