"""Preparation: the crop, the resampling, the normalisation, the cache."""

from __future__ import annotations

import json
import pickle
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.intensity import Intensity
from data.prepare import Preparation, cache_folder, missing, prepare, prepare_volume
from data.resample import resample_label
from data.volume import CaseFiles, Geometry, Volume

SHAPE = (12, 14, 16)
BOX, BRAIN = Preparation("box"), Preparation("brain")


def _volume(seed: int = 0) -> Volume:
    random = np.random.default_rng(seed)
    image = np.zeros((2, *SHAPE), np.float32)
    image[:, 2:9, 3:12, 4:15] = random.uniform(1, 100, (2, 7, 9, 11))
    image[0, 2:5, 3:6, 4:7] = 0  # a hole in one channel is inside the box all the same
    label = np.zeros(SHAPE, np.uint8)
    label[4:7, 5:9, 6:10] = 2
    label[5, 6, 7] = 1
    return Volume(image, label, Geometry(np.eye(4), SHAPE, (1.0, 1.0, 1.0)))


def test_the_box_holds_every_voxel_that_any_channel_has() -> None:
    prepared = prepare_volume("case", _volume(), BOX)
    assert prepared.box == ((2, 9), (3, 12), (4, 15))
    assert prepared.image.shape == (2, 7, 9, 11)


def test_box_normalisation_has_mean_0_and_deviation_1_over_the_box() -> None:
    image = prepare_volume("case", _volume(), BOX).image
    np.testing.assert_allclose(image.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(image.std(axis=(1, 2, 3)), 1, atol=1e-6)


def test_brain_normalisation_leaves_the_outside_at_0_and_counts_the_inside_alone() -> None:
    volume = _volume()
    volume.image[:, 8, 11, 14] = 0  # a corner of the box that is outside the brain
    image = prepare_volume("case", volume, BRAIN).image
    assert (image[:, -1, -1, -1] == 0).all()
    inside = np.ones(image.shape[1:], bool)
    inside[-1, -1, -1] = False
    np.testing.assert_allclose(image[1][inside].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(image[1][inside].std(), 1, atol=1e-6)


def test_uncropping_puts_a_label_back_where_it_was() -> None:
    volume = _volume()
    prepared = prepare_volume("case", volume, BOX)
    assert prepared.label is not None
    np.testing.assert_array_equal(prepared.uncrop(prepared.label), volume.label)


def test_foreground_lists_the_voxels_of_each_label() -> None:
    prepared = prepare_volume("case", _volume(), BOX)
    assert prepared.label is not None
    assert set(prepared.foreground) == {1, 2}
    for value, voxels in prepared.foreground.items():
        assert (prepared.label[tuple(voxels.T)] == value).all()
    assert len(prepared.foreground[2]) == 3 * 4 * 4 - 1


def _reference(volume: Volume, how: str) -> np.ndarray:
    """The prepared image as version 1 made it, written out: it must not change where nothing is resampled."""
    image = volume.image[:, 2:9, 3:12, 4:15]
    inside = image.any(axis=0)
    expected = []
    for channel in image:
        values = channel[inside] if how == "brain" else channel
        scaled = ((channel - values.mean(dtype=np.float64)) / values.std(dtype=np.float64)).astype(np.float32)
        expected.append(np.where(inside, scaled, np.float32(0)) if how == "brain" else scaled)
    return np.stack(expected)


@pytest.mark.parametrize("how", ["box", "brain"])
@pytest.mark.parametrize("spacing_mm", [None, (1.0, 1.0, 1.0), (1.0009, 1.0, 0.9992)])
def test_a_case_at_its_target_is_not_touched(how: str, spacing_mm: tuple[float, float, float] | None) -> None:
    volume = _volume()
    volume.image[:, 8, 11, 14] = 0
    prepared = prepare_volume("case", volume, Preparation(how, spacing_mm=spacing_mm))  # type: ignore[arg-type]
    np.testing.assert_array_equal(prepared.image, _reference(volume, how))
    assert prepared.spacing_mm == (1.0, 1.0, 1.0)
    assert prepared.image.dtype == np.float32


def test_a_resampled_case_keeps_its_box_and_says_its_spacing() -> None:
    volume = _volume()
    prepared = prepare_volume("case", volume, Preparation("box", spacing_mm=(2.0, 0.5, 1.0)))
    assert prepared.box == ((2, 9), (3, 12), (4, 15))
    assert prepared.box_shape == (7, 9, 11)
    assert prepared.image.shape == (2, 4, 18, 11)
    assert prepared.label is not None
    assert prepared.label.shape == (4, 18, 11)
    np.testing.assert_allclose(prepared.spacing_mm, (7 / 4, 0.5, 1.0))
    assert prepared.geometry is volume.geometry
    np.testing.assert_allclose(prepared.image.std(axis=(1, 2, 3)), 1, atol=1e-5)
    for value, voxels in prepared.foreground.items():
        assert (prepared.label[tuple(voxels.T)] == value).all()


def test_a_label_that_went_to_the_target_and_back_overlaps_itself() -> None:
    d, h, w = np.mgrid[:32, :48, :48]
    label = ((d - 15) ** 2 / 196 + (h - 22) ** 2 / 400 + (w - 25) ** 2 / 324 < 1).astype(np.uint8)
    label[((d - 15) ** 2 / 81 + (h - 22) ** 2 / 144 + (w - 25) ** 2 / 144) < 1] = 2
    image = (label + np.random.default_rng(0).uniform(1, 2, label.shape)).astype(np.float32)[None]
    volume = Volume(image, label, Geometry(np.eye(4), label.shape, (2.0, 0.8, 0.8)))
    for target in ((1.2, 1.2, 1.2), (2.5, 0.6, 1.0)):
        prepared = prepare_volume("case", volume, Preparation("box", spacing_mm=target))
        assert prepared.label is not None
        assert prepared.label.shape != label.shape
        back = prepared.uncrop(resample_label(prepared.label, prepared.box_shape))
        for value in (1, 2):
            dice = 2 * ((back == value) & (label == value)).sum() / ((back == value).sum() + (label == value).sum())
            assert dice > 0.9, (target, value, dice)


def test_a_resampled_brain_is_0_outside_and_normalised_inside() -> None:
    volume = _volume()
    volume.image[:, 2:5, 3:7, 4:9] = 0
    prepared = prepare_volume("case", volume, Preparation("brain", spacing_mm=(0.5, 0.5, 0.5)))
    assert (prepared.image[:, :5, :7, :9] == 0).all()
    inside = prepared.image[0] != 0
    np.testing.assert_allclose(prepared.image[0][inside].mean(), 0, atol=1e-4)


def test_ct_is_clipped_and_scaled_by_the_given_intensities_and_mr_beside_it_is_not() -> None:
    preparation = Preparation("box", intensities=(Intensity(20.0, 60.0, 40.0, 10.0), None))
    volume = _volume()
    image = prepare_volume("case", volume, preparation).image
    np.testing.assert_allclose(image[0], (np.clip(volume.image[0, 2:9, 3:12, 4:15], 20, 60) - 40) / 10, rtol=1e-6)
    np.testing.assert_allclose((image[1].mean(), image[1].std()), (0, 1), atol=1e-6)
    with pytest.raises(DataError, match="has 2 channels, but the preparation knows 1"):
        prepare_volume("case", volume, Preparation("box", intensities=(None,)))


def test_half_precision_halves_the_file_and_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    source = _Source(tmp_path)
    half = Preparation("box", storage="float16")
    stored = prepare(source, [source.case("a", 1)], tmp_path / "cache", half)["a"]  # type: ignore[arg-type]
    assert stored.image.dtype == np.float16
    np.testing.assert_allclose(stored.image, prepare_volume("a", _volume(1), BOX).image, rtol=1e-3, atol=1e-3)
    tiny = Preparation("box", "float16", None, (None, Intensity(0.0, 100.0, 0.0, 0.0)))
    with pytest.raises(DataError, match=r"case-9: channel 1 .* float16 holds at most 65504.*data\.storage"):
        prepare_volume("case-9", _volume(), tiny)


def test_a_target_that_would_fill_the_memory_is_refused_by_the_cases_name() -> None:
    with pytest.raises(DataError, match=r"case-3: 7×9×11 voxels of 1×1×1 mm would become 7000×9000×11000 at 0.001"):
        prepare_volume("case-3", _volume(), Preparation("box", spacing_mm=(0.001, 0.001, 0.001)))


def test_uncropping_another_shape_is_an_error() -> None:
    prepared = prepare_volume("case", _volume(), BOX)
    with pytest.raises(ValueError, match="does not fit a box"):
        prepared.uncrop(np.ones((1, 1, 1), np.uint8))


def test_a_preparation_survives_its_json_form_and_nonsense_is_refused() -> None:
    for preparation in (
        BOX,
        Preparation("brain", "float16", (5.0, 0.8, 0.8), (None, Intensity(-100.5, 240.0, 87.3, 41.2))),
    ):
        assert Preparation.from_dict(json.loads(json.dumps(preparation.to_dict()))) == preparation
    for broken in ({}, {**BOX.to_dict(), "normalise": "head"}, {**BOX.to_dict(), "spacing_mm": [1.0]}):
        with pytest.raises(DataError, match=r"expected what Preparation\.to_dict"):
            Preparation.from_dict(broken)


def test_each_preparation_of_each_dataset_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    resampled = Preparation("box", spacing_mm=(1.0, 1.0, 1.0))
    ct = Preparation("box", intensities=(Intensity(0.0, 1.0, 0.5, 0.1),))
    folders = {
        cache_folder(name, files, preparation)
        for name in ("a", "b")
        for files in ("1" * 64, "2" * 64)
        for preparation in (BOX, BRAIN, Preparation("box", "float16"), resampled, ct)
    }
    assert len(folders) == 20
    assert cache_folder("a", "1" * 64, Preparation("box")) in folders
    assert all(folder.parent == tmp_path / "prepared" for folder in folders)


def test_an_empty_image_is_refused() -> None:
    volume = Volume(np.zeros((2, *SHAPE), np.float32), None, Geometry(np.eye(4), SHAPE, (1.0, 1.0, 1.0)))
    with pytest.raises(DataError, match="case-7: every voxel"):
        prepare_volume("case-7", volume, BOX)


@dataclass
class _Source:
    """Stands for a dataset: two small files a case, and a count of how often each case was read."""

    root: Path
    reads: list[str] = field(default_factory=list)
    labelled: bool = True
    slow_s: float = 0.005

    def read(self, case: CaseFiles) -> Volume:
        self.reads.append(case.id)
        time.sleep(self.slow_s)
        volume = _volume(int(case.images[0].read_text()))
        return volume if self.labelled else replace(volume, label=None)

    def case(self, name: str, seed: int) -> CaseFiles:
        path = self.root / f"{name}.txt"
        path.write_text(str(seed))
        return CaseFiles(name, name, (path,), None)


def test_a_case_is_read_once_and_again_only_after_its_file_changed(tmp_path: Path) -> None:
    source = _Source(tmp_path)
    cases = [source.case("a", 1), source.case("b", 2)]
    first = prepare(source, cases, tmp_path / "cache", BOX)  # type: ignore[arg-type]
    image = np.array(first["a"].image)
    again = prepare(source, cases, tmp_path / "cache", BOX)  # type: ignore[arg-type]
    assert source.reads == ["a", "b"]
    np.testing.assert_array_equal(again["a"].image, image)
    assert again["a"].box == first["a"].box

    source.case("a", 3)
    changed = prepare(source, cases, tmp_path / "cache", BOX)  # type: ignore[arg-type]
    assert source.reads == ["a", "b", "a"]
    assert not np.array_equal(changed["a"].image, image)

    prepare(source, cases[:1], tmp_path / "cache", BRAIN)  # type: ignore[arg-type]
    assert source.reads == ["a", "b", "a", "a"], "another normalisation is another preparation"


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _Source(tmp_path)
    case = source.case("a", 1)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", refuse)
    with pytest.raises(DataError, match=r"No space left.*BENCH_CACHE_DIR"):
        prepare(source, [case], tmp_path / "cache", BOX)  # type: ignore[arg-type]
    assert list((tmp_path / "cache").iterdir()) == []


def test_workers_change_nothing_and_each_case_is_announced_once_by_the_caller(tmp_path: Path) -> None:
    source = _Source(tmp_path)
    cases = [source.case(f"case{n}", n) for n in range(6)]
    alone = prepare(source, cases, tmp_path / "one", BOX)  # type: ignore[arg-type]
    heard: list[tuple[str, int]] = []

    def on_case(case: str) -> None:
        heard.append((case, threading.get_ident()))

    together = prepare(source, cases, tmp_path / "three", BOX, on_case, workers=3)  # type: ignore[arg-type]
    assert list(together) == list(alone) == [case.id for case in cases]
    for case in alone:
        np.testing.assert_array_equal(together[case].image, alone[case].image)
    assert sorted(heard) == [(case.id, threading.get_ident()) for case in cases]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_stops_soon_and_loses_nothing_that_was_finished(tmp_path: Path, workers: int) -> None:
    source = _Source(tmp_path)
    cases = [source.case(f"case{n:02d}", n) for n in range(20)]
    heard: list[str] = []

    def stop(case: str) -> None:
        heard.append(case)
        if len(heard) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, cases, tmp_path / "cache", BOX, stop, workers=workers)  # type: ignore[arg-type]
    begun = len(source.reads)
    assert 3 <= begun < 20
    left = missing(cases, tmp_path / "cache", BOX)
    assert len(left) == 20 - begun, "whatever was begun is whole"
    assert {case.id for case in left}.isdisjoint(heard)
    prepare(source, cases, tmp_path / "cache", BOX, workers=workers)  # type: ignore[arg-type]
    assert sorted(source.reads) == [case.id for case in cases], "each was read once"


def test_a_case_that_fails_is_named_and_the_others_are_not_begun(tmp_path: Path) -> None:
    source = _Source(tmp_path, slow_s=0.02)
    cases = [source.case(f"case{n:02d}", n) for n in range(20)]
    cases[2].images[0].write_text("no number")
    with pytest.raises(ValueError, match="no number"):
        prepare(source, cases, tmp_path / "cache", BOX, workers=2)  # type: ignore[arg-type]
    assert len(source.reads) < 10


def test_a_case_without_a_label_is_stored_too(tmp_path: Path) -> None:
    source = _Source(tmp_path, labelled=False)
    case = source.case("a", 1)
    for _ in range(2):
        stored = prepare(source, [case], tmp_path / "cache", BOX)["a"]  # type: ignore[arg-type]
        assert stored.label is None
    assert source.reads == ["a"]


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "foreground.npz", "case.json"])
@pytest.mark.parametrize("keep", [0, 20])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, name: str, keep: int) -> None:
    source = _Source(tmp_path)
    case = source.case("a", 1)
    first = prepare(source, [case], tmp_path / "cache", BOX)  # type: ignore[arg-type]
    expected = np.array(first["a"].image)
    file = tmp_path / "cache" / "a" / name
    file.write_bytes(file.read_bytes()[:keep])
    again = prepare(source, [case], tmp_path / "cache", BOX)  # type: ignore[arg-type]
    assert source.reads == ["a", "a"]
    np.testing.assert_array_equal(again["a"].image, expected)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts open files in /proc")
def test_cases_are_not_held_open(tmp_path: Path) -> None:
    """BraTS2023 has more cases than a process may have files open."""
    source = _Source(tmp_path)
    cases = [source.case(f"case{n}", n) for n in range(20)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    prepared = prepare(source, cases, tmp_path / "cache", BOX)  # type: ignore[arg-type]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(pickle.dumps(prepared["case0"])) < 3000, "a worker is sent a path, not voxels"
