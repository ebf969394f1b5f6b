"""Arithmetic of launches, on which kernels wait: `triton`'s own functions of these names take ten microseconds."""

from __future__ import annotations


def cdiv(whole: int, part: int) -> int:
    """How many parts make up the whole, the last of them perhaps not full."""
    return -(-whole // part)


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is not below a number of at least 1."""
    return 1 << (number - 1).bit_length()
