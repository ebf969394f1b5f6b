"""A job's cases as arrays on the disk: made once, whoever else needs them at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.engine.interrupt import StopRequest
from bench.job import Job
from bench.lease import Lease, Watch, take
from bench.progress import Bar, Watcher
from data.dataset import Dataset
from data.prepare import Preparation, StoredCase, cache_folder, missing, plan_preparation, prepare
from data.volume import CaseFiles

_POLL_S = 1.0


@dataclass(frozen=True)
class Prepared:
    """What a job learns from and is tested on.

    Attributes:
        preparation: how every case was prepared.
        cases: by id, all of those that the job needs.
        validation, test: the files of those parts.
    """

    preparation: Preparation
    cases: dict[str, StoredCase]
    validation: tuple[CaseFiles, ...]
    test: tuple[CaseFiles, ...]


def prepare_job(job: Job, dataset: Dataset, workers: int, watcher: Watcher, stop: StopRequest) -> Prepared:
    """Prepare the cases that a job needs, or take what is there.

    Processes that share the cache do not prepare the same cases twice: one does it, the others wait and find them.

    Args:
        workers: cases prepared at the same time.

    Raises:
        DataError: as `data.prepare.prepare`.
        Interrupted, TimedOut: it was time to stop; what is prepared stays.
    """
    fields = job.protocol.data
    files = {case.id: case for case in dataset.cases()}
    training = [files[case] for case in job.split.train]
    validation = tuple(files[case] for case in job.protocol.validation.choose(job.split.validation))
    test = tuple(files[case] for case in job.split.test)
    with watcher.bar("surveying", len(training)) as bar:
        preparation = plan_preparation(
            dataset,
            training,
            normalise=fields.normalise,
            storage=fields.storage,
            spacing_mm=fields.spacing_mm,
            on_case=_advancing(bar, stop),
            workers=workers,
        )
    needed = list({case.id: case for case in (*training, *validation, *test)}.values())
    folder = cache_folder(job.dataset, job.data_fingerprint, preparation)
    # A cache that is whole may be one that cannot be written to.
    lease = _hold(folder, watcher, stop) if missing(needed, folder, preparation) else None
    try:
        with watcher.bar("preparing", len(needed)) as bar:
            cases = prepare(dataset, needed, folder, preparation, on_case=_advancing(bar, stop), workers=workers)
    finally:
        if lease is not None:
            lease.release()
    return Prepared(preparation, cases, validation, test)


def _hold(folder: Path, watcher: Watcher, stop: StopRequest) -> Lease:
    watch, told = Watch(), False
    while (lease := take(folder, watch)) is None:
        if not told:
            watcher.say(f"{watch.holder(folder) or 'another process'} prepares these cases; waiting for it")
            told = True
        time.sleep(_POLL_S)
        stop.check()
    return lease


def _advancing(bar: Bar, stop: StopRequest) -> Callable[[str], None]:
    def on_case(case: str) -> None:
        bar.advance(case)
        stop.check()

    return on_case
