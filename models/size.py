"""Which image sizes a network takes, and the nearest to one that it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import gcd, prod
from typing import Any

from models.card import ModelCard
from models.errors import ImageSizeError, ModelError
from models.request import conforms

Size = tuple[int, int, int]


def check_size(card: ModelCard, image_size: object, options: Mapping[str, object]) -> Size:
    """The image size as (D, H, W) in voxels.

    Args:
        card: of the network.
        image_size: one integer or three.
        options: all options that the network will be built with.

    Raises:
        ModelError: it is no size.
        ImageSizeError: it breaks the card's rule; the message names the nearest sizes that do not, cubes where a cube
            was asked for.
    """
    size = _as_triple(card.name, image_size)
    volume = card.volume_multiple(options)
    below, above = (_nearest(card, size, volume, up=up) for up in (False, True))
    if size == below:
        return size
    assert above is not None
    rule = card.volume_rule
    way_out = f" ({rule.way_out})" if rule and volume > 1 else ""
    smaller = f"{_show(below)} below, " if below is not None else ""
    raise ImageSizeError(
        f"{card.name}: image size {_show(size)} (D×H×W) does not fit; {card.size_words(options)}{way_out}. "
        f"Nearest: {smaller}{_show(above)} above.",
        above,
    )


def nearest_size(card: ModelCard, image_size: object, options: Mapping[str, object]) -> Size:
    """The size itself where a network takes it, else the nearest that it takes, upwards where two are as near.

    Args:
        card: of the network.
        image_size: one integer or three (D, H, W), in voxels.
        options: all options that the network will be built with.

    Raises:
        ModelError: it is no size.
    """
    size = _as_triple(card.name, image_size)
    volume = card.volume_multiple(options)
    above, below = _nearest(card, size, volume, up=True), _nearest(card, size, volume, up=False)
    found = [candidate for candidate in (above, below) if candidate is not None]
    return min(found, key=lambda candidate: sum(abs(a - b) for a, b in zip(candidate, size, strict=True)))


class SizeGuard:
    """A forward pre-hook that refuses images of another size than a network was built for.

    Args:
        name: of the network.
        size: (D, H, W) in voxels.
    """

    def __init__(self, name: str, size: Size) -> None:
        self._name, self._size = name, size

    def __call__(self, _network: object, inputs: tuple[Any, ...]) -> None:
        shape = tuple(inputs[0].shape) if inputs else (0, 0, *self._size)
        if len(shape) != 5 or shape[2:] != self._size:
            raise ModelError(
                f"{self._name}: this network was built for images of {_show(self._size)} (D×H×W), on which shapes of "
                f"its parameters depend; expected (B, C, D, H, W), got {_show(shape)}."
            )


def _as_triple(name: str, image_size: object) -> Size:
    if conforms(image_size, int):
        image_size = (image_size,) * 3
    if isinstance(image_size, Sequence) and len(image_size) == 3:
        depth, height, width = image_size
        if all(conforms(extent, int) and extent >= 1 for extent in image_size):
            return (int(depth), int(height), int(width))
    raise ModelError(
        f"{name}: image_size must be one positive integer or three (D, H, W), in voxels; got {image_size!r}."
    )


def _nearest(card: ModelCard, size: Size, volume: int, *, up: bool) -> Size | None:
    """The allowed size nearest to `size` in the sum of its axes, none of them shorter (or longer); None without one."""
    axes = []
    for extent, multiple in zip(size, card.size_multiples, strict=True):
        smallest = -(-card.minimum_size // multiple) * multiple
        # So many steps along one axis make any volume a multiple, whatever the other axes are.
        steps = range(volume // gcd(volume, prod(card.size_multiples)))
        if up:
            first = max(smallest, -(-extent // multiple) * multiple)
            axes.append([first + step * multiple for step in steps])
        else:
            last = extent // multiple * multiple
            axes.append([found for step in steps if (found := last - step * multiple) >= smallest])
    depths, heights, widths = axes
    cube = len(set(size)) == 1 and len(set(card.size_multiples)) == 1
    candidates: Iterable[Size] = zip(depths, heights, widths, strict=True) if cube else product(depths, heights, widths)
    allowed = [candidate for candidate in candidates if prod(candidate) % volume == 0]
    return min(allowed, key=lambda candidate: abs(sum(candidate) - sum(size)), default=None)


def _show(size: Sequence[int]) -> str:
    return "×".join(map(str, size))
