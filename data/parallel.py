"""Work on many cases, in threads, that can be stopped between two of them.

Threads suffice: gzip, numpy and scipy do most of their work outside Python's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

from data.volume import CaseFiles

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def each_case(
    work: Callable[[CaseFiles], _Result],
    cases: Sequence[CaseFiles],
    on_case: Callable[[str], None] | None = None,
    workers: int = 1,
) -> list[_Result]:
    """``work`` done on every case; the results in the order of ``cases``.

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


def in_turn(
    work: Callable[[_Item], _Result], items: Iterable[_Item], workers: int = 1
) -> Generator[_Result, None, None]:
    """The results of ``work`` on each item, in the order of the items, each as soon as it is asked for and there.

    Args:
        workers: items at a time; 1 stays in the calling thread. Results wait to be taken, at most twice as many.
            Closing the generator waits for those under way.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        ahead: deque[Future[_Result]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) == 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
