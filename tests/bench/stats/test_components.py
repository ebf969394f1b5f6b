"""Components of variance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from bench.stats import VARIANCE_COLUMNS, variance

MakeScores = Callable[..., pd.DataFrame]
_COMPONENTS = ["case_variance", "seed_variance", "residual_variance"]
_SHARES = ["case_share", "seed_share", "residual_share"]


def test_three_cases_and_two_seeds_by_hand(make_scores: MakeScores) -> None:
    """Scores 1, 6 / 3, 10 / 5, 8: case means 3.5, 6.5, 6.5, seed means 3, 8, residuals 0, 0 / −1, 1 / 1, −1.

    Residual 4 / (2 · 1) = 2. Cases: variance of the means 3, less 2/2, is 2. Seeds: 12.5 less 2/3 is 71/6.
    Errors of the mean: √(3 / 3) = 1 for cases, √(2/3 + 71/12 + 2/6) for both.
    """
    (row,) = variance(make_scores({"a": [[1, 6], [3, 10], [5, 8]]})).to_dict("records")
    assert tuple(row) == VARIANCE_COLUMNS
    assert (row["cases"], row["seeds"]) == (3, 2)
    assert [row[name] for name in _COMPONENTS] == pytest.approx([2, 71 / 6, 2])
    assert [row[name] for name in _SHARES] == pytest.approx([12 / 95, 71 / 95, 12 / 95])
    assert (row["standard_error_cases"], row["standard_error_both"]) == pytest.approx((1, np.sqrt(83 / 12)))


def test_mean_squares_are_those_of_statsmodels(study: pd.DataFrame) -> None:
    found = variance(study).set_index(["region", "metric", "model"])
    for place, rows in list(study.groupby(["region", "metric", "model"]))[:4]:
        table = anova_lm(ols("value ~ C(case) + C(seed)", rows).fit())
        squares = table["sum_sq"] / table["df"]
        expected = [
            max(0, (squares["C(case)"] - squares["Residual"]) / 3),
            max(0, (squares["C(seed)"] - squares["Residual"]) / 30),
            squares["Residual"],
        ]
        assert found.loc[place, _COMPONENTS].to_list() == pytest.approx(expected)


def test_components_that_were_put_in_are_found_again(make_scores: MakeScores) -> None:
    random = np.random.default_rng(0)
    scores = random.normal(0, 1, (300, 1)) + random.normal(0, 0.5, 100) + random.normal(0, 0.3, (300, 100))
    (row,) = variance(make_scores({"a": scores})).to_dict("records")
    assert [row[name] for name in _COMPONENTS] == pytest.approx([1, 0.25, 0.09], rel=0.25)


def test_an_estimate_below_zero_is_zero(make_scores: MakeScores) -> None:
    """Scores 0, 1 / 1, 0: neither means differ, all is interaction, 4 · 0.25 / 1 = 1."""
    (row,) = variance(make_scores({"a": [[0, 1], [1, 0]]})).to_dict("records")
    assert [row[name] for name in _COMPONENTS] == [0, 0, 1]
    assert [row[name] for name in _SHARES] == [0, 0, 1]


def test_one_seed_tells_of_cases_only(make_scores: MakeScores) -> None:
    """Scores 1 and 3 have the standard error √2 / √2."""
    (row,) = variance(make_scores({"a": [1, 3]})).to_dict("records")
    assert row["standard_error_cases"] == pytest.approx(1)
    assert np.isnan([row[name] for name in (*_COMPONENTS, *_SHARES, "standard_error_both")]).all()


def test_a_constant_has_no_shares(make_scores: MakeScores) -> None:
    (row,) = variance(make_scores({"a": np.full((7, 3), 0.1)})).to_dict("records")
    assert [row[name] for name in _COMPONENTS] == pytest.approx([0, 0, 0], abs=1e-30)
    assert np.isnan([row[name] for name in _SHARES]).all()


def test_the_order_of_rows_changes_nothing(study: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(variance(study), variance(study.sample(frac=1, random_state=1)))
