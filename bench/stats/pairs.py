"""Models two by two: the difference, its interval, a paired test and an effect size."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.stats.arguments import check_fraction
from bench.stats.bootstrap import check_bootstrap, mean_interval
from bench.stats.components import components
from bench.stats.ranking import LOWER_IS_BETTER, best_first, rank_models
from bench.stats.scores import Scores, scores_of
from bench.stats.signed_rank import holm, paired_scale, signed_rank

COMPARE_COLUMNS = (
    "region",
    "metric",
    "model_a",
    "model_b",
    "cases",
    "mean_difference",
    "difference_low",
    "difference_high",
    "median_difference",
    "standard_error_cases",
    "standard_error_both",
    "statistic",
    "p",
    "zeros",
    "p_holm",
    "rank_biserial",
)
"""Columns of `compare`."""

AGAINST_BEST_COLUMNS = (*COMPARE_COLUMNS, "distinguishable")
"""Columns of `against_best`."""


def compare(frame: pd.DataFrame, confidence: float = 0.95, resamples: int = 9999, seed: int = 0) -> pd.DataFrame:
    """Compare all pairs of models, paired by case.

    Args:
        frame: a table of scores, see `check`.
        confidence: of the interval of the mean difference over cases (BCa bootstrap, Efron, JASA 82, 1987).
        resamples: of the cases, at least 100.
        seed: of the resampling.

    Returns:
        ``COMPARE_COLUMNS``, with ``model_a`` before ``model_b`` by name; no rows for a single model. Differences are
        a − b in the metric's unit, whichever direction is better: ``mean_difference`` and its interval
        ``difference_low``, ``difference_high`` (nan for one case), ``median_difference``. Two standard errors of the
        mean difference: ``standard_error_cases`` for other cases under the same trained networks,
        ``standard_error_both`` for other cases and other training runs, to which it adds the variance between seeds of
        each model (see `variance`); nan where either has one seed. ``statistic``, ``p`` and
        ``zeros`` (cases that do not differ, which leave the test) are of a two-sided Wilcoxon signed-rank test by the
        normal approximation, ``p_holm`` is its p corrected by Holm over all pairs of the region and metric, and
        ``rank_biserial`` is the matched-pairs rank-biserial correlation (Kerby 2014), positive where a is larger.

    Raises:
        BenchError: the table is refused by `check`, or an argument is out of range.
    """
    check_bootstrap(confidence, resamples, seed)
    frames = [
        _compare(scores, list(combinations(range(len(scores.models)), 2)), confidence, resamples, seed)
        for scores in scores_of(frame)
    ]
    return pd.concat(frames, ignore_index=True)


def against_best(
    frame: pd.DataFrame,
    alpha: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    lower_is_better: Collection[str] = LOWER_IS_BETTER,
) -> pd.DataFrame:
    """Compare the best model with each other one, paired by case.

    The best has the best mean over cases; of several with the same mean it is the first by name. It was chosen by the
    scores that it is then tested on, which favours it: p_holm corrects for the number of comparisons, not for that.

    Args:
        frame: a table of scores, see `check`.
        alpha: level below which a corrected p tells two models apart.
        confidence: of the interval of the mean difference over cases.
        resamples: of the cases, at least 100.
        seed: of the resampling.
        lower_is_better: metrics of which the smaller value is better.

    Returns:
        ``AGAINST_BEST_COLUMNS``, as `compare` has them but with the best model as ``model_a``, the others in the order
        of their means, and Holm's correction over these comparisons alone. ``distinguishable`` says that
        p_holm < alpha.

    Raises:
        BenchError: the table is refused by `check`, or an argument is out of range.
    """
    check_fraction("alpha", alpha, usual=0.05)
    check_bootstrap(confidence, resamples, seed)
    frames = []
    for scores in scores_of(frame):
        best, *others = best_first(rank_models(scores, lower_is_better))
        frames.append(_compare(scores, [(best, other) for other in others], confidence, resamples, seed))
    found = pd.concat(frames, ignore_index=True)
    return found.assign(distinguishable=found["p_holm"] < alpha)


def _compare(
    scores: Scores, pairs: Sequence[tuple[int, int]], confidence: float, resamples: int, seed: int
) -> pd.DataFrame:
    """``COMPARE_COLUMNS`` of these pairs of indices, which are one family of tests."""
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    a, b = scores.per_case[first], scores.per_case[second]
    test = signed_rank(a, b)
    low, high = mean_interval(a - b, paired_scale(a, b), confidence, resamples, seed)
    error_cases, error_both = _standard_errors(scores, first, second)
    names = np.array(scores.models, dtype=object)
    columns = {
        "region": scores.region,
        "metric": scores.metric,
        "model_a": names[first],
        "model_b": names[second],
        "cases": scores.cases,
        "mean_difference": (a - b).mean(axis=1),
        "difference_low": low,
        "difference_high": high,
        "median_difference": np.median(a - b, axis=1),
        "standard_error_cases": error_cases,
        "standard_error_both": error_both,
        "statistic": test.statistic,
        "p": test.p,
        "zeros": test.zeros,
        "p_holm": holm(test.p),
        "rank_biserial": test.rank_biserial,
    }
    return pd.DataFrame(columns, columns=list(COMPARE_COLUMNS))


def _standard_errors(
    scores: Scores, first: NDArray[np.intp], second: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(pairs,) each: of the mean difference over cases, and over cases and training runs.

    What a training run adds to all cases alike is no part of how differences vary over cases; the trainings of two
    models are independent of each other.
    """
    if scores.cases < 2:
        return (np.full(len(first), np.nan),) * 2
    over_cases = (scores.per_case[first] - scores.per_case[second]).var(axis=1, ddof=1) / scores.cases
    of_seeds = np.array([components(values)[1] / values.shape[1] for values in scores.by_seed])
    return np.sqrt(over_cases), np.sqrt(over_cases + of_seeds[first] + of_seeds[second])
