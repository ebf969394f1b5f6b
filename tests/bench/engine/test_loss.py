"""Training losses against sums written out."""

import torch
from torch.nn import functional as F

from bench.engine.loss import cross_entropy


def test_single_logits_give_the_mean_over_voxels() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 4, 4, 4), torch.randint(3, (2, 4, 4, 4))
    picked = logits.log_softmax(1).gather(1, label[:, None])
    torch.testing.assert_close(cross_entropy(logits, label), -picked.mean())


def test_deep_supervision_halves_the_weights_and_leaves_the_coarsest_out() -> None:
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


def test_a_single_level_in_a_list_counts_whole() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(1, 2, 4, 4, 4), torch.randint(2, (1, 4, 4, 4))
    torch.testing.assert_close(cross_entropy([logits], label), F.cross_entropy(logits, label))
