"""Refusals of numbers that make no statistic."""

from numbers import Integral, Real

from bench.errors import BenchError


def check_fraction(name: str, value: float, usual: float) -> None:
    """Refuse what does not lie strictly between 0 and 1.

    Raises:
        BenchError: it does not; the message gives the usual value.
    """
    if not isinstance(value, Real) or not 0 < value < 1:
        raise BenchError(f"{name} is {value!r}; expected a number between 0 and 1, usually {usual}")


def check_count(name: str, value: int, least: int) -> None:
    """Refuse what is no integer of at least ``least``.

    Raises:
        BenchError: it is none.
    """
    if not isinstance(value, Integral) or value < least:
        raise BenchError(f"{name} is {value!r}; expected an integer of {least} or more")
