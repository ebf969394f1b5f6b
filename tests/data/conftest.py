"""Small NIfTI cases, written with nibabel alone so that the reader under test is not its own witness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

CASE = "BraTS-GLI-00001-000"
SHAPE_XYZ = (8, 9, 10)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])

WriteNifti = Callable[..., Path]
MakeCase = Callable[..., Path]


@pytest.fixture
def write_nifti() -> WriteNifti:
    """``write_nifti(path, array_xyz, affine=AFFINE)`` writes the array in its own type."""

    def write(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64] = AFFINE) -> Path:
        nibabel.Nifti1Image(array, affine, dtype=array.dtype).to_filename(path)
        return path

    return write


@pytest.fixture
def make_case(write_nifti: WriteNifti) -> MakeCase:
    """``make_case(root, case=CASE, labelled=True)`` writes a whole case in the BraTS layout; returns its folder."""

    def make(root: Path, case: str = CASE, labelled: bool = True) -> Path:
        folder = root / case
        folder.mkdir(parents=True)
        generator = np.random.default_rng(len(case))
        for channel in ("t1n", "t1c", "t2w", "t2f"):
            image = generator.integers(0, 1000, SHAPE_XYZ, dtype=np.int16)
            write_nifti(folder / f"{case}-{channel}.nii.gz", image)
        if labelled:
            label = np.zeros(SHAPE_XYZ, dtype=np.uint8)
            label[2:6, 2:6, 2:6] = 2
            label[3:5, 3:5, 3:5] = 1
            label[4, 4, 4] = 3
            write_nifti(folder / f"{case}-seg.nii.gz", label)
        return folder

    return make
