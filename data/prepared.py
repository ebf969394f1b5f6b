"""A prepared case, in memory or on disk, and the way from one to the other."""

from __future__ import annotations

import json
import shutil
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from data.arrays import map_array, read_arrays
from data.errors import DataError
from data.resample import Shape, Spacing
from data.volume import Geometry

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Image = NDArray[np.float32] | NDArray[np.float16]


class _InBox:
    """What is known in a box of a larger grid."""

    box: Box
    geometry: Geometry

    @property
    def box_shape(self) -> Shape:
        """Extents (d, h, w) of the box in the original grid. A resampled image has others."""
        d, h, w = (stop - start for start, stop in self.box)
        return d, h, w

    def uncrop(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Put a label map of the box, (d, h, w), back into the original grid, (D, H, W); outside is background.

        Raises:
            ValueError: the label map does not have the shape of the box.
        """
        if label.shape != self.box_shape:
            raise ValueError(f"a label map of shape {label.shape} does not fit a box of shape {self.box_shape}")
        full = np.zeros(self.geometry.shape, dtype=np.uint8)
        full[tuple(slice(start, stop) for start, stop in self.box)] = label
        return full


@dataclass(frozen=True)
class PreparedCase(_InBox):
    """One case in memory, ready for full-volume inference.

    Attributes:
        id: the case's identifier.
        image: (C, D, H, W) float32 or float16, cropped, resampled and normalised.
        label: (D, H, W) uint8 in the same grid, or None.
        foreground: label value to an (N, 3) int array of voxels (d, h, w) of that grid.
        box: start and stop of the crop on each axis of the original grid.
        geometry: of the original grid.
        spacing_mm: voxel spacing (D, H, W) of the prepared arrays.
    """

    id: str
    image: Image
    label: NDArray[np.uint8] | None
    foreground: dict[int, NDArray[np.int32]]
    box: Box
    geometry: Geometry
    spacing_mm: Spacing


@dataclass(frozen=True)
class StoredCase(_InBox):
    """The same case on disk. Its arrays are memory maps opened anew at each access and read-only.

    A thousand cases held open would exceed the number of files that a process may have, and this way a case that
    goes to a worker process is a path and not its voxels.

    Attributes:
        id, box, geometry, spacing_mm: as `PreparedCase`.
        folder: where the arrays lie.
    """

    id: str
    folder: Path
    box: Box
    geometry: Geometry
    spacing_mm: Spacing

    @property
    def image(self) -> Image:
        """(C, D, H, W) float32 or float16."""
        return map_array(self.folder / "image.npy")

    @property
    def label(self) -> NDArray[np.uint8] | None:
        """(D, H, W) uint8, or None."""
        path = self.folder / "label.npy"
        return map_array(path) if path.exists() else None

    @property
    def foreground(self) -> dict[int, NDArray[np.int32]]:
        """Label value to an (N, 3) int array of voxels (d, h, w)."""
        return {int(value): voxels for value, voxels in read_arrays(self.folder / "foreground.npz").items()}


def write_case(prepared: PreparedCase, target: Path, source: str) -> None:
    """Store a case in the folder ``target``, whole or not at all.

    Args:
        source: hash of what it was made from, by which `load_case` knows it again.

    Raises:
        DataError: the disk cannot take the arrays; nothing half-written stays.
    """
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
        (scratch / "case.json").write_text(json.dumps(_facts(prepared, source, scratch)))
        if load_case(prepared.id, target, source) is None:  # else another process prepared the same case meanwhile
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


def load_case(case_id: str, target: Path, source: str) -> StoredCase | None:
    """The stored case; None where there is none, it was made from something else, or it is damaged.

    Raises:
        DataError: the folder cannot be read.
    """
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
            spacing_mm=tuple(facts["prepared_spacing_mm"]),
        )
        # Opening each array once tells a truncated one now rather than in the middle of a training.
        image, label, foreground = stored.image, stored.label, stored.foreground
        whole = list(image.shape[1:]) == facts["prepared_shape"] and set(map(str, foreground)) <= set(facts["voxels"])
        whole &= (label is not None) == facts["labelled"] and (label is None or label.shape == image.shape[1:])
    except (FileNotFoundError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
    except OSError as error:
        raise DataError(f"cannot read the prepared case {target}: {error.strerror}. Check the folder.") from error
    return stored if whole else None


def _facts(prepared: PreparedCase, source: str, folder: Path) -> dict[str, Any]:
    """What a person, or a summary, may ask of a case without its voxels."""
    counts = {} if prepared.label is None else dict(enumerate(np.bincount(prepared.label.ravel()).tolist()))
    return {
        "source": source,
        "box": prepared.box,
        "affine": prepared.geometry.affine.tolist(),
        "shape": prepared.geometry.shape,
        "spacing_mm": prepared.geometry.spacing_mm,
        "label_dtype": prepared.geometry.label_dtype,
        "labelled": prepared.label is not None,
        "prepared_shape": prepared.image.shape[1:],
        "prepared_spacing_mm": prepared.spacing_mm,
        "voxels": {str(value): count for value, count in counts.items() if count},
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
    }
