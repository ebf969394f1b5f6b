"""The phantom's glioma: foci of necrosis within an enhancing rim within oedema, and the mass effect they have.

Lengths are fractions of the volume's edge; the axes are those of `data.phantom_fields`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data.phantom_anatomy import Anatomy
from data.phantom_fields import Field, Point, Points, SmoothNoise, grid, smoothstep
from data.phantom_kind import PhantomKind

NECROSIS, OEDEMA, ENHANCING = 1, 2, 3

_MARGIN = 0.012  # lesions keep this far from the outline of the brain
_CORTEX_HOLD = 0.04  # oedema reaches less far in cortex by this


@dataclass(frozen=True)
class Focus:
    """One lesion.

    Attributes:
        centre: (x, y, z).
        core: mean radius of what the rim encloses, rim included.
        oedema: mean radius of the whole lesion in white matter.
        stretch: factors by which the lesion is longer along each axis than its radius says.
        rim: mean thickness of the rim, 0 for none.
        enhancing: whether the rim is enhancing tumour; else it counts as part of the non-enhancing core.
        undecided: whether the rim looks the same in either case.
        contrast: how far the lesion differs from the tissue it grows in, from 0 to 1.
    """

    centre: Point
    core: float
    oedema: float
    stretch: Point
    rim: float
    enhancing: bool = True
    undecided: bool = False
    contrast: float = 1.0

    def distance(self, points: Points) -> Field:
        """Distance from the centre, in which the lesion's ellipsoid is a ball."""
        terms = (((a - c) / s) ** 2 for a, c, s in zip(points, self.centre, self.stretch, strict=True))
        return np.sqrt(sum(terms))


@dataclass(frozen=True)
class Plan:
    """What a case's tumour is to be: its lesions."""

    foci: tuple[Focus, ...]


@dataclass(frozen=True)
class Tumour:
    """The lesions of one case; all fields are (S, S, S) in NIfTI's (x, y, z) order.

    Attributes:
        label: 0 background, 1 necrotic and non-enhancing core, 2 oedema, 3 enhancing rim.
        infiltration: share of oedema in a voxel outside the core; the label's limit lies at one half.
        undecided: the rims of which nothing near them tells whether they enhance.
        contrast: of the lesion that a voxel belongs to.
    """

    label: NDArray[np.uint8]
    infiltration: Field
    undecided: NDArray[np.bool_]
    contrast: Field


def draw_plan(rng: np.random.Generator, kind: PhantomKind) -> Plan:
    """Draw number, place and size of a case's lesions, which do not overlap; either all of them have a rim or none."""
    rim = float(rng.uniform(*kind.rim)) if rng.random() >= kind.non_enhancing_share else 0.0
    count = int(rng.integers(2, kind.most_foci + 1)) if rng.random() < kind.multifocal_share else 1
    while True:
        foci = tuple(_draw_focus(rng, kind, rim, 1.0 if count == 1 else kind.multifocal_size) for _ in range(count))
        if all(_apart(one, other) for one, other in combinations(foci, 2)):
            return Plan(foci)


def _draw_focus(rng: np.random.Generator, kind: PhantomKind, rim: float, shrink: float) -> Focus:
    side = 1.0 if rng.random() < 0.5 else -1.0
    x, y, z = rng.uniform((0.11, -0.24, -0.07), (0.20, 0.24, 0.20)).tolist()
    core = shrink * float(rng.uniform(*kind.core))
    return Focus(
        centre=(side * x, y, z),
        core=core,
        oedema=core + shrink * float(rng.uniform(*kind.oedema)),
        stretch=tuple(rng.uniform(0.88, 1.15, 3).tolist()),
        rim=min(rim, kind.rim_share * core),
    )


def _apart(a: Focus, b: Focus) -> bool:
    gap = sum((p - q) ** 2 for p, q in zip(a.centre, b.centre, strict=True)) ** 0.5
    return gap > 1.3 * (a.core + b.core) + 0.03


def mass_effect(plan: Plan, size: int) -> Points:
    """How far each voxel's tissue was pushed away from the lesions: three arrays of shape (S, S, S)."""
    points = grid(size)
    shift = [np.zeros((size, size, size), np.float32) for _ in range(3)]
    for focus in plan.foci:
        spread = 0.3 + (focus.distance(points) / focus.core) ** 2
        nearness = 0.25 / (spread * np.sqrt(spread))
        for axis in range(3):
            shift[axis] += nearness * (points[axis] - focus.centre[axis])
    return shift[0], shift[1], shift[2]


def grow(rng: np.random.Generator, plan: Plan, anatomy: Anatomy) -> Tumour:
    """Let the lesions grow in a brain.

    Nothing passes the falx or the outline of the brain. Oedema follows the white matter in fingers and spares
    cortex and ventricles; the core does not.
    """
    size = len(anatomy.hull)
    coarse, fine, patchy = (SmoothNoise.draw(rng, spacing).on_grid(size) for spacing in (0.11, 0.05, 0.07))
    cortex_hold = _CORTEX_HOLD * (anatomy.grey + anatomy.fluid)
    infiltration = np.zeros_like(anatomy.hull)
    core_depth = np.full_like(anatomy.hull, -1)
    nearness, nearest = np.full_like(anatomy.hull, -np.inf), np.zeros(anatomy.hull.shape, np.intp)
    for index, focus in enumerate(plan.foci):
        distance = focus.distance(grid(size))
        distance[anatomy.side * focus.centre[0] < 0] = 1
        extent = focus.oedema * (0.9 + 0.14 * coarse + 0.14 * fine) - cortex_hold
        infiltration = np.maximum(infiltration, smoothstep(extent - distance, -0.03, 0.03))
        nearest = np.where(focus.core - distance > nearness, index, nearest)
        nearness = np.maximum(nearness, focus.core - distance)
        core_depth = np.maximum(core_depth, focus.core * (1 + 0.13 * coarse + 0.09 * fine) - distance)
    inland = -anatomy.hull - _MARGIN
    core_depth = np.minimum(core_depth, inland)
    infiltration *= smoothstep(inland, -0.01, 0.01) * np.clip(1.5 - 2 * anatomy.fluid, 0, 1)
    infiltration = _connected(infiltration, core_depth > 0)

    def of_nearest(values: list[float]) -> Field:
        return np.array(values or [0], np.float32)[nearest]

    rim = of_nearest([focus.rim for focus in plan.foci]) * np.clip(1 + 0.25 * patchy, 0.95, 1.4)
    in_rim = (core_depth > 0) & (core_depth <= rim)
    label = np.zeros(anatomy.hull.shape, np.uint8)
    label[(infiltration > 0.5) & (inland > 0)] = OEDEMA
    label[core_depth > 0] = NECROSIS
    label[in_rim & (of_nearest([focus.enhancing for focus in plan.foci]) > 0)] = ENHANCING
    undecided = in_rim & (of_nearest([focus.undecided for focus in plan.foci]) > 0)
    return Tumour(label, infiltration, undecided, of_nearest([focus.contrast for focus in plan.foci]))


def _connected(infiltration: Field, core: NDArray[np.bool_]) -> Field:
    """Infiltration without the islands that no bridge joins to a core; they fade to below the label's limit."""
    lesion = (infiltration > 0.5) | core
    pieces, _ = ndimage.label(lesion)
    islands = lesion & ~np.isin(pieces, np.unique(pieces[core]))
    return np.where(islands, np.float32(0.3), infiltration)
