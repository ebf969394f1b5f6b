"""What became of the settings that were tried, from their records alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.atomic import write_text
from bench.job import Job
from bench.lease import looks_alive
from bench.store import BEST, WEIGHTS, Store

COMPLETE, STOPPED = "complete", "stopped"
# Nothing more is to be learnt of these; that a setting diverges is a result.
SETTLED = (COMPLETE, STOPPED, "nan")
FAILED = ("nan", "oom", "failed", "timeout")


@dataclass(frozen=True)
class Trial:
    """One setting of one network.

    Attributes:
        model: the network.
        number: of the setting, the same for every network; 0 is the protocol's own.
        setting: field to value, as typed.
        job: the training that tries it.
    """

    model: str
    number: int
    setting: Mapping[str, str]
    job: Job


@dataclass(frozen=True)
class Outcome:
    """How far a trial came.

    Attributes:
        status: ``complete``, ``stopped`` (early, see `Ledger`), ``waiting`` where it has not begun, else as its record.
        dice: mean over the validation cases, regions included: of the final test where it is complete, of the last
            validation where it is not, 0 where it failed; None where there is none yet.
        step: optimiser steps that it was trained for, to the last full epoch.
        device_s: seconds of training times devices.
    """

    status: str
    dice: float | None
    step: int
    device_s: float

    @property
    def settled(self) -> bool:
        """Whether it need not be run any more."""
        return self.status in SETTLED

    @property
    def ended(self) -> bool:
        """Whether it has come to an end, though one that failed may be tried again."""
        return self.status in (*SETTLED, *FAILED)


class Ledger:
    """The folder of a search, which is all of its state.

    ``trials/KEY/`` are records of ordinary trainings. ``stopped/KEY.json`` is there as soon as a trial was stopped
    early, with the step and the Dice. That decision stands: a later search in the same folder takes the trial as
    stopped and does not go on with it, even where it would compare it with others. A search in another folder knows
    nothing of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "trials")
        self._stopped = folder / "stopped"

    def outcome(self, trial: Trial) -> Outcome:
        """As it stands."""
        record = self.store.get(trial.job.key)
        if record is None:
            return Outcome("waiting", None, 0, 0.0)
        status, found = record.status, self.validations(trial)
        devices = record.content.get("execution", {}).get("devices", 1)
        step, device_s = spent(record.folder, devices)
        if status == COMPLETE:
            return Outcome(COMPLETE, float(record.content["mean_dice"]), step, device_s)
        if self._decision(trial) is not None:
            return Outcome(STOPPED, found[-1][1] if found else None, step, device_s)
        if status in FAILED:
            return Outcome(status, 0.0, step, device_s)
        return Outcome(status, found[-1][1] if found else None, step, device_s)

    def validations(self, trial: Trial) -> list[tuple[int, float]]:
        """Step and mean Dice of each validation of a trial so far, or until it was to stop."""
        found, last = validations(self.store.root / trial.job.key), self._decision(trial)
        return [(step, dice) for step, dice in found if last is None or step <= last]

    def stop(self, trial: Trial, step: int, dice: float) -> None:
        """Remember that a trial was stopped early. Only then is it told.

        Raises:
            BenchError: the folder cannot be written.
        """
        content = {"model": trial.model, "number": trial.number, "step": step, "dice": dice}
        write_text(self._stopped / f"{trial.job.key}.json", json.dumps(content, indent=1) + "\n")

    def _decision(self, trial: Trial) -> int | None:
        """After which step it was stopped."""
        try:
            return int(json.loads((self._stopped / f"{trial.job.key}.json").read_text())["step"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):  # it was to stop, and where does not matter much
            return 0

    def drop_weights(self, trial: Trial) -> None:
        """Remove the weights of a settled trial: a large search would fill a disk with what nobody loads again."""
        folder = self.store.root / trial.job.key
        if self.outcome(trial).settled and not looks_alive(folder):
            for name in (WEIGHTS, BEST):
                with suppress(OSError):
                    (folder / name).unlink(missing_ok=True)


def validations(folder: Path) -> list[tuple[int, float]]:
    """Step and mean Dice of each validation that a record's ``history.csv`` tells of, in order."""
    return [(int(row["step"]), row["dice"]) for row in _history(folder) if "dice" in row]


def spent(folder: Path, devices: int) -> tuple[int, float]:
    """Steps, and seconds of training times devices without validation, as a record's ``history.csv`` tells."""
    step, seconds = 0, 0.0
    for row in _history(folder):
        seconds += (row["step"] - step) * (row.get("step_s", 0.0) + row.get("data_wait_s", 0.0))
        step = int(row["step"])
    return step, seconds * devices


def _history(folder: Path) -> list[dict[str, float]]:
    try:
        with (folder / "history.csv").open(newline="") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError):
        return []
