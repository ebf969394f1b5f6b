"""Patches: reproducible by step, on the foreground as often as asked, read no further than needed, and augmented."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from data.augment import Augmentation
from data.errors import DataError
from data.prepared import PreparedCase, StoredCase
from data.sampling import Batch, PatchSampler
from data.volume import Geometry

CPU = torch.device("cpu")
NONE = Augmentation.none()
MIRRORED = replace(NONE, mirror_axes=(0, 1, 2))
SPATIAL = replace(
    NONE,
    interpolation_order=3,
    rotation_probability=1.0,
    rotation_degrees=30.0,
    scaling_probability=1.0,
    scaling_range=(0.7, 1.4),
)
EVERYTHING = replace(
    SPATIAL,
    rotation_probability=0.5,
    scaling_probability=0.5,
    elastic_probability=0.4,
    elastic_magnitude=(0.0, 60.0),
    elastic_sigma=(2.0, 4.0),
    noise_probability=0.5,
    noise_std=(0.0, 0.1),
    blur_probability=0.5,
    blur_channel_probability=0.5,
    blur_sigma=(0.5, 1.0),
    brightness_probability=0.5,
    brightness_range=(0.75, 1.25),
    brightness_shift_probability=0.5,
    brightness_shift_channel_probability=0.5,
    brightness_shift_std=0.1,
    contrast_probability=0.5,
    contrast_range=(0.75, 1.25),
    low_resolution_probability=0.5,
    low_resolution_channel_probability=0.5,
    low_resolution_zoom=(0.5, 1.0),
    inverted_gamma_probability=0.5,
    gamma_probability=0.5,
    gamma_range=(0.7, 1.5),
    mirror_axes=(0, 1, 2),
)


def _case(shape: tuple[int, int, int] = (20, 24, 28)) -> PreparedCase:
    # Each voxel's value is its own index, so that a patch tells where it was cut.
    image = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(1, *shape)
    label = np.zeros(shape, np.uint8)
    label[shape[0] // 2, shape[1] // 2, shape[2] // 2] = 1
    label[1:2, 3:5, 3:5] = 3
    return _prepared("case", image, label, (1.0, 1.0, 1.0))


def _prepared(
    case_id: str, image: NDArray[np.float32], label: NDArray[np.uint8], spacing_mm: tuple[float, float, float]
) -> PreparedCase:
    depth, height, width = label.shape
    return PreparedCase(
        id=case_id,
        image=image,
        label=label,
        foreground={int(v): np.argwhere(label == v).astype(np.int32) for v in np.unique(label) if v > 0},
        box=((0, depth), (0, height), (0, width)),
        geometry=Geometry(np.eye(4), (depth, height, width), spacing_mm),
        spacing_mm=spacing_mm,
    )


def _rough_case(
    shape: tuple[int, int, int] = (40, 44, 42), spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> PreparedCase:
    """Noise in two channels, and a label that is where the smoothed first channel is high."""
    image = np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
    smooth = ndimage.gaussian_filter(image[0], 2.0)
    label = np.digitize(smooth, [0.0, smooth.std(), 1.5 * smooth.std()]).astype(np.uint8)
    return _prepared("rough", image, label, spacing_mm)


def _sampler(cases: Sequence[PreparedCase] | None = None, seed: int = 0, **changes: object) -> PatchSampler:
    settings = {
        "patch_size": (8, 8, 8),
        "batch_size": 2,
        "foreground_fraction": 0.5,
        "placement": "inside",
        "augmentation": NONE,
        "classes": 4,
        **changes,
    }
    return PatchSampler(cases or [_case()], seed=seed, **settings)  # type: ignore[arg-type]


def _same(one: Batch, two: Batch) -> bool:
    return torch.equal(one.image, two.image) and torch.equal(one.label, two.label)


# The stream


def test_a_batch_is_float_images_and_integer_labels() -> None:
    batch = _sampler([_rough_case()], patch_size=(8, 10, 12), batch_size=3).batch(0)
    assert (batch.image.shape, batch.image.dtype) == ((3, 2, 8, 10, 12), torch.float32)
    assert (batch.label.shape, batch.label.dtype) == ((3, 8, 10, 12), torch.int64)


@pytest.mark.parametrize("augmentation", [NONE, EVERYTHING])
def test_a_step_is_the_same_whichever_steps_came_before(augmentation: Augmentation) -> None:
    one, two = _sampler(augmentation=augmentation), _sampler(augmentation=augmentation)
    for step in range(5):
        one.batch(step)
    assert _same(one.batch(5), two.batch(5))
    assert not _same(one.batch(5), one.batch(6))
    assert not _same(one.batch(5), _sampler(augmentation=augmentation, seed=1).batch(5))


def test_threads_that_cut_in_any_order_change_nothing() -> None:
    sampler = _sampler([_rough_case()], augmentation=EVERYTHING, batch_size=4)
    expected = [sampler.batch(step) for step in range(6)]
    wanted = [(step, index) for step in range(6) for index in range(4)]
    np.random.default_rng(0).shuffle(wanted)
    with ThreadPoolExecutor(4) as threads:
        cuts = dict(zip(wanted, threads.map(lambda one: sampler.cut(*one), wanted), strict=True))
    for step, batch in enumerate(expected):
        assert _same(sampler.finish([cuts[step, index] for index in range(4)], CPU), batch)


def test_some_samples_of_a_batch_are_rows_of_the_whole() -> None:
    sampler = _sampler([_rough_case()], augmentation=EVERYTHING, batch_size=5)
    for step in range(3):
        whole, odd, even = sampler.batch(step), sampler.batch(step, CPU, [1, 3]), sampler.batch(step, CPU, [0, 2, 4])
        assert _same(odd, Batch(whole.image[[1, 3]], whole.label[[1, 3]]))
        assert _same(even, Batch(whole.image[[0, 2, 4]], whole.label[[0, 2, 4]]))


def test_finishing_a_cut_leaves_it_as_it_is() -> None:
    sampler = _sampler(augmentation=EVERYTHING)
    cuts = [sampler.cut(3, index) for index in range(2)]
    assert _same(sampler.finish(cuts, CPU), sampler.finish(cuts, CPU))


# The place


@pytest.mark.parametrize(("batch_size", "fraction"), [(2, 0.5), (1, 0.5), (3, 0.33), (2, 1.0), (2, 0.0), (4, 0.25)])
def test_the_share_of_patches_on_the_foreground_is_as_asked(batch_size: int, fraction: float) -> None:
    sampler = _sampler(batch_size=batch_size, foreground_fraction=fraction)
    steps = 60
    forced = sum(sampler._on_foreground(step, index) for step in range(steps) for index in range(batch_size))
    assert forced == int(steps * batch_size * fraction)
    if (batch_size, fraction) == (2, 0.5):  # the released code's scheme: the second of every two
        assert [sampler._on_foreground(step, index) for step in range(2) for index in range(2)] == [False, True] * 2


@pytest.mark.parametrize("placement", ["inside", "centred"])
def test_forced_patches_hold_foreground_of_every_class(placement: str) -> None:
    sampler = _sampler(foreground_fraction=1.0, batch_size=1, placement=placement)
    labels = [sampler.batch(step).label[0] for step in range(30)]
    assert all(label.any() for label in labels)
    assert any((label == 1).any() for label in labels), "the single voxel of the rare class is drawn as often"


def test_patches_are_true_pieces_of_the_volume() -> None:
    case = _case()
    sampler = _sampler([case])
    for step in range(20):
        batch = sampler.batch(step)
        for image, label in zip(batch.image.numpy(), batch.label.numpy(), strict=True):
            corner = np.argwhere(case.image[0] == image[0, 0, 0, 0])[0]
            window = tuple(slice(start, start + 8) for start in corner)
            np.testing.assert_array_equal(image[0], case.image[0][window])
            np.testing.assert_array_equal(label, case.label[window])  # type: ignore[index]


@pytest.mark.parametrize("placement", ["inside", "centred"])
def test_a_small_volume_is_padded_with_zeros_behind(placement: str) -> None:
    for fraction in (0.0, 1.0):
        sampler = _sampler([_case((6, 24, 7))], batch_size=1, foreground_fraction=fraction, placement=placement)
        for step in range(10):
            image = sampler.batch(step).image[0, 0]
            assert image.shape == (8, 8, 8)
            assert (image[6:] == 0).all()
            assert (image[:, :, 7:] == 0).all()
            assert (image[:6, 0, :7] != 0).all()


def test_a_small_volume_begins_with_the_patch_wherever_its_foreground_is() -> None:
    case = _case_with_one_voxel((5, 12, 6), (6, 24, 7))
    for placement in ("inside", "centred"):
        image = _sampler([case], batch_size=1, foreground_fraction=1.0, placement=placement).batch(0).image[0, 0]
        np.testing.assert_array_equal(image[:6, :, :7].numpy(), case.image[0, :, 8:16])


def _case_with_one_voxel(voxel: tuple[int, int, int], shape: tuple[int, int, int] = (20, 24, 28)) -> PreparedCase:
    case = _case(shape)
    label = np.zeros_like(case.label)
    label[voxel] = 2
    return replace(case, label=label, foreground={2: np.array([voxel], np.int32)})


@pytest.mark.parametrize(
    ("voxel", "inside", "centred"),
    [
        ((10, 12, 14), (6, 8, 10), (6, 8, 10)),
        ((1, 3, 2), (0, 0, 0), (0, 0, 0)),
        ((19, 21, 26), (12, 16, 20), (15, 17, 22)),
    ],
)
def test_a_patch_around_a_voxel_is_moved_inside_or_at_the_low_sides_only(
    voxel: tuple[int, int, int], inside: tuple[int, int, int], centred: tuple[int, int, int]
) -> None:
    case = _case_with_one_voxel(voxel)
    behind = np.pad(case.image[0], [(0, 8)] * 3)
    for placement, start in [("inside", inside), ("centred", centred)]:
        batch = _sampler([case], foreground_fraction=1.0, batch_size=1, placement=placement).batch(0)
        window = tuple(slice(first, first + 8) for first in start)
        np.testing.assert_array_equal(batch.image[0, 0].numpy(), behind[window])
        found = np.argwhere(batch.label[0].numpy() == 2)
        np.testing.assert_array_equal(found, [np.array(voxel) - start])


def test_patches_that_lie_anywhere_stay_inside_with_either_placement() -> None:
    inside = _sampler(foreground_fraction=0.0)
    centred = _sampler(foreground_fraction=0.0, placement="centred")
    assert all(_same(inside.batch(step), centred.batch(step)) for step in range(20))
    assert all((inside.batch(step).image != 0).all() for step in range(20))


def test_a_case_without_labels_is_named() -> None:
    sampler = _sampler([replace(_case(), label=None)])
    with pytest.raises(DataError, match="case case has no labels"):
        sampler.batch(0)


# What is read


@dataclass
class _Recording:
    """An array that counts how many values were taken from it."""

    values: NDArray
    taken: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray:
        found = self.values[index]
        self.taken.append(found.shape)
        return found


@pytest.mark.parametrize("enlarged", [True, False])
def test_only_what_a_sample_needs_is_read_and_only_once(enlarged: bool) -> None:
    case = _rough_case((60, 64, 62))
    image, label = _Recording(case.image), _Recording(case.label)  # type: ignore[arg-type]
    recorded = replace(case, image=image, label=label)  # type: ignore[arg-type]
    settings = replace(SPATIAL, rotation_probability=0.3, scaling_probability=0.3, enlarged_cut=enlarged)
    sampler = _sampler([recorded], batch_size=40, augmentation=settings)
    cuts = [sampler.cut(0, index) for index in range(40)]
    assert image.taken == [tuple(cut.image.shape) for cut in cuts]
    assert label.taken == [tuple(cut.label.shape) for cut in cuts] == [shape[1:] for shape in image.taken]
    for cut in cuts:
        size = np.array(cut.label.shape)
        if cut.drawn.is_spatial and enlarged:
            # At most 1.4 times the patch, turned by three angles of 30 degrees, and 14 voxels for the spline each side.
            assert (size <= np.ceil(1.4 * 8 * 1.5) + 2 * 14).all()
            assert size.max() > 8
        else:
            assert (size == 8).all()
    assert 5 < sum(cut.warp is not None for cut in cuts) < 35


def test_a_stored_case_in_half_precision_is_cut_as_it_lies_and_computed_in_single(tmp_path: Path) -> None:
    case = _rough_case()
    half = case.image.astype(np.float16)
    np.save(tmp_path / "image.npy", half)
    np.save(tmp_path / "label.npy", case.label)
    np.savez(tmp_path / "foreground.npz", **{str(value): found for value, found in case.foreground.items()})  # type: ignore[arg-type]
    stored = StoredCase(case.id, tmp_path, case.box, case.geometry, case.spacing_mm)
    rounded = replace(case, image=half.astype(np.float32))
    for augmentation in (NONE, EVERYTHING):
        from_disk = _sampler([stored], augmentation=augmentation)  # type: ignore[list-item]
        in_memory = _sampler([rounded], augmentation=augmentation)
        assert from_disk.cut(0, 0).image.dtype == torch.float16
        assert in_memory.cut(0, 0).image.dtype == torch.float32
        assert from_disk.cut(0, 0).label.dtype == torch.uint8
        for step in range(4):
            assert _same(from_disk.batch(step), in_memory.batch(step))


# Augmentation; more of it in augment/test_sampled.py


def test_mirroring_flips_image_and_label_alike() -> None:
    plain, mirrored = _sampler(), _sampler(augmentation=MIRRORED)
    flipped = 0
    for step in range(20):
        one, two = plain.batch(step), mirrored.batch(step)
        for a, b, la, lb in zip(one.image, two.image, one.label, two.label, strict=True):
            matches = [
                axes
                for axes in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
                if torch.equal(a[0].flip(axes), b[0])
            ]
            assert len(matches) == 1
            assert torch.equal(la.flip(matches[0]), lb)
            flipped += bool(matches[0])
    assert 20 < flipped < 40


@pytest.mark.parametrize("name", ["noise", "gamma", "elastic", "brightness"])
def test_switching_one_transform_off_leaves_patches_that_did_not_draw_it(name: str) -> None:
    case = _rough_case()
    on = _sampler([case], augmentation=EVERYTHING, batch_size=24)
    off = _sampler([case], augmentation=replace(EVERYTHING, **{f"{name}_probability": 0.0}), batch_size=24)
    drew = torch.tensor([getattr(on.cut(0, index).drawn, name) is not None for index in range(24)])
    equal = (on.batch(0).image == off.batch(0).image).flatten(1).all(dim=1)
    assert 3 < drew.sum() < 21
    assert torch.equal(equal, ~drew)


def test_patches_of_full_augmentation_are_finite_and_their_labels_known() -> None:
    sampler = _sampler([_rough_case()], patch_size=(24, 24, 24), augmentation=EVERYTHING, batch_size=20)
    batch = sampler.batch(0)
    assert batch.image.isfinite().all()
    assert set(batch.label.unique().tolist()) == {0, 1, 2, 3}
