"""Patches: reproducible by step, on the foreground as often as asked, inside the volume."""

from __future__ import annotations

import numpy as np
import pytest

from data.prepare import PreparedCase, prepare_volume
from data.sampling import PatchSampler
from data.volume import Geometry, Volume


def _case(shape: tuple[int, int, int] = (20, 24, 28), name: str = "case") -> PreparedCase:
    # Each voxel's value is its own index, so that a patch tells where it was cut.
    image = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(1, *shape)
    label = np.zeros(shape, np.uint8)
    label[shape[0] // 2, shape[1] // 2, shape[2] // 2] = 1
    label[1:2, 3:5, 3:5] = 3
    return prepare_volume(name, Volume(image, label, Geometry(np.eye(4), shape, (1.0, 1.0, 1.0))), "box")


def _sampler(seed: int = 0, **changes: object) -> PatchSampler:
    settings = {"patch_size": (8, 8, 8), "batch_size": 2, "foreground_fraction": 0.5, "mirror": False, **changes}
    return PatchSampler([_case()], seed=seed, **settings)  # type: ignore[arg-type]


def test_a_step_is_the_same_whichever_steps_came_before() -> None:
    one, two = _sampler(), _sampler()
    for step in range(5):
        one.batch(step)
    np.testing.assert_array_equal(one.batch(5).image, two.batch(5).image)
    assert not np.array_equal(one.batch(5).image, one.batch(6).image)
    assert not np.array_equal(one.batch(5).image, _sampler(seed=1).batch(5).image)


@pytest.mark.parametrize(("batch_size", "fraction"), [(2, 0.5), (1, 0.5), (3, 0.33), (2, 1.0), (2, 0.0), (4, 0.25)])
def test_the_share_of_patches_on_the_foreground_is_as_asked(batch_size: int, fraction: float) -> None:
    sampler = _sampler(batch_size=batch_size, foreground_fraction=fraction)
    steps = 60
    forced = sum(sampler._on_foreground(step, index) for step in range(steps) for index in range(batch_size))
    assert forced == int(steps * batch_size * fraction)
    if (batch_size, fraction) == (2, 0.5):  # the released code's scheme: the second of every two
        assert [sampler._on_foreground(step, index) for step in range(2) for index in range(2)] == [False, True] * 2


def test_forced_patches_hold_foreground_of_every_class() -> None:
    sampler = _sampler(foreground_fraction=1.0, batch_size=1)
    labels = [sampler.batch(step).label[0] for step in range(30)]
    assert all(label.any() for label in labels)
    assert any((label == 1).any() for label in labels), "the single voxel of the rare class is drawn as often"


def test_patches_are_true_pieces_of_the_volume() -> None:
    case = _case()
    sampler = PatchSampler([case], patch_size=(8, 8, 8), batch_size=2, foreground_fraction=0.5, mirror=False, seed=0)
    for step in range(20):
        batch = sampler.batch(step)
        for image, label in zip(batch.image, batch.label, strict=True):
            corner = np.argwhere(case.image[0] == image[0, 0, 0, 0])[0]
            window = tuple(slice(start, start + 8) for start in corner)
            np.testing.assert_array_equal(image[0], case.image[0][window])
            np.testing.assert_array_equal(label, case.label[window])  # type: ignore[index]


def test_a_small_volume_is_padded_with_zeros_behind() -> None:
    case = _case((6, 24, 7))
    sampler = PatchSampler([case], patch_size=(8, 8, 8), batch_size=1, foreground_fraction=0.0, mirror=False, seed=0)
    image = sampler.batch(0).image[0, 0]
    assert image.shape == (8, 8, 8)
    assert (image[6:] == 0).all()
    assert (image[:, :, 7:] == 0).all()
    assert (image[:6, :, :7] != 0).all()


def test_mirroring_flips_image_and_label_alike() -> None:
    plain, mirrored = _sampler(mirror=False), _sampler(mirror=True)
    flipped = 0
    for step in range(20):
        one, two = plain.batch(step), mirrored.batch(step)
        for a, b, la, lb in zip(one.image, two.image, one.label, two.label, strict=True):
            matches = [
                axes
                for axes in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
                if np.array_equal(np.flip(a[0], axes), b[0])
            ]
            assert len(matches) == 1
            np.testing.assert_array_equal(np.flip(la, matches[0]), lb)
            flipped += bool(matches[0])
    assert 20 < flipped < 40
