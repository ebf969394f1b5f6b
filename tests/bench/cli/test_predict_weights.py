"""``bench predict --weights``: weights that a network's authors published, and what is wrong with a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import models
from models.registry import published


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
        (("--weights", "published.pt", *UXNET, "surplus"), ["is a folder among 2 inputs", "surplus"]),
        (("--weights", "published.pt", "--model", "uxnett"), ["Did you mean 'uxnet'"]),
        (("--weights", "published.pt", "--model", "uxnet"), ["Misshapen", "uxnet_3d.downsample_layers.0.0.weight"]),
        (("--weights", "published.pt", "--model", "unetr"), ["Missing", "Surplus", "vit.patch_embedding"]),
        (("--weights", "published.pt", *UXNET, "--dataset", "brats"), ["brats2023"]),
        (
            ("--weights", "published.pt", *UXNET, "--set", "model_options.uxnett.depths=1,1,1,1"),
            ["model_options 'uxnett'", "did you mean 'uxnet'"],
        ),
        (
            ("--weights", "published.pt", *UXNET, "--set", "train.target=regions"),
            ["which of its outputs", "--set train.target=classes"],
        ),
        (("--weights", "whole.pt", *UXNET), ["would run code", "models.uxnet.UxNet", "state dict"]),
        (("--weights", "text.pt", *UXNET), ["text.pt", "damaged"]),
        (("--weights", "cut.pt", *UXNET), ["cut.pt", "cannot be read"]),
        (("--weights", ".", *UXNET), ["is a folder", "RUN"]),
        (("--weights", "list.pt", *UXNET), ["holds a list"]),
        (("--weights", "script.pt", *UXNET), ["script.pt cannot be read", "no file that torch.save wrote"]),
        (("--weights", "run/checkpoint/best.pt", *UXNET), ["checkpoint of this package", "/run INPUT OUTPUT"]),
        (("--model", "uxnet", "3f2a"), ["--model goes with --weights", "3f2a"]),
        (("--set", "data.patch_size=64", "3f2a"), ["--set goes with --weights"]),
        ((), ["expected RUN INPUT... OUTPUT", "--weights FILE"]),
        (("--weights", "published.pt", *UXNET, "--checkpoint", "best"), ["--checkpoint best chooses", "one file"]),
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
    (tmp_path / "script.pt").write_text("cos\nsystem\n(S'true'\ntR.")
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    ours = dict.fromkeys(("model", "optimiser", "scaler", "progress", "random"), 0)
    torch.save(ours, tmp_path / "run" / "checkpoint" / "best.pt")
    case = phantoms / "BraTS-PHA-00001-000"
    answer = bench("predict", *arguments, case, tmp_path / "out")
    assert answer.status == 2, answer.out
    for word in words:
        assert word in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "out").exists()


def test_weights_alone_cannot_say_how_ct_is_scaled(
    bench: Callable, published_weights: Path, phantoms: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "Dataset001_Liver"
    (folder / "imagesTr").mkdir(parents=True)
    facts = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**facts, "numTraining": 0}))
    case = phantoms / "BraTS-PHA-00001-000"
    options = ("--weights", published_weights, *UXNET[:-1], folder)
    answer = bench("predict", *options, case / f"{case.name}-t2w.nii.gz", tmp_path / "out")
    assert answer.status == 2
    assert "channels of CT" in answer.err
