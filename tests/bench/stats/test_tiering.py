"""Tiers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.stats import TIER_COLUMNS, against_best, tiers

MakeScores = Callable[..., pd.DataFrame]

_BASE = np.linspace(0.5, 0.9, 20)
_WIGGLE = 0.001 * np.resize([1, -1], 20) * np.arange(1, 21)


def _tiers(frame: pd.DataFrame, **arguments: object) -> list[tuple[str, int, int]]:
    return list(tiers(frame, **arguments)[["model", "rank", "tier"]].itertuples(index=False, name=None))


def test_models_that_no_test_tells_apart_share_a_tier(make_scores: MakeScores) -> None:
    """b and d differ from a and c by signs that alternate; c is 0.1 below a in each case, e 0.1 below c."""
    models = {"a": _BASE, "b": _BASE + _WIGGLE - 1e-4, "c": _BASE - 0.1, "d": _BASE - 0.1 + _WIGGLE, "e": _BASE - 0.2}
    assert _tiers(make_scores(models)) == [("a", 1, 1), ("b", 2, 1), ("c", 3, 2), ("d", 4, 2), ("e", 5, 3)]


def test_of_distances_the_smallest_are_first(make_scores: MakeScores) -> None:
    models = {"a": _BASE, "b": _BASE - 0.1}
    assert _tiers(make_scores(models, metric="hd95")) == [("b", 1, 1), ("a", 2, 2)]
    assert _tiers(make_scores(models, metric="hd95"), lower_is_better=()) == [("a", 1, 1), ("b", 2, 2)]


def test_a_better_mean_can_stand_in_a_lower_tier(make_scores: MakeScores) -> None:
    """b is a little worse in every case; c is as good as a, but for one case that carries its mean."""
    one_miss = np.where(np.arange(20) == 0, -0.5, 0)
    frame = make_scores({"a": _BASE, "b": _BASE - 0.01, "c": _BASE + _WIGGLE + one_miss})
    assert _tiers(frame) == [("a", 1, 1), ("b", 2, 2), ("c", 3, 1)]


def test_the_first_tier_is_the_best_and_what_is_not_distinguishable_from_it(study: pd.DataFrame) -> None:
    found = tiers(study)
    assert tuple(found.columns) == TIER_COLUMNS
    best = against_best(study, resamples=100)
    for (region, metric), rows in found.groupby(["region", "metric"]):
        here = best[(best["region"] == region) & (best["metric"] == metric)]
        expected = {here["model_a"].iloc[0], *here.loc[~here["distinguishable"], "model_b"]}
        assert set(rows.loc[rows["tier"] == 1, "model"]) == expected
        assert list(rows["rank"]) == [1, 2, 3, 4]


def test_a_lower_level_makes_fewer_tiers(study: pd.DataFrame) -> None:
    assert tiers(study, alpha=1e-9)["tier"].max() == 1
    assert tiers(study, alpha=0.05)["tier"].max() > 1
    with pytest.raises(BenchError, match="alpha is 0; expected"):
        tiers(study, alpha=0)


def test_equal_models_share_rank_and_tier(make_scores: MakeScores) -> None:
    assert _tiers(make_scores({"a": _BASE - 0.1, "c": _BASE, "b": _BASE})) == [("b", 1, 1), ("c", 1, 1), ("a", 3, 2)]


def test_the_order_of_rows_changes_nothing(study: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(tiers(study), tiers(study.sample(frac=1, random_state=1)))
