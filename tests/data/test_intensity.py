"""The plan of a preparation: the target spacing from headers, the scale of CT from the training cases' foreground."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import data
from data.dataset import Dataset
from data.errors import DataError
from data.intensity import Intensity
from data.prepare import Preparation, plan_preparation
from data.volume import CaseFiles, Volume


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@dataclass
class Counting:
    """A dataset that remembers what was read of it."""

    inner: Dataset
    reads: list[str] = field(default_factory=list)

    @property
    def card(self) -> data.DatasetCard:
        return self.inner.card

    @property
    def root(self) -> Path:
        return self.inner.root

    def read(self, case: CaseFiles) -> Volume:
        self.reads.append(case.id)
        return self.inner.read(case)


def plan(dataset, cases, spacing_mm="native", **more) -> Preparation:
    return plan_preparation(dataset, cases, normalise="box", storage="float32", spacing_mm=spacing_mm, **more)


@pytest.fixture
def ct(tmp_path, make_nnunet) -> Counting:
    return Counting(data.open_dataset(str(make_nnunet(tmp_path / "Dataset001_CT", cases=4))))


@pytest.fixture
def mr(tmp_path, make_listed) -> Counting:
    return Counting(data.open_dataset(str(make_listed(tmp_path / "Task05", split=False))))


def test_the_median_spacing_is_that_of_the_given_cases_and_needs_no_voxels(mr, ct):
    planned = plan(mr, mr.inner.cases(), "median")
    assert planned.spacing_mm == pytest.approx((3.6, 0.6, 0.6))
    assert planned.intensities == ()
    assert mr.reads == []
    assert plan(ct, ct.inner.cases()[:3], "median").spacing_mm == pytest.approx((5.0, 0.85, 0.85))
    assert plan(ct, ct.inner.cases()[2:], "median").spacing_mm == pytest.approx((5.0, 0.925, 0.925))
    uneven = [ct.inner.cases()[index] for index in (0, 1, 3)]
    assert plan(ct, uneven, "median").spacing_mm == pytest.approx((5.0, 0.85, 0.85)), "not the mean"


def test_native_and_given_spacings_are_taken_as_they_are(mr):
    assert plan(mr, mr.inner.cases(), "native") == Preparation("box", "float32", None, ())
    assert plan(mr, mr.inner.cases(), (2, 1, 1)).spacing_mm == (2.0, 1.0, 1.0)


@pytest.mark.parametrize("spacing_mm", ["native", "median", (1.0, 1.0, 1.0)])
def test_each_training_case_is_announced_once(mr, ct, spacing_mm):
    for dataset in (mr, ct):
        cases = dataset.inner.cases()[:2]
        heard: list[str] = []
        plan(dataset, cases, spacing_mm, on_case=heard.append)
        assert heard == [case.id for case in cases]


def test_ct_is_measured_inside_the_foreground_of_the_training_cases(ct):
    training = ct.inner.cases()[:3]
    (found,) = plan(ct, training, workers=2).intensities
    voxels = [(volume := ct.inner.read(case)).image[0][volume.label > 0] for case in training]
    pooled = np.concatenate(voxels)  # the cases have the same number of voxels, so weighting them equally is the same
    assert len({len(case) for case in voxels}) == 1
    assert found is not None
    np.testing.assert_allclose(
        (found.low, found.high), np.percentile(pooled, (0.5, 99.5)), atol=1
    )  # values are whole numbers
    np.testing.assert_allclose((found.mean, found.std), (pooled.mean(), pooled.std()), rtol=0.01)
    assert found.low > 0, "air is not foreground"


def test_each_case_weighs_the_same_however_large_its_organ(tmp_path, make_nnunet, write_nifti):
    root = make_nnunet(tmp_path / "Dataset002", cases=2)
    for number, (value, size) in enumerate(((100, 1), (300, 10))):
        image, label = np.full((36, 32, 12), -1000, np.int16), np.zeros((36, 32, 12), np.uint8)
        image[:size, :size, :size], label[:size, :size, :size] = value, 1
        write_nifti(root / "imagesTr" / f"ct_{number:03d}_0000.nii.gz", image)
        write_nifti(root / "labelsTr" / f"ct_{number:03d}.nii.gz", label)
    dataset = data.open_dataset(str(root))
    assert plan(dataset, dataset.cases()).intensities == (Intensity(100.0, 300.0, 200.0, 100.0),)


def test_a_stopped_measurement_goes_on_and_a_repeated_one_reads_nothing(ct, cache):
    cases = ct.inner.cases()

    def stop(case: str) -> None:
        if case == cases[1].id:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan(ct, cases, on_case=stop)
    assert ct.reads == [case.id for case in cases[:2]]
    first = plan(ct, cases)
    assert ct.reads == [case.id for case in cases]
    assert plan(ct, cases) == first
    assert len(ct.reads) == 4
    damaged = next((cache / "intensities").glob("*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert plan(ct, cases) == first
    assert len(ct.reads) == 5


def test_a_changed_case_is_measured_again(ct, write_nifti):
    cases = ct.inner.cases()
    before = plan(ct, cases)
    image = ct.inner.read(cases[0]).image[0].T.astype(np.int16) + 500
    affine = np.diag([-0.8, -0.8, 5.0, 1.0])
    write_nifti(cases[0].images[0], image, affine)
    ct.reads.clear()
    after = plan(ct, cases)
    assert ct.reads == [cases[0].id]
    assert after.intensities[0].mean > before.intensities[0].mean + 100


def test_no_foreground_in_any_training_case_is_refused(tmp_path, make_nnunet, write_nifti):
    root = make_nnunet(tmp_path / "Dataset003", cases=2)
    for number in range(2):
        affine = np.diag([-0.8 - 0.05 * number, -0.8 - 0.05 * number, 5.0, 1.0])
        write_nifti(root / "labelsTr" / f"ct_{number:03d}.nii.gz", np.zeros((36, 32, 12), np.uint8), affine)
    dataset = data.open_dataset(str(root))
    with pytest.raises(DataError, match="none of the 2 training cases has a labelled voxel"):
        plan(dataset, dataset.cases())


def test_a_file_without_a_header_is_named(mr):
    cases = mr.inner.cases()
    cases[1].images[0].write_bytes(gzip.compress(b"nothing of the kind" * 50))
    with pytest.raises(DataError, match=rf"{cases[1].images[0].name}: found no NIfTI header"):
        plan(mr, cases, "median")
    cases[1].images[0].write_bytes(b"plain")
    with pytest.raises(DataError, match="found neither gzip nor NIfTI"):
        plan(mr, cases, "median")


def test_the_header_alone_tells_the_grid_that_the_voxels_have(tmp_path, write_nifti):
    from data.nifti import read_geometry, read_image

    oblique = np.array([[0, -0.9, 0.1, 5], [0.7, 0, 0, -3], [0, 0.2, 3.1, 8], [0, 0, 0, 1.0]])
    array = np.random.default_rng(0).normal(size=(30, 31, 32)).astype(np.float32)
    for name in ("a.nii", "a.nii.gz"):
        path = write_nifti(tmp_path / name, array, oblique)
        found, whole = read_geometry(path), read_image(path)[1]
        np.testing.assert_array_equal(found.affine, whole.affine)
        assert (found.shape, found.spacing_mm) == (whole.shape, whole.spacing_mm)
    assert read_geometry(write_nifti(tmp_path / "b.nii.gz", array[..., None], oblique)).shape == (32, 31, 30)
