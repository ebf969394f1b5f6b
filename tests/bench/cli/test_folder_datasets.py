"""Datasets that are folders in somebody else's layout, through the same commands as BraTS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from bench.store import Record, Store

Bench = Callable[..., object]
TINY = ("--set", "model_options.segresnet.init_filters=8", "--set", "evaluate.untrained=false", "--protocol", "demo")


def _only(root: Path) -> Record:
    (record,) = Store(root).records()
    return record


def test_ct_in_nnunets_layout_is_learnt_predicted_and_scored(
    bench: Bench, make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_nnunet(tmp_path / "Dataset007_Organ", cases=6)
    assert bench("data", "check", root).status == 0
    results = ("--results", tmp_path / "results")
    patch = ("--set", "data.patch_size=8,24,24", "--set", "train.steps=60", "--set", "augment.rotation_probability=0.2")
    answer = bench("run", "--model", "segresnet", "--dataset", root, *TINY, *patch, *results)
    assert answer.status == 0, answer.err + answer.out
    record = _only(tmp_path / "results")
    assert record.content["mean_dice"] > 0.5
    assert record.content["job"]["dataset"] == "Dataset007_Organ"
    (intensity,) = record.content["preparation"]["intensities"]
    assert 50 < intensity["mean"] < 130, "Hounsfield units of organ and tumour"
    table = bench("table", *results)
    assert "organ Dice %" in table.out
    assert "tumour HD95 mm" in table.out

    # The dataset's own description is not needed to predict, and a new case may have another spacing.
    (root / "dataset.json").unlink()
    new = tmp_path / "new"
    new.mkdir()
    affine = np.diag([-0.7, -0.9, 2.5, 1.0])
    source = nibabel.load(root / "imagesTr" / "ct_000_0000.nii.gz")
    nibabel.Nifti1Image(np.asarray(source.dataobj), affine).to_filename(new / "patient_0000.nii.gz")
    predicted = bench("predict", record.key, new, tmp_path / "out", *results, "--probabilities")
    assert predicted.status == 0, predicted.err
    label = nibabel.load(tmp_path / "out" / "patient.nii.gz")
    np.testing.assert_allclose(label.affine, affine, atol=1e-6)
    assert label.shape == source.shape
    assert set(np.unique(np.asarray(label.dataobj))) <= {0, 1, 2}
    maps = [nibabel.load(tmp_path / "out" / f"patient_{name}.nii.gz") for name in ("background", "organ", "tumour")]
    np.testing.assert_allclose(sum(np.asarray(image.dataobj) for image in maps), 1, atol=1e-5)

    single = bench("predict", record.key, new / "patient_0000.nii.gz", tmp_path / "one.nii.gz", *results)
    assert single.status == 0, single.err
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "one.nii.gz").dataobj), np.asarray(label.dataobj))


@pytest.mark.parametrize("split", [False, True])
def test_two_channels_of_mr_run_in_both_listed_layouts(
    bench: Bench, make_listed: Callable[..., Path], tmp_path: Path, split: bool
) -> None:
    root = make_listed(tmp_path / "Task05_Prostate", split=split, cases=4)
    results = ("--results", tmp_path / "results")
    answer = bench(
        "run",
        "--model",
        "segresnet",
        "--dataset",
        root,
        *TINY,
        "--set",
        "data.patch_size=8",
        "--set",
        "train.steps=2",
        *results,
    )
    assert answer.status == 0, answer.err + answer.out
    record = _only(tmp_path / "results")
    assert record.content["data"]["card"]["channels"] == ["T2", "ADC"]
    assert set(record.content["results"]) == {"gland"}
    case = record.cases()["case"].iloc[0]
    prediction = nibabel.load(record.folder / "predictions" / f"{case}.nii.gz")
    reference = nibabel.load(root / "labelsTr" / f"{case}.nii.gz")
    np.testing.assert_allclose(prediction.affine, reference.affine, atol=1e-6)
    assert prediction.shape == reference.shape


def test_a_changed_description_is_another_experiment(
    bench: Bench, make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_nnunet(tmp_path / "Dataset007_Organ", cases=4)
    run = (
        "run",
        "--model",
        "segresnet",
        "--dataset",
        root,
        *TINY,
        "--set",
        "data.patch_size=8",
        "--set",
        "train.steps=1",
    )
    results = ("--results", tmp_path / "results")
    assert bench(*run, *results).status == 0
    assert "already there" in bench(*run, *results).err
    facts = json.loads((root / "dataset.json").read_text())
    facts["labels"] = {"background": 0, "all": [1, 2], "tumour": 2}
    facts["regions_class_order"] = [1, 2]
    (root / "dataset.json").write_text(json.dumps(facts))
    assert bench(*run, *results).status == 0
    assert len(Store(tmp_path / "results").records()) == 2
    assert bench("table", *results).out.count("absent from the reference") == 2


def test_regions_that_no_label_map_can_tell_are_refused_before_training(
    bench: Bench, make_nnunet: Callable[..., Path], tmp_path: Path
) -> None:
    labels = {"background": 0, "one": [1, 2], "other": [2, 3], "third": 3}
    root = make_nnunet(tmp_path / "Dataset008_Odd", labels=labels, regions_class_order=[1, 2, 3])
    answer = bench(
        "run",
        "--model",
        "segresnet",
        "--dataset",
        root,
        *TINY,
        "--set",
        "data.patch_size=8",
        "--set",
        "infer.output=regions",
    )
    assert answer.status == 2
    assert "overlap and neither holds the other" in answer.err
    assert not (tmp_path / "results").exists()
