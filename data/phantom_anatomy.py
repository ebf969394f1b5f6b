"""The healthy part of the phantom: a skull-stripped brain of cerebrospinal fluid, grey and white matter.

Lengths are fractions of the volume's edge; the axes are those of `data.phantom_fields`. The proportions are those
of an adult brain whose greatest length is nine tenths of the edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.phantom_fields import (
    Field,
    Points,
    SmoothNoise,
    ellipsoid,
    grid,
    inside,
    smooth_union,
    smoothstep,
    tube,
)

# The lateral ventricle of one side as knots of (x, y, z, radius).
_ATRIUM = (0.085, -0.15, 0.03, 0.024)
_FRONTAL_HORN_AND_BODY = ((0.055, 0.165, 0.015, 0.012), (0.036, 0.09, 0.05, 0.02), (0.036, -0.06, 0.07, 0.018), _ATRIUM)
_OCCIPITAL_HORN = (_ATRIUM, (0.075, -0.24, 0.0, 0.010))
_TEMPORAL_HORN = (_ATRIUM, (0.145, -0.06, -0.08, 0.011), (0.15, 0.02, -0.11, 0.007))
_BRAINSTEM = ((0.0, -0.02, -0.05, 0.06), (0.0, -0.06, -0.17, 0.07), (0.0, -0.11, -0.42, 0.05))

_CORTEX = 0.022
_CEREBELLAR_CORTEX = 0.032
_FOLIA_SPACING = 0.05
_SULCUS_DEPTH = 0.085
_SULCUS_HALF_WIDTH = 0.006
_SULCUS_STRAIGHTNESS = 0.7
_FOLD_SPACING = 0.027
_WARP = 0.010


@dataclass(frozen=True)
class Anatomy:
    """A brain without its tumour; all fields are (S, S, S) in NIfTI's (x, y, z) order.

    Attributes:
        hull: signed distance to the outline of the skull-stripped brain, negative inside.
        fluid: share of cerebrospinal fluid in a voxel.
        grey: share of grey matter; what remains is white matter.
        ventricle: share of fluid within the ventricles.
        side: signed distance from the falx, positive on the left; 0 where the hemispheres communicate.
    """

    hull: Field
    fluid: Field
    grey: Field
    ventricle: Field
    side: Field


def draw_anatomy(rng: np.random.Generator, size: int, shift: Points) -> Anatomy:
    """Draw a brain at random.

    Args:
        rng: the source of all that varies between brains; what is drawn from it does not depend on `size`.
        size: edge length in voxels.
        shift: from where to where a tumour pushed the tissue that now lies in each voxel, subtracted before the
            anatomy is looked up; three arrays of shape (S, S, S).
    """
    stretch = rng.uniform(0.95, 1.04, 3).astype(np.float32)
    ventricle_growth = float(rng.uniform(-0.002, 0.012))
    gap = float(rng.uniform(0.004, 0.008))
    warps = [SmoothNoise.draw(rng, 0.28) for _ in range(3)]
    roughness = SmoothNoise.draw(rng, 0.09).on_grid(size)
    folds = SmoothNoise.draw(rng, _FOLD_SPACING)

    head = [a / s + _WARP * w.on_grid(size) for a, s, w in zip(grid(size), stretch, warps, strict=True)]
    x, y, z = (a - b for a, b in zip(head, shift, strict=True))
    half = (np.abs(x), y, z)
    hull = _hull((np.abs(head[0]), head[1], head[2])) + 0.005 * roughness

    core = np.minimum(ellipsoid(half, (0, -0.02, 0), (0.10, 0.20, 0.10)), tube(half, _BRAINSTEM))
    cerebellum = _cerebellum(half)
    cerebrum = np.maximum.reduce([_cerebrum(half), gap - half[0], gap - cerebellum])
    surface = np.maximum(np.minimum.reduce([cerebrum, cerebellum, core]), hull - 0.004)
    reach = _SULCUS_DEPTH * np.clip(0.8 + 0.5 * roughness, 0.3, 1.4) * smoothstep(core, -0.02, 0.16)
    sulci = _sulci((x, y, z), surface, reach, folds, cerebellum < cerebrum)
    tissue = np.maximum.reduce([surface, sulci, np.minimum(_sylvian_fissure(half, gap), core)])

    soft = 0.6 / size
    ventricle = inside(_ventricles(half) - ventricle_growth, soft)
    fluid = np.maximum(inside(-tissue, soft), ventricle)
    thickness = np.where(cerebellum < cerebrum, np.float32(_CEREBELLAR_CORTEX), np.float32(_CORTEX))
    cortex = inside(-tissue - thickness, soft) * smoothstep(core, -0.02, 0.01)
    grey = np.minimum(np.maximum(cortex, 0.8 * inside(_nuclei(half), soft)), 1 - fluid)
    return Anatomy(hull, fluid, grey, ventricle, np.where(core < 0, np.float32(0), x))


def _hemisphere(half: Points) -> Field:
    x, y, z = half
    return ellipsoid((x / (1 - 0.18 * y), y, z), (0.02, 0, 0.07), (0.32, 0.44, 0.275))


def _temporal_lobe(half: Points) -> Field:
    x, y, z = half
    return ellipsoid((x, y, z + 0.25 * y), (0.19, 0.06, -0.125), (0.125, 0.21, 0.10))


def _cerebellum(half: Points) -> Field:
    return ellipsoid(half, (0.07, -0.23, -0.21), (0.135, 0.15, 0.115))


def _hull(half: Points) -> Field:
    outline = smooth_union(_hemisphere(half), _temporal_lobe(half), 0.04)
    outline = smooth_union(outline, _cerebellum(half), 0.03)
    outline = smooth_union(outline, tube(half, _BRAINSTEM), 0.04)
    return np.maximum(outline - 0.004, -0.345 - half[2])


def _cerebrum(half: Points) -> Field:
    return np.minimum(_hemisphere(half), _temporal_lobe(half))


def _sylvian_fissure(half: Points, gap: float) -> Field:
    """Signed distance to what lies outside the fissure between the temporal lobe and the rest of its hemisphere."""
    x, y, _ = half
    return -np.maximum.reduce([np.abs(_temporal_lobe(half)) - gap, 0.17 - x, -0.10 - y])


def _sulci(brain: Points, surface: Field, reach: Field, folds: SmoothNoise, in_cerebellum: NDArray[np.bool_]) -> Field:
    """Signed distance to what lies between the sulci, which are sheets of fluid across the surface, `reach` deep.

    The sheets are where noise vanishes that is looked up near the closest point of the surface; the cerebellum has
    parallel ones.
    """
    shell = (surface > -2 * _SULCUS_DEPTH) & (surface < 0.02)
    x, y, z = (axis[shell] for axis in brain)
    depth, reach = -surface[shell], reach[shell]
    left, posterior, superior = (np.gradient(surface, 1 / len(surface), axis=axis)[shell] for axis in range(3))
    inward = _SULCUS_STRAIGHTNESS * depth
    gyral = np.abs(folds.at((x + inward * left, y - inward * posterior, z + inward * superior)))
    folia = _FOLIA_SPACING * np.abs((z - 0.4 * y) / _FOLIA_SPACING % 1 - 0.5) + 0.5 * _SULCUS_HALF_WIDTH
    sheet = np.where(in_cerebellum[shell], folia, 0.6 * _FOLD_SPACING * gyral)
    width = _SULCUS_HALF_WIDTH * np.clip(1.2 - depth / (reach + 1e-6), 0, 1)
    result = np.full_like(surface, -1)
    result[shell] = width - np.sqrt(sheet**2 + np.maximum(depth - reach, 0) ** 2)
    return result


def _ventricles(half: Points) -> Field:
    """Lateral, third and fourth ventricles."""
    lateral = [tube(half, knots) for knots in (_FRONTAL_HORN_AND_BODY, _OCCIPITAL_HORN, _TEMPORAL_HORN)]
    third = ellipsoid(half, (0, 0, -0.015), (0.009, 0.07, 0.05))
    fourth = ellipsoid(half, (0, -0.135, -0.20), (0.022, 0.02, 0.03))
    return np.minimum.reduce([*lateral, third, fourth])


def _nuclei(half: Points) -> Field:
    """Thalamus, head of the caudate nucleus, lentiform nucleus."""
    thalamus = ellipsoid(half, (0.05, -0.045, 0.01), (0.034, 0.055, 0.034))
    caudate = ellipsoid(half, (0.066, 0.105, 0.03), (0.02, 0.05, 0.032))
    lentiform = ellipsoid(half, (0.125, 0.03, -0.005), (0.03, 0.075, 0.038))
    return np.minimum.reduce([thalamus, caudate, lentiform])
