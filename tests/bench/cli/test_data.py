"""``bench data``, ``bench datasets``, ``bench models``"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import data
import models
from data.nifti import write_image, write_label
from data.volume import Geometry

SAMPLES = Path(__file__).parents[4] / "shared" / "samples"


def test_phantoms_pass_the_check_of_brats2023(bench: Callable, tmp_path: Path) -> None:
    made = bench("data", "phantom", "--cases", 2, "--size", 32, "--seed", 3, tmp_path / "out")
    assert made.status == 0, made.err
    for dataset in ("brats2023", "phantom"):
        checked = bench("data", "check", dataset, "--data-dir", tmp_path / "out")
        assert checked.status == 0, checked.out
        assert "2 cases" in checked.out
        assert "0 errors" in checked.out


def test_a_fault_is_printed_with_its_mend_and_the_status_is_1(bench: Callable, tmp_path: Path) -> None:
    bench("data", "phantom", "--cases", 2, "--size", 32, tmp_path / "out")
    case = tmp_path / "out" / "BraTS-PHA-00002-000"
    (case / f"{case.name}-t1c.nii.gz").unlink()
    checked = bench("data", "check", "brats2023", "--data-dir", tmp_path / "out")
    assert checked.status == 1
    for word in (case.name, "t1c", "found", "expected", "to mend it", "1 errors"):
        assert word in checked.out


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the two real cases are not distributed with the project")
def test_real_cases_pass(bench: Callable) -> None:
    checked = bench("data", "check", "brats2023", "--data-dir", SAMPLES)
    assert checked.status == 0, checked.out


@pytest.mark.parametrize("arguments", [("--cases", "0"), ("--size", "33"), ("--size", "0")])
def test_impossible_phantoms_are_refused(bench: Callable, tmp_path: Path, arguments: tuple[str, str]) -> None:
    answer = bench("data", "phantom", *arguments, tmp_path / "out")
    assert answer.status == 2
    assert arguments[1] in answer.err
    assert not (tmp_path / "out").exists()


def test_every_model_and_dataset_is_listed_and_has_a_card(bench: Callable) -> None:
    for verb, names in (("models", models.names()), ("datasets", data.names())):
        listing = bench(verb).out
        for name in names:
            assert name in listing
            card = bench(verb, name)
            assert card.status == 0
            assert "licence" in card.out
    assert "feat_size" in bench("models", "segmamba").out
    assert bench("models", "segmambo").status == 2


SHAPE = (8, 24, 24)


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """Six small CT cases in nnU-Net's layout, the slices 4 mm apart and 1 mm within, a little more in each."""
    root = tmp_path / "Dataset001_Blobs"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    facts = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "blob": 1}, "numTraining": 6}
    (root / "dataset.json").write_text(json.dumps({**facts, "file_ending": ".nii.gz"}))
    for number in range(6):
        label = np.zeros(SHAPE, np.uint8)
        label[2:6, 6:18, 6:18] = 1
        image = np.where(label, 60.0, -1000.0) + np.random.default_rng(number).normal(0, 10, SHAPE)
        spacing = 1 + 0.04 * number
        geometry = Geometry(np.diag([spacing, spacing, 4, 1]), SHAPE, (4.0, spacing, spacing))
        write_image(root / "imagesTr" / f"b{number}_0000.nii.gz", image, geometry)
        write_label(root / "labelsTr" / f"b{number}.nii.gz", label, geometry)
    return root


def test_a_folder_of_anybody_is_checked_shown_and_prepared(bench: Callable, ct: Path) -> None:
    checked = bench("data", "check", ct)
    assert (checked.status, checked.out) == (0, f"6 cases in {ct}: 0 errors, 0 warnings\n")
    card = bench("datasets", ct)
    assert card.status == 0
    assert "Dataset001_Blobs" in card.out
    assert "imagesTr/CASE_0000" in card.out
    made = bench("data", "prepare", ct)
    assert made.status == 0, made.err
    for line in ("cases            6", "voxels before    8 × 24 × 24", "CT               clipped to", "blob:"):
        assert line in made.out
    (ct / "labelsTr" / "b3.nii.gz").unlink()
    checked = bench("data", "check", ct)
    assert checked.status == 1
    assert "b3, label: found no such file" in checked.out


def test_preparing_twice_finds_everything_there(
    bench: Callable, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = ("data", "prepare", "phantom", "--data-dir", phantoms)
    first = bench(*prepare)
    assert first.status == 0, first.err
    assert "already" not in first.err
    folder = Path(first.out.splitlines()[0].removeprefix("folder").strip())
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["cases"] == 6
    assert summary["bytes"] == sum(
        file.stat().st_size for file in folder.glob("*/*") if file.name != "case.json"
    )  # what a case weighs without the facts about it

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("data.dataset.inspect_case", refuse)
    second = bench(*prepare)
    assert second.status == 0, second.err
    assert "all 6 cases are there already" in second.err
    assert second.out == first.out


def test_cases_are_prepared_for_every_fold(
    bench: Callable, make_nnunet: Callable[..., Path], phantoms: Path, tmp_path: Path
) -> None:
    """CT is scaled by the training cases, which are others in each fold; the phantom's channels are not."""
    ct = make_nnunet(tmp_path / "Dataset007_CT", cases=4)
    both = bench("data", "prepare", ct, "--set", "split.folds=2")
    assert both.status == 0, both.err
    assert both.out.count("folder  ") == 2
    assert all(line.split() == ["cases", "4"] for line in both.out.splitlines() if line.startswith("cases"))
    one = bench("data", "prepare", "phantom", "--data-dir", phantoms, "--set", "split.folds=3")
    assert one.out.count("folder  ") == 1
    assert "cases            6\n" in one.out


def test_what_is_prepared_follows_the_protocol(bench: Callable, phantoms: Path, tmp_path: Path) -> None:
    prepare = ("data", "prepare", "phantom", "--data-dir", phantoms)
    few = bench(*prepare, "--set", "validation.every_epochs=none")
    assert "cases            5" in few.out, "without validation, nobody needs its case"
    half = bench(*prepare, "--set", "data.storage=float16", "--set", "data.spacing_mm=2,1,1")
    assert "as float16" in half.out
    after = next(line for line in half.out.splitlines() if line.startswith("mm after"))
    assert after.removeprefix("mm after").strip().startswith(("2 ×", "1.9", "2."))
    assert len(list((tmp_path / "cache" / "prepared").iterdir())) == 2
    refused = bench(*prepare, "--set", "data.storage=float8")
    assert refused.status == 2
    assert "data.storage=float8" in refused.err
    assert bench(*prepare, "--protocol", "author").status == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_preparation_goes_on(
    bench: Callable, ct: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    from data import prepare

    whole, made = prepare.prepare_volume, []

    def interrupting(case_id: str, *more: object) -> object:
        made.append(case_id)
        if len(made) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(case_id, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "prepare_volume", interrupting)
    stopped = bench("data", "prepare", ct, "--workers", workers)
    assert stopped.status == 130
    assert "run the same command again" in stopped.err
    assert 2 <= len(made) < 6
    goes_on = bench("data", "prepare", ct, "--workers", workers)
    assert goes_on.status == 0, goes_on.err
    assert sorted(made) == [f"b{number}" for number in range(6)], "each was prepared once"


def test_a_path_that_is_no_dataset_is_a_message(bench: Callable, tmp_path: Path) -> None:
    for verb in (("data", "check"), ("data", "prepare"), ("datasets",)):
        answer = bench(*verb, f"{tmp_path}/none")
        assert answer.status == 2
        assert "there is nothing there; expected a folder" in answer.err
