"""Boxes, as tuples of slices: measuring only where there is something to measure."""

import numpy as np
import numpy.typing as npt

Box = tuple[slice, ...]


def foreground_box(foreground: npt.NDArray[np.bool_]) -> Box:
    """The smallest box that holds every set voxel; of size zero where there is none."""
    box = []
    for axis in range(foreground.ndim):
        others = tuple(other for other in range(foreground.ndim) if other != axis)
        occupied = np.flatnonzero(foreground.any(axis=others))
        span = slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0)
        box.append(span)
        # The later axes need to be searched only where the earlier ones are occupied.
        foreground = foreground[(slice(None),) * axis + (span,)]
    return tuple(box)


def grown(box: Box, voxels: int | npt.NDArray[np.intp], shape: tuple[int, ...]) -> Box:
    """The box with a margin on every side, one number or one per axis, as far as an array of that shape reaches."""
    margins = np.broadcast_to(voxels, len(box)).tolist()
    return tuple(
        slice(max(span.start - margin, 0), min(span.stop + margin, size))
        for span, margin, size in zip(box, margins, shape, strict=True)
    )


def hull(*boxes: Box) -> Box:
    """The smallest box that holds all of the boxes, none of which is of size zero."""
    return tuple(slice(min(s.start for s in spans), max(s.stop for s in spans)) for spans in zip(*boxes, strict=True))
