"""The whole of a patch: transforms in their order, label beside image, and a GPU that is never waited for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from data.augment import intensity
from data.augment.draw import Drawn, Elastic, Noise
from data.augment.pipeline import augment, pad
from data.augment.resample import coordinates, outside, resample_image, resample_label
from data.augment.warp import Warp, make_warp

SIZE = (14, 17, 11)
ALL = Drawn(
    angles_degrees=(20.0, -15.0, 10.0),
    scale=1.2,
    elastic=Elastic(20.0, 3.0, seed=4),
    noise=Noise(0.2, seed=9),
    blur_sigma=(None, 0.8),
    brightness=(0.8, 1.1),
    brightness_shift=(0.3, -0.2),
    contrast=(1.3, 0.8),
    low_resolution=(0.6, None),
    inverted_gamma=(1.4, 0.8),
    gamma=(0.7, 1.2),
    flips=(0, 2),
)


def _label() -> Tensor:
    return torch.randint(0, 3, SIZE, generator=torch.Generator().manual_seed(8), dtype=torch.uint8)


def _warp(size: tuple[int, int, int] = SIZE) -> Warp:
    return make_warp(ALL, (1.0, 1.0, 1.0), size, (0, 0, 0), size)


def _augment(image: Tensor, drawn: Drawn, warp: Warp | None) -> tuple[Tensor, Tensor]:
    return augment(image, _label().to(image.device), drawn, warp, patch_size=SIZE, order=3, classes=3)


def test_the_transforms_come_in_the_order_of_the_settings(image: Tensor) -> None:
    warp = _warp()
    where = coordinates(warp, SIZE, image.device)
    off = outside(warp, where)
    expected = resample_image(image, where, 3).masked_fill(off, 0)
    expected = intensity.add_noise(expected, ALL.noise)  # type: ignore[arg-type]
    expected = intensity.blur(expected, (None, 0.8))
    expected = intensity.scale(expected, (0.8, 1.1))
    expected = intensity.shift(expected, (0.3, -0.2))
    expected = intensity.change_contrast(expected, (1.3, 0.8))
    expected = intensity.lower_resolution(expected, (0.6, None))
    expected = -intensity.change_gamma(-expected, (1.4, 0.8))
    expected = intensity.change_gamma(expected, (0.7, 1.2)).flip(1, 3)
    found_image, found_label = _augment(image, ALL, warp)
    assert torch.equal(found_image, expected)
    assert torch.equal(found_label, resample_label(_label(), where, 3).masked_fill(off, 0).flip(0, 2))


def test_what_is_not_drawn_is_not_done(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("apply_along_axes", "_column"):
        monkeypatch.setattr(intensity, name, _refuse)
    monkeypatch.setattr("data.augment.pipeline.resample_image", _refuse)
    found_image, found_label = _augment(image, Drawn(), None)
    assert torch.equal(found_image, image)
    assert torch.equal(found_label, _label())


def _refuse(*_: object) -> None:
    raise AssertionError("not drawn")


def test_padding_puts_zeros_behind() -> None:
    found = pad(torch.ones((2, 3, 4, 5)), (4, 4, 7))
    assert found.shape == (2, 4, 4, 7)
    assert found[:, :3, :, :5].all()
    assert found.sum() == 2 * 3 * 4 * 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_is_not_waited_for_and_computes_the_same(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise and displacements are the device's own; everything else is the CPU's, also where others allow TF32."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    on_gpu = image.cuda()
    label = _label().cuda()
    for mode in ("default", "error"):  # the first call starts the libraries, which waits
        torch.cuda.set_sync_debug_mode(mode)
        try:
            augment(on_gpu, label, ALL, _warp(), patch_size=SIZE, order=3, classes=3)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    same = Drawn(**{**vars(ALL), "elastic": None, "noise": None})
    warp = make_warp(same, (1.0, 1.0, 1.0), SIZE, (0, 0, 0), SIZE)
    for found, expected in zip(_augment(on_gpu, same, warp), _augment(image, same, warp), strict=True):
        assert found.is_cuda
        close = (found.cpu().float() - expected.float()).abs() < 1e-4
        assert close.float().mean() > 0.999  # a coordinate on the very border may round to either side
