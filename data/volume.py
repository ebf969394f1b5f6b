"""The types that carry a case through the house: its files, its voxels, its geometry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CaseFiles:
    """Where one case lies on disk.

    Attributes:
        id: the case's identifier, unique within its dataset.
        patient: the patient's identifier; cases of one patient never stand in two splits.
        images: one file per channel, in the order of the dataset card; or a single 4-D file that holds all of them.
        label: the reference segmentation, or None for a case to be segmented.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class Geometry:
    """How an array lies in space, as its NIfTI file said it.

    Attributes:
        affine: (4, 4) voxel-to-world matrix in millimetres for NIfTI's (x, y, z) voxel indices.
        shape: (D, H, W), i.e. the reverse of the file's (x, y, z).
        spacing_mm: (D, H, W), from the affine's column norms.
        label_dtype: numpy name of the type in which a label map of this case is written.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    label_dtype: str = "uint8"


@dataclass(frozen=True)
class Volume:
    """One case in memory.

    Attributes:
        image: (C, D, H, W) float32 in the card's channel order.
        label: (D, H, W) uint8, or None.
        geometry: how both lie in space.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None
    geometry: Geometry
