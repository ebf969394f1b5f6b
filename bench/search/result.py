"""What a search has found: the best setting of each network, what it cost, and every trial as a row."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.search.plan import Search
from bench.search.trials import COMPLETE, FAILED, STOPPED, Ledger, Outcome, Trial
from bench.store import now
from bench.tuned import Tuned, own_fields

_COLUMNS = ("model", "trial", "status", "dice", "step", "device_s", "key")


@dataclass(frozen=True)
class Found:
    """One network's part of a search.

    Attributes:
        model: the network.
        outcomes: of its trials, the protocol's own setting first.
        best: the complete trial with the highest Dice, of equals the first; None where none is complete.
        dice: its mean Dice on the validation cases, 0..1.
        own_dice: of the protocol's own setting; None where that failed.
        steps: of all trials together.
        device_s: seconds of training times devices, of all trials together.
    """

    model: str
    outcomes: Sequence[Outcome]
    best: Trial | None
    dice: float | None
    own_dice: float | None
    steps: int
    device_s: float

    def count(self, *statuses: str) -> int:
        """How many trials ended so."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        return sum(counts[status] for status in statuses)


def found_of(search: Search, ledger: Ledger) -> list[Found]:
    """What is known by now, network by network."""
    return [_found(model, search.of(model), ledger) for model in search.wanted.models]


def _found(model: str, trials: Sequence[Trial], ledger: Ledger) -> Found:
    outcomes = [ledger.outcome(trial) for trial in trials]
    complete = [
        (outcome.dice or 0.0, trial)
        for trial, outcome in zip(trials, outcomes, strict=True)
        if outcome.status == COMPLETE
    ]
    dice, best = max(complete, key=lambda pair: pair[0], default=(None, None))
    return Found(
        model=model,
        outcomes=outcomes,
        best=best,
        dice=dice,
        own_dice=outcomes[0].dice if outcomes[0].status == COMPLETE else None,
        steps=sum(outcome.step for outcome in outcomes),
        device_s=sum(outcome.device_s for outcome in outcomes),
    )


def tuned_of(search: Search, found: Sequence[Found], ledger: Ledger, path: Path, earlier: Tuned | None) -> Tuned:
    """The file of a search.

    Args:
        search: as planned.
        found: of its networks; those without a complete trial are left out.
        ledger: of its records.
        path: where the file is to lie.
        earlier: what lies there of the same search, whose other networks stay.
    """
    settled = [one for one in found if one.best is not None]
    wanted = search.wanted
    told = {
        "dataset": search.dataset,
        "data_fingerprint": search.data_fingerprint,
        "split_sha256": search.split.sha256,
        "training_cases": len(search.split.train),
        "validation_cases": len(search.split.validation),
        "trials": wanted.trials,
        "steps": search.steps,
        "validated_after": list(search.points),
        "stopped_after": list(search.rungs),
        "seed": wanted.seed,
        "space": {dimension.field: dimension.text for dimension in wanted.space},
    }
    return Tuned(
        path=path,
        name=search.name,
        base=wanted.protocol,
        changes=tuple(wanted.changes),
        search=told,
        models={
            **(earlier.models if earlier else {}),
            **{one.model: own_fields(one.best.setting) for one in settled if one.best},
        },
        found={
            **(earlier.found if earlier else {}),
            **{one.model: _facts(one, search.of(one.model), ledger) for one in settled},
        },
    )


def _facts(found: Found, trials: Sequence[Trial], ledger: Ledger) -> dict[str, Any]:
    records = [record for trial in trials if (record := ledger.store.get(trial.job.key)) is not None]
    codes = dict.fromkeys(record.code for record in records)
    return {
        "validation_dice": found.dice,
        "own_setting_dice": "none" if found.own_dice is None else found.own_dice,
        "trial": found.best.job.key if found.best else "none",
        "complete": found.count(COMPLETE),
        "stopped_early": found.count(STOPPED),
        "failed": found.count(*FAILED),
        "steps": found.steps,
        "device_seconds": round(found.device_s, 1),
        "code": list(codes),
        "date": now(),
    }


def trials_file(output: Path) -> Path:
    """Where the table of trials lies that belongs to the file of a search."""
    return output.with_suffix(".trials.csv")


def trials_table(search: Search, ledger: Ledger, earlier: Path) -> str:
    """All trials as CSV, those that failed included; rows of other networks in an earlier table of the search stay.

    Columns: model, trial (number of the setting), status, dice (see `Outcome.dice`), step, device_s, key (of the
    record), then each field that was searched; what a network does not have stays empty.
    """
    rows = [row for row in _rows(earlier) if row.get("model") not in search.wanted.models]
    for trial in search.trials:
        outcome = ledger.outcome(trial)
        dice = "" if outcome.dice is None else outcome.dice
        told = (
            trial.model,
            trial.number,
            outcome.status,
            dice,
            outcome.step,
            round(outcome.device_s, 1),
            trial.job.key,
        )
        rows.append({**dict(zip(_COLUMNS, told, strict=True)), **trial.setting})
    text = io.StringIO()
    columns = dict.fromkeys([*_COLUMNS, *(name for row in rows for name in row)])
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(path: Path) -> list[dict[str, Any]]:
    with suppress(OSError, csv.Error, UnicodeDecodeError), path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row]
    return []
