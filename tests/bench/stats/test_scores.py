"""What a table of scores must hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.stats import COLUMNS, check
from bench.stats.scores import scores_of


def _of(study: pd.DataFrame, model: str, region: str = "ET") -> pd.Series:
    return (study["model"] == model) & (study["region"] == region) & (study["metric"] == "dice")


def _set(study: pd.DataFrame, row: int, column: str, value: object) -> pd.DataFrame:
    changed = study.astype({column: object})
    changed.loc[row, column] = value
    return changed


def test_a_sound_table_comes_back_sorted_and_without_other_columns(study: pd.DataFrame) -> None:
    checked = check(study.sample(frac=1, random_state=0).assign(remark="x"))
    assert tuple(checked.columns) == COLUMNS
    assert len(checked) == len(study)
    pd.testing.assert_frame_equal(checked, check(study))


def test_models_may_have_different_seeds(study: pd.DataFrame) -> None:
    """Predictions from elsewhere have one seed beside the three of trained models."""
    checked = check(study[(study["model"] != "unetr") | (study["seed"] == 1)])
    assert set(checked.loc[checked["model"] == "unetr", "seed"]) == {"1"}


def test_scores_are_averaged_over_the_seeds_of_their_case(make_scores: Callable[..., pd.DataFrame]) -> None:
    (scores,) = scores_of(make_scores({"b": [[1, 2], [5, 9]], "a": [[0, 0], [3, 4]]}))
    assert scores.models == ("a", "b")
    np.testing.assert_array_equal(scores.per_case, [[0, 3.5], [1.5, 7]])
    np.testing.assert_array_equal(scores.by_seed[1], [[1, 2], [5, 9]])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.drop(columns=["seed", "value"]), "lacks the columns seed, value: expected case, model, seed"),
        (lambda s: s.iloc[:0], "has no rows"),
        (lambda s: _set(s, 7, "model", None), "has no model in the row with index 7"),
        (lambda s: _set(s, 3, "value", np.nan), "case 'case-001', model 'segmamba', seed '0'.*the value is nan"),
        (lambda s: _set(s, 3, "value", np.inf), "the value is inf"),
        (lambda s: _set(s, 3, "value", "n/a"), "the value is n/a .values like it: 1.; expected a finite number"),
        (lambda s: pd.concat([s, s.iloc[:2]]), "case 'case-000'.*more than once .rows too many: 2."),
        (
            lambda s: s[~(_of(s, "unetr") & (s["case"] < "case-005"))],
            "region 'ET', metric 'dice': model 'unetr' lacks cases case-000, case-001, case-002 .\\+2 more. that model",
        ),
        (lambda s: s[~_of(s, "unetr")], "model 'unetr' lacks cases case-000, case-001, case-002 .\\+27 more."),
        (
            lambda s: s[~(_of(s, "unetr") & (s["case"] == "case-007") & (s["seed"] == 2))],
            "model 'unetr' has no score of seed 2 for case case-007; expected each seed",
        ),
        (
            lambda s: s[~(_of(s, "unetr") & (s["seed"] == 2))],
            "model 'unetr' has no score of seed 2 for cases case-000, case-001, case-002 .\\+27 more.",
        ),
    ],
)
def test_what_no_statistic_can_use_is_refused(
    study: pd.DataFrame, damage: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        check(damage(study))


def test_the_other_model_that_is_named_has_the_missing_cases(make_scores: Callable[..., pd.DataFrame]) -> None:
    frame = make_scores({"a": [1], "b": [1], "c": [1, 2, 3]})
    with pytest.raises(BenchError, match="model 'a' lacks cases case-001, case-002 that model 'c' has"):
        check(frame)
