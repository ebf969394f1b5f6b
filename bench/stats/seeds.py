"""Whether a ranking would be the same after other training runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import kendalltau

from bench.stats.ranking import LOWER_IS_BETTER, is_lower_better, rank
from bench.stats.scores import Scores, scores_of

_MODEL_COLUMNS = ("region", "metric", "model", "seed", "rank")
_TAU_COLUMNS = ("region", "metric", "seeds", "tau_mean", "tau_low", "tau_high")


@dataclass(frozen=True)
class SeedRanking:
    """How rankings vary over the seeds that all models have: each is one more training of every model.

    Attributes:
        models: columns region, metric, model, seed; ``rank`` by the mean over cases of that seed alone, 1 the best,
            ties share the lowest of their ranks. Without rows where the models share fewer than two seeds.
        tau: columns region, metric; ``seeds``, how many all models share; mean (``tau_mean``), least and largest
            (``tau_low``, ``tau_high``) of Kendall's tau-b over pairs of seeds, nan with fewer than two seeds or models
            and where all models tie.
    """

    models: pd.DataFrame
    tau: pd.DataFrame


def rank_by_seed(frame: pd.DataFrame, lower_is_better: Collection[str] = LOWER_IS_BETTER) -> SeedRanking:
    """Rank the models on each seed alone.

    Tests over cases take the trained networks as given: a difference can be certain on other cases and turn round in
    the next training. Few seeds estimate no interval, but show such a turn.

    Args:
        frame: a table of scores, see `check`.
        lower_is_better: metrics of which the smaller value is better.

    Raises:
        BenchError: the table is refused by `check`, or ``lower_is_better`` is no collection.
    """
    model_rows, tau_rows = [], []
    for scores in scores_of(frame):
        seeds = _shared(scores)
        ranks = _ranks(scores, seeds, is_lower_better(scores.metric, lower_is_better))
        model_rows += [
            (scores.region, scores.metric, model, seed, ranks[row, column])
            for column, model in enumerate(scores.models)
            for row, seed in enumerate(seeds)
            if len(seeds) > 1
        ]
        taus = [kendalltau(one, two).statistic for one, two in combinations(ranks, 2)] if len(scores.models) > 1 else []
        known = [tau for tau in taus if not np.isnan(tau)] or [np.nan]
        tau_rows.append((scores.region, scores.metric, len(seeds), np.mean(known), min(known), max(known)))
    return SeedRanking(
        pd.DataFrame(model_rows, columns=list(_MODEL_COLUMNS)), pd.DataFrame(tau_rows, columns=list(_TAU_COLUMNS))
    )


def _shared(scores: Scores) -> list[str]:
    """Seeds that every model has; of numbers, in their order."""
    shared = set.intersection(*(set(seeds) for seeds in scores.seeds))
    return sorted(shared, key=lambda seed: (len(seed), seed))


def _ranks(scores: Scores, seeds: list[str], lower_is_better: bool) -> NDArray[np.int64]:
    """(seeds, models)"""
    if not seeds:
        return np.empty((0, len(scores.models)), int)
    means = [
        [values[:, own.index(seed)].mean() for own, values in zip(scores.seeds, scores.by_seed, strict=True)]
        for seed in seeds
    ]
    return rank(np.array(means), lower_is_better).astype(int)
