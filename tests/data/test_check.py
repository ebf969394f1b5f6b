"""The check of a dataset: one fault is planted at a time, and the finding it gives is read."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from data.brats import BRATS2023, PHANTOM, BratsDataset
from data.check import Finding, check_dataset
from data.errors import DataError

CASE = "BraTS-GLI-00001-000"
SHAPE = (8, 9, 10)
SAMPLES = Path(__file__).parents[3] / "shared" / "samples"


def check(root: Path) -> list[Finding]:
    return check_dataset(BratsDataset(BRATS2023, root))


def only(root: Path) -> Finding:
    findings = check(root)
    assert len(findings) == 1, [str(finding) for finding in findings]
    return findings[0]


def noise(dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(5).integers(1, 1000, SHAPE).astype(dtype)


def reads(root: Path) -> bool:
    """Whether every case can be read."""
    dataset = BratsDataset(BRATS2023, root)
    try:
        for case in dataset.cases():
            dataset.read(case)
    except DataError:
        return False
    return True


@pytest.fixture
def folder(tmp_path, make_case) -> Path:
    return make_case(tmp_path)


class TestWhole:
    def test_clean_dataset_has_no_finding(self, tmp_path, make_case):
        make_case(tmp_path, "BraTS-GLI-00001-000")
        make_case(tmp_path, "BraTS-GLI-00001-001")  # another time point of the patient is no repetition
        (tmp_path / "phantom.json").write_text("{}")
        assert check(tmp_path) == []

    def test_every_fault_of_every_case_is_listed_sorted_by_case(self, tmp_path, make_case, write_nifti):
        for number in (3, 1, 2):
            folder = make_case(tmp_path, f"BraTS-GLI-0000{number}-000")
            (folder / f"BraTS-GLI-0000{number}-000-t1n.nii.gz").write_bytes(b"")
            write_nifti(folder / f"BraTS-GLI-0000{number}-000-t2f.nii.gz", np.zeros(SHAPE, np.int16))
        (tmp_path / "notes").mkdir()
        findings = check(tmp_path)
        assert [finding.case for finding in findings] == [
            *(f"BraTS-GLI-0000{number}-000" for number in (1, 1, 2, 2, 3, 3)),
            "notes",
        ]
        assert {finding.field for finding in findings[:-1]} == {"t1n", "t2f"}

    @pytest.mark.parametrize("workers", [1, 3])
    def test_each_case_is_announced_and_workers_change_nothing(self, tmp_path, make_case, workers):
        ids = [f"BraTS-GLI-0000{number}-000" for number in range(1, 6)]
        for case in ids:
            (make_case(tmp_path, case) / f"{case}-t2w.nii.gz").unlink()
        seen: list[str] = []
        findings = check_dataset(BratsDataset(BRATS2023, tmp_path), on_case=seen.append, workers=workers)
        assert seen == ids
        assert [finding.case for finding in findings] == ids

    def test_each_file_is_read_once(self, tmp_path, make_case, monkeypatch):
        make_case(tmp_path)
        opened: list[str] = []
        read_bytes = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or read_bytes(path))
        assert check(tmp_path) == []
        assert sorted(opened) == sorted(f"{CASE}-{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f", "seg"))

    def test_real_cases_with_notes_beside_them_have_warnings_only(self):
        if not SAMPLES.is_dir():
            pytest.skip("no sample of real cases at hand")
        findings = check(SAMPLES)
        assert {(finding.severity, finding.field) for finding in findings} == {("warning", "provenance.json")}
        assert len(findings) == 2

    def test_phantom_passes(self, tmp_path):
        from data.phantom import write_dataset

        write_dataset(tmp_path / "phantom", cases=2, size=32, seed=0)
        assert check_dataset(BratsDataset(PHANTOM, tmp_path / "phantom")) == []


class TestLayout:
    def test_no_case_at_all(self, tmp_path):
        (tmp_path / "notes").mkdir()
        finding = only(tmp_path)
        assert (finding.case, finding.field, finding.severity) == ("brats2023", "layout", "error")
        assert str(tmp_path) in finding.found
        assert finding.expected == BRATS2023.layout
        assert BRATS2023.how_to_obtain in finding.mend

    def test_cases_one_folder_below(self, tmp_path, make_case):
        make_case(tmp_path / "Training")
        assert str(tmp_path / "Training") in only(tmp_path).mend

    def test_root_that_does_not_exist(self, tmp_path):
        with pytest.raises(DataError, match="is no folder"):
            check(tmp_path / "absent")

    @pytest.mark.parametrize(("name", "field"), [("t1n", "t1n"), ("seg", "label")])
    def test_missing_file(self, tmp_path, folder, name, field):
        (folder / f"{CASE}-{name}.nii.gz").unlink()
        finding = only(tmp_path)
        assert (finding.case, finding.field, finding.severity) == (CASE, field, "error")
        assert finding.found == f"no such file ({CASE}-{name}.nii.gz)"
        assert "NIfTI file" in finding.expected
        assert "download or copy" in finding.mend
        assert not reads(tmp_path)

    @pytest.mark.parametrize(
        ("name", "target"),
        [
            (f"{CASE}-t1.nii.gz", "t1n"),
            (f"{CASE}-t1ce.nii.gz", "t1c"),
            (f"{CASE}-t2.nii.gz", "t2w"),
            (f"{CASE}-flair.nii.gz", "t2f"),
            (f"{CASE}_t1n.nii.gz", "t1n"),
            (f"{CASE}-T2F.nii.gz", "t2f"),
            ("BraTS_GLI_00001_000_seg.nii.gz", "seg"),
        ],
    )
    def test_misnamed_file_is_told_its_name(self, tmp_path, folder, name, target):
        (folder / f"{CASE}-{target}.nii.gz").rename(folder / name)
        findings = {finding.field: finding for finding in check(tmp_path)}
        assert set(findings) == {name, "label" if target == "seg" else target}
        assert findings[name].severity == "error"
        assert name in findings[name].found
        assert f"{CASE}-{target}.nii.gz" in findings[name].expected
        assert findings[name].mend == f"rename it to {CASE}-{target}.nii.gz"

    def test_misnamed_and_not_compressed(self, tmp_path, folder):
        content = gzip.decompress((folder / f"{CASE}-t1n.nii.gz").read_bytes())
        (folder / f"{CASE}-t1n.nii.gz").unlink()
        (folder / f"{CASE}-t1n.nii").write_bytes(content)
        findings = {finding.field: finding for finding in check(tmp_path)}
        assert findings[f"{CASE}-t1n.nii"].mend == f"compress it with gzip and rename it to {CASE}-t1n.nii.gz"

    def test_misnamed_file_with_another_identifier_is_doubted(self, tmp_path, folder):
        (folder / f"{CASE}-t1n.nii.gz").rename(folder / "BraTS2021_00077_t1.nii.gz")
        findings = {finding.field: finding for finding in check(tmp_path)}
        mend = findings["BraTS2021_00077_t1.nii.gz"].mend
        assert mend == f"if it is an image of this case, rename it to {CASE}-t1n.nii.gz"

    def test_second_file_for_a_channel(self, tmp_path, folder, write_nifti):
        write_nifti(folder / f"{CASE}-t1.nii.gz", noise())
        finding = only(tmp_path)
        assert (finding.field, finding.severity) == (f"{CASE}-t1.nii.gz", "error")
        assert f"{CASE}-t1n.nii.gz is there too" in finding.mend

    def test_surplus_image_that_resembles_nothing(self, tmp_path, folder, write_nifti):
        write_nifti(folder / f"{CASE}-adc.nii.gz", noise())
        finding = only(tmp_path)
        assert (finding.case, finding.severity, finding.mend) == (CASE, "error", "move it away")

    def test_surplus_note_is_a_warning(self, tmp_path, folder):
        (folder / "provenance.json").write_text("{}")
        finding = only(tmp_path)
        assert (finding.case, finding.field, finding.severity) == (CASE, "provenance.json", "warning")
        assert "not read" in finding.mend
        assert reads(tmp_path)

    def test_folder_of_images_that_is_no_case(self, tmp_path, make_case):
        make_case(tmp_path)
        make_case(tmp_path, "BraTS2021_00001")
        finding = only(tmp_path)
        assert (finding.case, finding.field, finding.severity) == ("BraTS2021_00001", "folder", "error")
        assert "no case but holds 5 NIfTI files" in finding.found
        assert "BraTS-GLI-00000-000" in finding.expected
        assert "rename" in finding.mend

    def test_cases_deeper_down_are_not_passed_over(self, tmp_path, make_case):
        make_case(tmp_path)
        make_case(tmp_path / "second" / "part", "BraTS-GLI-00002-000")
        finding = only(tmp_path)
        assert (finding.case, finding.field, finding.severity) == ("second", "folder", "error")
        assert "5 NIfTI files" in finding.found

    def test_other_folder_is_a_warning(self, tmp_path, make_case):
        make_case(tmp_path)
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "readme.txt").write_text("")
        finding = only(tmp_path)
        assert (finding.case, finding.field, finding.severity) == ("notes", "folder", "warning")

    def test_images_hidden_in_a_folder_of_a_case(self, tmp_path, folder, write_nifti):
        (folder / "old").mkdir()
        write_nifti(folder / "old" / "x.nii.gz", noise())
        finding = only(tmp_path)
        assert (finding.case, finding.field, finding.severity) == (CASE, "folder", "error")
        assert "old" in finding.found


class TestVoxels:
    """A fault in one file gives one finding, an error that also keeps the case from being read."""

    def error(self, root: Path) -> Finding:
        finding = only(root)
        assert finding.severity == "error"
        assert finding.case == CASE
        assert not reads(root)
        return finding

    def plant(self, folder: Path, name: str, write_nifti, array, **geometry) -> Path:
        return write_nifti(folder / f"{CASE}-{name}.nii.gz", array, **geometry)

    def test_shape_mismatch(self, tmp_path, folder, write_nifti):
        self.plant(folder, "t1n", write_nifti, noise()[:, :, :-1])
        finding = self.error(tmp_path)
        assert finding.field == "t1n"
        assert "(8, 9, 9)" in finding.found
        assert finding.expected == "shape (x, y, z) = (8, 9, 10), as t2w"
        assert "resample it onto the grid of t2w" in finding.mend

    def test_shape_is_compared_with_the_first_readable_file(self, tmp_path, folder, write_nifti):
        (folder / f"{CASE}-t2w.nii.gz").write_bytes(b"")
        self.plant(folder, "seg", write_nifti, np.ones((8, 9, 9), np.uint8))
        findings = {finding.field: finding for finding in check(tmp_path)}
        assert set(findings) == {"t2w", "label"}
        assert findings["label"].expected.endswith("as t2f")

    def test_affine_mismatch_says_the_largest_difference(self, tmp_path, folder, write_nifti):
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine[2, 2] = 1.5  # z runs to 9, so the last slice lies 4.5 mm off
        self.plant(folder, "t1c", write_nifti, noise(), affine=affine)
        finding = self.error(tmp_path)
        assert finding.field == "t1c"
        assert "up to 4.5 mm" in finding.found
        assert finding.expected == "the affine of t2w, to 0.001 mm"
        assert "resample" in finding.mend

    @pytest.mark.parametrize(("shift_mm", "count"), [(0.0005, 0), (0.002, 1)])
    def test_affine_tolerance(self, tmp_path, folder, write_nifti, shift_mm, count):
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine[1, 3] = shift_mm
        self.plant(folder, "seg", write_nifti, np.ones(SHAPE, np.uint8), affine=affine)
        assert len(check(tmp_path)) == count
        assert reads(tmp_path) == (count == 0)

    def test_nan_and_infinity_are_counted_and_placed(self, tmp_path, folder, write_nifti):
        image = noise()
        image[1, 2, 3] = np.nan
        image[7, 8, 3], image[0, 0, 4] = np.nan, -np.inf
        self.plant(folder, "t2f", write_nifti, image)
        finding = self.error(tmp_path)
        assert finding.field == "t2f"
        assert "NaN in 2 and infinity in 1 voxels" in finding.found
        assert "(x, y, z) = (1, 2, 3)" in finding.found
        assert finding.expected == "finite values"
        assert "obtain the file again" in finding.mend

    @pytest.mark.parametrize("value", [np.inf, -np.inf])
    def test_infinity_of_either_sign_alone(self, tmp_path, folder, write_nifti, value):
        image = noise()
        image[1, 2, 3] = value
        self.plant(folder, "t2f", write_nifti, image)
        assert "NaN in 0 and infinity in 1 voxels" in self.error(tmp_path).found

    @pytest.mark.parametrize(("value", "text"), [(0, "0 in every voxel"), (7, "the value 7 in every voxel")])
    def test_constant_image(self, tmp_path, folder, write_nifti, value, text):
        self.plant(folder, "t1n", write_nifti, np.full(SHAPE, value, np.int16))
        finding = self.error(tmp_path)
        assert (finding.field, finding.found, finding.expected) == ("t1n", text, "an image")
        assert "leave the case out" in finding.mend

    def test_label_4_of_brats_before_2023(self, tmp_path, folder, write_nifti):
        label = np.zeros(SHAPE, np.uint8)
        label[0, 0, :5], label[1, 1, :2] = 4, 1
        self.plant(folder, "seg", write_nifti, label)
        finding = self.error(tmp_path)
        assert finding.field == "label"
        assert finding.found.endswith(": 4 (5 voxels)")
        assert finding.expected == "0 background, 1 NCR, 2 ED, 3 ET"
        assert finding.mend == "relabel 4 to 3: before 2023, BraTS gave ET the label 4"

    def test_other_unknown_labels(self, tmp_path, folder, write_nifti):
        label = np.zeros(SHAPE, np.uint8)
        label[0, 0, :5], label[1, 1, :2] = 7, 255
        self.plant(folder, "seg", write_nifti, label)
        finding = self.error(tmp_path)
        assert "7 (5 voxels), 255 (2 voxels)" in finding.found
        assert finding.mend == "relabel these voxels, or obtain the file again"

    def test_label_with_fractions(self, tmp_path, folder, write_nifti):
        label = np.zeros(SHAPE, np.float32)
        label[1, 2, 3] = 0.5
        self.plant(folder, "seg", write_nifti, label)
        finding = self.error(tmp_path)
        assert finding.field == "label"
        assert "1 voxels whose value is not an integer, the first 0.5" in finding.found
        assert "integer" in finding.expected
        assert "nearest-neighbour" in finding.mend

    def test_label_without_foreground_is_a_warning(self, tmp_path, folder, write_nifti):
        self.plant(folder, "seg", write_nifti, np.zeros(SHAPE, np.uint8))
        finding = only(tmp_path)
        assert (finding.field, finding.severity) == ("label", "warning")
        assert finding.found == "no foreground voxel"
        assert "NCR, ED, ET" in finding.expected
        assert reads(tmp_path)

    @pytest.mark.parametrize("name", ["t1n", "seg"])
    def test_truncated_gzip(self, tmp_path, folder, name):
        path = folder / f"{CASE}-{name}.nii.gz"
        path.write_bytes(path.read_bytes()[:100])
        finding = self.error(tmp_path)
        assert finding.field == ("label" if name == "seg" else name)
        assert finding.found == f"a gzip stream that ends early, after 100 bytes ({path.name})"
        assert finding.expected == "a whole gzip stream"
        assert "download or copy" in finding.mend

    def test_empty_file(self, tmp_path, folder):
        (folder / f"{CASE}-t2w.nii.gz").write_bytes(b"")
        assert "empty file (0 bytes)" in self.error(tmp_path).found

    def test_plain_nifti_named_gz(self, tmp_path, folder):
        path = folder / f"{CASE}-t2w.nii.gz"
        path.write_bytes(gzip.decompress(path.read_bytes()))
        finding = self.error(tmp_path)
        assert "plain NIfTI, not gzipped" in finding.found
        assert "compress it with gzip" in finding.mend
