"""Rankings after other trainings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from bench.errors import BenchError
from bench.stats import rank_by_seed

MakeScores = Callable[..., pd.DataFrame]


def test_the_next_training_turns_the_ranking_round(make_scores: MakeScores) -> None:
    """On the mean of both seeds a leads; on the second alone it is last."""
    found = rank_by_seed(make_scores({"a": [[9, 1], [9, 1]], "b": [[4, 4], [4, 4]], "c": [[3, 2], [3, 2]]}))
    ranks = found.models.pivot(index="model", columns="seed", values="rank")
    assert ranks.loc[["a", "b", "c"]].to_numpy().tolist() == [[1, 3], [2, 1], [3, 2]]
    (tau,) = found.tau.to_dict("records")
    assert tau["seeds"] == 2
    assert tau["tau_mean"] == tau["tau_low"] == tau["tau_high"] == pytest.approx(-1 / 3)


def test_three_seeds_against_scipy_in_both_directions(make_scores: MakeScores) -> None:
    values = np.random.default_rng(4).random((5, 7, 3))
    for metric, sign in (("dice", -1), ("hd95", 1)):
        found = rank_by_seed(make_scores(dict(zip("abcde", values, strict=True)), metric=metric))
        means = sign * values.mean(axis=1)
        expected = [kendalltau(means[:, one], means[:, two]).statistic for one, two in ((0, 1), (0, 2), (1, 2))]
        (tau,) = found.tau.to_dict("records")
        assert [tau["tau_mean"], tau["tau_low"], tau["tau_high"]] == pytest.approx(
            [np.mean(expected), min(expected), max(expected)]
        )
        first = found.models.query("rank == 1").sort_values("seed")["model"]
        assert list(first) == ["abcde"[index] for index in means.argmin(axis=0)]


def test_seeds_that_not_all_have_are_left_out_and_numbers_keep_their_order(make_scores: MakeScores) -> None:
    frame = make_scores({"a": np.random.default_rng(0).random((4, 12)), "b": np.random.default_rng(1).random((4, 12))})
    lacking = frame[~((frame["model"] == "b") & ~frame["seed"].astype(str).isin(["2", "10"]))]
    found = rank_by_seed(lacking)
    assert list(found.models["seed"]) == ["2", "10"] * 2
    whole = rank_by_seed(frame).models
    kept = whole[whole["seed"].isin(["2", "10"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.models, kept)


def test_without_two_seeds_in_common_there_is_nothing_to_compare(make_scores: MakeScores) -> None:
    one = rank_by_seed(make_scores({"a": [1, 2], "b": [2, 4]}))
    assert one.models.empty
    assert np.isnan(one.tau["tau_mean"].item())
    apart = make_scores({"a": [[1, 2], [3, 4]], "b": [[2, 3], [4, 5]]})
    apart.loc[apart["model"] == "b", "seed"] = apart.loc[apart["model"] == "b", "seed"].astype(int) + 7
    found = rank_by_seed(apart)
    assert (len(found.models), found.tau["seeds"].item()) == (0, 0)


def test_equal_models_tie_and_have_no_tau(make_scores: MakeScores) -> None:
    found = rank_by_seed(make_scores({"a": [[1, 2], [3, 4]], "b": [[3, 4], [1, 2]]}))
    assert list(found.models["rank"]) == [1] * 4
    assert np.isnan(found.tau["tau_mean"].item())


def test_a_name_in_place_of_names_is_refused(study: pd.DataFrame) -> None:
    with pytest.raises(BenchError, match=r"expected a collection of metrics: \['hd95'\]"):
        rank_by_seed(study, lower_is_better="hd95")
