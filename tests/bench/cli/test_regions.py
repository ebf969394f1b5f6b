"""``--set train.target=regions``: from training to the files of a prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bench.store import WEIGHTS, Store

REGIONS = ("--set", "train.target=regions", "--set", "train.loss=dice_ce")


def test_a_network_of_regions_is_trained_scored_and_used(
    bench: Callable, tiny_run: Callable, phantoms: Path, tmp_path: Path
) -> None:
    answer = tiny_run(*REGIONS, "--set", "train.steps=6", "--set", "train.learning_rate=0.1")
    assert answer.status == 0, answer.err
    (record,) = Store(tmp_path / "results").records()
    assert record.content["job"]["protocol"]["train"]["target"] == "regions"
    weights = torch.load(record.folder / WEIGHTS, weights_only=True)["model"]
    assert list(weights.values())[-1].shape[0] == 3  # WT, TC, ET

    options = ("--results", tmp_path / "results", "--probabilities")
    answer = bench("predict", record.key, phantoms, tmp_path / "out", *options)
    assert answer.status == 0, answer.err
    for earlier in (record.folder / "predictions").glob("*.nii.gz"):
        label = np.asarray(nib.load(tmp_path / "out" / earlier.name).dataobj)
        np.testing.assert_array_equal(label, np.asarray(nib.load(earlier).dataobj))
        stem = earlier.name.removesuffix(".nii.gz")
        wt, tc, et = (np.asarray(nib.load(tmp_path / "out" / f"{stem}_{name}.nii.gz").dataobj) for name in _NAMES)
        np.testing.assert_array_equal(label, np.select([et > 0.5, tc > 0.5, wt > 0.5], [3, 1, 2], 0))
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 6 * 4

    options = ("--results", tmp_path / "results", "--inputs", "1", "--device", "cpu")
    answer = bench("profile", "--what", "receptive-field", "--run", record.key, *options)
    assert answer.status == 0, answer.err
    found = {one.kind: one for one in Store(tmp_path / "results").records()}["profile"]
    assert (found.status, found.content["job"]["classes"]) == ("complete", 3)


_NAMES = ("WT", "TC", "ET")


@pytest.mark.parametrize("command", ["run", "tune"], ids=["a run", "a search"])
def test_regions_that_overlap_are_refused_before_anything_is_trained(
    bench: Callable, make_nnunet: Callable, tmp_path: Path, command: str
) -> None:
    regions = {"background": 0, "a": [1, 2], "b": [2, 3], "c": 3}
    root = make_nnunet(tmp_path / "Dataset001_odd", labels=regions, regions_class_order=[1, 2, 3])
    answer = bench(
        *(command, "--model", "segresnet", "--dataset", root, "--protocol", "demo", *REGIONS),
        *("--set", "split.train=0.5", "--set", "split.validation=0.25", "--set", "split.test=0.25"),
        *("--results", tmp_path / "results"),
    )
    assert answer.status == 2
    assert "error: segresnet: train.target=regions: the regions a (1, 2) and b (2, 3) overlap" in answer.err
    assert "train.target=classes" in answer.err


def test_whose_recipe_asks_for_regions_is_told(bench: Callable, make_nnunet: Callable, tmp_path: Path) -> None:
    regions = {"background": 0, "whole": [1, 2], "a": 1, "b": 2}
    root = make_nnunet(tmp_path / "Dataset001_whole", labels=regions, regions_class_order=[1, 1, 2])
    command = ("run", "--model", "unetr,segresnet", "--dataset", root, "--protocol", "author", "--dry-run")
    answer = bench(*command, "--set", "infer.output=regions")
    assert answer.status == 2
    assert "error: unetr, by its authors' recipe: infer.output=regions: every label of the region whole" in answer.err
    answer = bench(*command)
    assert answer.status == 2
    assert "error: segresnet, by its authors' recipe: train.target=regions: every label of" in answer.err
    assert "Use train.target=classes" in answer.err
