"""Checks of names, channels and options, made before anything heavy is imported or built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

from models.errors import ModelError

_TOO_LARGE = 2**31  # larger counts and extents overflow in the libraries below
_KINDS: dict[type, str] = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def unknown(what: str, name: str, known: Iterable[str], described: str) -> ModelError:
    """The error for a name nobody knows: the nearest one first, then `described`, the list of all."""
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ModelError(f"{what} {name!r} is unknown.{hint} {described}")


def check_channels(name: str, in_channels: int, out_channels: int) -> None:
    """Raise ModelError unless both numbers of channels are integers of at least 1."""
    for what, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if not conforms(value, int) or value < 1:
            raise ModelError(f"{name}: {what} must be an integer of at least 1; got {value!r}.")


def check_options(name: str, defaults: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """All options of a network: the defaults, with the given values in their place.

    A default gives its option's type, see `is_option_default`; a list stands for a tuple.

    Raises:
        ModelError: an option is unknown, or its value is of another type than its default.
    """
    for option in given:
        if option not in defaults:
            listed = ", ".join(f"{key}={value!r}" for key, value in defaults.items())
            allowed = f"Its options are: {listed}." if defaults else "It has no options."
            raise unknown(f"{name}: option", option, defaults, allowed)
    return {
        option: _typed(name, option, default, given[option]) if option in given else default
        for option, default in defaults.items()
    }


def is_option_default(value: object) -> bool:
    """Whether `value` can be an option's default: a bool, int, float or str, or a tuple of one of these."""
    if isinstance(value, tuple):
        return len(value) > 0 and all(type(item) in _KINDS and type(item) is type(value[0]) for item in value)
    return type(value) in _KINDS


def at_least_one(name: str, **counts: int | tuple[int, ...]) -> None:
    """Raise ModelError unless each of the named counts, or each of its entries, is at least 1."""
    for option, value in counts.items():
        if min(value if isinstance(value, tuple) else (value,)) < 1:
            raise ModelError(f"{name}: {option} must be at least 1; got {value!r}.")


def check_scales(name: str, scales: int, **sequences: tuple[int, ...]) -> None:
    """Raise ModelError unless each of the named options has `scales` entries, all at least 1."""
    at_least_one(name, **sequences)
    for option, value in sequences.items():
        if len(value) != scales:
            raise ModelError(f"{name}: {option} needs one entry for each of {scales} scales; got {value!r}.")


def one_of(name: str, option: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ModelError, with the nearest suggested, unless `value` is among the allowed ones."""
    if value not in allowed:
        raise unknown(f"{name}: {option}", str(value), allowed, f"There are: {', '.join(allowed)}.")


def multiple_of(name: str, multiple: int, **values: int) -> None:
    """Raise ModelError, with the next that would do, unless each of the named options is a positive multiple."""
    for option, value in values.items():
        if value < 1 or value % multiple:
            above = max(1, -(-value // multiple)) * multiple
            raise ModelError(f"{name}: {option} must be a multiple of {multiple}, such as {above}; got {value}.")


def probability(name: str, **values: float) -> None:
    """Raise ModelError unless each of the named options is at least 0 and below 1."""
    for option, value in values.items():
        if not 0 <= value < 1:
            raise ModelError(f"{name}: {option} must be at least 0 and below 1; got {value}.")


def _typed(name: str, option: str, default: object, value: object) -> object:
    for item in value if isinstance(value, list | tuple) else (value,):
        if isinstance(item, int | float) and abs(item) >= _TOO_LARGE:
            raise ModelError(f"{name}: option {option}={value!r} is too large; expected less than 2³¹.")
    kind: Any = type(default[0] if isinstance(default, tuple) else default)
    expected = _KINDS[kind]
    if not isinstance(default, tuple):
        if conforms(value, kind):
            return kind(value)
    else:
        if isinstance(value, list | tuple) and value and all(conforms(item, kind) for item in value):
            return tuple(kind(item) for item in value)
        expected = f"a list, each entry {expected}"
    raise ModelError(
        f"{name}: option {option} takes {expected}, such as its default {default!r}; "
        f"got {value!r} ({type(value).__name__})."
    )


def conforms(value: object, kind: type) -> bool:
    """Whether a value is of a kind as its reader means it."""
    if kind in (int, float):  # bool is an integer to Python, never to a reader
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return isinstance(value, kind)
