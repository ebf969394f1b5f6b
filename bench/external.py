"""Scoring anybody's predictions: NIfTI label maps against references, matched by case id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.metrics import RegionMeasurement, measure_case
from bench.progress import Watcher
from bench.provenance import software
from bench.store import Record, Store
from data.card import DatasetCard
from data.dataset import AFFINE_TOLERANCE_MM, displacement_mm
from data.errors import DataError
from data.fingerprint import file_checksum
from data.nifti import read_label


def match_files(predictions: Path, references: Path) -> dict[str, tuple[Path, Path]]:
    """Pair label maps by case id.

    Either folder holds ``<case>.nii.gz``, ``<case>-seg.nii.gz`` or ``<case>/<case>-seg.nii.gz``. References without
    a prediction are left out: predictions usually cover the test part only.

    Raises:
        BenchError: a folder holds no label map, or a prediction has no reference.
    """
    found, known = _label_maps(predictions), _label_maps(references)
    for folder, maps in ((predictions, found), (references, known)):
        if not maps:
            raise BenchError(
                f"no label map in {folder}; expected <case>.nii.gz, <case>-seg.nii.gz or <case>/<case>-seg.nii.gz"
            )
    orphans = sorted(found.keys() - known.keys())
    if orphans:
        raise BenchError(
            f"{len(orphans)} of {len(found)} predictions have no reference in {references}, the first: {orphans[0]}; "
            f"references there are named like {min(known)}. Rename the predictions after their cases."
        )
    return {case: (found[case], known[case]) for case in sorted(found)}


def score_files(
    pairs: dict[str, tuple[Path, Path]], card: DatasetCard, convention: str, watcher: Watcher
) -> dict[str, list[RegionMeasurement]]:
    """Score each prediction against its reference.

    Raises:
        BenchError: the two lie on different grids, or the prediction holds a label the dataset does not have.
        DataError: a file cannot be read.
    """
    measured = {}
    with watcher.bar("scoring", len(pairs)) as bar:
        for case, (prediction_path, reference_path) in pairs.items():
            prediction, grid = read_label(prediction_path)
            reference, wanted = read_label(reference_path)
            if grid.shape != wanted.shape:
                raise BenchError(
                    f"{prediction_path} has shape {grid.shape[::-1]} (x, y, z); its reference {reference_path} has "
                    f"{wanted.shape[::-1]}. Write predictions in the grid of the original images."
                )
            distance_mm = displacement_mm(grid, wanted)
            if distance_mm > AFFINE_TOLERANCE_MM:
                raise BenchError(
                    f"{prediction_path} lies elsewhere in space than its reference {reference_path}: voxels are up to "
                    f"{distance_mm:.4g} mm apart. Copy the affine of the original images to the predictions."
                )
            for path, label in ((prediction_path, prediction), (reference_path, reference)):
                strange = sorted(set(np.unique(label).tolist()) - set(card.labels))
                if strange:
                    raise BenchError(
                        f"{path} holds the labels {strange}; {card.name} has {sorted(card.labels)}. "
                        "Relabel it (before BraTS 2023 the enhancing tumour was 4, now 3)."
                    )
            measured[case] = measure_case(
                prediction, reference, wanted.spacing_mm, regions=card.regions, convention=convention
            )
            bar.advance(case)
    return measured


def record_external(
    name: str,
    folder: Path,
    pairs: dict[str, tuple[Path, Path]],
    card: DatasetCard,
    convention: str,
    store: Store,
    watcher: Watcher,
) -> Record:
    """Score the predictions of a folder and enter them in the store under ``name``; returns their record.

    Raises:
        BenchError, DataError: as `score_files`; nothing is entered then.
    """
    measured = score_files(pairs, card, convention, watcher)
    facts: dict[str, Any] = {
        "dataset": card.name,
        "convention": convention,
        "predictions": {case: file_checksum(prediction) for case, (prediction, _) in pairs.items()},
        "references": {case: file_checksum(reference) for case, (_, reference) in pairs.items()},
    }
    record = store.open_external(name, facts)
    record.write_cases(measured)
    regions = {region: list(labels) for region, labels in card.regions.items()}
    return record.finish(
        "complete",
        data={"regions": regions, "synthetic": card.synthetic},
        folder=str(folder),
        provenance=software(),
    )


def _label_maps(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected a folder of label maps in NIfTI format")
    maps: dict[str, Path] = {}
    for path in [*sorted(folder.glob("*.nii*")), *sorted(folder.glob("*/*-seg.nii*"))]:
        if path.name.endswith((".nii", ".nii.gz")) and not path.name.startswith("."):
            case = path.name.removesuffix(".gz").removesuffix(".nii").removesuffix("-seg")
            if case in maps:
                raise BenchError(
                    f"{folder} holds two label maps of {case}, {maps[case]} and {path}; remove one of them"
                )
            maps[case] = path
    return maps
