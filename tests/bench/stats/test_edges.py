"""Tables at the edge of what can be said: everything answers, and nothing warns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.stats import (
    AGAINST_BEST_COLUMNS,
    COMPARE_COLUMNS,
    against_best,
    compare,
    friedman,
    rank_stability,
    summarise,
    tiers,
    variance,
)

MakeScores = Callable[..., pd.DataFrame]
_RANDOM = np.random.default_rng(0)
_ODD = r"a|b {c} \d_é% " + "\n"

EDGES: dict[str, dict[str, Any]] = {
    "one model": {"a": _RANDOM.random(9)},
    "one case": {"a": [0.1], "b": [0.2], "c": [0.2]},
    "one case, three seeds": {"a": [[0.1, 0.2, 0.3]], "b": [[0.2, 0.2, 0.2]]},
    "two cases": {"a": [0.1, 0.4], "b": [0.3, 0.2], "c": [0.5, 0.5]},
    "constant": {"a": np.full((5, 3), 0.1), "b": np.full((5, 3), 0.1), "c": np.full((5, 3), 0.7)},
    "identical": dict.fromkeys("abc", _RANDOM.random((9, 3))),
    "ties": {name: _RANDOM.integers(0, 2, 50) for name in "abcd"},
    "a constant apart": {"a": np.arange(9) / 10, "b": np.arange(9) / 10 + 0.1},
    "one case differs": {"a": np.zeros(30), "b": np.eye(30)[0]},
    "tiny": {name: 1e-12 * _RANDOM.random((9, 2)) for name in "abc"},
    "penalties": {name: np.where(_RANDOM.random(40) < 0.5, 373.1287, _RANDOM.random(40)) for name in "abc"},
    "odd names": {_ODD: _RANDOM.random(9), "": _RANDOM.random(9), "模型": _RANDOM.random(9)},
}


@pytest.mark.parametrize("metric", ["dice", "hd95"])
@pytest.mark.parametrize("edge", EDGES)
def test_all_statistics_answer(make_scores: MakeScores, edge: str, metric: str) -> None:
    models = EDGES[edge]
    frame = make_scores(models, metric=metric)
    cases = frame["case"].nunique()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarise(frame, resamples=200)
        pairs = [compare(frame, resamples=200), against_best(frame, resamples=200)]
        tiered, spread = tiers(frame), variance(frame)
        stability, ranked = rank_stability(frame, resamples=200), friedman(frame)
    count = len(models)
    assert [len(table) for table in pairs] == [count * (count - 1) // 2, count - 1]
    for table in (summary, tiered, spread, stability.models, ranked.ranks):
        assert sorted(table["model"]) == sorted(models)
    # Two cases are enough for an interval, one is not.
    intervals = [(summary["mean_low"], summary["mean"], summary["mean_high"])]
    intervals += [(table["difference_low"], table["mean_difference"], table["difference_high"]) for table in pairs]
    for low, mean, high in intervals:
        assert low.isna().all() if cases == 1 else ((low <= mean + 1e-15) & (mean <= high + 1e-15)).all()
    for table in pairs:
        assert table["p"].between(0, 1).all()
        assert (table["p_holm"] >= table["p"] - 1e-15).all()
        assert table["rank_biserial"].between(-1, 1).all()
    assert tiered["tier"].iloc[0] == tiered["rank"].iloc[0] == 1
    shares = stability.models["first_share"]
    assert shares.isna().all() if cases == 1 else shares.sum() == pytest.approx(1)


def test_one_model_leaves_nothing_to_compare(make_scores: MakeScores) -> None:
    frame = make_scores({"a": [1, 2, 3]})
    assert tuple(compare(frame).columns) == COMPARE_COLUMNS
    assert tuple(against_best(frame).columns) == AGAINST_BEST_COLUMNS


def test_identical_models_do_not_differ(make_scores: MakeScores) -> None:
    for row in compare(make_scores(EDGES["identical"])).to_dict("records"):
        assert (row["statistic"], row["p"], row["p_holm"], row["rank_biserial"]) == (0, 1, 1, 0)
        assert row["mean_difference"] == row["difference_low"] == row["difference_high"] == 0
        assert row["zeros"] == 9


def test_a_scale_changes_no_test(make_scores: MakeScores) -> None:
    """Scores at 10⁻¹² are no rounding errors when all of them are."""
    models = {name: _RANDOM.random(12) for name in "abc"}
    large = compare(make_scores(models))
    small = compare(make_scores({name: 1e-12 * values for name, values in models.items()}))
    same = ["statistic", "p", "p_holm", "zeros", "rank_biserial"]
    pd.testing.assert_frame_equal(large[same], small[same])
    np.testing.assert_allclose(1e12 * small["difference_low"], large["difference_low"], rtol=1e-7)
