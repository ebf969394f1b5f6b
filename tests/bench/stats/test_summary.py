"""Means, their intervals and spreads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.errors import BenchError
from bench.stats import SUMMARY_COLUMNS, summarise


def test_numbers_of_a_table_small_enough_to_compute_by_hand(make_scores: Callable[..., pd.DataFrame]) -> None:
    """Averaged over seeds the cases score 2, 4 and 9; the seeds' means are (1 + 3 + 8) / 3 and (3 + 5 + 10) / 3."""
    (row,) = summarise(make_scores({"a": [[1, 3], [3, 5], [8, 10]]})).to_dict("records")
    assert tuple(row) == SUMMARY_COLUMNS
    assert (row["cases"], row["seeds"], row["mean"], row["median"]) == (3, 2, 5, 4)
    assert row["std"] == pytest.approx(np.sqrt((9 + 1 + 16) / 2))
    assert row["seed_std"] == pytest.approx(np.sqrt(1 + 1))


def test_the_interval_is_scipys(make_scores: Callable[..., pd.DataFrame]) -> None:
    models = {"a": np.random.default_rng(0).beta(8, 2, 30), "b": np.random.default_rng(1).exponential(9, 30)}
    found = summarise(make_scores(models), confidence=0.9, resamples=500, seed=3)
    for values, (low, high) in zip(models.values(), found[["mean_low", "mean_high"]].to_numpy(), strict=True):
        interval = stats.bootstrap(
            (values,), np.mean, confidence_level=0.9, n_resamples=500, method="BCa", rng=np.random.default_rng(3)
        ).confidence_interval
        assert (low, high) == pytest.approx(tuple(interval), rel=1e-8)


def test_a_model_has_the_same_interval_whoever_stands_beside_it(study: pd.DataFrame) -> None:
    together = summarise(study)
    alone = summarise(study[study["model"] == "unetr"])
    pd.testing.assert_frame_equal(together[together["model"] == "unetr"].reset_index(drop=True), alone)


def test_the_interval_covers_the_mean_of_a_skewed_distribution(make_scores: Callable[..., pd.DataFrame]) -> None:
    """800 studies of 40 cases each; a binomial count of 95 % of them has a standard deviation of 0.8 %."""
    scores = np.random.default_rng(0).beta(5, 1, (800, 40))
    found = summarise(make_scores({f"{n:03d}": values for n, values in enumerate(scores)}), resamples=1000)
    covered = (found["mean_low"] <= 5 / 6) & (found["mean_high"] >= 5 / 6)
    assert 0.92 < covered.mean() < 0.97


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-12, 373.13])
def test_a_constant_is_its_own_interval(make_scores: Callable[..., pd.DataFrame], value: float) -> None:
    (row,) = summarise(make_scores({"a": np.full((7, 3), value)})).to_dict("records")
    assert row["mean_low"] == row["mean"] == row["mean_high"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"confidence": 95}, "confidence is 95; expected a number between 0 and 1, usually 0.95"),
        ({"resamples": 10}, "resamples is 10; expected an integer of 100 or more"),
        ({"seed": -1}, "seed is -1; expected an integer of 0 or more"),
        ({"seed": 0.5}, "seed is 0.5; expected an integer"),
    ],
)
def test_arguments_out_of_range_are_refused(study: pd.DataFrame, argument: dict[str, float], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        summarise(study, **argument)
