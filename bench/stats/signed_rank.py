"""The paired test: Wilcoxon's signed ranks, Holm's correction and the rank-biserial correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.stats.ranking import snap


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon signed-rank tests, one number per pair of models.

    Attributes:
        statistic: the smaller of the two rank sums.
        p: two-sided, uncorrected.
        zeros: how many cases do not differ.
        rank_biserial: −1 to 1, positive where a is larger.
    """

    statistic: NDArray[np.float64]
    p: NDArray[np.float64]
    zeros: NDArray[np.int64]
    rank_biserial: NDArray[np.float64]


def signed_rank(a: NDArray[np.float64], b: NDArray[np.float64]) -> SignedRank:
    """Test whether paired scores differ: two-sided Wilcoxon signed-rank tests by the normal approximation.

    Wilcoxon, Biometrics Bulletin 1(6), 1945; ties corrected, no continuity correction. Cases without a difference
    leave the test (zero method ``wilcox``); where none is left, the statistic is 0 and p is 1. Differences below 10⁻⁹
    of the largest score of the pair count as zero. The approximation is coarse below some ten differing cases.

    The matched-pairs rank-biserial correlation is the rank sum of the cases where a is larger less that of those where
    b is, over their total (Kerby, Comprehensive Psychology 3, 2014); 0 where no case differs.

    Args:
        a: (pairs, cases).
        b: the same.
    """
    differences = snap(a - b, paired_scale(a, b))
    zeros = (differences == 0).sum(axis=1)
    nonzero = a.shape[1] - zeros
    statistic, p = np.zeros(len(a)), np.ones(len(a))
    some = nonzero > 0
    if some.any():
        test = stats.wilcoxon(differences[some], zero_method="wilcox", correction=False, method="approx", axis=1)
        statistic[some], p[some] = test.statistic, test.pvalue
    # Zeros have the lowest ranks; less their number, the others are ranked as if the zeros were not there.
    ranks = stats.rankdata(np.abs(differences), axis=1) - zeros[:, None]
    total = nonzero * (nonzero + 1) / 2
    rank_biserial = (np.sign(differences) * ranks).sum(axis=1) / np.maximum(total, 1)
    return SignedRank(statistic, p, zeros, rank_biserial)


def paired_scale(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(pairs, 1): the largest score of each pair, which its differences carry the rounding errors of."""
    return np.maximum(np.abs(a), np.abs(b)).max(axis=1, keepdims=True)


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values corrected for their family (Holm, Scandinavian Journal of Statistics 6(2), 1979).

    As statsmodels' `multipletests`, which collects Python's garbage at each call: seconds for a table.
    """
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected
