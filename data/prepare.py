"""Preparation: every case cropped, normalised and laid down as memory-mapped arrays, once.

Compressed NIfTI cannot be read in parts; a training step needs a few patches of a few cases. So each case is
read once, cut to the box that holds its non-zero voxels, normalised, and stored uncompressed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from data.dataset import Dataset
from data.errors import DataError
from data.fingerprint import file_checksum
from data.volume import CaseFiles, Geometry, Volume

Normalisation = Literal["brain", "box"]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

# Raise when the stored form changes, so that older caches are made anew.
PREPARATION_VERSION = 1
_FOREGROUND_VOXELS_PER_LABEL = 10_000


class _InBox:
    """What is known in a box of a larger grid."""

    box: Box
    geometry: Geometry

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel spacing (D, H, W) of the prepared arrays."""
        return self.geometry.spacing_mm

    def uncrop(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Put a label map of the box, (d, h, w), back into the original grid, (D, H, W); outside is background."""
        full = np.zeros(self.geometry.shape, dtype=np.uint8)
        full[tuple(slice(start, stop) for start, stop in self.box)] = label
        return full


@dataclass(frozen=True)
class PreparedCase(_InBox):
    """One case in memory, ready for full-volume inference.

    Attributes:
        id: the case's identifier.
        image: (C, D, H, W) float32, cropped and normalised.
        label: (D, H, W) uint8 in the same box, or None.
        foreground: label value to an (N, 3) int array of voxels (d, h, w) inside the box.
        box: start and stop of the crop on each axis of the original grid.
        geometry: of the original grid.
    """

    id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None
    foreground: dict[int, NDArray[np.int32]]
    box: Box
    geometry: Geometry


@dataclass(frozen=True)
class StoredCase(_InBox):
    """The same case on disk. Its arrays are memory maps opened anew at each access and read-only.

    A thousand cases held open would exceed the number of files that a process may have, and this way a case that
    goes to a worker process is a path and not its voxels.

    Attributes:
        id, box, geometry: as `PreparedCase`.
        folder: where the arrays lie.
    """

    id: str
    folder: Path
    box: Box
    geometry: Geometry

    @property
    def image(self) -> NDArray[np.float32]:
        """(C, D, H, W) float32."""
        return cast(NDArray[np.float32], np.load(self.folder / "image.npy", mmap_mode="r"))

    @property
    def label(self) -> NDArray[np.uint8] | None:
        """(D, H, W) uint8, or None."""
        path = self.folder / "label.npy"
        return cast(NDArray[np.uint8], np.load(path, mmap_mode="r")) if path.exists() else None

    @property
    def foreground(self) -> dict[int, NDArray[np.int32]]:
        """Label value to an (N, 3) int array of voxels (d, h, w)."""
        with np.load(self.folder / "foreground.npz") as stored:
            return {int(value): stored[value] for value in stored.files}


def prepare_volume(case_id: str, volume: Volume, normalisation: Normalisation) -> PreparedCase:
    """Crop and normalise one case in memory.

    The box is that of all voxels that are non-zero in any channel, as in nnU-Net (Isensee et al., 2021).
    ``box`` normalises each channel by mean and standard deviation over the whole box, background included, as
    SegMamba's released preprocessing does; ``brain`` uses the non-zero voxels only and leaves 0 outside.

    Raises:
        DataError: every voxel of every channel is zero.
    """
    inside = np.asarray(volume.image.any(axis=0))
    if not inside.any():
        raise DataError(f"case {case_id}: every voxel of every channel is zero; expected an image. Replace its files.")
    box = _bounding_box(inside)
    crop = tuple(slice(start, stop) for start, stop in box)
    image = np.stack(
        [_normalise(channel, inside[crop], normalisation) for channel in volume.image[(slice(None), *crop)]]
    )
    label = None if volume.label is None else np.ascontiguousarray(volume.label[crop])
    return PreparedCase(
        id=case_id,
        image=image,
        label=label,
        foreground={} if label is None else _foreground(label),
        box=box,
        geometry=volume.geometry,
    )


def prepare_case(dataset: Dataset, case: CaseFiles, folder: Path, normalisation: Normalisation) -> StoredCase:
    """Return the prepared case from ``folder``, making it there first if it is missing or its files changed.

    Raises:
        DataError: a source file is damaged, or the disk cannot take or give the arrays; nothing half-written stays.
    """
    source = _source_hash(case, normalisation)
    target = folder / case.id
    stored = _load(case.id, target, source)
    if stored is None:
        _write(prepare_volume(case.id, dataset.read(case), normalisation), target, source)
        stored = _load(case.id, target, source)
    if stored is None:
        raise DataError(f"{target} was written but cannot be read back; check the disk, or set BENCH_CACHE_DIR.")
    return stored


def prepare(
    dataset: Dataset,
    cases: Sequence[CaseFiles],
    folder: Path,
    normalisation: Normalisation,
    on_case: Callable[[str], None] | None = None,
) -> dict[str, StoredCase]:
    """Prepare cases, reusing what an earlier call left in ``folder``; returns them by id.

    Args:
        on_case: called with each case's id once it is there.

    Raises:
        DataError: as `prepare_case`.
    """
    prepared = {}
    for case in cases:
        prepared[case.id] = prepare_case(dataset, case, folder, normalisation)
        if on_case is not None:
            on_case(case.id)
    return prepared


def _bounding_box(mask: NDArray[np.bool_]) -> Box:
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        box.append((int(filled[0]), int(filled[-1]) + 1))
    return box[0], box[1], box[2]


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


def _source_hash(case: CaseFiles, normalisation: Normalisation) -> str:
    files = [file_checksum(path) for path in (*case.images, *([case.label] if case.label else []))]
    text = json.dumps([PREPARATION_VERSION, normalisation, files])
    return hashlib.sha256(text.encode()).hexdigest()


def _write(prepared: PreparedCase, target: Path, source: str) -> None:
    facts = {
        "source": source,
        "box": prepared.box,
        "affine": prepared.geometry.affine.tolist(),
        "shape": prepared.geometry.shape,
        "spacing_mm": prepared.geometry.spacing_mm,
        "label_dtype": prepared.geometry.label_dtype,
    }
    scratch = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.parent / f".{target.name}-{uuid.uuid4().hex}"
        scratch.mkdir()
        np.save(scratch / "image.npy", prepared.image)
        if prepared.label is not None:
            np.save(scratch / "label.npy", prepared.label)
        voxels: dict[str, Any] = {str(value): found for value, found in prepared.foreground.items()}
        np.savez(scratch / "foreground.npz", **voxels)
        (scratch / "case.json").write_text(json.dumps(facts))
        if _load(prepared.id, target, source) is None:  # else another process prepared the same case meanwhile
            shutil.rmtree(target, ignore_errors=True)
            scratch.replace(target)
    except OSError as error:
        size = prepared.image.nbytes / 2**20
        raise DataError(
            f"cannot write the prepared case {prepared.id} ({size:.0f} MiB) to {target.parent}: {error.strerror}. "
            "Free some space there, or set BENCH_CACHE_DIR to a folder on another disk."
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _load(case_id: str, target: Path, source: str) -> StoredCase | None:
    """The stored case; None where there is none, it was made from other files, or it is damaged."""
    try:
        facts = json.loads((target / "case.json").read_text())
        if facts["source"] != source:
            return None
        stored = StoredCase(
            id=case_id,
            folder=target,
            box=cast(Box, tuple((start, stop) for start, stop in facts["box"])),
            geometry=Geometry(
                affine=np.array(facts["affine"]),
                shape=tuple(facts["shape"]),
                spacing_mm=tuple(facts["spacing_mm"]),
                label_dtype=facts["label_dtype"],
            ),
        )
        # Opening each array once tells a truncated one now rather than in the middle of a training.
        whole = stored.image.ndim == 4 and stored.label is not None and stored.foreground is not None
    except (FileNotFoundError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
    except OSError as error:
        raise DataError(f"cannot read the prepared case {target}: {error.strerror}. Check the folder.") from error
    return stored if whole else None
