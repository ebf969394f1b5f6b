"""Small NIfTI files and datasets, written with nibabel alone so that the reader under test is not its own witness."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

# Without a GPU the kernels are tested in Triton's interpreter, which must be asked for before they are defined.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell without job control, such as a script's, has what it runs in the background ignore Ctrl-C, which tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])

WriteNifti = Callable[..., Path]
MakeFolder = Callable[..., Path]
CT_SHAPE_XYZ = (36, 32, 12)


@pytest.fixture(scope="session")
def write_nifti() -> WriteNifti:
    """``write_nifti(path, array_xyz, affine=AFFINE)`` writes the array in its own type."""

    def write(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64] = AFFINE) -> Path:
        nibabel.Nifti1Image(array, affine, dtype=array.dtype).to_filename(path)
        return path

    return write


def _blob(shape_xyz: tuple[int, int, int], radius: float) -> NDArray[np.bool_]:
    """An ellipsoid around the centre, ``radius`` of it along each axis."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape_xyz), indexing="ij")
    return sum(axis**2 for axis in axes) < radius**2


def _ct(seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Hounsfield units and labels (x, y, z): air, an organ (1) with a tumour (2)."""
    random = np.random.default_rng(seed)
    organ, tumour = _blob(CT_SHAPE_XYZ, 0.8), _blob(CT_SHAPE_XYZ, 0.45)
    image = np.full(CT_SHAPE_XYZ, -1000.0)
    image[organ] = random.normal(60, 10, organ.sum())
    image[tumour] = random.normal(120, 10, tumour.sum())
    return image.astype(np.int16), organ.astype(np.uint8) + tumour.astype(np.uint8)


def _write_json(root: Path, facts: dict[str, Any], changes: dict[str, Any]) -> None:
    """A change to None takes the key out."""
    merged = {key: value for key, value in {**facts, **changes}.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(merged))


@pytest.fixture(scope="session")
def make_nnunet(write_nifti: WriteNifti) -> MakeFolder:
    """``make_nnunet(root, cases=4, **json)``: CT in the layout of nnU-Net v2, the slices 5 mm apart, 0.8 mm within."""

    def make(root: Path, cases: int = 4, **changes: Any) -> Path:
        (root / "imagesTr").mkdir(parents=True)
        (root / "labelsTr").mkdir()
        for number in range(cases):
            affine = np.diag([-0.8 - 0.05 * number, -0.8 - 0.05 * number, 5.0, 1.0])
            image, label = _ct(number)
            write_nifti(root / "imagesTr" / f"ct_{number:03d}_0000.nii.gz", image, affine)
            write_nifti(root / "labelsTr" / f"ct_{number:03d}.nii.gz", label, affine)
        facts = {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "organ": 1, "tumour": 2},
            "numTraining": cases,
            "file_ending": ".nii.gz",
            "licence": "CC-BY 4.0",
            "reference": "Somebody et al., 2024",
            "description": "Organs with tumours",
        }
        _write_json(root, facts, changes)
        return root

    return make


@pytest.fixture
def make_listed(write_nifti: WriteNifti) -> MakeFolder:
    """``make_listed(root, split, cases=3, **json)``: two channels of MR whose cases ``dataset.json`` lists.

    With ``split`` each channel has a file (nnU-Net v1), else they share one along a fourth axis (Decathlon).
    """

    def make(root: Path, split: bool, cases: int = 3, **changes: Any) -> Path:
        (root / "imagesTr").mkdir(parents=True)
        (root / "labelsTr").mkdir()
        names = [f"prostate_{number:02d}" for number in range(cases)]
        for number, name in enumerate(names):
            random = np.random.default_rng(number)
            image = random.integers(1, 500, (10, 12, 8, 2)).astype(np.int16)
            affine = np.diag([0.6, 0.6, 3.6, 1.0])
            if split:
                for channel in range(2):
                    write_nifti(root / "imagesTr" / f"{name}_{channel:04d}.nii.gz", image[..., channel], affine)
            else:
                write_nifti(root / "imagesTr" / f"{name}.nii.gz", image, affine)
            write_nifti(root / "labelsTr" / f"{name}.nii.gz", _blob((10, 12, 8), 0.7).astype(np.uint8), affine)
        facts = {
            "name": "PROSTATE",
            "description": "Prostate",
            "modality": {"0": "T2", "1": "ADC"},
            "labels": {"0": "background", "1": "gland"},
            "numTraining": cases,
            "training": [
                {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names
            ],
        }
        _write_json(root, facts, changes)
        return root

    return make
