"""Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.errors import BenchError
from bench.stats import friedman
from bench.stats.critical_difference import critical_difference

MakeScores = Callable[..., pd.DataFrame]


@pytest.mark.parametrize(
    ("alpha", "quantiles"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_quantiles_are_those_of_demsar(alpha: float, quantiles: list[float]) -> None:
    """His Table 5(a), two to ten models."""
    for models, q in enumerate(quantiles, 2):
        assert critical_difference(models, 25, alpha) == pytest.approx(
            q * np.sqrt(models * (models + 1) / 150), rel=4e-4
        )


def test_the_critical_difference_of_demsars_example() -> None:
    """His section 3.2.2: four classifiers, 14 data sets, 2.569 √(4 · 5 / (6 · 14)) = 1.25."""
    assert critical_difference(4, 14, 0.05) == pytest.approx(1.25, abs=0.005)


def test_twelve_cases_by_hand(make_scores: MakeScores) -> None:
    """Nine cases rank a, b, c and three c, b, a: rank sums 18, 24 and 30, averages 1.5, 2 and 2.5.

    χ² = 12 / (12 · 3 · 4) · (18² + 24² + 30²) − 3 · 12 · 4 = 150 − 144 = 6, p = e⁻³ with two degrees of freedom. The
    critical difference is 2.343 √(3 · 4 / (6 · 12)) = 0.957: a and b, b and c are no farther apart, a and c are.
    """
    models = {"c": [0.1] * 9 + [0.3] * 3, "b": [0.2] * 12, "a": [0.3] * 9 + [0.1] * 3}
    found = friedman(make_scores(models))
    (test,) = found.tests.to_dict("records")
    assert (test["cases"], test["models"], test["reason"]) == (12, 3, "")
    assert (test["statistic"], test["p"]) == pytest.approx((6, np.exp(-3)))
    assert test["rejected"]
    assert test["critical_difference"] == pytest.approx(0.957, abs=0.001)
    assert list(zip(found.ranks["model"], found.ranks["average_rank"], strict=True)) == [
        ("a", 1.5),
        ("b", 2),
        ("c", 2.5),
    ]
    assert list(zip(found.cliques["clique"], found.cliques["model"], strict=True)) == [
        (1, "a"),
        (1, "b"),
        (2, "b"),
        (2, "c"),
    ]


def test_no_clique_lies_within_another(make_scores: MakeScores) -> None:
    """Five equal models and one that is far from them: one clique, not four."""
    base = np.random.default_rng(0).random(40)
    found = friedman(make_scores({**dict.fromkeys("abcde", base), "f": base - 1}))
    assert list(found.cliques["model"]) == list("abcde")
    assert set(found.cliques["clique"]) == {1}


def test_every_table_agrees_with_scipy(study: pd.DataFrame) -> None:
    found = friedman(study)
    for test in found.tests.to_dict("records"):
        here = study[(study["region"] == test["region"]) & (study["metric"] == test["metric"])]
        scores = here.groupby(["case", "model"])["value"].mean().unstack().round(10)
        expected = stats.friedmanchisquare(*scores.to_numpy().T)
        assert (test["statistic"], test["p"]) == pytest.approx((expected.statistic, expected.pvalue))
        ranks = scores.rank(axis=1, ascending=test["metric"] == "hd95").mean().sort_values()
        mine = found.ranks[(found.ranks["region"] == test["region"]) & (found.ranks["metric"] == test["metric"])]
        assert list(mine["average_rank"]) == pytest.approx(list(ranks))
        assert list(mine["model"]) == list(ranks.index)


def test_the_direction_of_a_metric_can_be_given(make_scores: MakeScores) -> None:
    frame = make_scores({"a": [1, 2, 3], "b": [4, 5, 6], "c": [7, 8, 9]}, metric="seconds")
    assert list(friedman(frame).ranks["model"]) == ["c", "b", "a"]
    assert list(friedman(frame, lower_is_better={"seconds"}).ranks["model"]) == ["a", "b", "c"]


def test_seeds_in_another_order_tie(make_scores: MakeScores) -> None:
    found = friedman(make_scores({"a": [[0.1, 0.2, 0.3]] * 3, "b": [[0.3, 0.2, 0.1]] * 3, "c": [[1, 1, 1]] * 3}))
    assert list(found.ranks["average_rank"]) == [1, 2.5, 2.5]


@pytest.mark.parametrize(
    ("models", "reason", "difference"),
    [
        ({"a": [1, 2, 3]}, "1 model, Friedman's test needs three", np.nan),
        # q for two models is the normal quantile 1.960, and √(2 · 3 / (6 · 3)) = 0.577.
        ({"a": [1, 2, 3], "b": [3, 2, 2]}, "2 models, Friedman's test needs three", 1.960 * 0.5774),
        ({"a": [1], "b": [2], "c": [3]}, "one case", np.nan),
    ],
)
def test_what_cannot_be_tested_says_why(
    make_scores: MakeScores, models: dict[str, list[float]], reason: str, difference: float
) -> None:
    found = friedman(make_scores(models))
    (test,) = found.tests.to_dict("records")
    assert test["reason"] == reason
    assert np.isnan([test["statistic"], test["p"]]).all()
    assert not test["rejected"]
    assert test["critical_difference"] == pytest.approx(difference, abs=1e-3, nan_ok=True)
    assert len(found.ranks) == len(models)


def test_a_level_out_of_range_is_refused(study: pd.DataFrame) -> None:
    with pytest.raises(BenchError, match="alpha is 1; expected"):
        friedman(study, alpha=1)
