"""The phantom of kind stress: small and faint lesions, and some that only a distant marker tells."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

import data
from data.errors import DataError
from data.phantom import PhantomCase, generate_case, write_dataset
from data.phantom_anatomy import draw_anatomy
from data.phantom_kind import PLAIN, STRESS, kind_named
from data.phantom_signal import acquire
from data.phantom_signs import DISTANCE, Signs, draw_signs
from data.phantom_tumour import ENHANCING, NECROSIS, OEDEMA, Plan, draw_plan, grow, mass_effect


def planned(index: int, seed: int = 0) -> tuple[Plan, Signs]:
    return draw_signs(
        np.random.default_rng([seed, index, 3]), STRESS, draw_plan(np.random.default_rng([seed, index, 0]), STRESS)
    )


@pytest.fixture(scope="module")
def plans() -> list[tuple[Plan, Signs]]:
    return [planned(index) for index in range(1000)]


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [generate_case(index, size=64, seed=0, kind="stress") for index in range(12)]


class TestPlan:
    def test_every_case_has_a_marker_of_either_kind_whatever_its_lesions(self, plans: list[tuple[Plan, Signs]]) -> None:
        assert all(signs.marker is not None for _, signs in plans)
        with_undecided = [any(focus.undecided for focus in plan.foci) for plan, _ in plans]
        blood = np.array([signs.blood for _, signs in plans])
        assert 0.8 < np.mean(with_undecided) < 0.95
        for undecided in (True, False):
            assert 0.44 < blood[np.array(with_undecided) == undecided].mean() < 0.56

    def test_an_undecided_lesion_is_what_the_marker_says_and_far_from_it(self, plans: list[tuple[Plan, Signs]]) -> None:
        for plan, signs in plans:
            assert signs.marker is not None
            for focus in plan.foci:
                distance = np.linalg.norm(np.subtract(focus.centre, signs.marker.centre))
                assert distance > focus.oedema + signs.marker.radius, "the marker lies in no lesion"
                if focus.undecided:
                    assert focus.rim > 0
                    assert focus.enhancing == signs.blood
                    assert distance - focus.core >= DISTANCE
                else:
                    assert focus.enhancing

    def test_lesions_are_one_to_five_small_and_faint_among_them(self, plans: list[tuple[Plan, Signs]]) -> None:
        foci = [focus for plan, _ in plans for focus in plan.foci]
        counts = np.bincount([len(plan.foci) for plan, _ in plans], minlength=7)
        assert counts[1] / len(plans) == pytest.approx(1 - STRESS.multifocal_share, abs=0.05)
        assert counts[[0, 6]].sum() == 0
        assert (counts[2:6] > 80).all()
        assert min(focus.core for focus in foci) < 0.05 < 0.115 < max(focus.core for focus in foci)
        assert 0.6 > min(focus.contrast for focus in foci) >= STRESS.contrast[0]
        assert np.mean([plan.foci[0].rim == 0 for plan, _ in plans]) == pytest.approx(0.05, abs=0.02)
        assert all(focus.rim <= 0.45 * focus.core for focus in foci)

    def test_spots_touch_neither_lesions_nor_the_marker(self, plans: list[tuple[Plan, Signs]]) -> None:
        counts = [len(signs.spots) for _, signs in plans]
        assert max(counts) == STRESS.spots[1] - 1
        assert np.mean(counts) > 5
        for plan, signs in plans[:200]:
            assert signs.marker is not None
            for spot in signs.spots:
                assert np.linalg.norm(np.subtract(spot.centre, signs.marker.centre)) > spot.radius + 0.03
                for focus in plan.foci:
                    assert np.linalg.norm(np.subtract(spot.centre, focus.centre)) > focus.oedema + spot.radius

    def test_a_plain_case_has_none_of_it(self) -> None:
        plan = draw_plan(np.random.default_rng(0), PLAIN)
        assert draw_signs(np.random.default_rng(1), PLAIN, plan) == (plan, Signs())


class TestImages:
    def test_a_case_is_the_same_every_time_and_another_than_the_plain_one(self, cases: list[PhantomCase]) -> None:
        again = generate_case(3, size=64, seed=0, kind="stress")
        assert np.array_equal(again.label, cases[3].label)
        assert all(np.array_equal(again.images[name], image) for name, image in cases[3].images.items())
        assert not np.array_equal(generate_case(3, size=64, seed=0).label, again.label)

    def test_the_marker_shows_in_t1(self) -> None:
        """Blood is brighter than all around it, calcium darker; neither is a label."""
        for index in range(5):
            case = generate_case(index, size=96, seed=0, kind="stress")
            _, signs = planned(index)
            assert signs.marker is not None
            x, y, z = signs.marker.centre
            voxel = tuple(round((c + 0.5) * 96 - 0.5) for c in (x, -y, z))
            image = case.images["t1n"]
            nearby = image[tuple(slice(max(v - 20, 0), v + 21) for v in voxel)]
            inner = image[tuple(slice(v - 1, v + 2) for v in voxel)].mean()
            tissue = np.median(nearby[nearby > 0])
            assert (inner > 1.5 * tissue) if signs.blood else (inner < 0.5 * tissue), f"case {index}"
            assert case.label[voxel] == 0

    def test_only_the_marker_and_the_label_tell_the_two_kinds_of_an_undecided_lesion_apart(self) -> None:
        """The same case with the other marker: the images agree but for the marker, and the rim has another label."""
        index = next(i for i in range(50) if any(focus.undecided for focus in planned(i)[0].foci))
        plan, signs = planned(index)
        assert signs.marker is not None

        def make(blood: bool) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int16]], NDArray[np.bool_]]:
            foci = tuple(replace(f, enhancing=blood) if f.undecided else f for f in plan.foci)
            anatomy = draw_anatomy(np.random.default_rng(1), 64, mass_effect(Plan(foci), 64))
            tumour = grow(np.random.default_rng(2), Plan(foci), anatomy)
            with_marker = replace(signs, blood=blood)
            images = acquire(np.random.default_rng(3), anatomy, tumour, with_marker, STRESS.noise)
            return tumour.label, images, tumour.undecided

        (label, images, undecided), (other, others, _) = make(True), make(False)
        assert undecided.any()
        assert (label[undecided] == ENHANCING).all()
        assert (other[undecided] == NECROSIS).all()
        assert np.array_equal(label[~undecided], other[~undecided])
        near_marker = ndimage.binary_dilation(signs.marker.field(64) > 0, iterations=3)
        for name, image in images.items():
            assert np.array_equal(image[~near_marker], others[name][~near_marker])
            assert not np.array_equal(image[near_marker], others[name][near_marker])

    def test_spots_are_bright_in_flair_and_no_label(self) -> None:
        plan, signs = planned(2)
        anatomy = draw_anatomy(np.random.default_rng(1), 64, mass_effect(plan, 64))
        tumour = grow(np.random.default_rng(2), plan, anatomy)
        images = [
            acquire(np.random.default_rng(3), anatomy, tumour, shown, 0.0)["t2f"].astype(float)
            for shown in (signs, replace(signs, spots=()))
        ]
        spotted = signs.spotted(anatomy) > 0.9
        assert spotted.any()
        assert (tumour.label[spotted] == 0).all()
        assert (images[0][spotted] > 1.2 * images[1][spotted]).all()

    def test_a_faint_lesion_differs_less_from_its_surroundings(self) -> None:
        plan = draw_plan(np.random.default_rng(5), PLAIN)
        anatomy = draw_anatomy(np.random.default_rng(1), 64, mass_effect(plan, 64))
        means = []
        for contrast in (1.0, 0.6):
            faint = Plan(tuple(replace(focus, contrast=contrast) for focus in plan.foci))
            tumour = grow(np.random.default_rng(2), faint, anatomy)
            images = acquire(np.random.default_rng(3), anatomy, tumour, Signs(), 0.0)
            white = (anatomy.hull < -0.02) & (tumour.label == 0) & (anatomy.grey + anatomy.fluid < 0.05)
            seen = [
                (images[name], ndimage.binary_erosion(tumour.label == value))
                for name, value in (("t2f", OEDEMA), ("t1n", NECROSIS))
            ]
            means.append([image[part].mean() / image[white].mean() - 1 for image, part in seen])
        ratios = np.array(means[1]) / np.array(means[0])
        assert ((ratios > 0.5) & (ratios < 0.85)).all()

    def test_most_planned_lesions_are_there(self, cases: list[PhantomCase]) -> None:
        found = [ndimage.label((case.label == 1) | (case.label == 3), np.ones((3, 3, 3)))[1] for case in cases]
        wanted = [len(planned(index)[0].foci) for index in range(len(cases))]
        assert sum(min(f, w) for f, w in zip(found, wanted, strict=True)) >= 0.9 * sum(wanted)


class TestFiles:
    def test_threads_write_what_one_thread_writes(self, tmp_path: Path) -> None:
        heard: list[str] = []
        write_dataset(tmp_path / "one", cases=5, size=32, seed=2, kind="stress")
        write_dataset(tmp_path / "three", cases=5, size=32, seed=2, kind="stress", workers=3, on_case=heard.append)
        manifests = [json.loads((tmp_path / name / "phantom.json").read_text()) for name in ("one", "three")]
        assert manifests[0] == manifests[1]
        assert manifests[0]["kind"] == "stress"
        assert heard == [f"BraTS-PHA-0000{number}-000" for number in range(1, 6)]
        for path in (tmp_path / "one").rglob("*.gz"):
            assert path.read_bytes() == (tmp_path / "three" / path.relative_to(tmp_path / "one")).read_bytes()

    def test_an_interruption_between_cases_leaves_what_is_whole(self, tmp_path: Path) -> None:
        def stop(case: str) -> None:
            if case == "BraTS-PHA-00002-000":
                raise KeyboardInterrupt

        threads = threading.active_count()
        with pytest.raises(KeyboardInterrupt):
            write_dataset(tmp_path / "p", cases=6, size=32, seed=2, kind="stress", workers=2, on_case=stop)
        assert threading.active_count() == threads, "nobody writes on"
        write_dataset(tmp_path / "p", cases=6, size=32, seed=2, kind="stress", workers=2)
        assert len(data.open_dataset("phantom_stress", tmp_path / "p").cases()) == 6

    def test_a_folder_of_the_other_kind_is_refused_with_its_name(self, tmp_path: Path) -> None:
        write_dataset(tmp_path / "hard", cases=1, size=32, seed=0, kind="stress")
        write_dataset(tmp_path / "easy", cases=1, size=32, seed=0)
        assert data.open_dataset("phantom_stress", tmp_path / "hard").card.synthetic
        assert data.open_dataset("brats2023", tmp_path / "hard").card.synthetic
        with pytest.raises(DataError, match=r"kind 'stress'; expected 'plain'.*--dataset phantom_stress"):
            data.open_dataset("phantom", tmp_path / "hard")
        with pytest.raises(DataError, match=r"kind 'plain'; expected 'stress'.*--dataset phantom,"):
            data.open_dataset("phantom_stress", tmp_path / "easy")
        manifest = tmp_path / "easy" / "phantom.json"
        written = json.loads(manifest.read_text())
        del written["kind"]  # as before there were kinds
        manifest.write_text(json.dumps(written))
        assert data.open_dataset("phantom", tmp_path / "easy").cases()

    def test_an_unknown_kind_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="kind 'nightmare': expected one of plain, stress"):
            write_dataset(tmp_path / "p", cases=1, size=32, seed=0, kind="nightmare")
        assert not (tmp_path / "p").exists()
        assert kind_named("plain") is PLAIN
