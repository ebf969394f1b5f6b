"""The check of a whole dataset: every fault of every case, with what was expected and how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from data.dataset import Dataset, Finding, inspect_case
from data.volume import CaseFiles

__all__ = ["Finding", "check_dataset"]


def check_dataset(dataset: Dataset, on_case: Callable[[str], None] | None = None, workers: int = 1) -> list[Finding]:
    """Read every file of a dataset once and list all faults, sorted by case; none is a clean dataset.

    Args:
        on_case: called with each case's identifier once it is checked.
        workers: cases read at the same time, in threads: most of the work is done outside Python's lock.

    Raises:
        DataError: the dataset's folder does not exist.
    """

    def check(case: CaseFiles) -> list[Finding]:
        return inspect_case(case, dataset.card).findings

    survey = dataset.survey()
    findings = list(survey.findings)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for case, found in zip(survey.cases, pool.map(check, survey.cases), strict=True):
            findings += found
            if on_case is not None:
                on_case(case.id)
    return sorted(findings, key=lambda finding: finding.case)
