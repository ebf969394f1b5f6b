"""Trials with records made without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from bench.job import Job
from bench.search.trials import Ledger, Trial


@pytest.fixture
def make_trials(make_job: Callable[..., Job]) -> Callable[..., list[Trial]]:
    """``make_trials("unetr", 3)``: trials of invented learning rates."""

    def make(model: str, count: int) -> list[Trial]:
        trials = []
        for number in range(count):
            rate = str(0.01 * (number + 1))
            job = make_job(model, changes=("train.steps=16", f"train.learning_rate={rate}"))
            trials.append(Trial(model, number, {"train.learning_rate": rate}, job))
        return trials

    return make


@pytest.fixture
def tell() -> Callable[..., None]:
    """``tell(ledger, trial, [0.1, 0.2], "interrupted")``: a record with these validations, two steps apart."""

    def write(ledger: Ledger, trial: Trial, scores: Sequence[float], status: str, **facts: object) -> None:
        record = ledger.store.open_run(trial.job, **facts)
        rows = [{"step": 1, "loss": 1.0, "step_s": 0.5, "data_wait_s": 0.25}]
        for number, dice in enumerate(scores):
            rows.append({"step": 2 * number + 2, "loss": 1.0, "step_s": 0.5, "data_wait_s": 0.5, "dice": dice})
        record.write_history(rows)
        record.write_cases({})
        record.finish(status, **({"mean_dice": scores[-1]} if status == "complete" else {}))

    return write
