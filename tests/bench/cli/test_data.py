"""``bench data``, ``bench datasets``, ``bench models``"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import data
import models

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
