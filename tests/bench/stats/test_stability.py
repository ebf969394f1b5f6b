"""Rankings on other cases."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.errors import BenchError
from bench.stats import rank_stability

MakeScores = Callable[..., pd.DataFrame]


def test_two_cases_by_hand(make_scores: MakeScores) -> None:
    """Of the four resamples only the second case twice puts b first: share 3/4, tau (3 · 1 − 1) / 4."""
    found = rank_stability(make_scores({"a": [3, 0], "b": [0, 1]}), resamples=20_000)
    assert list(found.models["model"]) == ["a", "b"]
    assert list(found.models["rank"]) == [1, 2]
    assert list(found.models["first_share"]) == pytest.approx([0.75, 0.25], abs=0.01)
    assert found.models[["rank_low", "rank_high"]].to_numpy().tolist() == [[1, 2], [1, 2]]
    (tau,) = found.tau.to_dict("records")
    assert tau["tau_mean"] == pytest.approx(0.5, abs=0.02)
    assert (tau["cases"], tau["models"], tau["tau_low"], tau["tau_high"]) == (2, 2, -1, 1)


def test_all_resamples_of_three_cases(make_scores: MakeScores) -> None:
    """The 27 resamples enumerated, their rankings and taus by scipy; scores are chosen to tie in some."""
    scores = np.array([[4, 1, 2], [3, 1, 2], [0, 5, 1], [1, 0, 3]])
    ranks = -stats.rankdata(scores.mean(axis=1), method="max") + 5
    shares, taus = np.zeros(4), []
    for drawn in product(range(3), repeat=3):
        totals = scores[:, drawn].sum(axis=1)
        shares += (totals == totals.max()) / (totals == totals.max()).sum() / 27
        taus.append(stats.kendalltau(ranks, -totals).statistic)
    found = rank_stability(make_scores(dict(zip("abcd", scores, strict=True))), resamples=20_000, seed=5)
    models = found.models.set_index("model").sort_index()
    assert list(models["rank"]) == list(ranks)
    assert list(models["first_share"]) == pytest.approx(list(shares), abs=0.015)
    assert found.tau["tau_mean"].item() == pytest.approx(np.mean(taus), abs=0.015)


def test_a_model_that_is_best_in_every_case_is_always_first(make_scores: MakeScores) -> None:
    base = np.linspace(1, 50, 40)
    frame = make_scores({"b": base, "a": base + 1, "c": base + 2}, metric="hd95")
    found = rank_stability(frame)
    assert list(found.models["model"]) == ["b", "a", "c"]
    assert list(found.models["first_share"]) == [1, 0, 0]
    assert list(found.models["rank_low"]) == list(found.models["rank_high"]) == [1, 2, 3]
    assert found.tau[["tau_mean", "tau_low", "tau_high"]].to_numpy() == pytest.approx(np.ones((1, 3)))
    turned = rank_stability(frame, lower_is_better=[])
    assert list(turned.models["model"]) == ["c", "a", "b"]


def test_equal_models_share_first_places(make_scores: MakeScores) -> None:
    values = np.random.default_rng(0).random((12, 3))
    found = rank_stability(make_scores({"a": values, "b": values[:, ::-1], "c": values - 1}))
    assert list(found.models["first_share"]) == pytest.approx([0.5, 0.5, 0])
    assert list(found.models["rank_high"]) == [1, 1, 3]
    assert found.tau["tau_low"].item() == pytest.approx(1)


def test_only_the_seed_changes_the_numbers(study: pd.DataFrame) -> None:
    one, same = rank_stability(study), rank_stability(study.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(one.models, same.models)
    pd.testing.assert_frame_equal(one.tau, same.tau)
    assert not one.models["first_share"].equals(rank_stability(study, seed=1).models["first_share"])


@pytest.mark.parametrize("argument", [{"resamples": 10}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(study: pd.DataFrame, argument: dict[str, int]) -> None:
    with pytest.raises(BenchError, match="expected an integer"):
        rank_stability(study, **argument)
