"""Augmented patches as the sampler gives them: read from the whole volume, labels beside images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from data.augment import Augmentation
from data.augment.draw import draw
from data.prepared import PreparedCase
from data.sampling import Cut, PatchSampler
from data.volume import Geometry

CPU = torch.device("cpu")
NONE = Augmentation.none()
SPATIAL = replace(
    NONE,
    interpolation_order=3,
    rotation_probability=1.0,
    rotation_degrees=30.0,
    scaling_probability=1.0,
    scaling_range=(0.7, 1.4),
)


def _rough_case(
    shape: tuple[int, int, int] = (40, 44, 42), spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> PreparedCase:
    """Noise in two channels, and a label that is where the smoothed first channel is high."""
    image = np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
    smooth = ndimage.gaussian_filter(image[0], 2.0)
    label = np.digitize(smooth, [0.0, smooth.std(), 1.5 * smooth.std()]).astype(np.uint8)
    return PreparedCase(
        id="rough",
        image=image,
        label=label,
        foreground={int(v): np.argwhere(label == v).astype(np.int32) for v in np.unique(label) if v > 0},
        box=((0, shape[0]), (0, shape[1]), (0, shape[2])),
        geometry=Geometry(np.eye(4), shape, spacing_mm),
        spacing_mm=spacing_mm,
    )


def _sampler(case: PreparedCase, **changes: object) -> PatchSampler:
    settings = {
        "patch_size": (8, 8, 8),
        "batch_size": 2,
        "foreground_fraction": 0.5,
        "placement": "inside",
        "augmentation": NONE,
        "classes": 4,
        "seed": 0,
        **changes,
    }
    return PatchSampler([case], **settings)  # type: ignore[arg-type]


def _read_from_the_whole_volume(
    case: PreparedCase, settings: Augmentation, start: NDArray[np.int_], patch: tuple[int, int, int], step: int
) -> tuple[NDArray, NDArray]:
    """A rotated and scaled patch by scipy alone: image by cubic splines, label by the largest linear share."""
    drawn = draw(settings, len(case.image), (0, step, 0))
    spacing = np.array(case.spacing_mm)[:, None]
    centre = (start + (np.array(patch) - 1) / 2)[:, None]
    position = np.stack(np.meshgrid(*map(np.arange, patch), indexing="ij")).reshape(3, -1) + start[:, None] - centre
    turn = Rotation.from_euler("XYZ", drawn.angles_degrees, degrees=True).inv().as_matrix()  # type: ignore[arg-type]
    where = (centre + drawn.scale * (turn @ (position * spacing)) / spacing).reshape(3, *patch)
    image = np.stack([ndimage.map_coordinates(channel.astype(float), where, order=3) for channel in case.image])
    shares = [ndimage.map_coordinates((case.label == value).astype(float), where, order=1) for value in range(4)]
    return image, np.argmax(shares, axis=0)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 1.0, 0.8)])
@pytest.mark.parametrize("placement", ["inside", "centred"])
def test_a_resampled_patch_is_read_from_the_whole_volume(
    spacing_mm: tuple[float, float, float], placement: str
) -> None:
    case, patch = _rough_case(spacing_mm=spacing_mm), (12, 16, 14)
    options = {"patch_size": patch, "batch_size": 1, "foreground_fraction": 1.0, "placement": placement}
    sampler = _sampler(case, augmentation=SPATIAL, **options)
    # The same draws without augmentation say where the patches lie.
    indexed = replace(case, image=np.arange(1, 1 + case.image[0].size, dtype=np.float64).reshape(1, *case.label.shape))  # type: ignore[union-attr]
    plain = _sampler(indexed, **options)
    for step in range(6):
        first = int(plain.cut(step, 0).image[0, 0, 0, 0]) - 1
        start = np.array(np.unravel_index(first, case.label.shape))  # type: ignore[union-attr]
        image, label = _read_from_the_whole_volume(case, SPATIAL, start, patch, step)
        batch = sampler.batch(step)
        np.testing.assert_allclose(batch.image[0].numpy(), image, atol=2e-4)
        assert (batch.label[0].numpy() == label).mean() > 0.999  # equal shares may round to either side


def test_an_enlarged_cut_leaves_no_empty_corner_and_a_plain_one_does() -> None:
    case = _rough_case((60, 60, 60))
    full = replace(case, image=np.ones_like(case.image), label=np.full_like(case.label, 2), foreground={})
    for order in (1, 3):
        settings = replace(SPATIAL, interpolation_order=order, scaling_range=(1.2, 1.4))
        enlarged = _sampler(full, patch_size=(16, 16, 16), augmentation=settings)
        plain = _sampler(full, patch_size=(16, 16, 16), augmentation=replace(settings, enlarged_cut=False))
        # Far enough from the volume's border that no corner leaves it.
        steps = [step for step in range(60) if _is_far(enlarged.cut(step, 0), 16)]
        assert len(steps) >= 5
        for step in steps:
            batch = enlarged.batch(step, CPU, [0])
            torch.testing.assert_close(batch.image, torch.ones_like(batch.image), atol=1e-5, rtol=0)
            assert (batch.label == 2).all()
            corners = plain.batch(step, CPU, [0])
            assert 0.2 < (corners.image == 0).float().mean() < 0.8
            assert torch.equal(corners.label == 0, (corners.image == 0).all(dim=1))


def _is_far(cut: Cut, patch: int) -> bool:
    assert cut.warp is not None
    reach = np.abs(np.array(cut.warp.matrix)).sum(axis=1) * (patch - 1) / 2
    centre = np.array(cut.warp.centre)
    return bool((centre - reach >= cut.warp.first).all() and (centre + reach <= cut.warp.last).all())


def test_without_an_enlarged_cut_the_padded_patch_is_what_is_resampled() -> None:
    case = _rough_case((12, 44, 10))
    settings = replace(SPATIAL, enlarged_cut=False)
    options = {"patch_size": (16, 16, 16), "batch_size": 1}
    for step in range(4):
        patch = _sampler(case, **options).batch(step)
        as_a_case = replace(
            case, image=patch.image[0].numpy(), label=patch.label[0].numpy().astype(np.uint8), foreground={}
        )
        image, label = _read_from_the_whole_volume(as_a_case, settings, np.zeros(3, int), (16, 16, 16), step)
        found = _sampler(case, augmentation=settings, **options).batch(step)
        np.testing.assert_allclose(found.image[0].numpy(), image, atol=2e-4)
        assert (found.label[0].numpy() == label).mean() > 0.999


def test_labels_follow_images() -> None:
    """With a label that can be read off the image, the two still agree after every spatial change."""
    case = _rough_case((48, 48, 48))
    smooth = ndimage.gaussian_filter(case.image[0], 3.0)
    image = (smooth / smooth.std()).astype(np.float32)[None]
    marked = replace(case, image=image, label=(image[0] > 0.3).astype(np.uint8), foreground={})
    settings = replace(
        SPATIAL,
        elastic_probability=1.0,
        elastic_magnitude=(20.0, 40.0),
        elastic_sigma=(3.0, 4.0),
        mirror_axes=(0, 1, 2),
    )
    sampler = _sampler(marked, patch_size=(20, 20, 20), augmentation=settings)
    for step in range(5):
        batch = sampler.batch(step)
        agree = (batch.image[:, 0] > 0.3) == (batch.label == 1)
        assert agree.float().mean() > 0.96  # at the border cubic and linear splines differ
        assert 0.02 < batch.label.float().mean() < 0.98
