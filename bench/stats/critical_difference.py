"""All models at once: Friedman's test, average ranks and Nemenyi's critical difference."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bench.stats.arguments import check_fraction
from bench.stats.ranking import LOWER_IS_BETTER, best_first, is_lower_better, rank
from bench.stats.scores import scores_of

_TEST_COLUMNS = (
    "region",
    "metric",
    "cases",
    "models",
    "statistic",
    "p",
    "rejected",
    "critical_difference",
    "reason",
)
_RANK_COLUMNS = ("region", "metric", "model", "average_rank")
_CLIQUE_COLUMNS = ("region", "metric", "clique", "model", "average_rank")


@dataclass(frozen=True)
class Friedman:
    """What a critical-difference diagram is drawn from.

    Attributes:
        tests: columns region, metric, cases, models; ``statistic`` (χ²), ``p``, ``rejected`` (p < alpha) of Friedman's
            test; ``critical_difference`` of Nemenyi's, in ranks; ``reason`` says why a number is nan, else it is empty.
        ranks: columns region, metric, model, best first; ``average_rank`` over cases, 1 the best.
        cliques: columns region, metric; ``clique`` from 1; model, best first, with its ``average_rank``. A clique is a
            largest run of two or more models whose average ranks differ by less than the critical difference: one bar
            of the diagram. A model can be in several. As a post-hoc test Nemenyi's follows a Friedman test that
            rejects; where it does not, the gaps between cliques show nothing.
    """

    tests: pd.DataFrame
    ranks: pd.DataFrame
    cliques: pd.DataFrame


def friedman(frame: pd.DataFrame, alpha: float = 0.05, lower_is_better: Collection[str] = LOWER_IS_BETTER) -> Friedman:
    """Test whether the models' ranks within cases differ, and by how much average ranks must for two to.

    Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006, section 3.2.2, cases in the
    place of his data sets. Ranks are within a case, of scores averaged over seeds; ties share their average rank, and
    where all models tie in every case the statistic is 0 and p is 1. Friedman's test needs three models, the critical
    difference two, and both two cases; else they are nan.

    Args:
        frame: a table of scores, see `check`.
        alpha: level of both tests.
        lower_is_better: metrics of which the smaller value is better.

    Raises:
        BenchError: the table is refused by `check`, or an argument is out of range.
    """
    check_fraction("alpha", alpha, usual=0.05)
    test_rows, rank_rows, clique_rows = [], [], []
    for scores in scores_of(frame):
        of = (scores.region, scores.metric)
        ranks = rank(scores.per_case.T, is_lower_better(scores.metric, lower_is_better), method="average")
        averages = ranks.mean(axis=0)
        cases, models = ranks.shape
        reason = _reason(cases, models)
        statistic, p = (np.nan, np.nan) if reason else _friedman(ranks)
        difference = critical_difference(models, cases, alpha) if min(models, cases) > 1 else np.nan
        test_rows.append((*of, cases, models, statistic, p, p < alpha, difference, reason))
        order = best_first(averages)
        rank_rows += [(*of, scores.models[index], averages[index]) for index in order]
        clique_rows += [
            (*of, number, scores.models[index], averages[index])
            for number, clique in enumerate(_cliques(averages, order, difference), 1)
            for index in clique
        ]
    return Friedman(
        pd.DataFrame(test_rows, columns=list(_TEST_COLUMNS)),
        pd.DataFrame(rank_rows, columns=list(_RANK_COLUMNS)),
        pd.DataFrame(clique_rows, columns=list(_CLIQUE_COLUMNS)),
    )


def critical_difference(models: int, cases: int, alpha: float) -> float:
    """Nemenyi's critical difference of average ranks: q √(k (k + 1) / 6N) for k models and N cases (Demšar, 3.2.2).

    q is a quantile of the studentised range with infinite degrees of freedom, over √2.
    """
    q = stats.studentized_range.ppf(1 - alpha, models, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(models * (models + 1) / (6 * cases)))


def _reason(cases: int, models: int) -> str:
    if cases < 2:
        return "one case"
    return f"{models} model{'s' if models > 1 else ''}, Friedman's test needs three" if models < 3 else ""


def _friedman(ranks: NDArray[np.float64]) -> tuple[float, float]:
    """χ² and p of ranks (cases, models)."""
    if (ranks == ranks[:, :1]).all():
        return 0.0, 1.0
    test = stats.friedmanchisquare(*ranks.T)
    return float(test.statistic), float(test.pvalue)


def _cliques(averages: NDArray[np.float64], order: list[int], difference: float) -> list[list[int]]:
    """Largest runs of ``order`` that span less than ``difference``; none where that is nan."""
    found: list[list[int]] = []
    reached = 0
    for start, first in enumerate(order):
        run = [index for index in order[start:] if averages[index] - averages[first] < difference]
        if len(run) > 1 and start + len(run) > reached:
            found.append(run)
            reached = start + len(run)
    return found
