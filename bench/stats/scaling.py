"""How a quantity grows with another: the exponent of a power law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.errors import BenchError
from bench.stats.arguments import check_fraction


@dataclass(frozen=True)
class PowerLaw:
    """y = factor · x^exponent.

    Attributes:
        exponent: of x.
        factor: y at x = 1, in y's unit.
        standard_error: of the exponent; None where a line through the points has none left to be off from.
        low, high: ends of the exponent's confidence interval; None in the same case.
        points: how many it rests on.
    """

    exponent: float
    factor: float
    standard_error: float | None
    low: float | None
    high: float | None
    points: int


def fit_power_law(x: Sequence[float], y: Sequence[float], confidence: float = 0.95) -> PowerLaw:
    """Fit a power law by ordinary least squares on the logarithms of both.

    The interval is that of a regression's slope, Student's t with two degrees of freedom less than there are points
    (Draper and Smith, Applied Regression Analysis, section 1.4). It tells how far points lie off a straight line by
    chance; where the true curve bends it says nothing on sizes beyond those measured.

    Args:
        x, y: as many of the one as of the other, in whatever units, above zero.
        confidence: of the interval.

    Raises:
        BenchError: numbers that are not finite and above zero, two lists of different lengths, or fewer than two
            different x.
    """
    check_fraction("confidence", confidence, usual=0.95)
    if len(x) != len(y):
        raise BenchError(f"found {len(x)} values of x and {len(y)} of y; expected as many of the one as of the other")
    for name, values in (("x", x), ("y", y)):
        if wrong := [value for value in values if not (np.isfinite(value) and value > 0)]:
            raise BenchError(
                f"found {wrong[0]!r} among the values of {name}; a power law takes finite numbers above zero. Leave "
                "out what was not measured"
            )
    if len(set(x)) < 2:
        raise BenchError(f"found {len(set(x))} different values of x; an exponent takes two or more. Measure more")
    log_x, log_y, points = np.log(x), np.log(y), len(x)
    line = stats.linregress(log_x, log_y)
    exponent, factor = float(line.slope), float(np.exp(line.intercept))
    if points < 3:
        return PowerLaw(exponent, factor, None, None, None, points)
    # scipy takes the error from the correlation, which a y that stays as it is does not have.
    left = log_y - line.intercept - line.slope * log_x
    error = float(np.sqrt((left**2).sum() / (points - 2) / ((log_x - log_x.mean()) ** 2).sum()))
    half = float(stats.t.ppf((1 + confidence) / 2, points - 2)) * error
    return PowerLaw(exponent, factor, error, exponent - half, exponent + half, points)
