"""Area of the surface between voxels, cell by cell, by marching cubes (Lorensen and Cline, SIGGRAPH 1987).

A cell spans the centres of 2×2×2 voxels. Its surface runs through the midpoints of those cell edges whose ends differ,
and is made of polygons of these midpoints. Two rules settle what marching cubes leave open, as Nikolov et al.
(arXiv:1809.04430, and google-deepmind/surface-distance) settled it:

* On a face whose diagonals differ the corners of the rarer kind, inside or outside, are kept apart.
* A polygon that is not flat is cut into the triangles that have the largest area in a cell of equal edges.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

FULL = 255
"""The code of a cell that lies inside; 0 lies outside. All others hold surface."""

_Point = tuple[int, ...]


def encode(padded: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The code of every cell of a mask: which of its voxels are inside.

    Args:
        padded: mask of one to three axes, with at least one layer of background on each side.

    Returns:
        One code per cell, each axis one shorter than the mask's. The first voxel of a cell counts 128, the next along
        the last axis 64, and so on to 1. Where axes are missing the mask counts as infinitely long along them.
    """
    codes = padded.view(np.uint8)
    for axis, weight in ((-1, 2), (-2, 4), (-3, 16)):
        ahead = behind = codes
        if -axis <= padded.ndim:
            behind = codes[(slice(None),) * (padded.ndim + axis) + (slice(None, -1),)]
            ahead = codes[(slice(None),) * (padded.ndim + axis) + (slice(1, None),)]
        codes = np.uint8(weight) * behind + ahead
    return codes


def areas_mm2(spacing_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Area of the surface in a cell, by its code.

    Args:
        spacing_mm: edges of the cell in mm, one to three; along missing axes, the first ones, it is 1 mm long, so that
            the areas of a 2D mask are the lengths of its contour.

    Returns:
        In mm², shape (256,); 0 for the codes 0 and `FULL`.
    """
    return _areas_mm2(tuple(([1.0, 1.0, 1.0, *spacing_mm.tolist()])[-3:]))


@lru_cache(maxsize=16)
def _areas_mm2(spacing: tuple[float, ...]) -> npt.NDArray[np.float64]:
    first, second, third = spacing
    areas = np.zeros(256)
    for code, normals in enumerate(_normals()):
        # Multiplied and added as the reference does: a percentile of areas may hang on the last bit of their sum.
        scaled = normals * (second, first, first) * (third, third, second)
        areas[code] = sum(np.linalg.norm(normal) for normal in scaled)
    areas.flags.writeable = False  # it is shared
    return areas


@lru_cache(maxsize=1)
def _normals() -> tuple[npt.NDArray[np.float64], ...]:
    """By code, the triangles in a unit cell: normals (n, 3) as long as the triangles are large, largest first."""
    return tuple(np.array(_triangles(code)).reshape(-1, 3) / 8 for code in range(256))


def _triangles(code: int) -> list[_Point]:
    inside = {corner: bool(code >> 7 - place & 1) for place, corner in enumerate(product((0, 1), repeat=3))}
    if sum(inside.values()) > 4:
        inside = {corner: not value for corner, value in inside.items()}
    normals = [normal for polygon in _polygons(inside) for normal in _triangulate(polygon)]
    return sorted(normals, key=_length, reverse=True)


def _polygons(inside: dict[_Point, bool]) -> list[list[_Point]]:
    """The closed polygons around the corners that are inside.

    Points are edge midpoints in half edges, so that they are whole: the sum of the edge's two ends.
    """
    following = {}
    for face in _faces():
        # Each run of inside corners is cut off from the rest of the face by a line from the edge that enters it to the
        # one that leaves it. An edge is walked in opposite directions on its two faces: the lines join head to tail.
        for place, corner in enumerate(face):
            if inside[corner] and not inside[face[place - 1]]:
                last = place
                while inside[face[(last + 1) % 4]]:
                    last += 1
                following[_midpoint(face[place - 1], corner)] = _midpoint(face[last % 4], face[(last + 1) % 4])
    polygons = []
    while following:
        polygon = [next(iter(following))]
        while (point := following.pop(polygon[-1])) != polygon[0]:
            polygon.append(point)
        polygons.append(polygon)
    return polygons


def _faces() -> list[list[_Point]]:
    """The six faces, as their corners in order, all anticlockwise when looked at from outside."""
    faces = []
    for axis, side in product(range(3), (0, 1)):
        square = [(0, 0), (1, 0), (1, 1), (0, 1)][:: 1 if side else -1]
        corners = [(side, *corner) for corner in square]
        faces.append([tuple(corner[(place - axis) % 3] for place in range(3)) for corner in corners])
    return faces


def _midpoint(one: _Point, other: _Point) -> _Point:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _triangulate(polygon: Sequence[_Point]) -> list[_Point]:
    """Normals of the triangles of the triangulation of largest area."""
    if len(polygon) < 3:
        return []
    options = [
        [
            _normal(polygon[0], polygon[apex], polygon[-1]),
            *_triangulate(polygon[: apex + 1]),
            *_triangulate(polygon[apex:]),
        ]
        for apex in range(1, len(polygon) - 1)
    ]
    # Rounded: of options that are equal on paper the first is taken.
    return max(options, key=lambda normals: round(sum(map(_length, normals)), 9))


def _normal(one: _Point, two: _Point, three: _Point) -> _Point:
    (a, b, c), (d, e, f) = ([p - o for p, o in zip(point, one, strict=True)] for point in (two, three))
    return (b * f - c * e, c * d - a * f, a * e - b * d)


def _length(normal: _Point) -> float:
    return math.hypot(*normal)
