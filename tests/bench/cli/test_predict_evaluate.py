"""``bench predict`` and ``bench evaluate``"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import models
from bench.metrics import score_case
from bench.store import Store
from models.registry import published


@pytest.fixture
def run_key(tiny_run: Callable, tmp_path: Path) -> str:
    """The key of a small complete run in ``tmp_path / "results"``."""
    assert tiny_run().status == 0
    return Store(tmp_path / "results").records()[0].key


def test_prediction_repeats_that_of_the_run(bench: Callable, run_key: str, phantoms: Path, tmp_path: Path) -> None:
    record = Store(tmp_path / "results").find(run_key)
    answer = bench("predict", run_key[:6], phantoms, tmp_path / "out", "--results", tmp_path / "results")
    assert answer.status == 0, answer.err
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 6
    for earlier in (record.folder / "predictions").glob("*.nii.gz"):
        one, two = nib.load(earlier), nib.load(tmp_path / "out" / earlier.name)
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(two.dataobj))
        np.testing.assert_array_equal(one.affine, two.affine)


def test_one_unlabelled_case_of_any_name(bench: Callable, run_key: str, phantoms: Path, tmp_path: Path) -> None:
    source = phantoms / "BraTS-PHA-00001-000"
    case = tmp_path / "anna"
    case.mkdir()
    for channel in ("t2w", "t2f", "t1n", "t1c"):
        shutil.copy(source / f"{source.name}-{channel}.nii.gz", case / f"anna-{channel}.nii.gz")
    answer = bench("predict", run_key, case, tmp_path / "out", "--results", tmp_path / "results")
    assert answer.status == 0, answer.err
    written = nib.load(tmp_path / "out" / "anna.nii.gz")
    image = nib.load(case / "anna-t2w.nii.gz")
    assert written.shape == image.shape
    np.testing.assert_array_equal(written.affine, image.affine)
    assert written.get_data_dtype() == np.uint8
    assert set(np.unique(written.dataobj)) <= {0, 1, 2, 3}


def test_one_case_may_go_to_a_named_file_but_several_may_not(
    bench: Callable, run_key: str, phantoms: Path, tmp_path: Path
) -> None:
    results = ("--results", tmp_path / "results")
    file = tmp_path / "new" / "mine.nii.gz"
    assert bench("predict", run_key, phantoms / "BraTS-PHA-00002-000", file, *results).status == 0
    assert nib.load(file).shape == (32, 32, 32)
    answer = bench("predict", run_key, phantoms, tmp_path / "all.nii.gz", *results)
    assert answer.status == 2
    assert "6 cases" in answer.err


def test_what_cannot_be_predicted_says_why(bench: Callable, run_key: str, phantoms: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "results")
    assert "no run 'zz'" in bench("predict", "zz", phantoms, tmp_path / "out", *results).err
    (tmp_path / "empty").mkdir()
    assert "no images to segment" in bench("predict", run_key, tmp_path / "empty", tmp_path / "out", *results).err
    missing = bench("predict", run_key, tmp_path / "nowhere", tmp_path / "out", *results)
    assert missing.status == 2
    assert "nowhere is no folder" in missing.err
    Store(tmp_path / "results").find(run_key).weights.unlink()
    answer = bench("predict", run_key, phantoms, tmp_path / "out", *results)
    assert answer.status == 2
    assert "no weights" in answer.err


def test_a_folder_that_is_not_quite_a_case_is_not_passed_over(
    bench: Callable, run_key: str, phantoms: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        shutil.copytree(phantoms / f"BraTS-PHA-0000{number}-000", tmp_path / "input" / f"case{number}")
    for file in (tmp_path / "input" / "case2").iterdir():
        file.rename(file.with_name(file.name.replace("-t", "_t").replace("-seg", "_seg")))
    answer = bench("predict", run_key, tmp_path / "input", tmp_path / "out", "--results", tmp_path / "results")
    assert answer.status == 2
    assert "case2" in answer.err
    assert not (tmp_path / "out").exists()


def test_a_segmentation_beside_the_images_is_not_read(
    bench: Callable, run_key: str, phantoms: Path, tmp_path: Path
) -> None:
    case = tmp_path / "BraTS-PHA-00001-000"
    shutil.copytree(phantoms / case.name, case)
    (case / f"{case.name}-seg.nii.gz").write_bytes(b"no NIfTI at all")
    answer = bench("predict", run_key, case, tmp_path / "out", "--results", tmp_path / "results")
    assert answer.status == 0, answer.err


def test_predictions_of_other_data_under_the_same_names_stand_apart(
    bench: Callable, run_key: str, tmp_path: Path
) -> None:
    record = Store(tmp_path / "results").find(run_key)
    bench("data", "phantom", "--cases", 6, "--size", 32, "--seed", 9, tmp_path / "other")
    folder = tmp_path / "theirs"
    folder.mkdir()
    for case in record.content["references"]:
        shutil.copy(tmp_path / "other" / case / f"{case}-seg.nii.gz", folder / f"{case}.nii.gz")
    bench(
        *("evaluate", folder, tmp_path / "other", "--name", "perfect", "--dataset", "phantom"),
        *("--results", tmp_path / "results"),
    )
    assert bench("table", "--results", tmp_path / "results").out.count("test cases;") == 2


def test_two_label_maps_of_one_case_are_refused(bench: Callable, phantoms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    case = "BraTS-PHA-00001-000"
    for name in (f"{case}.nii.gz", f"{case}-seg.nii.gz"):
        shutil.copy(phantoms / case / f"{case}-seg.nii.gz", folder / name)
    answer = bench("evaluate", folder, phantoms)
    assert answer.status == 2
    assert "two label maps" in answer.err


def test_predictions_from_elsewhere_join_the_table_of_the_same_cases(
    bench: Callable, run_key: str, phantoms: Path, tmp_path: Path
) -> None:
    record = Store(tmp_path / "results").find(run_key)
    answer = bench(
        *("evaluate", record.folder / "predictions", phantoms, "--name", "their net", "--dataset", "phantom"),
        *("--results", tmp_path / "results"),
    )
    assert answer.status == 0, answer.err
    external = next(r for r in Store(tmp_path / "results").records() if r.kind == "external")
    assert external.cases()["dice"].tolist() == record.cases()["dice"].tolist()
    assert external.content["provenance"]["packages"]["numpy"] == np.__version__
    refused = bench("predict", external.key, phantoms, tmp_path / "out", "--results", tmp_path / "results")
    assert "predictions from elsewhere" in refused.err
    table = bench("table", "--results", tmp_path / "results").out
    assert table.count("their net") == 2, "one row and one footnote in one table"
    assert table.count("test cases;") == 1
    assert "predictions made elsewhere" in table


def test_evaluate_without_a_name_prints_and_keeps_nothing(bench: Callable, phantoms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    case = phantoms / "BraTS-PHA-00001-000"
    reference = nib.load(case / f"{case.name}-seg.nii.gz")
    label = np.roll(np.asarray(reference.dataobj), 2, axis=0)
    nib.save(nib.Nifti1Image(label, reference.affine), folder / f"{case.name}.nii.gz")
    answer = bench("evaluate", folder, phantoms)
    assert answer.status == 0, answer.err
    scores = score_case(label.T, np.asarray(reference.dataobj).T, (1.0, 1.0, 1.0))
    assert f"{100 * scores['WT']['dice']:.2f}" in answer.out
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("shape", ["shape (32, 32, 31)", "its reference", "(32, 32, 32)"]),
        ("affine", ["lies elsewhere", "5 mm apart", "Copy the affine"]),
        ("label", ["labels [4]", "before BraTS 2023"]),
        ("name", ["have no reference", "someone"]),
        ("truncated", ["gzip stream that ends early"]),
        ("none", ["no label map in"]),
    ],
)
def test_predictions_that_do_not_fit_are_refused_and_not_entered(
    bench: Callable, phantoms: Path, tmp_path: Path, harm: str, words: list[str]
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    case = phantoms / "BraTS-PHA-00001-000"
    reference = nib.load(case / f"{case.name}-seg.nii.gz")
    label, affine, name = np.asarray(reference.dataobj).copy(), reference.affine.copy(), case.name
    if harm == "shape":
        label = label[:, :, :-1]
    elif harm == "affine":
        affine[0, 3] += 5
    elif harm == "label":
        label[label == 3] = 4
        label[16, 16, 16] = 4
    elif harm == "name":
        name = "someone"
    if harm != "none":
        nib.save(nib.Nifti1Image(label, affine), folder / f"{name}.nii.gz")
    if harm == "truncated":
        file = folder / f"{name}.nii.gz"
        file.write_bytes(file.read_bytes()[:-40])
    answer = bench("evaluate", folder, phantoms, "--name", "theirs", "--results", tmp_path / "results")
    assert answer.status == 2
    for word in words:
        assert word in answer.err
    assert not Store(tmp_path / "results").records()


@pytest.fixture
def published_weights(tmp_path: Path) -> Path:
    """Weights of a small network under its authors' names, in a checkpoint of a data-parallel training."""
    torch.manual_seed(0)
    network = models.create("uxnet", in_channels=4, out_channels=4, image_size=32, feat_size=(4, 8, 8, 8))
    names = published("uxnet")
    state = {f"module.{names.name(key)}": value for key, value in network.state_dict().items()}
    beside = {"epoch": 7, "best": np.float64(0.9), "losses": [np.float32(0.5)], "count": np.int64(3)}
    torch.save({**beside, "state_dict": state}, tmp_path / "published.pt")
    torch.save(network, tmp_path / "whole.pt")
    return tmp_path / "published.pt"


UXNET = (
    *("--model", "uxnet", "--protocol", "demo", "--set", "model_options.uxnet.feat_size=4,8,8,8"),
    *("--dataset", "phantom"),
)


def test_published_weights_segment_a_case(
    bench: Callable, published_weights: Path, phantoms: Path, tmp_path: Path
) -> None:
    case = phantoms / "BraTS-PHA-00001-000"
    answer = bench("predict", "--weights", published_weights, *UXNET, case, tmp_path / "mine.nii.gz")
    assert answer.status == 0, answer.err
    written = nib.load(tmp_path / "mine.nii.gz")
    np.testing.assert_array_equal(written.affine, nib.load(case / f"{case.name}-t1c.nii.gz").affine)
    assert len(np.unique(written.dataobj)) > 1


def test_published_weights_that_leave_a_doubt_say_so(bench: Callable, phantoms: Path, tmp_path: Path) -> None:
    network = models.create("swinunetr", in_channels=4, out_channels=4, image_size=64, feature_size=12)
    torch.save(network.state_dict(), tmp_path / "swin.pt")
    answer = bench(
        *("predict", "--weights", tmp_path / "swin.pt", "--model", "swinunetr", "--protocol", "demo"),
        *("--set", "data.patch_size=64", phantoms / "BraTS-PHA-00001-000", tmp_path / "out"),
    )
    assert answer.status == 0, answer.err
    assert 'patch_merging="legacy"' in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--weights", "nowhere.pt", *UXNET), ["no file", "nowhere.pt"]),
        (("--weights", "published.pt"), ["--model NAME", "bench models"]),
        (("--weights", "published.pt", *UXNET, "surplus"), ["expected INPUT OUTPUT", "surplus"]),
        (("--weights", "published.pt", "--model", "uxnett"), ["Did you mean 'uxnet'"]),
        (("--weights", "published.pt", "--model", "uxnet"), ["Misshapen", "uxnet_3d.downsample_layers.0.0.weight"]),
        (("--weights", "published.pt", "--model", "unetr"), ["Missing", "Surplus", "vit.patch_embedding"]),
        (("--weights", "published.pt", *UXNET, "--dataset", "brats"), ["brats2023"]),
        (
            ("--weights", "published.pt", *UXNET, "--set", "model_options.uxnett.depths=1,1,1,1"),
            ["would change nothing", "model_options.uxnet.OPTION"],
        ),
        (("--weights", "whole.pt", *UXNET), ["would run code", "models.uxnet.UxNet", "state dict"]),
        (("--weights", "text.pt", *UXNET), ["text.pt", "damaged"]),
        (("--weights", "cut.pt", *UXNET), ["cut.pt", "cannot be read"]),
        (("--weights", ".", *UXNET), ["is a folder", "RUN"]),
        (("--weights", "list.pt", *UXNET), ["holds a list"]),
        (("--model", "uxnet", "3f2a"), ["--model goes with --weights", "3f2a"]),
        (("--set", "data.patch_size=64", "3f2a"), ["--set goes with --weights"]),
        ((), ["expected RUN INPUT OUTPUT", "--weights FILE"]),
    ],
)
def test_weights_that_cannot_be_used_are_refused_and_nothing_is_written(
    bench: Callable,
    published_weights: Path,
    phantoms: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: list[str],
) -> None:
    (tmp_path / "text.pt").write_text("these are no weights")
    (tmp_path / "cut.pt").write_bytes(published_weights.read_bytes()[:5000])
    torch.save([1, 2], tmp_path / "list.pt")
    case = phantoms / "BraTS-PHA-00001-000"
    answer = bench("predict", *arguments, case, tmp_path / "out")
    assert answer.status == 2, answer.out
    for word in words:
        assert word in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "out").exists()
