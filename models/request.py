"""Checks of what a caller asks of a network, made before anything heavy is imported or built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from math import prod
from numbers import Integral, Real
from typing import Any

from models.card import ModelCard
from models.errors import ImageSizeError, ModelError

_KINDS: dict[type, str] = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def unknown(what: str, name: str, known: Iterable[str], described: str) -> ModelError:
    """The error for a name nobody knows: the nearest one first, then `described`, the list of all."""
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ModelError(f"{what} {name!r} is unknown.{hint} {described}")


def check_channels(name: str, in_channels: int, out_channels: int) -> None:
    """Raise ModelError unless both numbers of channels are integers of at least 1."""
    for what, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if not _conforms(value, int) or value < 1:
            raise ModelError(f"{name}: {what} must be an integer of at least 1; got {value!r}.")


def check_size(card: ModelCard, image_size: object) -> tuple[int, int, int]:
    """The image size as (D, H, W) in voxels.

    Raises:
        ModelError: it is no size, or breaks the card's rule; the message names the nearest sizes that do not.
    """
    size = _as_triple(card.name, image_size)
    if size == (below := _nearest(card, size, up=False)):
        return size
    reason = f"each axis must be at least {card.minimum_size} and a multiple of {_multiples(card)}"
    raise _misfit(card, size, reason, below, _nearest(card, size, up=True))


def check_volume(card: ModelCard, size: tuple[int, int, int], why: str) -> None:
    """Raise ModelError unless D·H·W is a multiple of `card.volume_multiple`; `size` is one that `check_size` passed.

    The message names the nearest sizes that are, cubes where a cube was asked for, and `why`.
    """
    if prod(size) % card.volume_multiple == 0:
        return
    reason = (
        f"beside each axis being a multiple of {_multiples(card)}, D·H·W must be a multiple of {card.volume_multiple}, "
        f"{why}"
    )
    raise _misfit(card, size, reason, *(_nearest_volume(card, size, up=up) for up in (False, True)))


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


def probability(name: str, **values: float) -> None:
    """Raise ModelError unless each of the named options is at least 0 and below 1."""
    for option, value in values.items():
        if not 0 <= value < 1:
            raise ModelError(f"{name}: {option} must be at least 0 and below 1; got {value}.")


def _typed(name: str, option: str, default: object, value: object) -> object:
    kind: Any = type(default[0] if isinstance(default, tuple) else default)
    expected = _KINDS[kind]
    if not isinstance(default, tuple):
        if _conforms(value, kind):
            return kind(value)
    else:
        if isinstance(value, list | tuple) and value and all(_conforms(item, kind) for item in value):
            return tuple(kind(item) for item in value)
        expected = f"a list, each entry {expected}"
    raise ModelError(
        f"{name}: option {option} takes {expected}, such as its default {default!r}; "
        f"got {value!r} ({type(value).__name__})."
    )


def _conforms(value: object, kind: type) -> bool:
    if kind in (int, float):  # bool is an integer to Python, never to a reader
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return isinstance(value, kind)


def _as_triple(name: str, image_size: object) -> tuple[int, int, int]:
    if _conforms(image_size, int):
        image_size = (image_size,) * 3
    if isinstance(image_size, Sequence) and len(image_size) == 3:
        depth, height, width = image_size
        if all(_conforms(extent, int) and extent >= 1 for extent in image_size):
            return (int(depth), int(height), int(width))
    raise ModelError(
        f"{name}: image_size must be one positive integer or three (D, H, W), in voxels; got {image_size!r}."
    )


def _misfit(
    card: ModelCard,
    size: tuple[int, int, int],
    reason: str,
    below: tuple[int, ...] | None,
    above: tuple[int, ...] | None,
) -> ImageSizeError:
    smaller = f"{_show(below)} below, " if below is not None else ""
    return ImageSizeError(
        f"{card.name}: image size {_show(size)} (D×H×W) does not fit; {reason}. "
        f"Nearest: {smaller}{_show(above)} above.",
        above or size,
    )


def _nearest(card: ModelCard, size: tuple[int, int, int], *, up: bool) -> tuple[int, ...] | None:
    """The nearest allowed size whose axes are all not above (or not below) `size`; None where there is none."""
    nearest = []
    for extent, multiple in zip(size, card.size_multiples, strict=True):
        smallest = -(-card.minimum_size // multiple) * multiple
        if up:
            nearest.append(max(smallest, -(-extent // multiple) * multiple))
        elif extent < smallest:
            return None
        else:
            nearest.append(extent // multiple * multiple)
    return tuple(nearest)


def _nearest_volume(card: ModelCard, size: tuple[int, int, int], *, up: bool) -> tuple[int, ...] | None:
    """As `_nearest`, for sizes whose volume is allowed too: the one that differs least in the sum of its axes."""
    # A multiple of so many steps along one axis is enough, whatever the others are.
    steps = range(card.volume_multiple // prod(card.size_multiples))
    grids = [
        [extent + (step if up else -step) * multiple for step in steps]
        for extent, multiple in zip(size, card.size_multiples, strict=True)
    ]
    candidates = zip(*grids, strict=True) if len(set(size)) == 1 else product(*grids)
    allowed = [c for c in candidates if min(c) >= card.minimum_size and prod(c) % card.volume_multiple == 0]
    return min(allowed, key=lambda c: abs(sum(c) - sum(size)), default=None)


def _multiples(card: ModelCard) -> str:
    if isinstance(card.size_multiple, int):
        return str(card.size_multiple)
    return ", ".join(map(str, card.size_multiple)) + " (D, H, W)"


def _show(size: Iterable[int] | None) -> str:
    return "×".join(map(str, size or ()))
