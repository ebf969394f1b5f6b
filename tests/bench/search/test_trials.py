"""What became of trials, from their records alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.search.trials import Ledger, Trial
from bench.store import BEST, WEIGHTS

Trials = Callable[..., list[Trial]]
Tell = Callable[..., None]


@pytest.mark.parametrize(
    ("status", "dice", "settled"),
    [
        ("complete", 0.4, True),
        ("interrupted", 0.4, False),
        ("nan", 0.0, True),
        ("oom", 0.0, False),
        ("failed", 0.0, False),
        ("timeout", 0.0, False),
    ],
)
def test_an_outcome_is_that_of_the_record(
    make_trials: Trials, tell: Tell, tmp_path: Path, status: str, dice: float, settled: bool
) -> None:
    ledger, (trial,) = Ledger(tmp_path), make_trials("unetr", 1)
    assert ledger.outcome(trial).status == "waiting"
    assert ledger.outcome(trial).dice is None
    tell(ledger, trial, [0.1, 0.4], status, execution={"devices": 2})
    found = ledger.outcome(trial)
    assert (found.status, found.dice, found.step, found.settled) == (status, dice, 4, settled)
    # One step of 0.75 s, then one and two of 1 s, on two devices.
    assert found.device_s == pytest.approx(2 * 3.75)
    assert ledger.validations(trial) == [(2, 0.1), (4, 0.4)]


def test_a_stopped_trial_stays_so_in_its_folder(make_trials: Trials, tell: Tell, tmp_path: Path) -> None:
    ledger, (trial, other) = Ledger(tmp_path), make_trials("unetr", 2)
    tell(ledger, trial, [0.1, 0.3, 0.7], "interrupted")
    ledger.stop(trial, 4, 0.3)
    again = Ledger(tmp_path)
    found = again.outcome(trial)
    assert (found.status, found.dice, found.settled) == ("stopped", 0.3, True)
    assert found.step == 6, "what it trained on until it heard of it was spent too"
    assert again.validations(trial) == [(2, 0.1), (4, 0.3)]
    assert again.outcome(other).status == "waiting"
    assert Ledger(tmp_path / "other").outcome(trial).status == "waiting"
    # One that was at its end before it heard of it has come to its end.
    tell(ledger, trial, [0.1, 0.3, 0.7], "complete")
    assert (again.outcome(trial).status, again.outcome(trial).dice) == ("complete", 0.7)


def test_weights_of_settled_trials_are_dropped_and_others_kept(make_trials: Trials, tell: Tell, tmp_path: Path) -> None:
    ledger, trials = Ledger(tmp_path), make_trials("unetr", 3)
    for trial, status in zip(trials, ("complete", "interrupted", "interrupted"), strict=True):
        for name in (WEIGHTS, BEST):
            path = ledger.store.root / trial.job.key / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("weights")
        tell(ledger, trial, [0.1], status)
    ledger.stop(trials[1], 2, 0.1)
    for trial in trials:
        ledger.drop_weights(trial)
    left = [sorted(p.name for p in (ledger.store.root / t.job.key / "checkpoint").iterdir()) for t in trials]
    assert left == [[], [], ["best.pt", "last.pt"]]
    assert ledger.outcome(trials[0]).status == "complete", "a record is sound without its weights"
