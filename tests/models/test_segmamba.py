"""SegMamba: the order of equation 1, the order of the tokens, and what lies between the scales."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models.mamba import Mamba
from models.segmamba import Encoder, MambaBlock, SegMamba, as_tokens, as_volume

WIDTHS = (8, 12, 16, 20)


def narrow() -> SegMamba:
    torch.manual_seed(0)
    network = models.create(
        "segmamba", in_channels=4, out_channels=3, image_size=32, feat_size=WIDTHS, depths=(1, 2, 1, 1)
    )
    assert isinstance(network, SegMamba)
    for parameter in network.parameters():  # norms and biases start as ones and zeros, which hide mistakes
        nn.init.normal_(parameter, std=0.3)
    return network.double()


def equation_1(block: MambaBlock, z: Tensor) -> Tensor:
    """z' = Mamba(LN(z)) + z; z'' = MLP(LN(z')) + z', the paper's equation 1 written out."""

    def normalised(x: Tensor, norm: nn.LayerNorm) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias

    wide, _, back = block.mlp
    z = block.mamba(normalised(z, block.norm1)) + z
    hidden = normalised(z, block.norm2) @ wide.weight.T + wide.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return hidden @ back.weight.T + back.bias + z


def test_stage_is_equation_1_on_the_flattened_volume() -> None:
    encoder = narrow().encoder
    volume = torch.randn(2, WIDTHS[1], 2, 3, 4, dtype=torch.float64)
    z = torch.stack(
        [volume[:, :, d, h, w] for d in range(2) for h in range(3) for w in range(4)], dim=1
    )  # D slowest, W fastest
    for block in encoder.stages[1]:
        z = equation_1(block, z)
    found = as_tokens(as_volume(encoder.stages[1](as_tokens(volume)), (2, 3, 4)))
    torch.testing.assert_close(found, z)


def test_tokens_run_along_w_fastest_and_d_slowest() -> None:
    volume = torch.arange(2 * 3 * 4).view(1, 1, 2, 3, 4)  # contiguous: W fastest
    tokens = as_tokens(volume)
    assert tokens.shape == (1, 24, 1)
    assert tokens[0, :, 0].tolist() == list(range(24))
    assert torch.equal(as_volume(tokens, (2, 3, 4)), volume)


def test_voxel_reaches_those_after_it_in_scan_order_only() -> None:
    """A change at (d, h, w) = (0, 1, 1) is seen at (0, 1, 2) and (1, 0, 0), not at (0, 1, 0) or (0, 0, 3)."""
    torch.manual_seed(0)
    encoder = Encoder(4, [4], [MambaBlock(4, Mamba(4), 2)])
    encoder.downs[0] = nn.Identity()
    volume = torch.randn(1, 4, 2, 2, 4)
    changed = volume.clone()
    changed[0, :, 0, 1, 1] += torch.tensor([1.0, -1.0, 2.0, 0.0])
    difference = (encoder(changed)[0] - encoder(volume)[0]).abs().amax(dim=1)[0]
    flat = difference.flatten()
    assert (flat[:5] == 0).all()
    assert (flat[5:] > 0).all()


def test_mamba_without_output_leaves_the_residual_path() -> None:
    block = narrow().encoder.stages[0][0]
    z = torch.randn(1, 5, WIDTHS[0], dtype=torch.float64)
    with torch.no_grad():
        assert not torch.allclose(block(z), block.mlp(block.norm2(z)) + z)
        block.mamba.out_proj.weight.zero_()
        torch.testing.assert_close(block(z), block.mlp(block.norm2(z)) + z)
        block.mlp[-1].weight.zero_()
        block.mlp[-1].bias.zero_()
        torch.testing.assert_close(block(z), z)


def test_stem_keeps_the_modalities_apart() -> None:
    """Two of eight features for each of four modalities, at half the size, seven voxels wide."""
    stem = narrow().encoder.downs[0]
    image = torch.zeros(1, 4, 16, 16, 16, dtype=torch.float64)
    spot = image.clone()
    spot[0, 2, 8, 8, 8] = 1
    difference = (stem(spot) - stem(image))[0]
    assert difference.shape == (8, 8, 8, 8)
    assert difference.flatten(1).any(dim=1).tolist() == [False] * 4 + [True] * 2 + [False] * 2
    assert difference[4].any(-1).any(-1).nonzero().flatten().tolist() == [3, 4, 5]  # 6, 8 and 10 lie within 3 of 8


def test_between_scales_stand_a_channel_norm_and_a_halving_convolution() -> None:
    down = narrow().encoder.downs[1]
    volume = torch.randn(2, WIDTHS[0], 4, 6, 8, dtype=torch.float64)
    norm, convolution = down
    centred = volume - volume.mean(1, keepdim=True)
    normalised = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    normalised = normalised * norm.weight.view(1, -1, 1, 1, 1) + norm.bias.view(1, -1, 1, 1, 1)
    expected = F.conv3d(normalised, convolution.weight, convolution.bias, stride=2)
    assert expected.shape == (2, WIDTHS[1], 2, 3, 4)
    torch.testing.assert_close(down(volume), expected)


def test_features_pass_to_the_decoder_as_they_leave_their_scales() -> None:
    network = narrow()
    image = torch.randn(1, 4, 32, 32, 48, dtype=torch.float64)
    features = network.encoder(image)
    assert [tuple(f.shape[1:]) for f in features] == [
        (width, 32 // scale, 32 // scale, 48 // scale) for width, scale in zip(WIDTHS, (2, 4, 8, 16), strict=True)
    ]
    x = image
    for down, stage, feature in zip(network.encoder.downs, network.encoder.stages, features, strict=True):
        x = down(x)
        x = as_volume(stage(as_tokens(x)), x.shape[2:])
        torch.testing.assert_close(feature, x)
    torch.testing.assert_close(network(image), network.decoder(image, features))


@pytest.mark.parametrize("option", ["d_state", "d_conv", "expand", "mlp_ratio", "depths"])
def test_option_reaches_the_network(option: str) -> None:
    """Each option changes the number of parameters, on its own."""
    value: object = (1, 1, 1, 2) if option == "depths" else 3
    counts = []
    for options in ({}, {option: value}):
        with torch.device("meta"):
            network = models.create("segmamba", in_channels=4, out_channels=4, image_size=32, **options)
        counts.append(sum(p.numel() for p in network.parameters()))
    assert counts[0] != counts[1]
