"""Evaluation: what is written and scored lies where the image lies."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.engine.evaluate import Measured, evaluate
from bench.engine.interrupt import Interrupted, StopRequest
from bench.errors import BenchError
from bench.fields import InferFields
from bench.progress import ConsoleWatcher
from bench.protocol import load_protocol
from bench.store import WEIGHTS, OpenRecord
from data.brats import PHANTOM, BratsDataset
from data.prepare import Preparation, prepare
from data.volume import CaseFiles

SHAPE_XYZ = (23, 19, 17)
AFFINE = np.array([[0, -1.5, 0, 7], [-1, 0, 0, 40], [0, 0, 2, -3], [0, 0, 0, 1]], dtype=float)


class Threshold(nn.Module):
    """Class 3 where the first channel is above its mean, and a count of how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        above = (image[:, 0] > 0).float()
        return torch.stack([1 - above, 0 * above, 0 * above, above], dim=1)


@pytest.fixture
def case(tmp_path: Path) -> CaseFiles:
    """One case of no symmetry: a bright block off centre, empty margins of different widths, a turned affine."""
    folder = tmp_path / "data" / "BraTS-XYZ-00001-000"
    folder.mkdir(parents=True)
    image = np.zeros(SHAPE_XYZ, np.int16)
    image[3:20, 2:15, 4:16] = 100
    image[5:9, 3:12, 10:13] = 900
    for channel in PHANTOM.channels:
        nib.save(nib.Nifti1Image(image, AFFINE), folder / f"{folder.name}-{channel}.nii.gz")
    label = np.where(image == 900, 3, 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(label, AFFINE), folder / f"{folder.name}-seg.nii.gz")
    return BratsDataset(PHANTOM, tmp_path / "data").cases()[0]


def _evaluate(
    case: CaseFiles,
    root: Path,
    model: nn.Module,
    stop: StopRequest,
    weights: bytes = b"first",
    infer: InferFields | None = None,
) -> Measured:
    (root / WEIGHTS).parent.mkdir(exist_ok=True)
    (root / WEIGHTS).write_bytes(weights)
    written = root / "record.json"
    record = OpenRecord(root, json.loads(written.read_text()) if written.exists() else {})
    record.begin_predictions()
    dataset = BratsDataset(PHANTOM, root / "data")
    return evaluate(
        model,
        PHANTOM.regions,
        [case],
        prepare(dataset, [case], root / "cache", Preparation(normalise="box")),
        load_protocol("demo", ["data.patch_size=8", "infer.mirror_axes=0,1"]),
        infer=infer,
        device=torch.device("cpu"),
        watcher=ConsoleWatcher(),
        stop=stop,
        record=record,
    )


def test_a_perfect_network_scores_perfectly_and_its_map_overlays_the_case(case: CaseFiles, tmp_path: Path) -> None:
    measured = _evaluate(case, tmp_path, Threshold(), StopRequest())
    assert {m.region: (m.dice, m.hd95) for m in measured[case.id]} == dict.fromkeys(("WT", "TC", "ET"), (1.0, 0.0))
    assert measured[case.id][0].reference_mm3 == pytest.approx(4 * 9 * 3 * 1.5 * 2)
    written = nib.load(tmp_path / "predictions" / f"{case.id}.nii.gz")
    assert case.label is not None
    reference = nib.load(case.label)
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(reference.dataobj))
    np.testing.assert_allclose(written.affine, reference.affine)


def test_an_interrupted_evaluation_goes_on_from_the_maps_of_the_same_weights(case: CaseFiles, tmp_path: Path) -> None:
    first = _evaluate(case, tmp_path, Threshold(), StopRequest())
    again = Threshold()
    assert _evaluate(case, tmp_path, again, StopRequest()) == first
    assert again.calls == 0
    written = tmp_path / "predictions" / f"{case.id}.nii.gz"
    _evaluate(case, tmp_path, again, StopRequest(), weights=b"second")
    assert again.calls > 0, "maps of other weights are made anew"
    for harm in ("truncated", "replaced"):
        again.calls = 0
        if harm == "truncated":
            written.write_bytes(written.read_bytes()[:30])
        else:  # the mean of Dice would be 0 if it were taken for the network's
            nib.save(nib.Nifti1Image(np.zeros(SHAPE_XYZ, np.uint8), AFFINE), written)
        assert _evaluate(case, tmp_path, again, StopRequest(), weights=b"second") == first
        assert again.calls > 0, f"a {harm} map is made anew"


def test_a_stop_is_heard_within_a_case(case: CaseFiles, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Interrupted):
        _evaluate(case, tmp_path, Threshold(), stop)
    assert not list(tmp_path.glob("predictions/*"))


def test_while_training_flips_can_be_left_out(case: CaseFiles, tmp_path: Path) -> None:
    flipped, plain = Threshold(), Threshold()
    fields = load_protocol("demo", []).infer
    assert fields.mirror_axes == ()
    first = _evaluate(case, tmp_path, flipped, StopRequest())
    assert _evaluate(case, tmp_path, plain, StopRequest(), weights=b"second", infer=fields) == first
    assert flipped.calls == 4 * plain.calls > 0


def test_regions_that_cannot_be_painted_are_told_before_anything_runs(case: CaseFiles) -> None:
    model = Threshold()
    with pytest.raises(BenchError, match="region all"):
        evaluate(
            model,
            {"all": (1, 2), "a": (1,), "b": (2,)},
            [case],
            {},
            load_protocol("demo", ["infer.output=regions"]),
            device=torch.device("cpu"),
            watcher=ConsoleWatcher(),
            stop=StopRequest(),
        )
    assert model.calls == 0
