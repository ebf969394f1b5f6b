"""Folds of one cross-validation: which records belong together, and which of them a table may count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.store import Record


@dataclass(frozen=True)
class Pool:
    """What a row of a table rests on.

    Attributes:
        records: finished or not.
        runs: the complete ones; each run has every case of the row once. Outside a cross-validation that is one record,
            within one the records of a seed, by fold.
        folds: numbers of the folds in each run; empty outside a cross-validation.
        of: how many folds there are to be; 0 outside a cross-validation.
        left_out: seed to its complete folds, of seeds that do not count since they lack some that others have.
    """

    records: tuple[Record, ...]
    runs: tuple[tuple[Record, ...], ...]
    folds: tuple[int, ...] = ()
    of: int = 0
    left_out: Mapping[int, tuple[int, ...]] | None = None

    @property
    def text(self) -> str:
        """``folds 0-3 of 5``; empty outside a cross-validation and where there is no fold."""
        return f"{folds_text(self.folds)} of {self.of}" if self.folds else ""


def fold_count(record: Record) -> int:
    """In how many folds the cases of a run were dealt; 0 for all that is no part of a cross-validation."""
    job = record.content["job"]
    found = job.get("protocol", {}).get("split", {}).get("folds")
    return found if isinstance(found, int) and isinstance(job.get("fold"), int) else 0


def pool(records: Sequence[Record]) -> Pool:
    """Put the complete records of one row together.

    The mean over seeds is one over like and like only if each has the same folds. So the seeds count that have the
    most folds, among equally many those folds that most seeds have; the others wait until they have them too.

    Args:
        records: of one network, of one cross-validation or of none.
    """
    complete = [record for record in records if record.status == "complete"]
    of = fold_count(records[0])
    if not of:
        return Pool(tuple(records), tuple((record,) for record in complete))
    by_seed: dict[int, list[Record]] = {}
    for record in sorted(complete, key=lambda record: record.content["job"]["fold"]):
        by_seed.setdefault(record.content["job"]["seed"], []).append(record)
    folds_of = {
        seed: tuple(dict.fromkeys(record.content["job"]["fold"] for record in mine))
        for seed, mine in sorted(by_seed.items())
    }
    found = list(folds_of.values())
    folds = max(found, key=lambda folds: (len(folds), found.count(folds)), default=())
    return Pool(
        records=tuple(records),
        runs=tuple(tuple(by_seed[seed]) for seed, mine in folds_of.items() if mine == folds),
        folds=folds,
        of=of,
        left_out={seed: mine for seed, mine in folds_of.items() if mine != folds},
    )


def folds_text(folds: Iterable[int]) -> str:
    """``fold 3``, ``folds 0-3, 5``."""
    ordered = sorted(folds)
    ranges: list[list[int]] = []
    for fold in ordered:
        if ranges and fold == ranges[-1][1] + 1:
            ranges[-1][1] = fold
        else:
            ranges.append([fold, fold])
    told = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
    return f"fold{'s' if len(ordered) > 1 else ''} {told}"
