"""Sliding-window inference: MONAI's result, flips, paddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch import Tensor, nn

from bench.engine.diverged import Diverged
from bench.engine.infer import predict_label, predict_logits, window_starts, window_weights
from bench.fields import InferFields

PATCH = (8, 8, 8)


@pytest.fixture
def network() -> nn.Module:
    """A small network whose output depends on where in its window a voxel lies."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 6, 5, padding=2), nn.ReLU(), nn.Conv3d(6, 3, 3, padding=1))


def _fields(**changes: object) -> InferFields:
    return InferFields.model_validate({"overlap": 0.5, "blend": "gaussian", "mirror_axes": (), **changes})


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 12, 20), (13, 9, 11), (5, 16, 7)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_logits_are_those_of_monai(network: nn.Module, shape: tuple[int, ...], overlap: float, blend: str) -> None:
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    ours = predict_logits(network, image, PATCH, _fields(overlap=overlap, blend=blend))
    with torch.no_grad():
        theirs = SlidingWindowInferer(PATCH, 1, overlap, mode=blend)(image[None], network)[0]  # type: ignore[index]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_flips_average_the_logits_of_the_flipped_volumes(network: nn.Module) -> None:
    image = torch.randn(2, 9, 12, 10, generator=torch.Generator().manual_seed(2))
    ours = predict_logits(network, image, PATCH, _fields(mirror_axes=(0, 2)))
    plain = _fields()
    expected = torch.stack(
        [predict_logits(network, image.flip(dims), PATCH, plain).flip(dims) for dims in ([], [1], [3], [1, 3])]
    ).mean(0)
    torch.testing.assert_close(ours, expected)
    assert not torch.allclose(ours, predict_logits(network, image, PATCH, plain), atol=1e-3)


def test_windows_are_counted_over_all_flips(network: nn.Module) -> None:
    told: list[tuple[int, int]] = []
    predict_logits(
        network,
        torch.zeros(2, 16, 8, 8),
        PATCH,
        _fields(mirror_axes=(0,)),
        lambda done, total: told.append((done, total)),
    )
    assert [total for _, total in told] == [6] * len(told)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[0][0] == 0
    assert told[-1][0] >= 3, "the second flip is counted after the first"


def test_logits_that_are_not_finite_have_no_largest_class() -> None:
    class Burst(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float("inf")

    with pytest.raises(Diverged, match="not finite"):
        predict_logits(Burst(), torch.ones(2, 8, 8, 8), PATCH, _fields())


def test_the_label_is_the_class_of_the_largest_logit(network: nn.Module) -> None:
    image = np.random.default_rng(0).normal(size=(2, 9, 12, 10)).astype(np.float32)
    label = predict_label(network, image, PATCH, _fields(), torch.device("cpu"))
    logits = predict_logits(network, torch.from_numpy(image), PATCH, _fields())
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, logits.argmax(0).numpy())


@pytest.mark.parametrize(("extent", "patch", "overlap"), [(20, 8, 0.5), (155, 128, 0.5), (8, 8, 0.5), (21, 4, 0.25)])
def test_windows_cover_every_voxel_and_stay_inside(extent: int, patch: int, overlap: float) -> None:
    starts = window_starts(extent, patch, overlap)
    covered = {voxel for start in starts for voxel in range(start, start + patch)}
    assert covered == set(range(extent))
    assert len(set(starts)) == len(starts)


def test_weights_are_never_zero_and_largest_in_the_middle() -> None:
    weights = window_weights((32, 32, 32), "gaussian", torch.device("cpu"))
    assert weights.min() > 0
    assert weights.argmax() == weights[15:17, 15:17, 15:17].max().eq(weights).flatten().nonzero()[0]


def test_the_network_runs_in_evaluation_mode_and_a_stop_is_heard(network: nn.Module) -> None:
    class Spy(nn.Module):
        modes: list[bool] = []  # noqa: RUF012

        def forward(self, x: Tensor) -> Tensor:
            self.modes.append(self.training)
            return x[:, :1]

    spy = Spy().train()
    predict_logits(spy, torch.zeros(1, 16, 8, 8), PATCH, _fields())
    assert spy.modes
    assert not any(spy.modes)

    def stop(_done: int, _total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        predict_logits(network, torch.zeros(2, 16, 8, 8), PATCH, _fields(), stop)
