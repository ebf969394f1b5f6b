"""One case given as single files: their order, their number, what their names say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from data.brats import BRATS2023, BratsDataset
from data.dataset_json import DECATHLON
from data.errors import DataError
from data.single_files import case_from_files

CASE = "BraTS-GLI-00001-000"
CT = replace(BRATS2023, channels=("CT",))


def _paths(*names: str) -> list[Path]:
    return [Path("/scans/anna") / name for name in names]


class TestNames:
    def test_the_identifier_is_what_the_names_share_and_the_order_is_that_given(self, tmp_path, make_case):
        folder = make_case(tmp_path)
        files = [folder / f"{CASE}-{channel}.nii.gz" for channel in BRATS2023.channels]
        case = case_from_files(files, BRATS2023)
        assert (case.id, case.images, case.label) == (CASE, tuple(files), None)
        assert BratsDataset(BRATS2023, tmp_path).read(case).image.shape == (4, 10, 9, 8)

    def test_old_names_in_any_case_and_plain_nifti(self):
        case = case_from_files(_paths("a_T2.nii", "a_FLAIR.nii", "a_t1.nii", "a_t1ce.nii"), BRATS2023)
        assert case.id == "a"

    def test_names_of_channels_alone_leave_the_identifier_to_the_folder(self):
        assert case_from_files(_paths("t2.nii.gz", "flair.nii.gz", "t1.nii.gz", "t1gd.nii.gz"), BRATS2023).id == "anna"

    def test_names_that_say_nothing_are_taken_in_the_order_given(self):
        case = case_from_files(_paths("scan1.nii.gz", "scan2.nii.gz", "scan3.nii.gz", "scan4.nii.gz"), BRATS2023)
        assert case.id == "scan1"

    def test_one_channel_of_any_name(self):
        assert case_from_files(_paths("liver_0017.nii.gz"), CT).id == "liver_0017"
        assert case_from_files(_paths("liver_17_CT.nii.gz"), CT).id == "liver_17"

    def test_numbers_of_nnunet_are_channels(self):
        assert case_from_files(_paths(*(f"a_{n:04d}.nii.gz" for n in range(4))), BRATS2023).id == "a"
        with pytest.raises(DataError, match=r"a_0001\.nii\.gz is given as t2w, but its name says t2f"):
            case_from_files(_paths(*(f"a_{n:04d}.nii.gz" for n in (1, 0, 2, 3))), BRATS2023)

    def test_one_file_with_all_channels_where_the_layout_has_such(self):
        assert case_from_files(_paths("a_0000.nii.gz"), replace(BRATS2023, layout=DECATHLON)).id == "a_0000"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a-t2w.nii.gz", "a-t2f.nii.gz", "a-t1n.nii.gz"), r"found 3 files.*4 channels.*order: t2w t2f t1n t1c"),
        (("a.nii.gz",), r"found 1 files \(a\.nii\.gz\)"),
        (("a-t1c.nii.gz", "a-t2f.nii.gz", "a-t1n.nii.gz", "a-t2w.nii.gz"), r"a-t1c.* given as t2w.*name says t1c"),
        (("a-t2w.nii.gz", "x.nii.gz", "y.nii.gz", "a_flair.nii.gz"), r"a_flair.* given as t1c.*name says t2f"),
        (("a-t2w.nii.gz", "b-t2f.nii.gz", "a-t1n.nii.gz", "a-t1c.nii.gz"), r"files of 2 cases \(a, b\)"),
        (
            ("a-t2w.nii.gz", "a-t2f.nii.gz", "a-t1n.nii.gz", "a-seg.nii.gz"),
            r"a-seg\.nii\.gz is a label map by its name",
        ),
        (("x.nii.gz", "x.nii.gz", "y.nii.gz", "z.nii.gz"), "one file for several channels"),
        (("x.nii.gz", "y.mha", "y.nii.gz", "z.nii.gz"), r"y\.mha is no NIfTI file by its name"),
    ],
)
def test_files_that_do_not_fit_are_refused(names, words):
    with pytest.raises(DataError, match=words):
        case_from_files(_paths(*names), BRATS2023)
