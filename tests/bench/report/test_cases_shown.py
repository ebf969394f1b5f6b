"""Which cases are shown, and what is said where they cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.report.cases_shown import Choice, ShownCase, Unavailable, choose, load
from bench.store import Record
from data.brats import PHANTOM
from data.fingerprint import file_checksum
from data.nifti import read_image, read_label, write_label
from data.phantom import write_dataset


def _cases(**dice: tuple[float, float]) -> pd.DataFrame:
    rows = [(case, region, d) for case, both in dice.items() for region, d in zip(("WT", "ET"), both, strict=True)]
    return pd.DataFrame(rows, columns=["case", "region", "dice"])


def _chosen(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return [(choice.place, choice.case) for choice in choose(frame)]


def test_the_average_over_regions_decides() -> None:
    frame = _cases(a=(1.0, 0.0), b=(0.7, 0.7), c=(0.6, 0.6))
    assert choose(frame) == (Choice("best", "b", 0.7), Choice("median", "c", 0.6), Choice("worst", "a", 0.5))


def test_of_equal_cases_the_first_by_id_is_the_better() -> None:
    # The two sums of floating-point numbers differ in their last bit.
    frame = _cases(d=(0.3, 0.5), c=(0.5, 0.3), b=(0.7, 0.1), a=(0.1, 0.7))
    assert _chosen(frame) == [("best", "a"), ("median", "b"), ("worst", "d")]
    assert _chosen(frame.iloc[::-1]) == _chosen(frame)


def test_few_cases_come_twice() -> None:
    assert _chosen(_cases(a=(0.5, 0.5))) == [("best", "a"), ("median", "a"), ("worst", "a")]
    assert _chosen(_cases(a=(0.5, 0.5), b=(0.9, 0.9))) == [("best", "b"), ("median", "b"), ("worst", "a")]


def test_no_case_is_refused() -> None:
    with pytest.raises(BenchError, match="found 0 rows with the columns case, region, dice"):
        choose(_cases())
    with pytest.raises(BenchError, match="expected the cases of a complete record"):
        choose(_cases(a=(1, 1)).drop(columns="region"))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_dataset(root, cases=1, size=32, seed=0)
    return root


@pytest.fixture
def record(tmp_path: Path, phantom: Path) -> tuple[Record, str]:
    """A record with one case's prediction, on a copy of the dataset, and the case's id."""
    root = tmp_path / "data"
    shutil.copytree(phantom, root)
    (folder,) = (path for path in root.iterdir() if path.is_dir())
    reference_file = folder / f"{folder.name}-seg.nii.gz"
    reference, geometry = read_label(reference_file)
    predictions = tmp_path / "record" / "predictions"
    predictions.mkdir(parents=True)
    write_label(predictions / f"{folder.name}.nii.gz", np.roll(reference, 1, axis=0), geometry)
    content = {
        "job": {"dataset": "phantom"},
        "data": {"root": str(root), "card": PHANTOM.to_dict()},
        "references": {folder.name: file_checksum(reference_file)},
    }
    return Record(tmp_path / "record", content), folder.name


def test_a_case_is_loaded_as_its_files_hold_it(record: tuple[Record, str]) -> None:
    kept, case = record
    folder = Path(kept.content["data"]["root"]) / case
    shown = load(kept, case, "t1c")
    assert isinstance(shown, ShownCase)
    image, geometry = read_image(folder / f"{case}-t1c.nii.gz")
    np.testing.assert_array_equal(shown.image, image)
    np.testing.assert_array_equal(shown.prediction, np.roll(shown.reference, 1, axis=0))
    np.testing.assert_array_equal(shown.affine, geometry.affine)
    assert shown.spacing_mm == geometry.spacing_mm
    assert shown.regions == PHANTOM.regions
    assert load(kept, case).channel == "t2w"  # type: ignore[union-attr]


def _reason(record: Record, case: str, channel: str | None = None) -> str:
    found = load(record, case, channel)
    assert isinstance(found, Unavailable)
    return found.reason


def test_what_is_gone_or_changed_is_said(record: tuple[Record, str]) -> None:
    kept, case = record
    root = Path(kept.content["data"]["root"])
    assert "has no channel ct, but t2w" in _reason(kept, case, "ct")
    assert _reason(Record(kept.folder, {"job": {}}), case) == "the record does not say where its images lie"
    assert _reason(kept, "another") == "its prediction was not kept"

    prediction_file = kept.folder / "predictions" / f"{case}.nii.gz"
    shutil.copy(prediction_file, prediction_file.with_name("another.nii.gz"))
    assert "no longer holds it" in _reason(kept, "another")

    label, geometry = read_label(root / case / f"{case}-seg.nii.gz")
    write_label(root / case / f"{case}-seg.nii.gz", np.roll(label, 2, axis=1), geometry)
    assert "has changed since it was scored" in _reason(kept, case)

    shutil.rmtree(root)
    assert "files of phantom cannot be read" in _reason(kept, case)


def test_a_prediction_on_another_grid_is_not_drawn(record: tuple[Record, str]) -> None:
    kept, case = record
    file = kept.folder / "predictions" / f"{case}.nii.gz"
    label, geometry = read_label(file)
    geometry.affine[0, 3] += 5
    write_label(file, label, geometry)
    assert _reason(kept, case) == "its prediction lies on another grid than its image"
