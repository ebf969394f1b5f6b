"""Scoring anybody's predictions: NIfTI label maps against references, matched by case id."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.metrics import RegionMeasurement, measure_case
from bench.metrics.conventions import convention as convention_of
from bench.metrics.lesionwise import challenge as challenge_of
from bench.progress import Watcher
from bench.provenance import software
from bench.store import Record, Store
from data.card import DatasetCard
from data.dataset import AFFINE_TOLERANCE_MM, displacement_mm
from data.errors import DataError
from data.fingerprint import file_checksum
from data.nifti import read_label

# The layouts of challenges, of BraTS before and since 2023, and of nnU-Net's datasets.
_PATTERNS = ("*.nii*", "*/*-seg.nii*", "*/*_seg.nii*", "labelsTr/*.nii*", "labelsTs/*.nii*")
_NAMES = "<case>.nii.gz, <case>-seg.nii.gz, <case>/<case>-seg.nii.gz or nnU-Net's labelsTr/<case>.nii.gz"
_LISTED = 5


@dataclass(frozen=True)
class Matches:
    """Predictions and references of the same cases.

    Attributes:
        pairs: files of the prediction and of the reference by case id, in the order of the ids.
        missing: ids of the references that nothing was predicted for.
    """

    pairs: Mapping[str, tuple[Path, Path]]
    missing: tuple[str, ...]

    def describe(self) -> str:
        """One line for people: how many of the references are scored, and which are not."""
        known = len(self.pairs) + len(self.missing)
        if not self.missing:
            return f"all {known} references have a prediction"
        return f"{len(self.missing)} of {known} references have no prediction and do not count: {_listed(self.missing)}"


def match_files(predictions: Path, references: Path) -> Matches:
    """Pair label maps by case id.

    Either folder holds ``<case>.nii.gz`` (which is also how nnU-Net writes predictions), ``<case>-seg.nii.gz`` or
    ``<case>/<case>-seg.nii.gz``, with ``_seg`` for ``-seg`` as before BraTS 2023, or is an nnU-Net dataset with its
    ``labelsTr``. References may lack a prediction: predictions usually cover the test part only.

    Raises:
        BenchError: a folder holds no label map, or two of one case, or a prediction has no reference.
        DataError: there is no such folder.
    """
    found, known = label_maps(predictions), label_maps(references)
    for folder, maps in ((predictions, found), (references, known)):
        if not maps:
            raise BenchError(f"no label map in {folder}; expected {_NAMES}")
    surplus = sorted(found.keys() - known.keys())
    if surplus:
        raise BenchError(
            f"{len(surplus)} of {len(found)} predictions have no reference in {references}: {_listed(surplus)}; "
            f"references there are named like {min(known)}. Rename the predictions after their cases, or move away "
            "those of other cases."
        )
    return Matches(
        pairs={case: (found[case], known[case]) for case in sorted(found)},
        missing=tuple(sorted(known.keys() - found.keys())),
    )


def score_files(
    pairs: Mapping[str, tuple[Path, Path]],
    card: DatasetCard,
    convention: str,
    watcher: Watcher,
    challenge: str | None = None,
    workers: int = 1,
) -> dict[str, list[RegionMeasurement]]:
    """Score each prediction against its reference.

    Args:
        pairs: files of the prediction and of the reference by case id.
        card: whose labels and regions they follow.
        convention: what an empty mask scores.
        challenge: by whose settings lesions are scored one by one; None leaves that out.
        workers: processes; the result is the same for every number. With more than one, a script that calls this
            does so under ``if __name__ == "__main__"``, as the processes import it.

    Returns:
        The measurements by case id, in the order of ``pairs``.

    Raises:
        BenchError: the two files of a case lie on different grids, one holds a label the dataset does not have or
            cannot be read, all with the case named; there is no such convention or challenge; or a process died.
    """
    convention_of(convention)
    if challenge is not None:
        challenge_of(challenge)
    if workers < 1:
        raise BenchError(f"found {workers} workers; expected a whole number from 1")
    score = partial(_score_case, card=card, convention=convention, challenge=challenge)
    measured = {}
    with watcher.bar("scoring", len(pairs)) as bar, closing(_each(score, list(pairs.items()), workers)) as found:
        for case, regions in zip(pairs, found, strict=True):
            measured[case] = regions
            bar.advance(case)
    return measured


def record_external(
    name: str,
    predictions: Path,
    references: Path,
    matches: Matches,
    card: DatasetCard,
    convention: str,
    store: Store,
    watcher: Watcher,
    challenge: str | None = None,
    workers: int = 1,
) -> Record:
    """Score the predictions of a folder and enter them in the store under ``name``; returns their record.

    The record's key is the hash of the name, of the files' contents and of how they are scored.

    Args:
        predictions: the folder that ``matches`` was made of, as the record states it.
        references: likewise.

    Raises:
        BenchError: as `score_files`, or the name is empty or no text of one line; nothing is entered then.
    """
    if not name.isprintable() or not name.strip():
        raise BenchError(f"found the name {name!r} for these predictions; expected printable text, in one line")
    pairs = matches.pairs
    measured = score_files(pairs, card, convention, watcher, challenge, workers)
    facts: dict[str, Any] = {
        "dataset": card.name,
        "convention": convention,
        "lesionwise": challenge,
        "predictions": {case: file_checksum(prediction) for case, (prediction, _) in pairs.items()},
        "references": {case: file_checksum(reference) for case, (_, reference) in pairs.items()},
    }
    record = store.open_external(name, facts)
    record.write_cases(measured)
    regions = {region: list(labels) for region, labels in card.regions.items()}
    return record.finish(
        "complete",
        data={"regions": regions, "synthetic": card.synthetic, "card": card.to_dict()},
        folder=str(predictions),
        references_folder=str(references),
        references_without_prediction=list(matches.missing),
        provenance=software(),
    )


def _score_case(
    named: tuple[str, tuple[Path, Path]], card: DatasetCard, convention: str, challenge: str | None
) -> list[RegionMeasurement]:
    case, (prediction_path, reference_path) = named
    try:
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
            # Counting takes a tenth of the time that sorting does.
            held = np.flatnonzero(np.bincount(label.ravel())).tolist()
            strange = sorted(set(held) - set(card.labels))
            if strange:
                raise BenchError(
                    f"{path} holds the labels {strange}; {card.name} has {sorted(card.labels)}. "
                    "Relabel it (before BraTS 2023 the enhancing tumour was 4, now 3)."
                )
        return measure_case(prediction, reference, wanted.spacing_mm, card.regions, convention, challenge)
    except (BenchError, DataError) as error:
        raise BenchError(f"case {case}: {error}") from error


def _each(
    score: partial[list[RegionMeasurement]], named: Sequence[tuple[str, tuple[Path, Path]]], workers: int
) -> Generator[list[RegionMeasurement]]:
    """The cases' measurements in order. The first case in order that fails is the one whose error is raised."""
    if workers == 1 or len(named) == 1:
        yield from map(score, named)
        return
    # Started afresh: a fork of a process that has threads, as torch's, may hang.
    pool = ProcessPoolExecutor(
        min(workers, len(named)), multiprocessing.get_context("spawn"), initializer=_leave_interrupts
    )
    try:
        yield from pool.map(score, named)
    except BrokenProcessPool as error:
        raise BenchError(
            "a process that scored cases was ended from outside, most often for lack of memory; none of its results "
            "are kept. Repeat with fewer workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Ctrl-C reaches all processes of a terminal; the one that started these ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def label_maps(folder: Path) -> dict[str, Path]:
    """Files of the label maps of a folder by case id, named as `match_files` says; none where there are none.

    Raises:
        BenchError: there are two of one case.
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected a folder of label maps in NIfTI format")
    maps: dict[str, Path] = {}
    for path in (path for pattern in _PATTERNS for path in sorted(folder.glob(pattern))):
        if path.name.endswith((".nii", ".nii.gz")) and not path.name.startswith("."):
            stem = path.name.removesuffix(".gz").removesuffix(".nii")
            case = stem.removesuffix("-seg").removesuffix("_seg")
            if maps.get(case, path) != path:
                raise BenchError(
                    f"{folder} holds two label maps of {case}, {maps[case]} and {path}; remove one of them"
                )
            maps[case] = path
    return maps


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
