"""Preparation: the crop, the normalisation, the cache."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.prepare import prepare, prepare_volume
from data.volume import CaseFiles, Geometry, Volume

SHAPE = (12, 14, 16)


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
    prepared = prepare_volume("case", _volume(), "box")
    assert prepared.box == ((2, 9), (3, 12), (4, 15))
    assert prepared.image.shape == (2, 7, 9, 11)


def test_box_normalisation_has_mean_0_and_deviation_1_over_the_box() -> None:
    image = prepare_volume("case", _volume(), "box").image
    np.testing.assert_allclose(image.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(image.std(axis=(1, 2, 3)), 1, atol=1e-6)


def test_brain_normalisation_leaves_the_outside_at_0_and_counts_the_inside_alone() -> None:
    volume = _volume()
    volume.image[:, 8, 11, 14] = 0  # a corner of the box that is outside the brain
    image = prepare_volume("case", volume, "brain").image
    assert (image[:, -1, -1, -1] == 0).all()
    inside = np.ones(image.shape[1:], bool)
    inside[-1, -1, -1] = False
    np.testing.assert_allclose(image[1][inside].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(image[1][inside].std(), 1, atol=1e-6)


def test_uncropping_puts_a_label_back_where_it_was() -> None:
    volume = _volume()
    prepared = prepare_volume("case", volume, "box")
    assert prepared.label is not None
    np.testing.assert_array_equal(prepared.uncrop(prepared.label), volume.label)


def test_foreground_lists_the_voxels_of_each_label() -> None:
    prepared = prepare_volume("case", _volume(), "box")
    assert prepared.label is not None
    assert set(prepared.foreground) == {1, 2}
    for value, voxels in prepared.foreground.items():
        assert (prepared.label[tuple(voxels.T)] == value).all()
    assert len(prepared.foreground[2]) == 3 * 4 * 4 - 1


def test_an_empty_image_is_refused() -> None:
    volume = Volume(np.zeros((2, *SHAPE), np.float32), None, Geometry(np.eye(4), SHAPE, (1.0, 1.0, 1.0)))
    with pytest.raises(DataError, match="case-7: every voxel"):
        prepare_volume("case-7", volume, "box")


@dataclass
class _Source:
    """Stands for a dataset: two small files a case, and a count of how often each case was read."""

    root: Path
    reads: list[str] = field(default_factory=list)

    def read(self, case: CaseFiles) -> Volume:
        self.reads.append(case.id)
        return _volume(int(case.images[0].read_text()))

    def case(self, name: str, seed: int) -> CaseFiles:
        path = self.root / f"{name}.txt"
        path.write_text(str(seed))
        return CaseFiles(name, name, (path,), None)


def test_a_case_is_read_once_and_again_only_after_its_file_changed(tmp_path: Path) -> None:
    source = _Source(tmp_path)
    cases = [source.case("a", 1), source.case("b", 2)]
    first = prepare(source, cases, tmp_path / "cache", "box")  # type: ignore[arg-type]
    image = np.array(first["a"].image)
    again = prepare(source, cases, tmp_path / "cache", "box")  # type: ignore[arg-type]
    assert source.reads == ["a", "b"]
    np.testing.assert_array_equal(again["a"].image, image)
    assert again["a"].box == first["a"].box

    source.case("a", 3)
    changed = prepare(source, cases, tmp_path / "cache", "box")  # type: ignore[arg-type]
    assert source.reads == ["a", "b", "a"]
    assert not np.array_equal(changed["a"].image, image)

    prepare(source, cases[:1], tmp_path / "cache", "brain")  # type: ignore[arg-type]
    assert source.reads[-1] == "a", "another normalisation is another preparation"


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _Source(tmp_path)
    case = source.case("a", 1)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", refuse)
    with pytest.raises(DataError, match=r"No space left.*BENCH_CACHE_DIR"):
        prepare(source, [case], tmp_path / "cache", "box")  # type: ignore[arg-type]
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", ["image.npy", "foreground.npz", "case.json"])
@pytest.mark.parametrize("keep", [0, 20])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, name: str, keep: int) -> None:
    source = _Source(tmp_path)
    case = source.case("a", 1)
    first = prepare(source, [case], tmp_path / "cache", "box")  # type: ignore[arg-type]
    expected = np.array(first["a"].image)
    file = tmp_path / "cache" / "a" / name
    file.write_bytes(file.read_bytes()[:keep])
    again = prepare(source, [case], tmp_path / "cache", "box")  # type: ignore[arg-type]
    assert source.reads == ["a", "a"]
    np.testing.assert_array_equal(again["a"].image, expected)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts open files in /proc")
def test_cases_are_not_held_open(tmp_path: Path) -> None:
    """BraTS2023 has more cases than a process may have files open."""
    source = _Source(tmp_path)
    cases = [source.case(f"case{n}", n) for n in range(20)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    prepared = prepare(source, cases, tmp_path / "cache", "box")  # type: ignore[arg-type]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(pickle.dumps(prepared["case0"])) < 3000, "a worker is sent a path, not voxels"
