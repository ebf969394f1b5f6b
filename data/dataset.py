"""What every dataset can do, and the rules that a case must keep to be read.

The rules stand here once: `read_case` refuses a case that breaks one, and a check lists every one that is
broken. So what passes the check can be read, and the other way round.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.card import DatasetCard
from data.errors import DataError
from data.nifti import FileFault, first_voxel_xyz, read_channels, read_image, read_label
from data.volume import CaseFiles, Geometry, Volume

AFFINE_TOLERANCE_MM = 1e-3
LABEL_FIELD = "label"
IMAGE_FIELD = "image"

Severity = Literal["error", "warning"]
_Array = TypeVar("_Array", NDArray[np.float32], NDArray[np.uint8])


@dataclass(frozen=True)
class Finding:
    """One fault of a dataset.

    Attributes:
        case: the case's identifier, or the name of the folder or dataset where there is no case.
        field: what is at fault: a channel, ``image`` (all of them), ``label``, a file's name, ``folder`` or ``layout``.
        found: what is there.
        expected: what should be there.
        mend: what to do.
        severity: an error keeps the case from being read; a warning does not.
    """

    case: str
    field: str
    found: str
    expected: str
    mend: str
    severity: Severity = "error"

    def __str__(self) -> str:
        where = f"{self.case}, {self.field}"
        return f"{where}: found {self.found}; expected {self.expected}; to mend it, {self.mend}"


@dataclass(frozen=True)
class Survey:
    """A dataset's folder as it lies there.

    Attributes:
        cases: every case with all files that it should have, whether they exist or not.
        findings: faults of the layout other than missing files.
    """

    cases: list[CaseFiles]
    findings: list[Finding]


class Dataset(Protocol):
    """A dataset in a folder. `data.brats.BratsDataset` is one."""

    @property
    def card(self) -> DatasetCard: ...

    @property
    def root(self) -> Path: ...

    def cases(self, labelled: bool = True) -> list[CaseFiles]:
        """The cases, sorted by identifier, from names alone; unless ``labelled``, a label may be None.

        Raises:
            DataError: there are none, or a file is missing.
        """

    def inputs(self) -> list[CaseFiles]:
        """The cases to segment, sorted by folder and without labels: the root may be one case or hold several.

        Raises:
            DataError: there are none, or a channel is missing.
        """

    def read(self, case: CaseFiles) -> Volume:
        """One case's voxels, checked.

        Raises:
            DataError: as `read_case`.
        """

    def survey(self) -> Survey:
        """Everything in the folder, right or wrong; the ground for a check.

        Raises:
            DataError: there is no such folder.
        """


class DatasetSource(Protocol):
    """A card, and how to open a folder as that dataset: what a third party registers."""

    @property
    def card(self) -> DatasetCard: ...

    def open(self, root: Path) -> Dataset: ...


@dataclass
class Inspection:
    """What could be read of one case, and every fault on the way.

    Attributes:
        images: (D, H, W) float32 per readable channel, in the card's order.
        label: (D, H, W) uint8, or None where there is none or it cannot be read.
        geometry: of the first readable file, with the label's type on disk.
        reference: the field of that file.
        findings: the faults; the case is whole if none is an error.
    """

    case: str
    images: list[NDArray[np.float32]] = field(default_factory=list)
    label: NDArray[np.uint8] | None = None
    geometry: Geometry | None = None
    reference: str = ""
    findings: list[Finding] = field(default_factory=list)

    def add(self, field: str, found: str, expected: str, mend: str, severity: Severity = "error") -> None:
        self.findings.append(Finding(self.case, field, found, expected, mend, severity))


def read_case(case: CaseFiles, card: DatasetCard) -> Volume:
    """Read one case of NIfTI files, one file per channel or one 4-D file with all of them.

    Raises:
        DataError: a file is missing or damaged, the files disagree in shape or affine, an image holds NaN or
            infinity or one value throughout, or the label holds a value that the card does not name.
    """
    inspection = inspect_case(case, card)
    errors = [finding for finding in inspection.findings if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more: `bench data check` lists them)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}. The case lies in {case.images[0].parent}")
    assert inspection.geometry is not None
    return Volume(np.stack(inspection.images), inspection.label, inspection.geometry)


def inspect_case(case: CaseFiles, card: DatasetCard) -> Inspection:
    """Read each file of a case once and try every rule on it; stops at no fault."""
    inspection = Inspection(case.id)
    for channel, image in _channels(inspection, case, card):
        _judge_image(inspection, channel, image)
        inspection.images.append(image)
    if case.label is not None:
        inspection.label = _read(inspection, LABEL_FIELD, case.label, read_label)
        if inspection.label is not None:
            _judge_label(inspection, inspection.label, card)
    return inspection


def _channels(inspection: Inspection, case: CaseFiles, card: DatasetCard) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each channel that can be read, with its name."""
    if len(case.images) == 1 < len(card.channels):
        reader = partial(read_channels, count=len(card.channels))
        stacked = _read(inspection, IMAGE_FIELD, case.images[0], reader)
        if stacked is not None:
            yield from zip(card.channels, stacked, strict=True)
        return
    for channel, path in zip(card.channels, case.images, strict=True):
        if (image := _read(inspection, channel, path, read_image)) is not None:
            yield channel, image


def _read(
    inspection: Inspection, field: str, path: Path, reader: Callable[[Path], tuple[_Array, Geometry]]
) -> _Array | None:
    """Read a file and compare its grid with that of the first one read; None if it cannot be."""
    try:
        array, geometry = reader(path)
    except FileFault as fault:
        inspection.add(field, f"{fault.found} ({path.name})", fault.expected, fault.mend)
        return None
    if inspection.geometry is None:
        inspection.geometry, inspection.reference = geometry, field
    _compare(inspection, field, geometry, inspection.geometry)
    if field == LABEL_FIELD:
        inspection.geometry = replace(inspection.geometry, label_dtype=geometry.label_dtype)
    return array


def _compare(inspection: Inspection, field: str, geometry: Geometry, grid: Geometry) -> None:
    reference = inspection.reference
    mend = f"resample it onto the grid of {reference}, or obtain the case again"
    if geometry.shape != grid.shape:
        found, expected = (f"shape (x, y, z) = {shape[::-1]}" for shape in (geometry.shape, grid.shape))
        inspection.add(field, found, f"{expected}, as {reference}", mend)
    elif (distance := displacement_mm(geometry, grid)) > AFFINE_TOLERANCE_MM:
        inspection.add(
            field,
            f"an affine that puts voxels up to {distance:.4g} mm away from where {reference} has them",
            f"the affine of {reference}, to {AFFINE_TOLERANCE_MM:g} mm",
            mend,
        )


def displacement_mm(one: Geometry, other: Geometry) -> float:
    """Largest distance between the places that two geometries of one shape give to the same voxel."""
    # The difference of two affine maps is affine, so its norm is largest at a corner of the grid.
    corners = itertools.product(*((0, size - 1) for size in reversed(one.shape)))
    homogeneous = np.array([(*corner, 1) for corner in corners])
    return float(np.linalg.norm((one.affine - other.affine)[:3] @ homogeneous.T, axis=0).max())


def _judge_image(inspection: Inspection, field: str, image: NDArray[np.float32]) -> None:
    low, high = image.min(), image.max()  # NaN if any voxel is
    if not (np.isfinite(low) and np.isfinite(high)):
        nans, infinities = np.count_nonzero(np.isnan(image)), np.count_nonzero(np.isinf(image))
        inspection.add(
            field,
            f"NaN in {nans} and infinity in {infinities} voxels, "
            f"the first at voxel (x, y, z) = {first_voxel_xyz(~np.isfinite(image))}",
            "finite values",
            "obtain the file again, or replace these voxels if you know what they should be",
        )
    elif low == high:
        inspection.add(
            field,
            "0 in every voxel" if low == 0 else f"the value {low:g} in every voxel",
            "an image",
            "obtain the file again, or leave the case out",
        )


def _judge_label(inspection: Inspection, label: NDArray[np.uint8], card: DatasetCard) -> None:
    counts = {value: int(count) for value, count in enumerate(np.bincount(label.ravel())) if count}
    unknown = [value for value in counts if value not in card.labels]
    if unknown:
        inspection.add(
            LABEL_FIELD,
            "label values that the dataset does not have: "
            + ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown),
            ", ".join(f"{value} {name}" for value, name in card.labels.items()),
            _relabel(unknown, card),
        )
    elif set(counts) == {0}:
        inspection.add(
            LABEL_FIELD,
            "no foreground voxel",
            "at least one voxel of " + ", ".join(name for value, name in card.labels.items() if value),
            "see whether the case truly shows none; if so, leave it",
            "warning",
        )


def _relabel(unknown: list[int], card: DatasetCard) -> str:
    if 4 in unknown and "ET" in card.regions:
        return "relabel 4 to 3: before 2023, BraTS gave ET the label 4"
    return "relabel these voxels, or obtain the file again"
