"""Tiers of models that cases do not tell apart, so that a table can mark all of the best and not only the maximum."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from bench.stats.arguments import check_fraction
from bench.stats.ranking import LOWER_IS_BETTER, best_first, rank_models
from bench.stats.scores import Scores, scores_of
from bench.stats.signed_rank import holm, signed_rank

TIER_COLUMNS = ("region", "metric", "model", "rank", "tier")
"""Columns of `tiers`."""


def tiers(frame: pd.DataFrame, alpha: float = 0.05, lower_is_better: Collection[str] = LOWER_IS_BETTER) -> pd.DataFrame:
    """Sort models into tiers: the first holds the best one and all that are not distinguishable from it.

    The second does the same for the models that are left, and so on. Distinguishable means p < alpha in a Wilcoxon
    signed-rank test against the best one that is left, corrected by Holm over the comparisons of that round, as in
    `against_best`. A test of ranks and an order of means can disagree: a model may stand in a better tier than one
    with a better mean.

    Args:
        frame: a table of scores, see `check`.
        alpha: level below which a corrected p tells two models apart.
        lower_is_better: metrics of which the smaller value is better.

    Returns:
        ``TIER_COLUMNS``, the best model of a region and metric first: ``rank`` by the mean over cases, 1 the best, ties
        share the lowest of their ranks; ``tier`` from 1.

    Raises:
        BenchError: the table is refused by `check`, or an argument is out of range.
    """
    check_fraction("alpha", alpha, usual=0.05)
    rows = []
    for scores in scores_of(frame):
        ranks = rank_models(scores, lower_is_better)
        order = best_first(ranks)
        tier = _tiers(scores, order, alpha)
        rows += [(scores.region, scores.metric, scores.models[index], ranks[index], tier[index]) for index in order]
    return pd.DataFrame(rows, columns=list(TIER_COLUMNS))


def _tiers(scores: Scores, order: list[int], alpha: float) -> dict[int, int]:
    """Model to tier; ``order`` has the best model first."""
    tier: dict[int, int] = {}
    number = 0
    while order:
        number += 1
        best, *others = order
        best_scores = np.broadcast_to(scores.per_case[best], (len(others), scores.cases))
        distinguishable = holm(signed_rank(scores.per_case[others], best_scores).p) < alpha
        tier[best] = number
        tier |= {model: number for model, apart in zip(others, distinguishable, strict=True) if not apart}
        order = [model for model, apart in zip(others, distinguishable, strict=True) if apart]
    return tier
