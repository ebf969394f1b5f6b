"""How networks start, where their authors' code does not leave it to PyTorch."""

import math

import pytest
import torch
from torch import nn

import models


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return models.create(name, in_channels=4, out_channels=4, image_size=64)


@pytest.mark.parametrize("name", ["nnunet", "nnunet_resenc", "umamba_bot", "umamba_enc"])
def test_nnunets_start_with_he_weights_and_no_bias(name: str) -> None:
    for module in build(name).modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            if module.bias is not None:
                assert not module.bias.any()
            fan_in = module.weight[0].numel()
            if module.weight.numel() > 50_000:
                expected = math.sqrt(2 / (1 + 0.01**2) / fan_in)
                assert module.weight.std().item() == pytest.approx(expected, rel=0.02)


def test_residual_branches_of_nnunet_start_closed_and_those_of_umamba_open() -> None:
    from models.nnunet import ResidualBlock

    for name, closed in (("nnunet_resenc", True), ("umamba_bot", False)):
        blocks = [module for module in build(name).modules() if isinstance(module, ResidualBlock)]
        assert blocks
        assert all((not block.conv2.norm.weight.any()) is closed for block in blocks)


def test_uxnets_blocks_start_near_the_identity() -> None:
    network = build("uxnet")
    scales = [value for key, value in network.named_parameters() if key.endswith(".scale")]
    assert len(scales) == 8
    assert all((scale == 1e-6).all() for scale in scales)


def test_transbts_gives_logits_and_no_chance_in_evaluation() -> None:
    network = models.create("transbts", in_channels=4, out_channels=4, image_size=16, base_channels=8).eval()
    image = torch.randn(1, 4, 16, 16, 16)
    with torch.no_grad():
        logits = network(image)
        assert torch.equal(logits, network(image))
        assert not torch.allclose(logits.sum(1), torch.ones(1, 16, 16, 16))
        assert not torch.equal(network.train()(image), network(image))


def test_transformers_start_positions_as_their_authors_do() -> None:
    bias = build("nnformer").encoder[0][0].attention.offset_bias
    assert bias.std().item() == pytest.approx(0.02, rel=0.1)
    assert not build("transbts").positions.any()


def test_drop_path_grows_from_block_to_block() -> None:
    network = build("nnformer")
    encoder = [block.drop_path.drop_prob for stage in network.encoder for block in stage]
    decoder = [block.drop_path.drop_prob for stage in network.decoder for block in stage]
    assert encoder == pytest.approx([0.2 * k / 7 for k in range(8)])
    assert decoder == pytest.approx([0.2 * k / 5 for k in range(6)])
