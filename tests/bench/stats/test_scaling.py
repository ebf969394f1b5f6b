"""Exponents of power laws."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm

from bench.errors import BenchError
from bench.stats.scaling import fit_power_law

VOXELS = [64**3, 96**3, 128**3, 160**3]


@pytest.mark.parametrize(("exponent", "factor"), [(1.0, 3e-8), (2.0, 5e-12), (-0.5, 40.0), (0.0, 7.0)])
def test_an_exact_law_is_found_again(exponent: float, factor: float) -> None:
    found = fit_power_law(VOXELS, [factor * n**exponent for n in VOXELS])
    assert found.exponent == pytest.approx(exponent, abs=1e-9)
    assert found.factor == pytest.approx(factor)
    assert (found.low, found.high) == pytest.approx((exponent, exponent), abs=1e-6)
    assert found.points == 4


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_exponent_error_and_interval_are_those_of_a_regression(confidence: float) -> None:
    random = np.random.default_rng(0)
    x = np.array([8.0, 8.0, 27.0, 64.0, 216.0, 1000.0])
    y = 0.3 * x**1.4 * np.exp(random.normal(0, 0.2, len(x)))
    found = fit_power_law(list(x), list(y), confidence)
    expected = sm.OLS(np.log(y), sm.add_constant(np.log(x))).fit()
    assert found.exponent == pytest.approx(expected.params[1])
    assert found.factor == pytest.approx(np.exp(expected.params[0]))
    assert found.standard_error == pytest.approx(expected.bse[1])
    assert (found.low, found.high) == pytest.approx(tuple(expected.conf_int(1 - confidence)[1]))
    assert found.low < 1.4 < found.high


def test_two_points_have_an_exponent_and_no_interval() -> None:
    found = fit_power_law([10, 100], [2, 200])
    assert (found.exponent, found.factor) == pytest.approx((2, 0.02))
    assert (found.standard_error, found.low, found.high) == (None, None, None)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([64], [1.0], "found 1 different values of x; an exponent takes two"),
        ([64, 64, 64], [1.0, 1.1, 1.2], "found 1 different values of x"),
        ([], [], "found 0 different values of x"),
        ([64, 96], [1.0], "found 2 values of x and 1 of y"),
        ([0, 96], [1.0, 2.0], "found 0 among the values of x"),
        ([64, 96], [1.0, -2.0], "found -2.0 among the values of y"),
        ([64, 96], [1.0, float("nan")], "found nan among the values of y"),
        ([64, float("inf")], [1.0, 2.0], "found inf among the values of x"),
    ],
)
def test_what_makes_no_law_is_refused(x: list[float], y: list[float], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        fit_power_law(x, y)
