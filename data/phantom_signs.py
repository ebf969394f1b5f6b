"""What a phantom shows beside its tumour: a marker that decides what some lesions are, and spots that are none.

The marker makes a case depend on what is far apart, for which no patient's image is a model: it tests whether a network
brings together what it sees in two places. In every case there is one, a ball at one of a few sites in the brain,
either blood (bright in T1) or calcium (dark everywhere). A lesion of which it decides has a rim between enhancing and
not; with blood the rim is enhancing tumour, with calcium it is non-enhancing core. Nothing near the lesion tells which,
and the marker's centre lies at least `DISTANCE` of the volume's edge away from it.

Lengths are fractions of the volume's edge; the axes are those of `data.phantom_fields`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data.phantom_anatomy import Anatomy
from data.phantom_fields import Field, Point, grid, inside
from data.phantom_kind import PhantomKind
from data.phantom_tumour import Focus, Plan

DISTANCE = 1 / 3
"""Between the marker's centre and the nearest point of the core, on average over directions, of which it decides."""

# One side of each: the poles of the hemisphere, below its vertex, and the cerebellum.
_SITES = ((0.11, 0.30, 0.04), (0.10, -0.33, 0.03), (0.19, 0.13, -0.13), (0.09, -0.02, 0.25), (0.11, -0.24, -0.21))
_SITE_JITTER = 0.015
_SPOT_RADIUS = (0.012, 0.026)
_SPOT_BOX = ((0.05, -0.28, -0.05), (0.22, 0.28, 0.24))
_GAP, _MARKER_GAP = 0.03, 0.01
_TRIES = 100


@dataclass(frozen=True)
class Ball:
    """Centre (x, y, z) and radius."""

    centre: Point
    radius: float

    def field(self, size: int) -> Field:
        """Its share of each voxel, (S, S, S)."""
        squares = ((axis - middle) ** 2 for axis, middle in zip(grid(size), self.centre, strict=True))
        return inside(np.sqrt(sum(squares)) - np.float32(self.radius), 0.6 / size)


@dataclass(frozen=True)
class Signs:
    """What a case shows beside its tumour.

    Attributes:
        marker: None in kinds without one.
        blood: whether the marker is blood; else it is calcium.
        spots: bright spots in white matter that are no tumour.
    """

    marker: Ball | None = None
    blood: bool = False
    spots: tuple[Ball, ...] = ()

    def spotted(self, anatomy: Anatomy) -> Field:
        """Share of spots in a voxel, (S, S, S); they keep to white matter."""
        size = len(anatomy.hull)
        share = np.zeros_like(anatomy.hull)
        for spot in self.spots:
            share = np.maximum(share, spot.field(size))
        return share * np.clip(1 - anatomy.grey - anatomy.fluid, 0, 1)


def draw_signs(rng: np.random.Generator, kind: PhantomKind, plan: Plan) -> tuple[Plan, Signs]:
    """Draw what a kind has beside its tumour, and the plan with what follows for the lesions.

    Of the lesions that the marker is to decide of, those stay so that are far enough from one of its sites.
    """
    foci = [replace(focus, contrast=float(rng.uniform(*kind.contrast))) for focus in plan.foci]
    marker, blood = None, False
    if kind.undecided_share:
        blood = bool(rng.random() < 0.5)
        chosen = [index for index, focus in enumerate(foci) if rng.random() < kind.undecided_share and focus.rim > 0]
        sites = [_jittered(rng, site, side) for site in _SITES for side in (-1.0, 1.0)]
        clear = kind.marker + _MARKER_GAP
        sites = [site for site in sites if all(_distance(site, focus) > focus.oedema + clear for focus in foci)]
        while sites:
            fit = [site for site in sites if all(_distance(site, foci[i]) - foci[i].core >= DISTANCE for i in chosen)]
            if fit:
                marker = Ball(fit[int(rng.integers(len(fit)))], kind.marker)
                break
            chosen.pop()
        for index in chosen if marker else ():
            foci[index] = replace(foci[index], undecided=True, enhancing=blood)
    spots = tuple(spot for _ in range(int(rng.integers(*kind.spots))) if (spot := _draw_spot(rng, foci, marker)))
    return Plan(tuple(foci)), Signs(marker, blood, spots)


def _jittered(rng: np.random.Generator, site: Point, side: float) -> Point:
    x, y, z = (np.array(site) + rng.uniform(-_SITE_JITTER, _SITE_JITTER, 3)).tolist()
    return side * x, y, z


def _draw_spot(rng: np.random.Generator, foci: list[Focus], marker: Ball | None) -> Ball | None:
    """A spot that touches neither a lesion nor the marker; None where none was found."""
    for _ in range(_TRIES):
        x, y, z = rng.uniform(*_SPOT_BOX).tolist()
        spot = Ball((x if rng.random() < 0.5 else -x, y, z), float(rng.uniform(*_SPOT_RADIUS)))
        near = any(_distance(spot.centre, focus) < 1.2 * focus.oedema + spot.radius + _GAP for focus in foci)
        if not near and (marker is None or _apart(spot.centre, marker.centre) > spot.radius + marker.radius + _GAP):
            return spot
    return None


def _distance(point: Point, focus: Focus) -> float:
    return _apart(point, focus.centre)


def _apart(a: Point, b: Point) -> float:
    return float(np.linalg.norm(np.subtract(a, b)))
