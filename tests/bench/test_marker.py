"""Rims of which a marker decides: what follows it, what does not, and what cannot be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.external import label_maps
from bench.marker import enhancing_share, judge, weigh
from bench.progress import SilentWatcher
from data.errors import DataError
from data.nifti import read_label, write_label
from data.phantom import marked_rims, write_dataset
from data.phantom_tumour import ENHANCING, NECROSIS, OEDEMA

CASES = 12


@pytest.fixture(scope="module")
def stress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("marker") / "stress"
    write_dataset(root, cases=CASES, size=32, seed=3, kind="stress")
    return root


@pytest.fixture
def predicted(stress: Path, tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Label maps that say of the rims in doubt what they are told to, given mask and truth."""

    def write(say: Callable[[NDArray[np.bool_], bool], NDArray[np.uint8] | int]) -> dict[str, Path]:
        for case, path in label_maps(stress).items():
            label, geometry = read_label(path)
            rims, enhancing = marked_rims(stress, case)
            label[rims] = say(rims, enhancing)
            write_label(tmp_path / f"{case}.nii.gz", label, geometry)
        return label_maps(tmp_path)

    return write


def test_rims_are_what_the_label_says_and_the_marker_decides(stress: Path) -> None:
    kinds = []
    for case, path in label_maps(stress).items():
        rims, enhancing = marked_rims(stress, case)
        label, _ = read_label(path)
        assert set(label[rims]) <= {ENHANCING if enhancing else NECROSIS}
        kinds += [enhancing] * bool(rims.any())
    assert 2 <= sum(kinds) <= len(kinds) - 2


def test_the_references_follow_the_marker(stress: Path) -> None:
    sight = judge(label_maps(stress), stress, SilentWatcher())
    assert sight.right == sight.cases > sight.enhancing > 0
    assert sight.auc == 1


def test_who_takes_the_markers_for_each_other_is_always_wrong(stress: Path, predicted: Callable) -> None:
    sight = judge(predicted(lambda _, enhancing: NECROSIS if enhancing else ENHANCING), stress, SilentWatcher())
    assert (sight.right, sight.auc) == (0, 0)


@pytest.mark.parametrize("guess", [ENHANCING, NECROSIS, OEDEMA])
def test_who_always_says_the_same_sees_nothing(stress: Path, predicted: Callable, guess: int) -> None:
    sight = judge(predicted(lambda *_: guess), stress, SilentWatcher())
    assert sight.auc == 0.5
    right = {ENHANCING: sight.enhancing, NECROSIS: sight.cases - sight.enhancing, OEDEMA: 0}
    assert sight.right == right[guess]


def test_a_preference_that_follows_the_marker_is_seen_whatever_the_majority_says(
    stress: Path, predicted: Callable
) -> None:
    """Nine tenths of a rim or six are called enhancing: by majority always the same, and yet in the right order."""

    def say(rims: NDArray[np.bool_], enhancing: bool) -> NDArray[np.uint8]:
        many = np.arange(rims.sum()) < rims.sum() * (0.9 if enhancing else 0.6)
        return np.where(many, ENHANCING, NECROSIS).astype(np.uint8)

    sight = judge(predicted(say), stress, SilentWatcher())
    assert (sight.right, sight.auc) == (sight.enhancing, 1)


def test_what_is_called_neither_counts_half() -> None:
    called = np.array([ENHANCING, ENHANCING, NECROSIS, OEDEMA, 0], np.uint8)
    assert enhancing_share(called) == pytest.approx((2 + 1) / 5)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    sight = weigh([0.9, 0.4, 0.4, 0.1, 0.5], [True, True, False, False, False])
    assert sight.auc == pytest.approx((3 + 1.5) / 6)
    assert (sight.cases, sight.enhancing, sight.right) == (5, 2, 3)
    assert sight.p is not None


@pytest.mark.parametrize(("shares", "truths"), [([], []), ([0.2, 0.9], [True, True]), ([0.2], [False])])
def test_without_both_kinds_there_is_no_curve(shares: list[float], truths: list[bool]) -> None:
    sight = weigh(shares, truths)
    assert sight.auc is sight.p is None
    assert sight.cases == len(shares)


def test_label_maps_of_another_grid_are_refused(stress: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_dataset(other, cases=CASES, size=40, seed=3, kind="stress")
    with pytest.raises(BenchError, match=r"found \(40, 40, 40\) voxels .* expected \(32, 32, 32\)"):
        judge(label_maps(other), stress, SilentWatcher())


def test_what_is_no_phantom_or_no_case_of_it_is_refused(stress: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no phantom\.json"):
        marked_rims(tmp_path, "BraTS-PHA-00001-000")
    with pytest.raises(DataError, match=r"found no case BraTS-GLI-00001-000; there are version \d+, 12 stress cases"):
        marked_rims(stress, "BraTS-GLI-00001-000")


def test_phantoms_of_another_version_are_not_judged_by_this_ones_rims(stress: Path, tmp_path: Path) -> None:
    made = json.loads((stress / "phantom.json").read_text())
    (tmp_path / "phantom.json").write_text(json.dumps(made | {"version": made["version"] - 1}))
    with pytest.raises(
        DataError, match=r"holds phantoms of version \d+; expected version \d+.* Make the phantoms again"
    ):
        marked_rims(tmp_path, "BraTS-PHA-00001-000")
