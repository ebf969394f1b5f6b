"""How cases are prepared: what is decided once, on the training cases, and then holds for every case."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.dataset import Dataset
from data.errors import DataError
from data.intensity import Intensity, measure_intensities
from data.locate import cache_root
from data.nifti import read_geometry
from data.parallel import each_case
from data.resample import Spacing
from data.volume import CaseFiles

Normalisation = Literal["brain", "box"]
Storage = Literal["float32", "float16"]

# Raise when the stored form changes, so that older caches are made anew.
PREPARATION_VERSION = 2


@dataclass(frozen=True)
class Preparation:
    """How every case of a training, and every new one for its network, is prepared.

    Attributes:
        normalise: z-score of each channel over its non-zero voxels (``brain``) or over the whole box (``box``).
        storage: type in which images are stored.
        spacing_mm: voxel spacing (D, H, W) to which cases are resampled; None leaves each case its own.
        intensities: for each channel of CT how it is scaled instead, None for the others; empty where there is no CT.
    """

    normalise: Normalisation
    storage: Storage = "float32"
    spacing_mm: Spacing | None = None
    intensities: tuple[Intensity | None, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON form, which a record keeps."""
        return {
            "normalise": self.normalise,
            "storage": self.storage,
            "spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
            "intensities": [None if intensity is None else asdict(intensity) for intensity in self.intensities],
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Preparation:
        """The preparation that `to_dict` wrote.

        Raises:
            DataError: the facts are not those of a preparation.
        """
        try:
            spacing = facts["spacing_mm"]
            if facts["normalise"] not in ("brain", "box") or facts["storage"] not in ("float32", "float16"):
                raise ValueError("unknown normalisation or storage")
            return cls(
                normalise=facts["normalise"],
                storage=facts["storage"],
                spacing_mm=None if spacing is None else (float(spacing[0]), float(spacing[1]), float(spacing[2])),
                intensities=tuple(None if found is None else Intensity(**found) for found in facts["intensities"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"found the preparation {facts!r}, which cannot be read ({error!r}); expected what Preparation.to_dict "
                "wrote. Restore the file that holds it."
            ) from error


def plan_preparation(
    dataset: Dataset,
    training: Sequence[CaseFiles],
    *,
    normalise: Normalisation,
    storage: Storage,
    spacing_mm: Literal["native", "median"] | Spacing,
    on_case: Callable[[str], None] | None = None,
    workers: int = 1,
) -> Preparation:
    """Decide how cases are prepared, from the training cases alone, so that nothing of the others leaks into it.

    Headers tell the spacings. Voxels are read only where the dataset has channels of CT, see
    `data.intensity.measure_intensities`; that can be stopped, and goes on in the next call.

    Args:
        training: the cases that train.
        spacing_mm: ``native`` resamples nothing, ``median`` is that of the training cases on each axis, as in nnU-Net,
            three numbers (D, H, W) are taken as they are.
        on_case: called with each training case's id once what is needed of it is known.
        workers: cases read at a time.

    Raises:
        DataError: a case cannot be read, or the intensities of CT cannot be measured.
    """
    measured = bool(dataset.card.ct_channels)
    target: Spacing | None = None
    if spacing_mm == "median":
        spacings = each_case(
            lambda case: read_geometry(case.images[0]).spacing_mm, training, None if measured else on_case, workers
        )
        d, h, w = np.median(spacings, axis=0).tolist()
        target = (d, h, w)
    else:
        if spacing_mm != "native":
            d, h, w = spacing_mm
            target = (float(d), float(h), float(w))
        if not measured:
            each_case(lambda _: None, training, on_case)
    intensities = measure_intensities(dataset, training, on_case, workers) if measured else ()
    return Preparation(normalise, storage, target, intensities)


def cache_folder(dataset: str, fingerprint: str, preparation: Preparation) -> Path:
    """Folder for a dataset's prepared cases: equal preparations of equal files share it, others never meet.

    Args:
        dataset: the dataset's name.
        fingerprint: hash of its files, see `data.fingerprint`.
        preparation: how its cases are prepared.
    """
    return cache_root() / "prepared" / f"{dataset}-{fingerprint[:16]}-{preparation_hash(preparation)[:12]}"


def preparation_hash(preparation: Preparation) -> str:
    """Hash of a preparation and of the form in which cases are stored."""
    text = json.dumps([PREPARATION_VERSION, preparation.to_dict()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
