"""Resampling: scipy's splines and MONAI's rotation, from a whole volume and from what is cut of it alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Affine
from scipy import ndimage
from torch import Tensor

from data.augment import resample
from data.augment.draw import Drawn, Elastic
from data.augment.resample import MARGIN_VOXELS, coordinates, outside, resample_image, resample_label
from data.augment.warp import Warp, make_warp

CPU = torch.device("cpu")
PATCH = (9, 12, 10)
BENT = Drawn(angles_degrees=(20.0, -25.0, 10.0), scale=1.3, elastic=Elastic(20.0, 3.0, seed=5))


def _read(image: Tensor, warp: Warp, order: int) -> Tensor:
    where = coordinates(warp, PATCH, CPU)
    return resample_image(image, where, order).masked_fill(outside(warp, where), 0)


def _scipy(image: Tensor, where: Tensor, order: int) -> np.ndarray:
    at = where.double().numpy()
    return np.stack([ndimage.map_coordinates(c.double().numpy(), at, order=order, mode="constant") for c in image])


@pytest.mark.parametrize("start", [(3, 2, 1), (8, -3, 6)])
@pytest.mark.parametrize(("order", "tolerance"), [(1, 2e-5), (3, 1e-4)])
def test_values_are_those_of_scipys_map_coordinates(
    image: Tensor, order: int, tolerance: float, start: tuple[int, int, int]
) -> None:
    """Rough values, up to the volume's border and zero behind it."""
    warp = make_warp(BENT, (2.0, 1.0, 1.5), PATCH, start, (14, 17, 11))
    expected = _scipy(image, coordinates(warp, PATCH, CPU), order)
    assert 0.2 < (expected == 0).mean() < 0.9, "some of the patch lies outside"
    np.testing.assert_allclose(_read(image, warp, order).numpy(), expected, atol=tolerance)


@pytest.mark.parametrize("order", [1, 3])
def test_on_the_voxels_themselves_nothing_changes(image: Tensor, order: int) -> None:
    size = tuple(image.shape[1:])
    warp = make_warp(Drawn(scale=1.0), (1.0, 1.0, 1.0), size, (0, 0, 0), size)  # type: ignore[arg-type]
    where = coordinates(warp, size, CPU)  # type: ignore[arg-type]
    assert not outside(warp, where).any()
    np.testing.assert_allclose(resample_image(image, where, order).numpy(), image.numpy(), atol=2e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_rotated_and_scaled_patch_is_monais(image: Tensor, axis: int) -> None:
    """MONAI turns the other way about the same axes; its coordinates are centred and scaled alike."""
    angles = [0.0, 0.0, 0.0]
    angles[axis] = 25.0
    size = tuple(image.shape[1:])
    warp = make_warp(
        Drawn(angles_degrees=(angles[0], angles[1], angles[2]), scale=0.9),
        (1.0, 1.0, 1.0),
        size,
        (0, 0, 0),
        size,  # type: ignore[arg-type]
    )
    where = coordinates(warp, size, CPU)  # type: ignore[arg-type]
    turn = Affine(
        rotate_params=[float(-np.radians(angle)) for angle in angles],
        scale_params=(0.9, 0.9, 0.9),
        padding_mode="border",
        align_corners=False,  # then its centre is a volume's centre
        image_only=True,
    )
    expected = np.asarray(turn(image))
    inside = ~outside(warp, where).numpy()
    assert 0.6 < inside.mean() < 1
    np.testing.assert_allclose(resample_image(image, where, 1).numpy()[:, inside], expected[:, inside], atol=2e-5)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(
    "drawn",
    [
        Drawn(angles_degrees=(20.0, -25.0, 10.0), scale=0.8, elastic=Elastic(8.0, 2.0, seed=5)),
        Drawn(scale=1.27),  # whole faces of the patch lie where the cut, but for its margin, ends
    ],
)
def test_a_cut_gives_what_the_whole_volume_gives(drawn: Drawn, order: int) -> None:
    """White noise, on which a spline's context counts most."""
    volume = torch.randn((1, 60, 62, 58), generator=torch.Generator().manual_seed(4))
    warp = make_warp(drawn, (1.0, 1.0, 1.0), PATCH, (22, 25, 24), tuple(volume.shape[1:]))  # type: ignore[arg-type]
    window = warp.window(PATCH, MARGIN_VOXELS[order])
    cut = volume[(slice(None), *(slice(*ends) for ends in window))]
    assert cut.numel() < 0.75 * volume.numel()
    found = _read(cut, warp.counted_from(tuple(first for first, _ in window)), order)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.numpy(), _read(volume, warp, order).numpy(), atol=1e-4)


@pytest.mark.parametrize("classes", [3, 5, 40])
def test_labels_are_the_largest_of_the_linear_shares(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = ndimage.gaussian_filter(np.random.default_rng(6).standard_normal((classes, 14, 17, 11)), (0, 1, 1, 1))
    label = fields.argmax(axis=0).astype(np.uint8)
    warp = make_warp(BENT, (2.0, 1.0, 1.5), PATCH, (3, 2, 1), label.shape)  # type: ignore[arg-type]
    where = coordinates(warp, PATCH, CPU)
    shares = np.stack(
        [
            ndimage.map_coordinates((label == value).astype(float), where.double().numpy(), order=1, mode="constant")
            for value in range(classes)
        ]
    )
    in_order = np.sort(shares, axis=0)
    clear = in_order[-1] - in_order[-2] > 1e-4  # else rounding decides
    assert clear[in_order[-1] > 0].mean() > 0.95
    off = outside(warp, where)
    whole = resample_label(torch.from_numpy(label), where, classes)
    np.testing.assert_array_equal(whole.masked_fill(off, 0).numpy()[clear], shares.argmax(axis=0)[clear])
    monkeypatch.setattr(resample, "_ONE_HOT_VOXELS", 3 * label.size)
    assert torch.equal(resample_label(torch.from_numpy(label), where, classes), whole), "whatever is done at once"


@pytest.mark.parametrize("at_once", [1, 3])
def test_of_equal_shares_the_lowest_class_wins(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "_ONE_HOT_VOXELS", at_once * 36)
    label = torch.tensor([2, 1, 2, 1], dtype=torch.uint8).view(1, 1, 4).expand(3, 3, 4).contiguous()
    where = torch.ones((3, 1, 1, 3))
    where[2, 0, 0] = torch.tensor([0.5, 1.5, 2.5])
    assert resample_label(label, where, 3).flatten().tolist() == [1, 1, 1]
