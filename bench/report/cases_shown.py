"""Which cases a report shows of a model, and their voxels, from the record and the dataset's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import data
from bench.errors import BenchError
from bench.store import Record
from data.dataset import AFFINE_TOLERANCE_MM, displacement_mm
from data.fingerprint import file_checksum
from data.nifti import read_label

Place = Literal["best", "median", "worst"]
PLACES: tuple[Place, ...] = get_args(Place)


@dataclass(frozen=True)
class Choice:
    """A case that stands for others.

    Attributes:
        place: ``best``, ``median`` or ``worst``.
        case: its id.
        dice: its Dice, averaged over the regions; 0..1.
    """

    place: Place
    case: str
    dice: float


@dataclass(frozen=True)
class ShownCase:
    """The voxels of one case.

    Attributes:
        image: (D, H, W) of one channel.
        channel: its name.
        reference: (D, H, W) label map.
        prediction: (D, H, W) label map.
        regions: region name to the label values whose union it is.
        spacing_mm: (D, H, W).
        affine: (4, 4) of the file's (x, y, z) voxel indices, in millimetres.
    """

    image: NDArray[np.float32]
    channel: str
    reference: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    regions: Mapping[str, tuple[int, ...]]
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Unavailable:
    """Why the voxels of a case cannot be shown."""

    reason: str


def choose(cases: pd.DataFrame) -> tuple[Choice, ...]:
    """The best, the median and the worst case by the average Dice over regions, in this order.

    Cases are ranked by Dice, best first, and by their id where that is equal; the median of an even number is the
    better one of the two in the middle. Of fewer than three cases one may come twice.

    Args:
        cases: of one record, see `bench.store.Record.cases`: at least case, region and dice.

    Raises:
        BenchError: there is no case, or a column is missing.
    """
    missing = [column for column in ("case", "region", "dice") if column not in cases.columns]
    if missing or cases.empty:
        raise BenchError(
            f"found {len(cases)} rows with the columns {', '.join(map(str, cases.columns)) or 'none'}; expected the "
            "cases of a complete record: case, region, dice. Give Record.cases()."
        )
    # The order in which values are added up must not decide between equal cases.
    dice = cases.sort_values("region").groupby("case")["dice"].mean().round(12)
    ranked = sorted(dice.index, key=lambda case: (-dice[case], case))
    at = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    return tuple(Choice(place, str(ranked[at[place]]), float(dice[ranked[at[place]]])) for place in PLACES)


def load(record: Record, case: str, channel: str | None = None) -> ShownCase | Unavailable:
    """Image, reference and prediction of a test case; or why they cannot be had: files may have gone or changed.

    Args:
        channel: name of the image's channel to show; by default the dataset's first.
    """
    facts, job = record.content.get("data", {}), record.content.get("job", {})
    if "root" not in facts or "card" not in facts:
        return Unavailable("the record does not say where its images lie")
    prediction_file = record.folder / "predictions" / f"{case}.nii.gz"
    if not prediction_file.is_file():
        return Unavailable("its prediction was not kept")
    try:
        return _load(Path(facts["root"]), data.DatasetCard.from_dict(facts["card"]), record, case, channel)
    except data.DataError as error:
        return Unavailable(f"files of {job.get('dataset')} cannot be read: {error}")


def _load(
    root: Path, card: data.DatasetCard, record: Record, case: str, channel: str | None
) -> ShownCase | Unavailable:
    if channel is not None and channel not in card.channels:
        return Unavailable(f"{card.name} has no channel {channel}, but {', '.join(card.channels)}")
    # By its card, not by its name: the name of a folder is no registered one, and a phantom must not be made anew.
    dataset = data.open_folder(card, root)
    files = next((files for files in dataset.cases() if files.id == case), None)
    if files is None or files.label is None:
        return Unavailable(f"{root} no longer holds it with a reference")
    stated = record.content.get("references", {}).get(case)
    if stated is not None and file_checksum(files.label) != stated:
        return Unavailable(f"its reference {files.label} has changed since it was scored")
    prediction, grid = read_label(record.folder / "predictions" / f"{case}.nii.gz")
    volume = dataset.read(files)
    assert volume.label is not None
    if grid.shape != volume.geometry.shape or displacement_mm(grid, volume.geometry) > AFFINE_TOLERANCE_MM:
        return Unavailable("its prediction lies on another grid than its image")
    shown = card.channels.index(channel) if channel else 0
    return ShownCase(
        image=volume.image[shown].copy(),  # a view would keep the other channels in memory
        channel=card.channels[shown],
        reference=volume.label,
        prediction=prediction,
        regions=card.regions,
        spacing_mm=volume.geometry.spacing_mm,
        affine=volume.geometry.affine,
    )
