"""The phantom: what it looks like, that it is the same every time, and how it is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from data import phantom
from data.errors import DataError
from data.phantom import PHANTOM_VERSION, PhantomCase, generate_case, write_dataset
from data.phantom_anatomy import Anatomy, draw_anatomy
from data.phantom_fields import SmoothNoise, ellipsoid, grid, tube
from data.phantom_kind import PLAIN
from data.phantom_signal import acquire
from data.phantom_signs import Signs
from data.phantom_tumour import (
    Focus,
    Plan,
    draw_plan,
    grow,
    mass_effect,
)

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
NECROSIS, OEDEMA, ENHANCING = 1, 2, 3


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [generate_case(index, size=64, seed=0) for index in range(8)]


def core_of(label: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (label == NECROSIS) | (label == ENHANCING)


def same(a: PhantomCase, b: PhantomCase) -> bool:
    return np.array_equal(a.label, b.label) and all(np.array_equal(a.images[m], b.images[m]) for m in MODALITIES)


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class TestDeterminism:
    def test_a_case_is_the_same_whatever_was_generated_before(self, cases: list[PhantomCase]) -> None:
        assert same(generate_case(5, size=64, seed=0), cases[5])

    @pytest.mark.parametrize(("index", "seed"), [(1, 0), (0, 1)])
    def test_another_index_or_seed_is_another_case(self, index: int, seed: int) -> None:
        first, other = generate_case(0, size=32, seed=0), generate_case(index, size=32, seed=seed)
        assert not np.array_equal(first.label, other.label)
        for modality in MODALITIES:
            assert not np.array_equal(first.images[modality] > 0, other.images[modality] > 0)

    def test_a_case_shows_the_same_tumour_at_every_size(self, cases: list[PhantomCase]) -> None:
        for index, fine in enumerate(cases):
            coarse = generate_case(index, size=32, seed=0).label > 0
            halved = (fine.label > 0).reshape(32, 2, 32, 2, 32, 2).mean((1, 3, 5)) > 0.5
            assert 2 * (coarse & halved).sum() / (coarse.sum() + halved.sum()) > 0.8


class TestLayout:
    def test_a_case_has_the_arrays_of_brats(self, cases: list[PhantomCase]) -> None:
        case = cases[2]
        assert case.id == "BraTS-PHA-00003-000"
        assert tuple(case.images) == MODALITIES
        assert {image.dtype for image in case.images.values()} == {np.dtype(np.int16)}
        assert {image.shape for image in case.images.values()} == {case.label.shape} == {(64, 64, 64)}
        assert case.label.dtype == np.uint8
        assert case.affine.tolist() == [[-1, 0, 0, 0], [0, -1, 0, 63], [0, 0, 1, 0], [0, 0, 0, 1]]

    def test_background_is_zero_in_all_images_alike_and_the_brain_is_one_piece(self, cases: list[PhantomCase]) -> None:
        for case in cases:
            mask = case.images["t1n"] > 0
            for image in case.images.values():
                assert np.array_equal(image != 0, mask)
                assert image.min() == 0
                assert 300 < image.max() < 3000
            assert ndimage.label(mask)[1] == 1
            assert 0.15 < mask.mean() < 0.30

    def test_labels_lie_inside_the_brain_and_have_the_values_of_brats(self, cases: list[PhantomCase]) -> None:
        for case in cases:
            assert set(np.unique(case.label)) <= {0, 1, 2, 3}
            assert (case.images["t1n"][case.label > 0] > 0).all()

    def test_the_brain_lies_as_the_affine_says(self) -> None:
        """The brainstem reaches the bottom of the volume, the cerebellum lies behind it, the brow is narrow."""
        brain = np.mean([generate_case(i, size=32, seed=0).images["t1n"] > 0 for i in range(8)], axis=0)
        depth, width = np.arange(32), brain.any(axis=2).sum(axis=0)
        below = brain[:, :, :8].sum(axis=(0, 2))
        assert (below * depth).sum() / below.sum() > 18, "what lies low lies posterior, at high indices"
        assert brain[:, :, :8].sum() < brain[:, :, -8:].sum() * 1.5
        assert width[4] <= width[-5]


class TestAppearance:
    @pytest.fixture(scope="class", params=[0, 1, 2])
    def parts(self, request: pytest.FixtureRequest) -> tuple[Anatomy, NDArray[np.uint8], dict[str, NDArray[np.int16]]]:
        rngs = [np.random.default_rng([7, request.param, part]) for part in range(3)]
        plan = Plan(tuple(replace(focus, rim=0.04) for focus in draw_plan(rngs[0], PLAIN).foci))
        anatomy = draw_anatomy(rngs[1], 64, mass_effect(plan, 64))
        tumour = grow(rngs[0], plan, anatomy)
        return anatomy, tumour.label, acquire(rngs[2], anatomy, tumour, Signs(), PLAIN.noise)

    def test_every_tissue_has_the_contrast_of_its_modality(
        self, parts: tuple[Anatomy, NDArray[np.uint8], dict[str, NDArray[np.int16]]]
    ) -> None:
        """Means relative to white matter: low and high limits per tissue, in the order t1n, t1c, t2w, t2f."""
        anatomy, label, images = parts
        healthy = (anatomy.hull < -0.02) & (label == 0)
        pure = ndimage.binary_erosion
        regions = {
            "grey": healthy & (anatomy.grey > 0.9),
            "fluid": healthy & (anatomy.ventricle > 0.9),
            "necrosis": pure(label == NECROSIS),
            "oedema": pure(label == OEDEMA),
            "rim": pure(label == ENHANCING),
        }
        white = healthy & (anatomy.grey + anatomy.fluid < 0.05)
        limits = {
            "grey": ((0.6, 0.9), (0.6, 0.95), (1.15, 1.5), (1.05, 1.4)),
            "fluid": ((0.2, 0.6), (0.2, 0.6), (1.6, 2.4), (0.2, 0.75)),
            "necrosis": ((0.3, 0.75), (0.3, 0.9), (1.5, 2.4), (1.15, 1.6)),
            "oedema": ((0.7, 0.95), (0.7, 0.98), (1.4, 2.0), (1.45, 2.0)),
            "rim": ((0.65, 1.0), (1.25, 1.8), (1.15, 1.7), (1.15, 1.65)),
        }
        for tissue, ranges in limits.items():
            for modality, (low, high) in zip(MODALITIES, ranges, strict=True):
                image = images[modality]
                ratio = image[regions[tissue]].mean() / image[white].mean()
                assert low < ratio < high, f"{tissue} in {modality}: {ratio:.2f}"

    def test_units_differ_between_cases(self, cases: list[PhantomCase]) -> None:
        """By more than anatomy and coil explain, which change the median by a third at most."""
        for modality in ("t1n", "t1c"):
            medians = [np.median(case.images[modality][case.images[modality] > 0]) for case in cases]
            assert max(medians) > 1.5 * min(medians)

    def test_no_single_threshold_finds_tumours(self, cases: list[PhantomCase]) -> None:
        """The best common threshold on the best channel, standardised per case, stays well below a perfect Dice."""
        for modality, values in (("t2f", (1, 2, 3)), ("t1c", (3,))):
            scores = []
            for case in cases:
                mask = case.images[modality] > 0
                image = case.images[modality][mask].astype(float)
                image = (image - image.mean()) / image.std()
                target = np.isin(case.label[mask], values)
                found = [image > limit for limit in np.linspace(0, 5, 26)]
                if target.any():
                    scores.append([2 * (f & target).sum() / (f.sum() + target.sum()) for f in found])
            assert np.mean(scores, axis=0).max() < 0.88


class TestTumour:
    def test_sizes_are_those_of_gliomas(self, cases: list[PhantomCase]) -> None:
        shares = [(case.label > 0).sum() / (case.images["t1n"] > 0).sum() for case in cases]
        assert min(shares) > 0.02
        assert max(shares) < 0.20
        assert 0.05 < np.mean(shares) < 0.11
        assert max(shares) > 1.5 * min(shares)

    def test_compartments_are_nested(self, cases: list[PhantomCase]) -> None:
        """Where tumour enhances no necrosis touches anything else, and around the core most tissue is oedema."""
        for case in cases:
            around = ndimage.binary_dilation
            core, brain = core_of(case.label), case.images["t1n"] > 0
            if (case.label == ENHANCING).any():
                beside = around(case.label == NECROSIS) & (case.label != NECROSIS)
                assert (case.label[beside] == ENHANCING).all()
            shell = around(core) & ~core & brain
            assert (case.label[shell] == OEDEMA).mean() > 0.5
            assert (case.label == OEDEMA).sum() > 400

    def test_the_rim_is_two_voxels_thick_at_size_64(self, cases: list[PhantomCase]) -> None:
        enhancing = [case.label for case in cases if (case.label == ENHANCING).any()]
        assert enhancing
        for label in enhancing:
            depth = ndimage.distance_transform_edt(core_of(label))
            inner = ndimage.binary_dilation(label == NECROSIS) & (label == ENHANCING)
            assert np.median(depth[inner]) >= 2
            assert (label == NECROSIS).sum() >= 20

    def test_every_lesion_has_a_core(self, cases: list[PhantomCase]) -> None:
        """No island of oedema lies on its own."""
        for case in cases:
            pieces, count = ndimage.label(case.label > 0)
            assert set(pieces[core_of(case.label)]) == set(range(1, count + 1))

    def test_oedema_keeps_out_of_the_ventricles(self) -> None:
        plan = Plan((Focus((0.14, -0.05, 0.10), core=0.09, oedema=0.2, stretch=(1, 1, 1), rim=0.04),))
        anatomy = draw_anatomy(np.random.default_rng(3), 64, mass_effect(plan, 64))
        label = grow(np.random.default_rng(4), plan, anatomy).label
        ventricle = anatomy.ventricle > 0.5
        assert (ndimage.binary_dilation(ventricle) & (label == OEDEMA)).any(), "it reaches them"
        assert not (label[ventricle] == OEDEMA).any()

    def test_nothing_passes_the_falx(self) -> None:
        plan = Plan((Focus((0.10, 0.0, 0.25), core=0.12, oedema=0.25, stretch=(1, 1, 1), rim=0.04),))
        anatomy = draw_anatomy(np.random.default_rng(3), 64, mass_effect(plan, 64))
        label = grow(np.random.default_rng(4), plan, anatomy).label
        assert (label > 0).any()
        assert not label[anatomy.side < 0].any()

    def test_a_tumour_pushes_the_midline_away(self) -> None:
        plan = Plan((Focus((0.12, 0.0, 0.1), core=0.12, oedema=0.2, stretch=(1, 1, 1), rim=0.04),))
        calm = draw_anatomy(np.random.default_rng(3), 64, mass_effect(Plan(()), 64))
        pushed = draw_anatomy(np.random.default_rng(3), 64, mass_effect(plan, 64))
        falx = [np.argmax(brain.side[:, 32, 45] > 0) for brain in (calm, pushed)]
        assert falx[1] <= falx[0] - 1, "to the right, at lower indices"
        assert np.array_equal(calm.hull, pushed.hull), "the skull does not give way"

    def test_some_tumours_do_not_enhance_and_some_have_several_foci(self) -> None:
        plans = [draw_plan(np.random.default_rng(seed), PLAIN) for seed in range(1000)]
        assert np.mean([plan.foci[0].rim == 0 for plan in plans]) == pytest.approx(PLAIN.non_enhancing_share, abs=0.03)
        counts = np.bincount([len(plan.foci) for plan in plans], minlength=5)
        assert counts[2:].sum() / 1000 == pytest.approx(PLAIN.multifocal_share, abs=0.03)
        assert counts[0] == counts[4] == 0
        assert min(counts[2], counts[3]) > 50
        assert 0.4 < np.mean([plan.foci[0].centre[0] > 0 for plan in plans]) < 0.6, "either hemisphere"

    def test_labels_show_what_was_planned(self) -> None:
        """Generated cases have as many cores as foci, and enhance where the plan says so."""
        for index in range(30):
            plan = draw_plan(np.random.default_rng([0, index, 0]), PLAIN)
            label = generate_case(index, size=48, seed=0).label
            assert (label == ENHANCING).any() == (plan.foci[0].rim > 0)
            assert ndimage.label(core_of(label), np.ones((3, 3, 3)))[1] == len(plan.foci)
            assert (label == NECROSIS).any()


class TestFields:
    def test_noise_is_the_same_on_the_grid_and_at_points(self) -> None:
        noise = SmoothNoise.draw(np.random.default_rng(0), 0.07)
        x, y, z = (np.ascontiguousarray(a).ravel() for a in np.broadcast_arrays(*grid(32)))
        # The grid's second index runs against y; `on_grid` looks up each voxel's own coordinates.
        np.testing.assert_allclose(noise.at((x, y, z)), noise.on_grid(32).ravel(), atol=1e-5)

    def test_noise_has_zero_mean_and_unit_variance(self) -> None:
        values = SmoothNoise.draw(np.random.default_rng(0), 0.03).on_grid(64)
        assert values.dtype == np.float32
        assert values.mean() == pytest.approx(0, abs=0.05)
        assert values.std() == pytest.approx(1, abs=0.05)

    def test_an_ellipsoid_with_equal_radii_is_a_ball(self) -> None:
        x, y, z = grid(32)
        expected = np.sqrt((x - 0.1) ** 2 + y**2 + z**2) - 0.2
        np.testing.assert_allclose(ellipsoid((x, y, z), (0.1, 0, 0), (0.2, 0.2, 0.2)), expected, atol=1e-4)

    def test_a_tube_tapers_between_its_knots(self) -> None:
        point = np.array([0.0], np.float32), np.array([0.1], np.float32), np.array([0.0], np.float32)
        knots = ((-0.1, 0, 0, 0.02), (0.1, 0, 0, 0.06), (0.1, 0.4, 0, 0.06))
        assert tube(point, knots)[0] == pytest.approx(min(0.1 - 0.04, 0.1 - 0.06))


class TestArguments:
    @pytest.mark.parametrize(("size", "nearest"), [(60, 64), (63, 64), (8, 32), (-8, 32), (131, 128)])
    def test_a_wrong_size_is_refused_with_the_nearest_right_one(self, tmp_path: Path, size: int, nearest: int) -> None:
        with pytest.raises(DataError, match=rf"size {size}: .*nearest is {nearest}\."):
            generate_case(0, size=size, seed=0)
        with pytest.raises(DataError, match="size"):
            write_dataset(tmp_path / "new", cases=1, size=size, seed=0)
        assert not (tmp_path / "new").exists()

    def test_too_few_cases_and_negative_numbers_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="0 cases: expected 1 or more"):
            write_dataset(tmp_path, cases=0, size=32, seed=0)
        with pytest.raises(DataError, match="seed -1"):
            write_dataset(tmp_path, cases=1, size=32, seed=-1)
        with pytest.raises(DataError, match="index -1"):
            generate_case(-1, size=32, seed=0)
        assert not any(tmp_path.iterdir())


class TestFiles:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        write_dataset(tmp_path / "phantom", cases=3, size=32, seed=0)
        return tmp_path / "phantom"

    def rewrite(self, root: Path) -> list[str]:
        heard: list[str] = []
        write_dataset(root, cases=3, size=32, seed=0, on_case=heard.append)
        return heard

    def test_files_are_those_of_brats(self, root: Path) -> None:
        assert sorted(path.name for path in root.iterdir()) == [
            *(f"BraTS-PHA-0000{number}-000" for number in (1, 2, 3)),
            "phantom.json",
        ]
        case = generate_case(1, size=32, seed=0)
        folder = root / case.id
        assert {path.name for path in folder.iterdir()} == {f"{case.id}-{m}.nii.gz" for m in (*MODALITIES, "seg")}
        for name, voxels in (*case.images.items(), ("seg", case.label)):
            image = nibabel.load(folder / f"{case.id}-{name}.nii.gz")
            assert image.get_data_dtype() == voxels.dtype
            assert np.array_equal(np.asarray(image.dataobj), voxels)
            assert np.array_equal(image.affine, case.affine)
            assert (image.header["qform_code"], image.header["sform_code"]) == (1, 1)
            assert np.array_equal(image.get_qform(), case.affine)
            assert image.header.get_xyzt_units()[0] == "mm"

    def test_the_manifest_has_parameters_and_a_digest_of_the_voxels(self, root: Path, tmp_path: Path) -> None:
        manifest = json.loads((root / "phantom.json").read_text())
        digest = manifest.pop("sha256")
        assert manifest == {"version": PHANTOM_VERSION, "cases": 3, "size": 32, "seed": 0, "kind": "plain"}
        assert len(digest) == 64
        write_dataset(tmp_path / "other", cases=3, size=32, seed=1)
        assert json.loads((tmp_path / "other" / "phantom.json").read_text())["sha256"] != digest

    def test_writing_twice_gives_the_same_bytes(self, root: Path, tmp_path: Path) -> None:
        write_dataset(tmp_path / "again", cases=3, size=32, seed=0)
        assert snapshot(tmp_path / "again") == snapshot(root)
        stamps = {path.read_bytes()[4:8] for path in root.rglob("*.gz")}
        assert stamps == {bytes(4)}, "no file bears the time of its making"

    def test_an_empty_folder_is_taken(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        write_dataset(tmp_path / "empty", cases=3, size=32, seed=0)
        assert snapshot(tmp_path / "empty") == snapshot(root)

    def test_an_interrupted_call_is_continued(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second call writes what the first, stopped within its second case, did not; all is as if unstopped."""
        whole, stopped = snapshot(root), tmp_path / "stopped"
        compress, calls = phantom.gzip.compress, 0

        def interrupted(*arguments: bytes, **options: int) -> bytes:
            nonlocal calls
            calls += 1
            if calls > 7:
                raise KeyboardInterrupt
            return compress(*arguments, **options)

        monkeypatch.setattr(phantom.gzip, "compress", interrupted)
        with pytest.raises(KeyboardInterrupt):
            self.rewrite(stopped)
        monkeypatch.undo()
        assert sorted(path.name for path in stopped.iterdir() if not path.name.startswith(".")) == [
            "BraTS-PHA-00001-000",
            "phantom.json",
        ]
        assert json.loads((stopped / "phantom.json").read_text())["sha256"] is None
        kept = (stopped / "BraTS-PHA-00001-000").stat().st_ino
        assert len(self.rewrite(stopped)) == 3
        assert snapshot(stopped) == whole
        assert (stopped / "BraTS-PHA-00001-000").stat().st_ino == kept

    def test_a_missing_case_is_made_again_and_leftovers_go(self, root: Path) -> None:
        whole = snapshot(root)
        (root / "BraTS-PHA-00002-000").rename(root / ".partial-BraTS-PHA-00002-000")
        (root / ".partial-phantom.json").write_text("{")
        assert self.rewrite(root) == [f"BraTS-PHA-0000{number}-000" for number in (1, 2, 3)]
        assert snapshot(root) == whole
        assert not list(root.glob(".*"))

    def test_a_whole_phantom_is_left_as_it_is(self, root: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        self.rewrite(root)
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before

    def test_foreign_files_are_named_and_left_untouched(self, tmp_path: Path) -> None:
        (tmp_path / "holiday.jpg").write_bytes(b"sea")
        (tmp_path / "BraTS-PHA-00001-000").mkdir()
        with pytest.raises(DataError, match=r"BraTS-PHA-00001-000, holiday\.jpg; expected an empty folder"):
            self.rewrite(tmp_path)
        assert snapshot(tmp_path) == {"holiday.jpg": b"sea"}
        assert len(list(tmp_path.iterdir())) == 2

    def test_foreign_files_beside_a_phantom_are_refused_too(self, root: Path) -> None:
        (root / "BraTS-PHA-00004-000").mkdir()
        before = snapshot(root)
        with pytest.raises(DataError, match="no part of this phantom: BraTS-PHA-00004-000;"):
            self.rewrite(root)
        assert snapshot(root) == before

    @pytest.mark.parametrize(
        "change", [{"cases": 4}, {"size": 40}, {"seed": 1}, {"version": PHANTOM_VERSION + 1}, {"kind": "stress"}]
    )
    def test_a_phantom_of_other_parameters_is_named_and_left_untouched(
        self, root: Path, change: dict[str, int]
    ) -> None:
        manifest = json.loads((root / "phantom.json").read_text())
        (root / "phantom.json").write_text(json.dumps(manifest | change))
        before = snapshot(root)
        found = {"version": PHANTOM_VERSION, "cases": 3, "size": 32, "seed": 0, "kind": "plain"} | change
        message = "version {version}, {cases} {kind} cases of size {size}, seed {seed}; expected version".format(
            **found
        )
        with pytest.raises(DataError, match=message):
            self.rewrite(root)
        assert snapshot(root) == before

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"name": "colin27"}'])
    def test_a_damaged_manifest_is_refused(self, root: Path, text: str) -> None:
        (root / "phantom.json").write_text(text)
        with pytest.raises(DataError, match=r"phantom\.json is damaged"):
            self.rewrite(root)

    def test_changed_voxels_are_noticed(self, root: Path) -> None:
        path = root / "BraTS-PHA-00001-000" / "BraTS-PHA-00001-000-seg.nii.gz"
        path.write_bytes((root / "BraTS-PHA-00002-000" / "BraTS-PHA-00002-000-seg.nii.gz").read_bytes())
        with pytest.raises(DataError, match="some file was changed since"):
            self.rewrite(root)

    @pytest.mark.parametrize("content", [None, b"", b"no gzip", "half"])
    def test_a_damaged_case_is_named(self, root: Path, content: bytes | str | None) -> None:
        path = root / "BraTS-PHA-00003-000" / "BraTS-PHA-00003-000-t2f.nii.gz"
        if isinstance(content, str):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        with pytest.raises(DataError, match="BraTS-PHA-00003-000 is damaged"):
            self.rewrite(root)

    def test_a_file_in_place_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "phantom").write_text("no folder")
        with pytest.raises(DataError, match="is a file; expected a folder"):
            self.rewrite(tmp_path / "phantom")
        with pytest.raises(DataError, match="cannot write the phantom to"):
            self.rewrite(tmp_path / "phantom" / "below")
