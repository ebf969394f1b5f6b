"""Each model by itself: mean with its interval, median and spread."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.stats.bootstrap import check_bootstrap, mean_interval
from bench.stats.scores import scores_of

SUMMARY_COLUMNS = (
    "region",
    "metric",
    "model",
    "cases",
    "seeds",
    "mean",
    "mean_low",
    "mean_high",
    "median",
    "std",
    "seed_std",
)
"""Columns of `summarise`."""


def summarise(frame: pd.DataFrame, confidence: float = 0.95, resamples: int = 9999, seed: int = 0) -> pd.DataFrame:
    """Mean, its bootstrap interval, median and spread of each region, metric and model.

    The median stands beside the mean because a penalty for a missed structure, such as an HD95 of 373 mm, can carry
    the mean alone.

    Args:
        frame: a table of scores, see `check`.
        confidence: of the interval of the mean over cases (BCa bootstrap, Efron, JASA 82, 1987).
        resamples: of the cases, at least 100.
        seed: of the resampling.

    Returns:
        ``SUMMARY_COLUMNS``: numbers of cases and seeds; ``mean``, ``mean_low``, ``mean_high``, ``median`` and ``std``
        over cases of the scores averaged over seeds; ``seed_std``, the standard deviation over seeds of the mean over
        cases. All in the metric's unit. Standard deviations have n − 1 in the denominator; where one case or one seed
        leaves nothing to compute, the number is nan.

    Raises:
        BenchError: the table is refused by `check`, or an argument is out of range.
    """
    check_bootstrap(confidence, resamples, seed)
    rows = []
    for scores in scores_of(frame):
        values = scores.per_case
        low, high = mean_interval(values, np.abs(values).max(axis=1, keepdims=True), confidence, resamples, seed)
        for index, model in enumerate(scores.models):
            seed_means = scores.by_seed[index].mean(axis=0)
            rows.append(
                {
                    "region": scores.region,
                    "metric": scores.metric,
                    "model": model,
                    "cases": scores.cases,
                    "seeds": len(seed_means),
                    "mean": values[index].mean(),
                    "mean_low": low[index],
                    "mean_high": high[index],
                    "median": np.median(values[index]),
                    "std": values[index].std(ddof=1) if scores.cases > 1 else np.nan,
                    "seed_std": seed_means.std(ddof=1) if len(seed_means) > 1 else np.nan,
                }
            )
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
