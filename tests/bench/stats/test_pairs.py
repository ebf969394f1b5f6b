"""Paired comparisons."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bench.errors import BenchError
from bench.stats import AGAINST_BEST_COLUMNS, COMPARE_COLUMNS, against_best, compare

MakeScores = Callable[..., pd.DataFrame]

# Thousandths, so that ties and zeros are frequent and 0.3 − 0.2 meets 0.2 − 0.1.
_score = st.integers(0, 40).map(lambda thousandths: thousandths / 1000)
_pairs = st.lists(st.tuples(_score, _score), min_size=2, max_size=25)


def _one(frame: pd.DataFrame) -> dict[str, float]:
    (row,) = compare(frame, resamples=100).to_dict("records")
    return row


def test_every_pair_agrees_with_scipy_and_statsmodels(study: pd.DataFrame) -> None:
    found = compare(study, resamples=100)
    assert tuple(found.columns) == COMPARE_COLUMNS
    assert len(found) == 4 * 6
    for (region, metric), rows in found.groupby(["region", "metric"]):
        here = study[(study["region"] == region) & (study["metric"] == metric)]
        scores = here.groupby(["case", "model"])["value"].mean().unstack()
        assert list(zip(rows["model_a"], rows["model_b"], strict=True)) == list(combinations(sorted(scores), 2))
        for row in rows.to_dict("records"):
            difference = (scores[row["model_a"]] - scores[row["model_b"]]).round(8).to_numpy()
            test = stats.wilcoxon(difference, zero_method="wilcox", correction=False, method="approx")
            assert (row["statistic"], row["p"]) == pytest.approx((test.statistic, test.pvalue))
            assert row["zeros"] == (difference == 0).sum()
            assert row["mean_difference"] == pytest.approx(difference.mean(), abs=1e-8)
            assert row["median_difference"] == pytest.approx(np.median(difference), abs=1e-8)
        np.testing.assert_allclose(rows["p_holm"], multipletests(rows["p"], method="holm")[1])


def test_the_interval_is_scipys(make_scores: MakeScores) -> None:
    a, b = np.random.default_rng(0).random((2, 30))
    (row,) = compare(make_scores({"a": a, "b": b}), confidence=0.9, resamples=500, seed=3).to_dict("records")
    interval = stats.bootstrap(
        (a - b,), np.mean, confidence_level=0.9, n_resamples=500, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(tuple(interval), abs=1e-8)


def test_standard_errors_are_those_of_repeated_studies(make_scores: MakeScores) -> None:
    """Cases and trainings drawn again 300 times: how the difference scatters under the same trainings and others."""
    random, cases, seeds, repeats = np.random.default_rng(11), 40, 3, 300
    found, same, anew = [], [], []
    for _ in range(repeats):
        trained = random.normal(0, 0.05, (2, seeds))

        def draw(trained: np.ndarray) -> np.ndarray:
            difficulty = random.normal(0, 0.3, (cases, 1))
            own = random.normal(0, 0.1, (2, cases, 1))
            return 0.6 + difficulty + own + trained[:, None, :] + random.normal(0, 0.08, (2, cases, seeds))

        a, b = draw(trained)
        (row,) = compare(make_scores({"a": a, "b": b}), resamples=100).to_dict("records")
        found.append((row["standard_error_cases"] ** 2, row["standard_error_both"] ** 2))
        anew.append(row["mean_difference"])
        same.append(row["mean_difference"] - (trained[0] - trained[1]).mean())
    cases_only, both = np.mean(found, axis=0)
    assert cases_only == pytest.approx(np.var(same), rel=0.2)
    assert both == pytest.approx(np.var(anew), rel=0.2)
    assert both > 1.5 * cases_only


def test_one_training_of_either_says_nothing_on_training_again(make_scores: MakeScores) -> None:
    values = np.random.default_rng(2).random((6, 2))
    (row,) = compare(make_scores({"a": values, "b": values[:, 0] / 2}), resamples=100).to_dict("records")
    difference = values.mean(axis=1) - values[:, 0] / 2
    assert row["standard_error_cases"] == pytest.approx(stats.sem(difference))
    assert np.isnan(row["standard_error_both"])
    (alone,) = compare(make_scores({"a": [[1, 2]], "b": [[2, 4]]}), resamples=100).to_dict("records")
    assert np.isnan([alone["standard_error_cases"], alone["standard_error_both"]]).all()


def test_a_signed_rank_test_by_hand(make_scores: MakeScores) -> None:
    """Differences 0, 1, −2, 3, 3: ranks of 1, −2, 3, 3 are 1, 2, 3.5, 3.5, so R⁺ = 8 and R⁻ = 2.

    Expected 4 · 5 / 4 = 5; variance 4 · 5 · 9 / 24 − (2³ − 2) / 48 = 7.375; z = (2 − 5) / √7.375.
    Rank-biserial (8 − 2) / 10. Mean of the differences 1, median 1.
    """
    row = _one(make_scores({"a": [5, 6, 5, 8, 9], "b": [5, 5, 7, 5, 6]}))
    assert (row["statistic"], row["zeros"], row["rank_biserial"]) == (2, 1, 0.6)
    assert (row["mean_difference"], row["median_difference"]) == (1, 1)
    assert row["p"] == row["p_holm"] == pytest.approx(2 * stats.norm.sf(3 / np.sqrt(7.375)))


def test_holm_by_hand(make_scores: MakeScores) -> None:
    """Of three p in ascending order the first counts threefold, the second twofold; none ends below one before it."""
    random = np.random.default_rng(1)
    frame = make_scores({"a": random.random(20), "b": random.random(20) + 0.2, "c": random.random(20) + 0.35})
    p, corrected = compare(frame, resamples=100).sort_values("p")[["p", "p_holm"]].to_numpy().T
    expected = np.minimum([3 * p[0], max(3 * p[0], 2 * p[1]), max(3 * p[0], 2 * p[1], p[2])], 1)
    np.testing.assert_allclose(corrected, expected)
    assert p[0] < corrected[0] < corrected[1]


@settings(deadline=None, max_examples=30)
@given(pairs=_pairs)
def test_rank_biserial_is_favourable_less_unfavourable_over_all(
    make_scores: MakeScores, pairs: list[tuple[float, float]]
) -> None:
    """Ranks by counting, in whole thousandths."""
    differences = [d for d in (round(1000 * a) - round(1000 * b) for a, b in pairs) if d]
    ranks = [
        sum(abs(other) < abs(one) for other in differences)
        + (sum(abs(other) == abs(one) for other in differences) + 1) / 2
        for one in differences
    ]
    favourable = sum(rank for rank, one in zip(ranks, differences, strict=True) if one > 0)
    expected = (2 * favourable - sum(ranks)) / sum(ranks) if ranks else 0
    row = _one(make_scores(dict(zip("ab", zip(*pairs, strict=True), strict=True))))
    assert row["rank_biserial"] == pytest.approx(expected)
    assert row["zeros"] == len(pairs) - len(differences)


@settings(deadline=None, max_examples=25)
@given(pairs=_pairs)
def test_swapping_two_models_changes_signs_and_nothing_else(
    make_scores: MakeScores, pairs: list[tuple[float, float]]
) -> None:
    a, b = zip(*pairs, strict=True)
    one, other = _one(make_scores({"a": a, "b": b})), _one(make_scores({"a": b, "b": a}))
    for column in ("statistic", "p", "p_holm", "zeros"):
        assert one[column] == pytest.approx(other[column])
    for column in ("mean_difference", "median_difference", "rank_biserial"):
        assert one[column] == pytest.approx(-other[column])
    # The interval's percentiles are rounded to resamples, of which there are 100 here.
    assert one["difference_low"] == pytest.approx(-other["difference_high"], abs=1e-9)
    assert one["difference_high"] == pytest.approx(-other["difference_low"], abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(pairs=_pairs, constant=st.floats(-100, 100))
def test_a_constant_added_to_all_scores_changes_no_test(
    make_scores: MakeScores, pairs: list[tuple[float, float]], constant: float
) -> None:
    """In floating point it changes the last bits of the differences, and must not break their ties."""
    a, b = np.transpose(pairs)
    one, other = _one(make_scores({"a": a, "b": b})), _one(make_scores({"a": a + constant, "b": b + constant}))
    for column in ("statistic", "p", "zeros", "rank_biserial"):
        assert one[column] == other[column]


def test_seeds_in_another_order_do_not_differ(make_scores: MakeScores) -> None:
    """(0.1 + 0.2 + 0.3) / 3 and (0.3 + 0.2 + 0.1) / 3 are two floating-point numbers."""
    row = _one(make_scores({"a": [[0.1, 0.2, 0.3]] * 5, "b": [[0.3, 0.2, 0.1]] * 5}))
    assert (row["zeros"], row["p"], row["rank_biserial"]) == (5, 1, 0)


@pytest.mark.parametrize("function", [compare, against_best])
def test_the_order_of_rows_changes_nothing(study: pd.DataFrame, function: Callable[..., pd.DataFrame]) -> None:
    shuffled = study.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(function(study, resamples=100), function(shuffled, resamples=100))


def test_other_models_change_corrections_and_nothing_else(study: pd.DataFrame) -> None:
    two = study[study["model"].isin(["unetr", "segmamba"])]
    together = compare(study)
    same = together[(together["model_a"] == "segmamba") & (together["model_b"] == "unetr")]
    pd.testing.assert_frame_equal(
        same.drop(columns="p_holm").reset_index(drop=True), compare(two).drop(columns="p_holm")
    )


def test_the_best_is_compared_with_each_other_model_in_a_family_of_its_own(study: pd.DataFrame) -> None:
    found = against_best(study)
    assert tuple(found.columns) == AGAINST_BEST_COLUMNS
    means = study.groupby(["region", "metric", "model"])["value"].mean()
    for (region, metric), rows in found.groupby(["region", "metric"]):
        order = means[region, metric].sort_values(ascending=metric == "hd95").index
        assert set(rows["model_a"]) == {order[0]}
        assert list(rows["model_b"]) == list(order[1:])
        assert (rows["mean_difference"] <= 0).all() if metric == "hd95" else (rows["mean_difference"] >= 0).all()
        np.testing.assert_allclose(rows["p_holm"], multipletests(rows["p"], method="holm")[1])


def test_the_corrected_p_is_what_tells_two_models_apart(study: pd.DataFrame) -> None:
    found = against_best(study, resamples=100)
    row = found[found["p"] < found["p_holm"]]["p_holm"].idxmin()
    p, corrected = found.loc[row, ["p", "p_holm"]]
    for alpha, distinguishable in (((p + corrected) / 2, False), (corrected * 1.01, True)):
        assert against_best(study, alpha=alpha, resamples=100).loc[row, "distinguishable"] == distinguishable


def test_the_direction_of_a_metric_can_be_given(make_scores: MakeScores) -> None:
    frame = make_scores({"a": [1, 2, 3], "b": [4, 5, 6]}, metric="seconds")
    assert set(against_best(frame)["model_a"]) == {"b"}
    assert set(against_best(frame, lower_is_better=["seconds"])["model_a"]) == {"a"}
    with pytest.raises(BenchError, match="lower_is_better is the text 'seconds'; expected a collection"):
        against_best(frame, lower_is_better="seconds")


def test_of_two_best_models_the_first_by_name_is_the_best(make_scores: MakeScores) -> None:
    """Their means agree but for the order in which they are added up."""
    found = against_best(make_scores({"c": [0.3, 0.2, 0.1], "b": [0.1, 0.2, 0.3], "a": [0, 0, 0]}))
    assert list(found["model_a"]) == ["b", "b"]
    assert list(found["model_b"]) == ["c", "a"]


def test_the_interval_narrows_with_confidence(study: pd.DataFrame) -> None:
    widths = [
        compare(study, confidence=confidence, resamples=500)[["difference_low", "difference_high"]]
        .diff(axis=1)
        .iloc[:, 1]
        for confidence in (0.99, 0.95, 0.5)
    ]
    assert all((wide > narrow).all() for wide, narrow in pairwise(widths))


def test_a_level_out_of_range_is_refused(study: pd.DataFrame) -> None:
    with pytest.raises(BenchError, match="alpha is 5; expected a number between 0 and 1"):
        against_best(study, alpha=5)
