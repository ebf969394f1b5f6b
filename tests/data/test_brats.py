"""The BraTS layout: which cases a folder holds, what reading refuses, and a single case in a folder of any name."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from data.brats import BRATS2023, PHANTOM, BratsDataset, case_from_folder
from data.errors import DataError

CASE = "BraTS-GLI-00001-000"


class TestCards:
    def test_channels_labels_and_regions_are_those_of_brats_2023(self):
        assert BRATS2023.channels == ("t2w", "t2f", "t1n", "t1c")
        assert BRATS2023.labels == {0: "background", 1: "NCR", 2: "ED", 3: "ET"}
        assert BRATS2023.regions == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
        assert list(BRATS2023.regions) == ["WT", "TC", "ET"]
        assert BRATS2023.classes == 4
        assert "syn51156910" in BRATS2023.how_to_obtain

    def test_phantom_differs_in_words_alone(self):
        assert PHANTOM.synthetic
        assert not BRATS2023.synthetic
        for field in ("channels", "labels", "regions", "spacing_mm"):
            assert getattr(PHANTOM, field) == getattr(BRATS2023, field)
        assert "synapse" not in PHANTOM.how_to_obtain


class TestCases:
    def test_sorted_by_identifier_with_files_in_channel_order(self, tmp_path, make_case):
        ids = ["BraTS-GLI-00010-000", "BraTS-GLI-00002-001", "BraTS-GLI-00002-000"]
        for case in ids:
            make_case(tmp_path, case)
        (tmp_path / "phantom.json").write_text("{}")
        cases = BratsDataset(BRATS2023, tmp_path).cases()
        assert [case.id for case in cases] == sorted(ids)
        assert [path.name for path in cases[0].images] == [
            f"BraTS-GLI-00002-000-{channel}.nii.gz" for channel in ("t2w", "t2f", "t1n", "t1c")
        ]
        assert cases[0].label == tmp_path / "BraTS-GLI-00002-000" / "BraTS-GLI-00002-000-seg.nii.gz"

    def test_time_points_share_a_patient(self, tmp_path, make_case):
        for case in ("BraTS-GLI-00002-000", "BraTS-GLI-00002-001", "BraTS-GLI-00003-000"):
            make_case(tmp_path, case)
        patients = [case.patient for case in BratsDataset(BRATS2023, tmp_path).cases()]
        assert patients == ["BraTS-GLI-00002", "BraTS-GLI-00002", "BraTS-GLI-00003"]

    def test_case_without_segmentation_is_for_prediction_only(self, tmp_path, make_case):
        make_case(tmp_path, CASE)
        make_case(tmp_path, "BraTS-GLI-00002-000", labelled=False)
        dataset = BratsDataset(BRATS2023, tmp_path)
        with pytest.raises(DataError, match=r"1 are missing: BraTS-GLI-00002-000-seg\.nii\.gz.*bench data check"):
            dataset.cases()
        labelled, unlabelled = dataset.cases(labelled=False)
        assert labelled.label is not None
        assert unlabelled.label is None
        assert dataset.read(unlabelled).label is None

    def test_missing_channels_are_counted_and_the_first_named(self, tmp_path, make_case):
        folder = make_case(tmp_path)
        for channel in ("t1n", "t1c", "t2w", "t2f"):
            (folder / f"{CASE}-{channel}.nii.gz").unlink()
        with pytest.raises(DataError) as caught:
            BratsDataset(BRATS2023, tmp_path).cases(labelled=False)
        message = str(caught.value)
        assert str(tmp_path) in message
        assert f"4 are missing: {CASE}-t2w.nii.gz, {CASE}-t2f.nii.gz, {CASE}-t1n.nii.gz, ..." in message
        assert BRATS2023.layout in message
        assert "bench data check" in message

    @pytest.mark.parametrize(
        "name",
        ["BraTS-GLI-00001", "brats-GLI-00001-000", "BraTS-GLI-00001-00", "BraTS-GLI-00001-000-old", "BraTS2021_00001"],
    )
    def test_other_folders_are_no_cases(self, tmp_path, make_case, name):
        make_case(tmp_path)
        make_case(tmp_path, name)
        assert [case.id for case in BratsDataset(BRATS2023, tmp_path).cases()] == [CASE]

    def test_empty_folder_says_the_layout_and_where_to_get_the_data(self, tmp_path):
        with pytest.raises(DataError) as caught:
            BratsDataset(BRATS2023, tmp_path).cases()
        message = str(caught.value)
        assert f"no case in {tmp_path}" in message
        assert BRATS2023.layout in message
        assert BRATS2023.how_to_obtain in message

    def test_folder_above_the_cases_is_told_the_folder_below(self, tmp_path, make_case):
        make_case(tmp_path / "TrainingData")
        (tmp_path / "notes").mkdir()
        with pytest.raises(DataError, match=f"pass the folder that holds them: {tmp_path / 'TrainingData'}$"):
            BratsDataset(BRATS2023, tmp_path).cases()

    def test_one_case_given_for_the_dataset_is_told_the_folder_above(self, tmp_path, make_case):
        with pytest.raises(DataError, match=f"pass the folder above, {tmp_path}: this is one case"):
            BratsDataset(BRATS2023, make_case(tmp_path)).cases()

    def test_root_that_is_no_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"absent is no folder; expected one that holds CASE/CASE-"):
            BratsDataset(BRATS2023, tmp_path / "absent").cases()


class TestRead:
    def read(self, root):
        dataset = BratsDataset(BRATS2023, root)
        return dataset.read(dataset.cases(labelled=False)[0])

    def test_volume_holds_each_channel_at_its_place(self, tmp_path, make_case):
        folder = make_case(tmp_path)
        volume = self.read(tmp_path)
        assert volume.image.shape == (4, 10, 9, 8)
        assert volume.image.dtype == np.float32
        for index, channel in enumerate(("t2w", "t2f", "t1n", "t1c")):
            stored = nibabel.load(folder / f"{CASE}-{channel}.nii.gz")
            np.testing.assert_array_equal(volume.image[index].T, np.asarray(stored.dataobj))
        stored = nibabel.load(folder / f"{CASE}-seg.nii.gz")
        np.testing.assert_array_equal(volume.label.T, np.asarray(stored.dataobj))
        np.testing.assert_array_equal(volume.geometry.affine, stored.affine)
        assert volume.geometry.label_dtype == "uint8"

    def test_type_of_the_label_on_disk_is_kept_for_writing(self, tmp_path, make_case, write_nifti):
        folder = make_case(tmp_path)
        write_nifti(folder / f"{CASE}-seg.nii.gz", np.ones((8, 9, 10), np.int16))
        assert self.read(tmp_path).geometry.label_dtype == "int16"

    def test_without_label_predictions_are_uint8_whatever_the_images_are(self, tmp_path, make_case):
        make_case(tmp_path, labelled=False)
        assert self.read(tmp_path).geometry.label_dtype == "uint8"

    def test_label_4_is_refused_with_the_way_to_relabel(self, tmp_path, make_case, write_nifti):
        label = np.zeros((8, 9, 10), np.uint8)
        label[0, 0, :5] = 4
        write_nifti(make_case(tmp_path) / f"{CASE}-seg.nii.gz", label)
        with pytest.raises(DataError, match=r"4 \(5 voxels\).*relabel 4 to 3: before 2023, BraTS gave ET the label 4"):
            self.read(tmp_path)

    def test_several_errors_name_the_first_count_the_rest_and_say_where(self, tmp_path, make_case, write_nifti):
        folder = make_case(tmp_path)
        write_nifti(folder / f"{CASE}-t2w.nii.gz", np.zeros((8, 9, 10), np.int16))
        write_nifti(folder / f"{CASE}-t1c.nii.gz", np.full((8, 9, 10), np.nan, np.float32))
        with pytest.raises(DataError) as caught:
            self.read(tmp_path)
        message = str(caught.value)
        assert f"{CASE}, t2w: found 0 in every voxel" in message
        assert "and 1 more: `bench data check` lists them" in message
        assert str(folder) in message

    def test_a_warning_alone_does_not_refuse(self, tmp_path, make_case, write_nifti):
        write_nifti(make_case(tmp_path) / f"{CASE}-seg.nii.gz", np.zeros((8, 9, 10), np.uint8))
        assert not self.read(tmp_path).label.any()


class TestCaseFromFolder:
    def test_identifier_is_what_the_file_names_share(self, tmp_path, make_case):
        folder = make_case(tmp_path).rename(tmp_path / "anything")
        case = case_from_folder(folder, BRATS2023)
        assert (case.id, case.patient) == (CASE, "BraTS-GLI-00001")
        assert case.images[3] == folder / f"{CASE}-t1c.nii.gz"
        assert case.label == folder / f"{CASE}-seg.nii.gz"
        assert BratsDataset(BRATS2023, tmp_path).read(case).image.shape == (4, 10, 9, 8)

    def test_any_identifier_and_no_segmentation(self, tmp_path, make_case):
        case = case_from_folder(make_case(tmp_path, "patient-7", labelled=False), BRATS2023)
        assert (case.id, case.patient, case.label) == ("patient-7", "patient-7", None)

    def test_missing_channel_is_named(self, tmp_path, make_case):
        folder = make_case(tmp_path)
        (folder / f"{CASE}-t1c.nii.gz").unlink()
        with pytest.raises(DataError, match=rf"{CASE}-t1c\.nii\.gz is missing; expected ID-t2w\.nii\.gz, .*Add it"):
            case_from_folder(folder, BRATS2023)

    def test_files_of_two_cases_are_refused(self, tmp_path, make_case):
        folder = make_case(tmp_path)
        (folder / f"{CASE}-t1c.nii.gz").rename(folder / "other-t1c.nii.gz")
        with pytest.raises(DataError, match=rf"the files of 2 cases \({CASE}, other\); expected those of one"):
            case_from_folder(folder, BRATS2023)

    def test_folder_without_images_or_none_at_all(self, tmp_path):
        for folder in (tmp_path, tmp_path / "absent"):
            with pytest.raises(DataError, match=r"the files of 0 cases \(none\); expected .*ID-t2w\.nii\.gz"):
                case_from_folder(folder, BRATS2023)
