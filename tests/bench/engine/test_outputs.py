"""Which files predictions go to, and that no input is among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.engine.outputs import plan_outputs
from bench.errors import BenchError
from data.brats import BRATS2023
from data.volume import CaseFiles


def _case(folder: Path, name: str = "a") -> CaseFiles:
    return CaseFiles(name, name, (folder / f"{name}.nii.gz",), None)


def test_a_folder_takes_a_file_for_each_case_and_class(tmp_path: Path) -> None:
    plan = plan_outputs([_case(tmp_path), _case(tmp_path, "b")], tmp_path / "out", BRATS2023, True)
    assert [outputs.label.name for outputs in plan] == ["a.nii.gz", "b.nii.gz"]
    expected = ["b_background.nii.gz", "b_NCR.nii.gz", "b_ED.nii.gz", "b_ET.nii.gz"]
    assert [file.name for file in plan[1].probabilities] == expected
    assert {file.parent for outputs in plan for file in outputs.files} == {tmp_path / "out"}


def test_a_named_file_names_the_probabilities_beside_it(tmp_path: Path) -> None:
    (outputs,) = plan_outputs([_case(tmp_path)], tmp_path / "mine.nii", BRATS2023, True)
    assert outputs.label == tmp_path / "mine.nii"
    assert outputs.probabilities[3] == tmp_path / "mine_ET.nii.gz"
    (outputs,) = plan_outputs([_case(tmp_path)], tmp_path / "mine.nii", BRATS2023, False)
    assert outputs.files == (tmp_path / "mine.nii",)


def test_names_of_labels_are_made_fit_for_files_and_kept_apart(tmp_path: Path) -> None:
    labels = {0: "background", 1: "left kidney/cyst", 2: "left kidney cyst"}
    (outputs,) = plan_outputs([_case(tmp_path)], tmp_path / "out", replace(BRATS2023, labels=labels), True)
    names = [file.name for file in outputs.probabilities]
    assert names == ["a_0_background.nii.gz", "a_1_left_kidney_cyst.nii.gz", "a_2_left_kidney_cyst.nii.gz"]


class TestRefused:
    def test_an_input_among_the_outputs_also_through_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path)
        for output in (tmp_path, tmp_path / "link"):
            with pytest.raises(BenchError, match=r"holds the inputs.*another folder"):
                plan_outputs([_case(tmp_path)], output, BRATS2023, False)
        for output in (tmp_path / "a.nii.gz", tmp_path / "link" / "a.nii.gz"):
            with pytest.raises(BenchError, match=r"a\.nii\.gz would be overwritten"):
                plan_outputs([_case(tmp_path)], output, BRATS2023, False)

    def test_an_input_among_the_probabilities(self, tmp_path: Path) -> None:
        case = replace(_case(tmp_path), images=(tmp_path / "a_ET.nii.gz",))
        plan_outputs([case], tmp_path / "a.nii.gz", BRATS2023, False)
        with pytest.raises(BenchError, match=r"a_ET\.nii\.gz would be overwritten"):
            plan_outputs([case], tmp_path / "a.nii.gz", BRATS2023, True)

    def test_two_outputs_of_one_name(self, tmp_path: Path) -> None:
        with pytest.raises(BenchError, match="same identifier"):
            plan_outputs([_case(tmp_path), _case(tmp_path / "x")], tmp_path / "out", BRATS2023, False)

    def test_a_file_of_another_format(self, tmp_path: Path) -> None:
        with pytest.raises(BenchError, match=r"as NIfTI.*\.nii\.gz"):
            plan_outputs([_case(tmp_path)], tmp_path / "out.mha", BRATS2023, False)

    def test_a_folder_for_a_file_and_a_file_for_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "out.nii.gz").mkdir()
        with pytest.raises(BenchError, match="is a folder"):
            plan_outputs([_case(tmp_path)], tmp_path / "out.nii.gz", BRATS2023, False)
        (tmp_path / "out").write_text("")
        with pytest.raises(BenchError, match="is a file"):
            plan_outputs([_case(tmp_path)], tmp_path / "out", BRATS2023, False)
