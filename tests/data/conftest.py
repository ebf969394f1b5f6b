"""A small case in the BraTS layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

CASE = "BraTS-GLI-00001-000"
SHAPE_XYZ = (8, 9, 10)

WriteNifti = Callable[..., Path]
MakeCase = Callable[..., Path]


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
