"""Training losses against sums written out, and against MONAI."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss
from torch.nn import functional as F

from bench.engine.loss import make_loss, soft_dice
from bench.fields import TrainFields


@pytest.fixture
def cross_entropy(make_fields: Callable[..., TrainFields]) -> Callable:
    return make_loss(make_fields())


def test_single_logits_give_the_mean_over_voxels(cross_entropy: Callable) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 4, 4, 4), torch.randint(3, (2, 4, 4, 4))
    picked = logits.log_softmax(1).gather(1, label[:, None])
    torch.testing.assert_close(cross_entropy(logits, label), -picked.mean())


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_dice_is_that_of_monai(make_fields: Callable, background: bool, squared: bool) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 4, 5, 6, 7), torch.randint(3, (2, 5, 6, 7))  # class 3 is absent
    settings = {
        "softmax": True, "to_onehot_y": True, "include_background": background, "smooth_nr": 1e-5, "smooth_dr": 1e-5,
        "squared_pred": squared,
    }  # fmt: skip
    fields = (f"dice_background={str(background).lower()}", f"dice_squared={str(squared).lower()}")
    found = soft_dice(logits, label, background=background, squared=squared)
    torch.testing.assert_close(found, DiceLoss(**settings)(logits, label[:, None]))
    both = make_loss(make_fields("loss=dice_ce", *fields))(logits, label)
    torch.testing.assert_close(both, DiceCELoss(**settings)(logits, label[:, None]))
    alone = make_loss(make_fields("loss=dice", *fields))(logits, label)
    torch.testing.assert_close(alone, found)


@pytest.mark.parametrize(("squared", "slope"), [(True, 1), (False, -1)])
def test_only_squares_lead_away_from_calling_a_rare_class_everywhere(squared: bool, slope: int) -> None:
    label = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    label[0, :2, :2, :2] = 1
    bias = torch.tensor([0.0, 0.5], requires_grad=True)
    logits = bias[None, :, None, None, None].expand(1, 2, 8, 8, 8)
    soft_dice(logits, label, background=False, squared=squared).backward()
    assert bias.grad is not None
    assert bias.grad[1].sign() == slope


REGIONS = ((1, 2, 3), (1, 3), (3,))


def _inside(label: torch.Tensor) -> torch.Tensor:
    """WT, TC, ET, as a person would write them down."""
    return torch.stack([label > 0, (label == 1) | (label == 3), label == 3], 1).float()


@pytest.mark.parametrize("squared", [True, False])
def test_each_region_is_judged_against_all_else_as_monai_does(make_fields: Callable, squared: bool) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 5, 6, 7), torch.randint(4, (2, 5, 6, 7))
    label[0][label[0] == 3] = 2  # a patch without the last region
    dice = DiceLoss(sigmoid=True, smooth_nr=1e-5, smooth_dr=1e-5, squared_pred=squared)(logits, _inside(label))
    # The background counts or not: among regions there is none.
    for background in ("true", "false"):
        fields = (f"dice_squared={str(squared).lower()}", f"dice_background={background}", "target=regions")
        alone = make_loss(make_fields("loss=dice", *fields), REGIONS)(logits, label)
        torch.testing.assert_close(alone, dice)
    entropy = -(F.logsigmoid(torch.where(_inside(label) > 0, logits, -logits))).mean()
    torch.testing.assert_close(make_loss(make_fields(*fields), REGIONS)(logits, label), entropy)
    torch.testing.assert_close(make_loss(make_fields("loss=dice_ce", *fields), REGIONS)(logits, label), dice + entropy)


def test_deep_supervision_takes_the_regions_at_each_level(make_fields: Callable) -> None:
    torch.manual_seed(0)
    label = torch.randint(4, (2, 8, 8, 8))
    levels = [torch.randn(2, 3, 8 >> k, 8 >> k, 8 >> k) for k in range(3)]
    measure = make_loss(make_fields("loss=dice"), REGIONS)
    expected = (measure(levels[0], label) + measure(levels[1], label[:, ::2, ::2, ::2]) / 2) / 1.5
    torch.testing.assert_close(measure(levels, label), expected)


@pytest.mark.parametrize("regions", [(), REGIONS[:2]])
@pytest.mark.parametrize("loss", ["cross_entropy", "dice", "dice_ce"])
def test_a_batch_has_the_mean_loss_of_its_equal_parts(make_fields: Callable, loss: str, regions: tuple) -> None:
    torch.manual_seed(0)
    measure = make_loss(make_fields(f"loss={loss}"), regions)
    logits, label = torch.randn(4, len(regions) or 3, 4, 4, 4), torch.randint(3, (4, 4, 4, 4))
    parts = [measure(logits[start : start + 2], label[start : start + 2]) for start in (0, 2)]
    torch.testing.assert_close(measure(logits, label), sum(parts) / 2)


def test_deep_supervision_halves_the_weights_and_leaves_the_coarsest_out(cross_entropy: Callable) -> None:
    torch.manual_seed(0)
    label = torch.randint(3, (2, 8, 8, 8))
    levels = [torch.randn(2, 3, 8 >> k, 8 >> k, 8 >> k, requires_grad=True) for k in range(3)]
    half = label[:, ::2, ::2, ::2]
    expected = (F.cross_entropy(levels[0], label) + F.cross_entropy(levels[1], half) / 2) / 1.5
    loss = cross_entropy(levels, label)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert levels[1].grad is not None
    assert levels[1].grad.any()
    assert levels[2].grad is not None
    assert not levels[2].grad.any()


def test_deep_supervision_takes_the_dice_at_each_level(make_fields: Callable) -> None:
    torch.manual_seed(0)
    label = torch.randint(3, (2, 8, 8, 8))
    levels = [torch.randn(2, 3, 8 >> k, 8 >> k, 8 >> k) for k in range(3)]
    expected = (
        soft_dice(levels[0], label, background=False)
        + soft_dice(levels[1], label[:, ::2, ::2, ::2], background=False) / 2
    ) / 1.5
    torch.testing.assert_close(make_loss(make_fields("loss=dice"))(levels, label), expected)


def test_a_single_level_in_a_list_counts_whole(cross_entropy: Callable) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(1, 2, 4, 4, 4), torch.randint(2, (1, 4, 4, 4))
    torch.testing.assert_close(cross_entropy([logits], label), F.cross_entropy(logits, label))


def test_half_precision_logits_are_summed_in_single(cross_entropy: Callable, make_fields: Callable) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(1, 2, 40, 40, 40).to(torch.float16), torch.randint(2, (1, 40, 40, 40))
    for loss in (cross_entropy, make_loss(make_fields("loss=dice"))):
        assert loss(logits, label).dtype == torch.float32
        torch.testing.assert_close(loss(logits, label), loss(logits.float(), label))
