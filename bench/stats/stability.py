"""Whether a ranking would be the same on other cases."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bench.stats.arguments import check_count
from bench.stats.bootstrap import LEAST_RESAMPLES
from bench.stats.ranking import LOWER_IS_BETTER, best_first, is_lower_better, rank, rank_models
from bench.stats.scores import scores_of

_MODEL_COLUMNS = ("region", "metric", "model", "rank", "first_share", "rank_low", "rank_high")
_TAU_COLUMNS = ("region", "metric", "cases", "models", "tau_mean", "tau_low", "tau_high")
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class RankStability:
    """How rankings vary over bootstrap samples of the cases.

    Attributes:
        models: columns region, metric, model, best first; ``rank`` by the mean over all cases, 1 the best, ties share
            the lowest of their ranks; ``first_share``, the share of resamples in which the model is first, divided
            equally where several are; ``rank_low`` and ``rank_high``, the 2.5th and 97.5th percentiles of its rank.
        tau: columns region, metric, cases, models; mean (``tau_mean``), 2.5th and 97.5th percentiles (``tau_low``,
            ``tau_high``) of Kendall's tau-b between the ranking on all cases and those on the resamples.
    """

    models: pd.DataFrame
    tau: pd.DataFrame


def rank_stability(
    frame: pd.DataFrame, resamples: int = 1000, seed: int = 0, lower_is_better: Collection[str] = LOWER_IS_BETTER
) -> RankStability:
    """Rank the models on bootstrap samples of the cases.

    Wiesenfarth et al., Methods and open-source toolkit for analyzing and visualizing challenge results, Scientific
    Reports 11:2369, 2021. Regions and metrics with the same number
    of cases are resampled alike. With one case there is nothing to resample and all but the rank is nan; tau is nan
    for one model and where all models tie, and resamples in which all tie do not count for it.

    Args:
        frame: a table of scores, see `check`.
        resamples: of the cases, at least 100.
        seed: of the resampling.
        lower_is_better: metrics of which the smaller value is better.

    Raises:
        BenchError: the table is refused by `check`, or an argument is out of range.
    """
    check_count("resamples", resamples, least=LEAST_RESAMPLES)
    check_count("seed", seed, least=0)
    model_rows, tau_rows = [], []
    for scores in scores_of(frame):
        ranks = rank_models(scores, lower_is_better)
        share = low = high = np.full(len(ranks), np.nan)
        taus = np.array([])
        if scores.cases > 1:
            lower = is_lower_better(scores.metric, lower_is_better)
            resampled = _resampled_ranks(scores.per_case, lower, resamples, seed)
            first = resampled == 1
            share = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
            low, high = np.percentile(resampled, _PERCENTILES, axis=0, method="inverted_cdf")
            taus = _kendall(ranks, resampled)
        model_rows += [
            (scores.region, scores.metric, scores.models[index], ranks[index], share[index], low[index], high[index])
            for index in best_first(ranks)
        ]
        tau_low, tau_high = np.percentile(taus, _PERCENTILES) if len(taus) else (np.nan, np.nan)
        mean = taus.mean() if len(taus) else np.nan
        tau_rows.append((scores.region, scores.metric, scores.cases, len(ranks), mean, tau_low, tau_high))
    return RankStability(
        pd.DataFrame(model_rows, columns=list(_MODEL_COLUMNS)), pd.DataFrame(tau_rows, columns=list(_TAU_COLUMNS))
    )


def _resampled_ranks(
    per_case: NDArray[np.float64], lower_is_better: bool, resamples: int, seed: int
) -> NDArray[np.float64]:
    """(resamples, models): ranks by the mean over each resample."""
    cases = per_case.shape[1]
    # How often each case is drawn is all that a mean needs of a resample.
    counts = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=resamples)
    return rank(counts @ per_case.T / cases, lower_is_better)


def _kendall(ranks: NDArray[np.int64], resampled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kendall's tau-b of each resampled ranking to the full one, without those that have none."""
    # Few rankings are different ones, and scipy takes one pair at a time.
    rankings, counts = np.unique(resampled, axis=0, return_counts=True)
    if rankings.shape[1] < 2:
        return np.array([])
    taus = np.array([stats.kendalltau(ranks, ranking).statistic for ranking in rankings])
    taus = np.repeat(taus, counts)
    return taus[~np.isnan(taus)]
