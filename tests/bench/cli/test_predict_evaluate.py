"""``bench predict`` and ``bench evaluate``"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bench.metrics import score_case
from bench.store import Store


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


CHANNELS = ("t2w", "t2f", "t1n", "t1c")


def _files(case: Path) -> list[Path]:
    return [case / f"{case.name}-{channel}.nii.gz" for channel in CHANNELS]


def test_one_file_per_channel_is_segmented_like_its_folder(
    bench: Callable, run_key: str, phantoms: Path, tmp_path: Path
) -> None:
    case, results = phantoms / "BraTS-PHA-00001-000", ("--results", tmp_path / "results")
    assert bench("predict", run_key, case, tmp_path / "out", *results).status == 0
    moved = []  # from folders and under names that say nothing
    for place, file in enumerate(_files(case)):
        (tmp_path / str(place)).mkdir()
        moved.append(shutil.copy(file, tmp_path / str(place) / "scan.nii.gz"))
    answer = bench("predict", run_key, *moved, tmp_path / "mine.nii.gz", *results)
    assert answer.status == 0, answer.err
    assert (tmp_path / "mine.nii.gz").read_bytes() == (tmp_path / "out" / f"{case.name}.nii.gz").read_bytes()
    answer = bench("predict", run_key, *_files(case), tmp_path / "named", *results)
    assert answer.out == f"{tmp_path / 'named' / case.name}.nii.gz\n"


def test_files_that_are_no_case_are_refused_and_nothing_is_written(
    bench: Callable, run_key: str, phantoms: Path, tmp_path: Path
) -> None:
    results = ("--results", tmp_path / "results")
    case = phantoms / "BraTS-PHA-00001-000"
    t2w, t2f, t1n, t1c = _files(case)
    broken = tmp_path / "broken.nii.gz"
    image = nib.load(t1c)
    values = image.get_fdata(dtype=np.float32)
    values[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), broken)
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32)[:, :, :-1], image.affine), other)
    for files, words in (
        ([t2w, t2f, t1n], ["found 3 files", "t2w t2f t1n t1c"]),
        ([t1c, t2f, t1n, t2w], [f"{t1c.name} is given as t2w", "says t1c"]),
        ([t2w, t2f, t1n, broken], ["NaN in 1", "(x, y, z) = (3, 4, 5)"]),
        ([t2w, t2f, t1n, other], ["(32, 32, 31)", "as t2w"]),
        ([t2w, t2f, t1n, tmp_path / "nowhere.nii.gz"], ["no such file"]),
        ([case, t2f], ["is a folder among 2 inputs"]),
    ):
        answer = bench("predict", run_key, *files, tmp_path / "out", *results)
        assert answer.status == 2, answer.out
        for word in words:
            assert word in answer.err
        assert not (tmp_path / "out").exists()
    mine = Path(shutil.copy(t1c, tmp_path / "mine-t1c.nii.gz"))
    before = mine.read_bytes()
    answer = bench("predict", run_key, t2w, t2f, t1n, mine, mine, *results)
    assert answer.status == 2
    files = [Path(shutil.copy(file, tmp_path / f"scan{place}.nii.gz")) for place, file in enumerate(_files(case))]
    answer = bench("predict", run_key, *files, files[3], *results)
    assert "would be overwritten" in answer.err
    assert mine.read_bytes() == before == files[3].read_bytes()


def test_probabilities_lie_on_the_grid_of_the_case_and_agree_with_the_labels(
    bench: Callable, run_key: str, phantoms: Path, tmp_path: Path
) -> None:
    case, out = phantoms / "BraTS-PHA-00003-000", tmp_path / "out"
    answer = bench("predict", run_key, case, out, "--probabilities", "--results", tmp_path / "results")
    assert answer.status == 0, answer.err
    names = [f"{case.name}.nii.gz", *(f"{case.name}_{label}.nii.gz" for label in ("background", "NCR", "ED", "ET"))]
    assert [Path(line).name for line in answer.out.splitlines()] == names
    label, *each = (nib.load(out / name) for name in names)
    image = nib.load(_files(case)[0])
    for written in each:
        assert written.get_data_dtype() == np.float32
        np.testing.assert_array_equal(written.affine, image.affine)
    together = np.stack([written.get_fdata() for written in each])
    np.testing.assert_allclose(together.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(together.argmax(0), np.asarray(label.dataobj))
    outside = sum(nib.load(file).get_fdata() != 0 for file in _files(case)) == 0
    assert (together[0][outside] == 1).mean() > 0.5, "outside the box it is surely background"


def test_the_best_weights_may_be_asked_for_where_there_are_some(
    bench: Callable, tiny_run: Callable, phantoms: Path, tmp_path: Path
) -> None:
    results, case = ("--results", tmp_path / "results"), phantoms / "BraTS-PHA-00001-000"
    assert tiny_run("--set", "validation.every_epochs=none").status == 0
    record = Store(tmp_path / "results").records()[0]
    answer = bench("predict", record.key, case, tmp_path / "out", "--checkpoint", "best", *results)
    assert answer.status == 2
    assert "there is no" in answer.err
    assert "--checkpoint last" in answer.err
    assert "last or best" in bench("predict", record.key, case, tmp_path / "out", "--checkpoint", "x", *results).err
    assert not (tmp_path / "out").exists()

    content = torch.load(record.folder / "checkpoint" / "last.pt", weights_only=True)
    bias = [name for name in content["model"] if name.endswith("bias")][-1]
    content["model"][bias] = torch.tensor([0.0, 0.0, 1e6, 0.0])
    torch.save(content, record.folder / "checkpoint" / "best.pt")
    for checkpoint, words in (("best", {2}), ("last", None)):
        answer = bench("predict", record.key, case, tmp_path / checkpoint, "--checkpoint", checkpoint, *results)
        assert answer.status == 0, answer.err
        found = set(np.unique(nib.load(tmp_path / checkpoint / f"{case.name}.nii.gz").dataobj))
        assert (found - {0} == words) if words else (found != {0, 2})


def test_the_record_says_how_cases_are_prepared_and_what_their_labels_are(
    bench: Callable, run_key: str, phantoms: Path, tmp_path: Path
) -> None:
    results, case = ("--results", tmp_path / "results"), phantoms / "BraTS-PHA-00001-000"
    file = Store(tmp_path / "results").find(run_key).folder / "record.json"
    content = json.loads(file.read_text())
    assert bench("predict", run_key, case, tmp_path / "out", *results).status == 0

    older = {**content, "data": {**content["data"]}}
    del older["data"]["card"], older["preparation"]
    file.write_text(json.dumps(older))
    assert bench("predict", run_key, case, tmp_path / "older", *results).status == 0
    name = f"{case.name}.nii.gz"
    assert (tmp_path / "older" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()

    content["preparation"]["spacing_mm"] = [2.0, 1.5, 1.0]
    content["data"]["card"]["labels"]["3"] = "enhancing tumour"
    file.write_text(json.dumps(content))
    answer = bench("predict", run_key, case, tmp_path / "other", "--probabilities", *results)
    assert answer.status == 0, answer.err
    other = nib.load(tmp_path / "other" / name)
    assert other.shape == (32, 32, 32), "resampled for the network, and back"
    assert (np.asarray(other.dataobj) != np.asarray(nib.load(tmp_path / "out" / name).dataobj)).any()
    assert (tmp_path / "other" / f"{case.name}_enhancing_tumour.nii.gz").exists()


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
    assert bench("table", "--results", tmp_path / "results").out.count("absent from the reference") == 2


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
    assert table.count("absent from the reference") == 1
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
