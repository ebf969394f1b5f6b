"""Preparation: every case cropped, resampled, normalised and laid down as memory-mapped arrays, once.

Compressed NIfTI cannot be read in parts; a training step needs a few patches of a few cases. So each case is
read once, cut to the box that holds its non-zero voxels, brought to the spacing of the training, normalised, and
stored uncompressed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.dataset import Dataset
from data.errors import DataError
from data.fingerprint import file_checksum
from data.intensity import Intensity
from data.parallel import each_case
from data.preparation import (
    PREPARATION_VERSION,
    Normalisation,
    Preparation,
    Storage,
    cache_folder,
    plan_preparation,
    preparation_hash,
)
from data.prepared import Box, Image, PreparedCase, StoredCase, load_case, write_case
from data.resample import coarse_axis, resample_image, resample_label, resampled_shape
from data.volume import CaseFiles, Volume

__all__ = [
    "PREPARATION_VERSION",
    "Box",
    "Normalisation",
    "Preparation",
    "PreparedCase",
    "Storage",
    "StoredCase",
    "cache_folder",
    "missing",
    "plan_preparation",
    "prepare",
    "prepare_case",
    "prepare_volume",
]

_FOREGROUND_VOXELS_PER_LABEL = 10_000


def prepare_volume(case_id: str, volume: Volume, preparation: Preparation) -> PreparedCase:
    """Crop, resample and normalise one case in memory.

    The box is that of all voxels that are non-zero in any channel, as in nnU-Net (Isensee et al., 2021). A case whose
    spacing is that of the preparation to 0.001 mm is not resampled at all; see `data.resample` for the others.
    ``box`` normalises each channel by mean and standard deviation over the whole box, background included, as
    SegMamba's released preprocessing does; ``brain`` uses the non-zero voxels only and leaves 0 outside.

    Raises:
        DataError: every voxel of every channel is zero, the case would become too large, or a value too large for
            its storage.
    """
    inside = np.asarray(volume.image.any(axis=0))
    if not inside.any():
        raise DataError(f"case {case_id}: every voxel of every channel is zero; expected an image. Replace its files.")
    box = _bounding_box(inside)
    crop = tuple(slice(start, stop) for start, stop in box)
    label = None if volume.label is None else np.ascontiguousarray(volume.label[crop])
    cropped = Volume(volume.image[(slice(None), *crop)], label, volume.geometry)
    resampled, inside = _resample(case_id, cropped, inside[crop], preparation)
    image = _normalise_all(case_id, resampled.image, inside, preparation)
    return PreparedCase(
        id=case_id,
        image=image,
        label=resampled.label,
        foreground={} if resampled.label is None else _foreground(resampled.label),
        box=box,
        geometry=volume.geometry,
        spacing_mm=resampled.geometry.spacing_mm,
    )


def prepare_case(dataset: Dataset, case: CaseFiles, folder: Path, preparation: Preparation) -> StoredCase:
    """Return the prepared case from ``folder``, making it there first if it is missing or its files changed.

    Raises:
        DataError: a source file is damaged, the case cannot be prepared so, or the disk cannot take or give the
            arrays; nothing half-written stays.
    """
    source = _source_hash(case, preparation)
    target = folder / case.id
    stored = load_case(case.id, target, source)
    if stored is None:
        write_case(prepare_volume(case.id, dataset.read(case), preparation), target, source)
        stored = load_case(case.id, target, source)
    if stored is None:
        raise DataError(f"{target} was written but cannot be read back; check the disk, or set BENCH_CACHE_DIR.")
    return stored


def prepare(
    dataset: Dataset,
    cases: Sequence[CaseFiles],
    folder: Path,
    preparation: Preparation,
    on_case: Callable[[str], None] | None = None,
    workers: int = 1,
) -> dict[str, StoredCase]:
    """Prepare cases, reusing what an earlier call left in ``folder``; returns them by id, in the order of ``cases``.

    Args:
        on_case: called in the calling thread with each case's id once it is there. What it raises ends the work; what
            is there stays.
        workers: cases at a time, in threads; each holds a few copies of a case in memory.

    Raises:
        DataError: as `prepare_case`.
    """
    stored = each_case(lambda case: prepare_case(dataset, case, folder, preparation), cases, on_case, workers)
    return {case.id: case for case in stored}


def missing(cases: Sequence[CaseFiles], folder: Path, preparation: Preparation) -> list[CaseFiles]:
    """Those of the cases that `prepare` would have to make.

    Raises:
        DataError: a file cannot be read.
    """
    return [case for case in cases if load_case(case.id, folder / case.id, _source_hash(case, preparation)) is None]


def _bounding_box(mask: NDArray[np.bool_]) -> Box:
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        box.append((int(filled[0]), int(filled[-1]) + 1))
    return box[0], box[1], box[2]


def _resample(
    case_id: str, volume: Volume, inside: NDArray[np.bool_], preparation: Preparation
) -> tuple[Volume, NDArray[np.bool_]]:
    """The cropped case and its mask at the preparation's spacing, with the spacing that whole voxels allow."""
    spacing, target = volume.geometry.spacing_mm, preparation.spacing_mm
    box_shape = (inside.shape[0], inside.shape[1], inside.shape[2])
    if target is None:
        return volume, inside
    try:
        shape = resampled_shape(box_shape, spacing, target)
    except DataError as error:
        raise DataError(f"case {case_id}: {error}") from None
    if shape == box_shape:
        return volume, inside
    nearest_axis = coarse_axis(spacing, target)
    d, h, w = (size * old / new for size, old, new in zip(spacing, box_shape, shape, strict=True))
    # CT is clipped before as well: splines ring where tissue borders on air at -1000 HU.
    channels = [
        channel if intensity is None else np.clip(channel, intensity.low, intensity.high)
        for channel, intensity in zip(volume.image, _intensities(case_id, volume.image, preparation), strict=True)
    ]
    resampled = Volume(
        image=np.stack([resample_image(channel, shape, nearest_axis) for channel in channels]),
        label=None if volume.label is None else resample_label(volume.label, shape, nearest_axis),
        geometry=replace(volume.geometry, spacing_mm=(d, h, w)),
    )
    return resampled, resample_label(inside.astype(np.uint8), shape, nearest_axis).astype(bool)


def _normalise_all(
    case_id: str, image: NDArray[np.float32], inside: NDArray[np.bool_], preparation: Preparation
) -> Image:
    """Every channel in its way, in the type of the storage."""
    if preparation.normalise == "brain" and not inside.any():
        raise DataError(
            f"case {case_id}: nothing of its non-zero voxels is left at {preparation.spacing_mm} mm; expected some. "
            "Choose a finer spacing, or native (data.spacing_mm)."
        )
    dtype = np.dtype(preparation.storage)
    prepared = np.empty(image.shape, dtype)
    intensities = _intensities(case_id, image, preparation)
    for index, (channel, intensity) in enumerate(zip(image, intensities, strict=True)):
        if intensity is not None:
            values = intensity.normalise(channel)
        else:
            values = _normalise(channel, inside, preparation.normalise)
        largest = float(np.abs(values).max())
        if largest > float(np.finfo(dtype).max):
            raise DataError(
                f"case {case_id}: channel {index} (counted from 0) reaches {largest:g} once normalised; {dtype} holds "
                f"at most {np.finfo(dtype).max:g}. Store it as float32 (data.storage), and see whether the image is "
                "constant but for a few voxels."
            )
        prepared[index] = values
    return prepared


def _intensities(case_id: str, image: NDArray[np.float32], preparation: Preparation) -> Sequence[Intensity | None]:
    """One for each channel, None where it is no CT."""
    intensities = preparation.intensities or (None,) * len(image)
    if len(intensities) != len(image):
        raise DataError(
            f"case {case_id} has {len(image)} channels, but the preparation knows {len(intensities)}; expected the "
            "channels of the dataset that it was made for."
        )
    return intensities


def _normalise(channel: NDArray[np.float32], inside: NDArray[np.bool_], how: Normalisation) -> NDArray[np.float32]:
    values = channel[inside] if how == "brain" else channel
    mean = values.mean(dtype=np.float64)
    std = max(values.std(dtype=np.float64), 1e-8)
    normalised = ((channel - mean) / std).astype(np.float32)
    if how == "brain":
        normalised[~inside] = 0.0
    return normalised


def _foreground(label: NDArray[np.uint8]) -> dict[int, NDArray[np.int32]]:
    # A large lesion has hundreds of thousands of voxels; a fixed random share of them is enough to draw from.
    generator = np.random.default_rng(1234)
    voxels = {}
    for value in (int(value) for value in np.unique(label) if value > 0):
        found = np.argwhere(label == value).astype(np.int32)
        keep = max(_FOREGROUND_VOXELS_PER_LABEL, len(found) // 100)
        if len(found) > keep:
            found = found[np.sort(generator.choice(len(found), keep, replace=False))]
        voxels[value] = found
    return voxels


def _source_hash(case: CaseFiles, preparation: Preparation) -> str:
    files = [file_checksum(path) for path in (*case.images, *([case.label] if case.label else []))]
    text = json.dumps([preparation_hash(preparation), files])
    return hashlib.sha256(text.encode()).hexdigest()
