"""Folders in the layouts of nnU-Net and of the Decathlon: their cases, their card, what is refused and how."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import data
from data.brats import BRATS2023
from data.card import DatasetCard
from data.check import check_dataset
from data.dataset_json import DECATHLON, NNUNET
from data.errors import DataError
from data.prepare import plan_preparation, prepare
from data.resample import resample_label


@pytest.fixture
def nnunet(tmp_path, make_nnunet) -> Path:
    return make_nnunet(tmp_path / "Dataset012_Liver")


@pytest.fixture
def decathlon(tmp_path, make_listed) -> Path:
    return make_listed(tmp_path / "Task05_Prostate", split=False)


@pytest.fixture
def first_version(tmp_path, make_listed) -> Path:
    return make_listed(tmp_path / "Task505_Prostate", split=True)


def findings(root: Path, severity: str | None = None) -> list[str]:
    found = check_dataset(data.open_dataset(str(root)))
    return [str(finding) for finding in found if severity in (None, finding.severity)]


class TestCard:
    def test_nnunet(self, nnunet):
        card = data.card(str(nnunet))
        assert card.name == "Dataset012_Liver"
        assert card.title == "Organs with tumours"
        assert card.channels == ("CT",)
        assert card.ct_channels == (0,)
        assert card.labels == {0: "background", 1: "organ", 2: "tumour"}
        assert card.regions == {"organ": (1,), "tumour": (2,)}
        assert card.layout == NNUNET
        assert (card.licence, card.citation) == ("CC-BY 4.0", "Somebody et al., 2024")
        assert card.spacing_mm is None
        assert not card.synthetic

    def test_decathlon_and_the_first_nnunet(self, decathlon, first_version):
        for root, layout in ((decathlon, DECATHLON), (first_version, NNUNET)):
            card = data.card(str(root))
            assert card.channels == ("T2", "ADC")
            assert card.ct_channels == ()
            assert card.labels == {0: "background", 1: "gland"}
            assert card.regions == {"gland": (1,)}
            assert card.title == "PROSTATE: Prostate"
            assert card.layout == layout
            assert "Not stated" in card.licence

    def test_lists_of_values_are_regions(self, tmp_path, make_nnunet):
        labels = {"background": 0, "whole": [1, 2], "core": [2]}
        root = make_nnunet(tmp_path / "regions", labels=labels, regions_class_order=[1, 2])
        card = data.card(str(root))
        assert card.labels == {0: "background", 1: "label 1", 2: "core"}
        assert card.regions == {"whole": (1, 2), "core": (2,)}
        assert card.classes == 3
        assert findings(root) == []

    @pytest.mark.parametrize(("name", "ct"), [("CT", True), ("ct", True), ("CTA", False), ("T1 CT", False)])
    def test_ct_is_what_is_called_so_in_any_case(self, tmp_path, make_nnunet, name, ct):
        card = data.card(str(make_nnunet(tmp_path / "a", channel_names={"0": name})))
        assert bool(card.ct_channels) == ct

    def test_a_card_survives_its_json_form(self, nnunet):
        for card in (data.card(str(nnunet)), BRATS2023):
            assert DatasetCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
        with pytest.raises(DataError, match=r"expected what DatasetCard\.to_dict wrote"):
            DatasetCard.from_dict({"name": "half"})


class TestNames:
    def test_an_absolute_path_a_relative_one_and_a_bare_name_are_the_same(self, nnunet, monkeypatch):
        monkeypatch.chdir(nnunet.parent)
        for name in (str(nnunet), f"./{nnunet.name}", f"{nnunet.name}/", nnunet.name):
            assert data.card(name).name == nnunet.name
            assert len(data.open_dataset(name).cases()) == 4
        monkeypatch.chdir(nnunet)
        assert data.card("./").name == nnunet.name

    def test_a_name_that_is_registered_stays_that_dataset(self, nnunet, monkeypatch):
        shutil.copytree(nnunet, nnunet.parent / "phantom")
        monkeypatch.chdir(nnunet.parent)
        assert data.card("phantom").synthetic
        with pytest.raises(DataError, match=r"phantom is called as the dataset 'phantom' is.*Rename the folder"):
            data.card("./phantom")

    def test_an_unknown_name_says_that_folders_are_paths(self):
        with pytest.raises(DataError, match=r"no dataset 'zzz'.*named by its path, with a /"):
            data.card("zzz")

    def test_another_data_dir_is_refused(self, nnunet, tmp_path):
        assert data.open_dataset(str(nnunet), nnunet).root == nnunet
        with pytest.raises(DataError, match="--data-dir names another"):
            data.open_dataset(str(nnunet), tmp_path)

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("missing/", "there is nothing there; expected a folder"),
            ("Dataset012_Liver/dataset.json", "there is a file; expected a folder"),
            ("Dataset012_Liver/imagesTr", r"found no such file; .*pass the folder above, .*Dataset012_Liver"),
            ("", "found no such file; .*pass the folder that has one: .*Dataset012_Liver"),
        ],
    )
    def test_a_path_that_is_no_dataset_says_what_is_there(self, nnunet, path, message):
        with pytest.raises(DataError, match=message):
            data.card(f"{nnunet.parent}/{path}")


class TestReading:
    def test_cases_of_every_layout_are_sorted_and_are_their_own_patients(self, nnunet, decathlon, first_version):
        for root, files in ((nnunet, 1), (decathlon, 1), (first_version, 2)):
            cases = data.open_dataset(str(root)).cases()
            assert [case.id for case in cases] == sorted(case.id for case in cases)
            for case in cases:
                assert case.patient == case.id
                assert len(case.images) == files
                assert all(path.is_file() for path in (*case.images, case.label))
            assert findings(root) == []

    def test_channels_along_a_fourth_axis_are_those_in_files_of_their_own(self, decathlon, first_version):
        one, two = data.open_dataset(str(decathlon)), data.open_dataset(str(first_version))
        for stacked, split in zip(one.cases(), two.cases(), strict=True):
            a, b = one.read(stacked), two.read(split)
            assert a.image.shape == (2, 8, 12, 10)
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.label, b.label)
            np.testing.assert_array_equal(a.geometry.affine, b.geometry.affine)
            assert a.geometry.spacing_mm == pytest.approx((3.6, 0.6, 0.6))

    def test_companions_of_macos_are_passed_over(self, nnunet, decathlon):
        for root in (nnunet, decathlon):
            for path in list(root.rglob("*.nii.gz")):
                path.with_name(f"._{path.name}").write_bytes(b"macOS")
            (root / "._dataset.json").write_bytes(b"macOS")
            assert findings(root) == []
            assert data.open_folder(str(root), root / "imagesTr").inputs()

    def test_cases_without_a_label_are_listed_only_if_wanted(self, nnunet):
        (nnunet / "labelsTr" / "ct_001.nii.gz").unlink()
        dataset = data.open_dataset(str(nnunet))
        assert [case.id for case in dataset.cases(labelled=False) if case.label is None] == ["ct_001"]
        with pytest.raises(DataError, match=r"of the files of its 4 cases, 1 are missing: labelsTr/ct_001\.nii\.gz"):
            dataset.cases()

    def test_from_files_to_prepared_cases_and_back(self, nnunet, decathlon, tmp_path, monkeypatch):
        monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
        for root, target in ((nnunet, (2.5, 1.0, 1.0)), (nnunet, "median"), (decathlon, "median")):
            dataset = data.open_dataset(str(root))
            cases = dataset.cases()
            preparation = plan_preparation(
                dataset, cases[:2], normalise="brain", storage="float16", spacing_mm=target, workers=2
            )
            stored = prepare(dataset, cases, tmp_path / f"{root.name}-{target}", preparation, workers=2)
            for case in cases:
                ready, volume = stored[case.id], dataset.read(case)
                assert ready.image.shape[0] == len(dataset.card.channels)
                assert ready.label is not None
                np.testing.assert_allclose(ready.spacing_mm, preparation.spacing_mm, rtol=0.1)
                back = ready.uncrop(resample_label(np.array(ready.label), ready.box_shape))
                for value in range(1, dataset.card.classes):
                    mine, theirs = back == value, volume.label == value
                    assert 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum()) > 0.9
            if root == nnunet:  # the organ has about 60 HU, and one scale holds for all cases
                (scale,) = preparation.intensities
                assert scale is not None
                for ready in stored.values():
                    organ = np.array(ready.image[0], np.float32)[ready.label == 1]
                    assert np.median(organ) * scale.std + scale.mean == pytest.approx(60, abs=2)
                    assert ready.image.min() == pytest.approx((scale.low - scale.mean) / scale.std, abs=1e-2)


class TestInputs:
    @pytest.mark.parametrize("layout", ["nnunet", "decathlon", "first_version"])
    def test_a_folder_of_images_and_one_folder_per_case(self, request, tmp_path, layout):
        root = request.getfixturevalue(layout)
        dataset = data.open_dataset(str(root))
        wanted = [dataset.read(case).image for case in dataset.cases()]
        for index, case in enumerate(dataset.cases()):
            (tmp_path / "cases" / f"patient{index}").mkdir(parents=True)
            for path in case.images:
                shutil.copy(path, tmp_path / "cases" / f"patient{index}")
        for folder in (root / "imagesTr", tmp_path / "cases"):
            opened = data.open_folder(str(root), folder)
            inputs = opened.inputs()
            assert [case.id for case in inputs] == [case.id for case in dataset.cases()]
            for case, image in zip(inputs, wanted, strict=True):
                assert case.label is None
                np.testing.assert_array_equal(opened.read(case).image, image)

    def test_a_card_alone_opens_a_folder_when_the_dataset_is_gone(self, nnunet, tmp_path, make_case):
        card = DatasetCard.from_dict(data.card(str(nnunet)).to_dict())
        (nnunet / "imagesTr").rename(tmp_path / "new")
        shutil.rmtree(nnunet)
        assert len(data.open_folder(card, tmp_path / "new").inputs()) == 4
        make_case(tmp_path / "brats")
        assert len(data.open_folder(BRATS2023, tmp_path / "brats").inputs()) == 1

    def test_a_missing_channel_a_strange_name_and_another_format_are_named(self, first_version, tmp_path):
        folder = tmp_path / "in"
        folder.mkdir()
        opened = data.open_folder(str(first_version), folder)

        def expect(message: str) -> None:
            with pytest.raises(DataError, match=message):
                opened.inputs()

        expect("found no images to segment; expected CASE_0000.nii.gz")
        (folder / "a_0000.nrrd").write_bytes(b"")
        expect(r"no NIfTI files but 1 others, the first a_0000\.nrrd;.*convert all images")
        for name in ("prostate_00_0000.nii.gz", "prostate_01_0000.nii.gz", "prostate_00_0001.nii.gz"):
            shutil.copy(first_version / "imagesTr" / name, folder)
        expect(r"prostate_01_0001 \(ADC\) is missing")
        shutil.copy(first_version / "imagesTr" / "prostate_01_0001.nii.gz", folder)
        assert len(opened.inputs()) == 2
        shutil.copy(first_version / "labelsTr" / "prostate_01.nii.gz", folder)
        expect(r"1 are no channel of a case, the first: prostate_01\.nii\.gz")

    def test_a_whole_dataset_is_no_folder_of_images(self, nnunet, tmp_path):
        with pytest.raises(DataError, match=r"is a whole dataset.*Pass a folder of images, for example .*imagesTr"):
            data.open_folder(str(nnunet), nnunet).inputs()
        with pytest.raises(DataError, match="is no folder"):
            data.open_folder(str(nnunet), tmp_path / "none").inputs()


class TestCheck:
    def test_a_wrong_number_of_cases_is_a_warning(self, tmp_path, make_nnunet):
        root = make_nnunet(tmp_path / "a", numTraining=7)
        assert len(data.open_dataset(str(root)).cases()) == 4
        (found,) = findings(root, "warning")
        assert "numTraining 7; expected 4, the number of training cases" in found

    def test_a_missing_number_and_a_missing_order_are_warnings(self, tmp_path, make_nnunet):
        labels = {"background": 0, "whole": [1, 2], "core": [2]}
        root = make_nnunet(tmp_path / "a", numTraining=None, labels=labels)
        assert sorted(one.partition("; ")[0] for one in findings(root, "warning")) == [
            "a, dataset.json: found no numTraining",
            "a, dataset.json: found no regions_class_order",
        ]

    def test_a_missing_channel_or_label_is_found_in_its_case(self, first_version, nnunet):
        (first_version / "imagesTr" / "prostate_01_0001.nii.gz").unlink()
        (found,) = findings(first_version)
        assert found.startswith("prostate_01, ADC: found no such file (prostate_01_0001.nii.gz)")
        (nnunet / "labelsTr" / "ct_002.nii.gz").unlink()
        (nnunet / "imagesTr" / "ct_003_0000.nii.gz").unlink()
        assert [one.partition(" (")[0] for one in findings(nnunet)] == [
            "ct_002, label: found no such file",
            "ct_003, CT: found no such file",
        ]

    def test_a_listed_file_that_is_missing_and_a_file_that_is_not_listed(self, decathlon):
        (decathlon / "imagesTr" / "prostate_01.nii.gz").rename(decathlon / "imagesTr" / "other.nii.gz")
        error, warning = sorted(findings(decathlon), key=lambda one: one.startswith("Task"))
        assert error.startswith("prostate_01, image: found no such file")
        assert 'list it under "training"' in warning

    def test_a_file_too_many_is_an_error_in_nnunet(self, nnunet):
        image = nnunet / "imagesTr" / "ct_000_0000.nii.gz"
        shutil.copy(image, image.with_name("ct_000_0001.nii.gz"))
        shutil.copy(image, image.with_name("notes.nii.gz"))
        (nnunet / "imagesTr" / "ct_009_0000.mha").write_bytes(b"")
        (nnunet / "imagesTr" / "readme.txt").write_text("")
        names = {one.partition(": ")[0].partition(", ")[2] for one in findings(nnunet, "error")}
        assert names == {"ct_000_0001.nii.gz", "notes.nii.gz", "ct_009_0000.mha"}
        (warning,) = findings(nnunet, "warning")
        assert "readme.txt" in warning

    def test_a_fourth_axis_of_another_length_names_both(self, decathlon, write_nifti):
        image = np.zeros((10, 12, 8, 3), np.int16)
        write_nifti(decathlon / "imagesTr" / "prostate_00.nii.gz", image)
        (found,) = findings(decathlon)
        assert found.startswith("prostate_00, image: found a 4-D array of shape (10, 12, 8, 3)")
        assert "expected a 4-D array (x, y, z, channel) of 2 channels" in found

    def test_a_channel_of_a_stacked_file_is_judged_by_its_name(self, decathlon, write_nifti):
        image = np.random.default_rng(0).integers(1, 9, (10, 12, 8, 2)).astype(np.int16)
        image[..., 1] = 0
        affine = np.diag([0.6, 0.6, 3.6, 1.0])
        write_nifti(decathlon / "imagesTr" / "prostate_00.nii.gz", image, affine)
        (found,) = findings(decathlon)
        assert found.startswith("prostate_00, ADC: found 0 in every voxel")

    def test_a_label_with_a_fourth_axis_is_refused(self, decathlon, write_nifti):
        label = np.ones((10, 12, 8, 1), np.uint8)
        write_nifti(decathlon / "labelsTr" / "prostate_00.nii.gz", label, np.diag([0.6, 0.6, 3.6, 1.0]))
        (found,) = findings(decathlon)
        assert "label: found a 4-D array of shape (10, 12, 8, 1)" in found
        assert "expected one 3-D volume" in found

    def test_an_unknown_label_and_another_grid_are_found(self, nnunet, write_nifti):
        label = np.full((36, 32, 12), 3, np.uint8)
        write_nifti(nnunet / "labelsTr" / "ct_000.nii.gz", label, np.diag([-0.8, -0.8, 6.0, 1.0]))
        assert len(findings(nnunet, "error")) == 2

    def test_an_empty_folder_says_what_it_should_hold(self, nnunet):
        for folder in ("imagesTr", "labelsTr"):
            shutil.rmtree(nnunet / folder)
        with pytest.raises(DataError, match=r"found no folder .*imagesTr; expected nnU-Net: imagesTr/CASE_0000"):
            data.open_dataset(str(nnunet)).cases()
        (found,) = findings(nnunet, "error")
        assert "no folder" in found
        (nnunet / "imagesTr").mkdir()
        (nnunet / "imagesTr" / "a_0000.nrrd").write_bytes(b"")
        with pytest.raises(DataError, match=r"1 files in imagesTr.*convert all images"):
            data.open_dataset(str(nnunet)).cases()
