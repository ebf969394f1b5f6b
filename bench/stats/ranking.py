"""Which score is better, and which scores are equal."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bench.errors import BenchError
from bench.stats.scores import Scores

LOWER_IS_BETTER: Collection[str] = frozenset({"hd95", "lesion_hd95", "volume_error_abs"})
"""Metrics of which the smaller value is better; of all others it is the larger one."""

_GRID_BITS = 30


def snap(values: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to a grid of 2⁻³⁰ ≈ 10⁻⁹ of ``scale``, so that scores which differ by rounding errors only are equal.

    Ranks and counts of zeros need it: 0.3 − 0.2 and 0.2 − 0.1 differ in their last bit, and so do the means over
    three seeds of the same three numbers in another order. Without it such ties are broken by noise. Sums of up to
    2²² numbers on one grid are exact.

    Args:
        values: any shape.
        scale: the size of the numbers that the values were computed from, not negative; broadcast against them.
    """
    _, exponent = np.frexp(scale)
    # A power of two: dividing and multiplying by it adds no error of its own.
    spacing = np.ldexp(1.0, exponent - _GRID_BITS)
    return np.round(values / spacing) * spacing


def varies(values: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether numbers along the last axis differ by more than rounding errors; arguments as of `snap`."""
    return np.ptp(snap(values, scale), axis=-1) > 0


def rank(
    values: NDArray[np.float64], lower_is_better: bool, method: Literal["min", "average"] = "min"
) -> NDArray[np.float64]:
    """Ranks along the last axis, 1 the best; ties share the lowest of their ranks, or the average of them.

    Values closer than 10⁻⁹ of the largest are ties.
    """
    snapped = snap(values, np.abs(values).max(axis=-1, keepdims=True))
    return rankdata(snapped if lower_is_better else -snapped, method=method, axis=-1)


def rank_models(scores: Scores, lower_is_better: Collection[str]) -> NDArray[np.int64]:
    """(models,): rank of each model by its mean over cases, 1 the best; ties share the lowest of their ranks."""
    return rank(scores.means, is_lower_better(scores.metric, lower_is_better)).astype(int)


def best_first(ranks: NDArray[Any]) -> list[int]:
    """Indices of the models from the best on; of equal ones the first by name comes first."""
    return np.argsort(ranks, kind="stable").tolist()


def is_lower_better(metric: str, lower_is_better: Collection[str]) -> bool:
    """Whether the smaller value of that metric is better.

    Raises:
        BenchError: a name was given instead of a collection of names, of which only letters could be members.
    """
    if isinstance(lower_is_better, str):
        raise BenchError(
            f"lower_is_better is the text {lower_is_better!r}; expected a collection of metrics: [{lower_is_better!r}]"
        )
    return metric in lower_is_better
