"""Where points and labels go so that none hides another. Everything is deterministic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from bench.report.figures.style import GREY

_RADII_PT = (7.0, 12.0, 18.0, 26.0, 36.0, 48.0, 62.0, 78.0, 96.0)
_ANGLES_DEG = (0, 180, 45, 135, -45, -135, 90, -90, 22, 158, -22, -158)
_LEADER_FROM_PT = 14.0
_PRICE_OF_DISTANCE = 1.2  # in pixels hidden, for each point of 1/72 inch


def swarm(along: NDArray[np.floating], width: float, height: float, half: float) -> NDArray[np.float64]:
    """How far each point steps aside so that none hides another, as far as there is room.

    Points that would touch share a bin of one point's width and are stacked to both sides of the middle, closer where
    they are too many.

    Args:
        along: (N,) positions along the axis of values.
        width: of a point along that axis.
        height: of a point across it.
        half: the largest step.

    Returns:
        (N,) steps across the axis, in -half..half; the same for the same values in the same order.
    """
    steps = np.zeros(len(along))
    bins = np.floor(np.asarray(along) / width).astype(int)
    for number in np.unique(bins):
        members = np.flatnonzero(bins == number)
        members = members[np.argsort(along[members], kind="stable")]
        place = np.arange(len(members))
        side = np.where(place % 2, 1, -1) * ((place + 1) // 2)
        furthest = max(int(np.abs(side).max()), 1)
        steps[members] = side * min(height, half / furthest)
    return steps


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Middles of things that are stacked without touching, each as near to where it is wanted as that allows.

    They keep their order and stay within low..high; where there is not room enough for all, each gets less.

    Args:
        wanted: middles.
        heights: of the things, in the same unit.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    squeeze = min(1.0, (high - low) / max(sum(heights), 1e-12))
    half = [heights[i] * squeeze / 2 for i in order]
    # Of each its middle's distance above the middle of the lowest.
    above = [0.0, *itertools.accumulate(one + next for one, next in itertools.pairwise(half))]
    # Neighbours that would touch become one block about their mean; blocks that then touch become one again.
    blocks: list[tuple[float, int]] = []  # sum of where the lowest would have to be, members
    for place, index in enumerate(order):
        blocks.append((wanted[index] - above[place], 1))
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, members = blocks.pop()
            blocks[-1] = (blocks[-1][0] + total, blocks[-1][1] + members)
    starts = [total / members for total, members in blocks for _ in range(members)]
    placed = [0.0] * len(wanted)
    for place, index in enumerate(order):
        lowest, highest = low + half[0], high - half[-1] - above[len(order) - 1]
        placed[index] = min(max(starts[place], lowest), highest) + above[place]
    return placed


@dataclass(frozen=True)
class _Place:
    """A place for a label: its offset from the point in points of 1/72 inch, and how it is aligned there."""

    dx: float
    dy: float

    @property
    def horizontal(self) -> str:
        return "center" if abs(self.dx) < 1 else "left" if self.dx > 0 else "right"

    @property
    def vertical(self) -> str:
        return "center" if abs(self.dy) < 1 else "bottom" if self.dy > 0 else "top"


def label_points(
    figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str]], lines: Sequence[Bbox] = ()
) -> list[Annotation]:
    """Write a label beside each point, with a thin line to it where it has to stand further away.

    Labels avoid each other, the points and the edge of the axes, and less strictly the lines; of two places that hide
    as much the nearer is better. The axes' limits and position must be final.

    Args:
        labels: x and y in data coordinates, text.
        lines: boxes around thin lines in display coordinates, in pixels at the figure's resolution.
    """
    pixels_pt = figure.dpi / 72
    at = axes.transData.transform([(x, y) for x, y, _ in labels])
    # Wider than the points: a name beside another point would be taken for that one's.
    near = [_around(point, 9 * pixels_pt) for point in at]
    taken: list[Bbox] = []
    room = axes.get_window_extent()
    places = [
        _Place(radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle)))
        for radius in _RADII_PT
        for angle in _ANGLES_DEG
    ]
    written = []
    # From the top down, so that the order of the rows does not matter.
    for index in sorted(range(len(labels)), key=lambda i: (-at[i][1], at[i][0], labels[i][2])):
        x, y, text = labels[index]
        note = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", ha="left", va="bottom", linespacing=1.0)
        extent = note.get_window_extent()
        boxes = [_box(at[index], place, extent.width, extent.height, pixels_pt) for place in places]
        others = near[:index] + near[index + 1 :]
        # A name that a thin line crosses is read more easily than one that stands far from its point.
        price = [
            _hidden(box, [*taken, *others], room)
            + 0.5 * _hidden(box, lines)
            + _PRICE_OF_DISTANCE * math.hypot(place.dx, place.dy)
            for box, place in zip(boxes, places, strict=True)
        ]
        best = min(range(len(places)), key=lambda i: (round(price[i], 1), i))
        place = places[best]
        note.remove()
        leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
        written.append(
            axes.annotate(
                text,
                (x, y),
                (place.dx, place.dy),
                textcoords="offset points",
                ha=place.horizontal,
                va=place.vertical,
                linespacing=1.0,
                path_effects=[Stroke(linewidth=2, foreground="white"), Normal()],
                arrowprops=leader if math.hypot(place.dx, place.dy) >= _LEADER_FROM_PT else None,
            )
        )
        taken.append(boxes[best])
    return written


def _around(point: NDArray[np.float64], half: float) -> Bbox:
    return Bbox.from_bounds(point[0] - half, point[1] - half, 2 * half, 2 * half)


def _box(point: NDArray[np.float64], place: _Place, width: float, height: float, pixels_pt: float) -> Bbox:
    x, y = point[0] + place.dx * pixels_pt, point[1] + place.dy * pixels_pt
    left = x - {"left": 0.0, "center": 0.5, "right": 1.0}[place.horizontal] * width
    bottom = y - {"bottom": 0.0, "center": 0.5, "top": 1.0}[place.vertical] * height
    return Bbox.from_bounds(left, bottom, width, height)


def _hidden(box: Bbox, taken: Sequence[Bbox], room: Bbox | None = None) -> float:
    """Area in pixels that a label would hide, or lose because it leaves the room, which counts most."""
    hidden = float(_common(box, taken).sum())
    if room is None:
        return hidden
    return hidden + 10 * (box.width * box.height - float(_common(box, [room])[0]))


def _common(box: Bbox, others: Sequence[Bbox]) -> NDArray[np.float64]:
    """Area that a box has in common with each other one."""
    corners = np.array([other.extents for other in others]).reshape(-1, 4)
    size = np.minimum(corners[:, 2:], box.max) - np.maximum(corners[:, :2], box.min)
    return np.asarray(np.maximum(size, 0).prod(axis=1))
