"""Where windows lie and what their voxels weigh."""

from __future__ import annotations

import pytest
import torch

from bench.engine.windows import WindowPlan, window_starts, window_weights
from bench.fields import InferFields

CPU = torch.device("cpu")


def _fields(**changes: object) -> InferFields:
    plain = {"overlap": 0.5, "blend": "gaussian", "mirror_axes": (), "output": "argmax", "precision": "fp32"}
    return InferFields.model_validate({**plain, **changes})


@pytest.mark.parametrize(("extent", "patch", "overlap"), [(20, 8, 0.5), (155, 128, 0.5), (8, 8, 0.5), (21, 4, 0.25)])
def test_windows_cover_every_voxel_and_stay_inside(extent: int, patch: int, overlap: float) -> None:
    starts = window_starts(extent, patch, overlap)
    covered = {voxel for start in starts for voxel in range(start, start + patch)}
    assert covered == set(range(extent))
    assert len(set(starts)) == len(starts)


def test_weights_are_never_zero_and_largest_in_the_middle() -> None:
    weights = window_weights((32, 32, 32), "gaussian", CPU)
    assert weights.min() > 0
    assert weights.argmax() == weights[15:17, 15:17, 15:17].max().eq(weights).flatten().nonzero()[0]


@pytest.mark.parametrize("shape", [(13, 9, 11), (5, 16, 7)])
@pytest.mark.parametrize("axes", [(), (0, 2)])
def test_the_shares_of_all_windows_sum_to_one_in_every_voxel(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    plan = WindowPlan(shape, (8, 8, 8), _fields(mirror_axes=axes), CPU)
    total = plan.pad(torch.zeros(1, *shape))
    for window in plan.windows:
        image = torch.zeros_like(total)
        image[plan.where(window.corner)] = plan.shares(window.corner)
        total += image.flip(window.axes)
    torch.testing.assert_close(plan.unpad(total), torch.ones(1, *shape))


def test_a_mirror_image_is_padded_like_any_volume() -> None:
    plan = WindowPlan((5, 8, 8), (8, 8, 8), _fields(mirror_axes=(0,)), CPU)
    padded = plan.pad(torch.ones(1, 5, 8, 8))
    for window in plan.windows:
        filled = padded.flip(window.axes)[plan.where(window.corner)].amax((0, 2, 3))
        assert filled.tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
