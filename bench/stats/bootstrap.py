"""The bootstrap interval of a mean over cases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.stats.arguments import check_count, check_fraction
from bench.stats.ranking import snap, varies

LEAST_RESAMPLES = 100
"""With fewer, the 2.5 % at either end of a distribution are the draw of one or two resamples."""

# 8 MiB of resampled scores at a time.
_BATCH_NUMBERS = 2**20


def check_bootstrap(confidence: float, resamples: int, seed: int) -> None:
    """Refuse what no interval can be made with.

    Raises:
        BenchError: ``confidence`` lies outside of 0..1, ``resamples`` are fewer than 100, or ``seed`` is no natural
            number.
    """
    check_fraction("confidence", confidence, usual=0.95)
    check_count("resamples", resamples, least=LEAST_RESAMPLES)
    check_count("seed", seed, least=0)


def mean_interval(
    samples: NDArray[np.float64], scale: NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bias-corrected and accelerated (BCa) bootstrap interval of each row's mean.

    Efron, Better bootstrap confidence intervals, JASA 82, 1987; `scipy.stats.bootstrap`. All rows are resampled
    alike, so the interval of one does not depend on the others. A row that does not vary has its mean for an
    interval; of one case there is none, and both ends are nan.

    Args:
        samples: (rows, cases).
        scale: (rows, 1), the size of the numbers that the samples were computed from.
        confidence: in 0..1.
        resamples: of the cases, with replacement.
        seed: of the resampling.

    Returns:
        Lower and upper ends, (rows,) each.
    """
    rows, cases = samples.shape
    if cases < 2:
        return np.full(rows, np.nan), np.full(rows, np.nan)
    low, high = samples.mean(axis=1), samples.mean(axis=1)
    varying = varies(samples, scale)
    if varying.any():
        # Sums on the grid are exact. BCa counts resampled means that equal the sample's own, and rounding errors, which
        # depend on the order of addition, would make its bias correction arbitrary.
        snapped = snap(samples, scale)[varying]
        interval = stats.bootstrap(
            (snapped,),
            np.mean,
            axis=-1,
            vectorized=True,
            confidence_level=confidence,
            n_resamples=resamples,
            method="BCa",
            batch=max(1, _BATCH_NUMBERS // snapped.size),
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low[varying], high[varying] = interval.low, interval.high
    return low, high
