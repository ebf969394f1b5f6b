"""How much of a score's variance is the case's, and how much the training run's."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.stats.ranking import varies
from bench.stats.scores import scores_of

VARIANCE_COLUMNS = (
    "region",
    "metric",
    "model",
    "cases",
    "seeds",
    "case_variance",
    "seed_variance",
    "residual_variance",
    "case_share",
    "seed_share",
    "residual_share",
    "standard_error_cases",
    "standard_error_both",
)
"""Columns of `variance`."""


def variance(frame: pd.DataFrame) -> pd.DataFrame:
    """Split each model's variance into that between cases, that between seeds, and the rest.

    Two-way random-effects analysis of variance without replication, cases × seeds, components by the method of moments
    (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4); an estimate below zero is reported as 0.
    The rest is the interaction of case and seed, which one score of each cannot tell from noise.

    Args:
        frame: a table of scores, see `check`.

    Returns:
        ``VARIANCE_COLUMNS``: numbers of cases and seeds; the three components in the metric's unit squared and their
        shares of the sum (nan where all scores are equal); two standard errors of the mean, in the metric's unit:
        ``standard_error_cases`` for other cases under the same trained networks, ``standard_error_both`` for other
        cases and other training runs. With one seed all but ``standard_error_cases`` is nan: one training run supports
        claims about cases, not about retraining. With one case all is nan.

    Raises:
        BenchError: the table is refused by `check`.
    """
    rows = []
    for scores in scores_of(frame):
        for model, values in zip(scores.models, scores.by_seed, strict=True):
            rows.append((scores.region, scores.metric, model, *values.shape, *components(values)))
    return pd.DataFrame(rows, columns=list(VARIANCE_COLUMNS))


def components(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Components, shares and standard errors of an array (cases, seeds): the last eight of ``VARIANCE_COLUMNS``."""
    cases, seeds = values.shape
    if cases < 2:
        return (np.nan,) * 8
    case_means = values.mean(axis=1)
    error_cases = case_means.std(ddof=1) / np.sqrt(cases)
    if seeds < 2:
        return (*(np.nan,) * 6, error_cases, np.nan)
    seed_means = values.mean(axis=0)
    residuals = values - case_means[:, None] - seed_means + values.mean()
    residual = (residuals**2).sum() / ((cases - 1) * (seeds - 1))
    # A mean square's expectation is the residual's variance plus the component times the numbers averaged over.
    between_cases = max(0.0, case_means.var(ddof=1) - residual / seeds)
    between_seeds = max(0.0, seed_means.var(ddof=1) - residual / cases)
    components = np.array([between_cases, between_seeds, residual])
    # Of a constant that is no binary fraction the components are rounding errors, and their shares arbitrary.
    shares = components / components.sum() if varies(values.ravel(), np.abs(values).max()) else np.full(3, np.nan)
    error_both = np.sqrt(between_cases / cases + between_seeds / seeds + residual / (cases * seeds))
    return (*components, *shares, error_cases, error_both)
