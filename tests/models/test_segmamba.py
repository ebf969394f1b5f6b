"""SegMamba: the order of equation 1, the orders of the tokens, what lies between the scales, and its variants."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models.errors import ImageSizeError, ModelError
from models.mamba import Mamba
from models.segmamba import (
    PUBLISHED_SLICES,
    Encoder,
    EquationOneBlock,
    NormedMamba,
    SegMamba,
    SpatialMixing,
    as_tokens,
    as_volume,
)
from models.segmamba_variant import EQUATION_1, FINAL, MARCH_2024

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


def equation_1(block: EquationOneBlock, z: Tensor) -> Tensor:
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
    found = as_tokens(volume)
    for block in encoder.stages[1]:
        found = block(found, (2, 3, 4))
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
    encoder = Encoder(4, [4], [nn.ModuleList([EquationOneBlock(4, Mamba(4), 2)])], EQUATION_1, 2)
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
        assert not torch.allclose(block(z, (5, 1, 1)), block.mlp(block.norm2(z)) + z)
        block.mamba.out_proj.weight.zero_()
        torch.testing.assert_close(block(z, (5, 1, 1)), block.mlp(block.norm2(z)) + z)
        block.mlp[-1].weight.zero_()
        block.mlp[-1].bias.zero_()
        torch.testing.assert_close(block(z, (5, 1, 1)), z)


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
        size, x = x.shape[2:], as_tokens(x)
        for block in stage:
            x = block(x, size)
        x = as_volume(x, size)
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


SCANS = ("forward", "bidirectional", "tri", "cross")


@pytest.mark.parametrize("name", ["segmamba", "segmamba_release"])
@pytest.mark.parametrize("scan", SCANS)
def test_every_scan_trains_and_reaches_every_parameter(name: str, scan: str) -> None:
    torch.manual_seed(0)
    network = models.create(
        name, in_channels=4, out_channels=2, image_size=32, feat_size=WIDTHS, depths=(1, 1, 1, 1), scan=scan
    )
    logits = network(torch.randn(1, 4, 32, 32, 32))
    assert logits.shape == (1, 2, 32, 32, 32)
    (logits * torch.randn_like(logits)).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key


def test_scans_have_parameters_of_their_own_per_order() -> None:
    """Convolution, projections, decay and skip for each order; in cross one convolution and six sets of the others."""
    counts = {}
    for scan in SCANS:
        with torch.device("meta"):
            network = models.create("segmamba", in_channels=4, out_channels=4, image_size=32, scan=scan)
        counts[scan] = sum(p.numel() for p in network.parameters())

    def ssm(dim: int) -> int:  # x_proj, dt_proj with bias, A_log, D for 2·dim channels and 16 states
        inner, rank = 2 * dim, -(-dim // 16)
        return inner * (rank + 32) + rank * inner + inner + inner * 16 + inner

    def convolution(dim: int) -> int:
        return 2 * dim * 4 + 2 * dim

    dims = [48, 48, 96, 96, 192, 192, 384, 384]
    one = sum(ssm(d) + convolution(d) for d in dims)
    assert counts["bidirectional"] - counts["forward"] == one
    assert counts["tri"] - counts["bidirectional"] == one
    spatial_and_norm = sum(2 * d * 27 + 2 * d + 4 * d - convolution(d) for d in dims)
    assert counts["cross"] - counts["forward"] == 5 * sum(ssm(d) for d in dims) + spatial_and_norm


def test_published_slices_are_the_depths_of_the_published_patch() -> None:
    assert tuple(128 >> scale for scale in range(1, 5)) == PUBLISHED_SLICES


def test_true_depth_takes_any_size_and_equals_the_published_slices_where_they_agree() -> None:
    options = {"in_channels": 4, "out_channels": 2, "feat_size": WIDTHS, "depths": (1, 1, 1, 1)}
    with pytest.raises(ImageSizeError, match="Nearest: 32×32×32 below, 64×64×64 above") as refused:
        models.create("segmamba_release", image_size=48, **options)
    assert 'num_slices="depth"' in str(refused.value)
    network = models.create("segmamba_release", image_size=48, num_slices="depth", **options)
    with torch.no_grad():
        assert network(torch.zeros(1, 4, 48, 48, 48)).shape == (1, 2, 48, 48, 48)

    published, depth = (
        models.create("segmamba_release", image_size=(128, 16 * 2, 16 * 2), num_slices=slices, **options).eval()
        for slices in ("published", "depth")
    )
    depth.load_state_dict(published.state_dict())
    for size, same in (((128, 32, 32), True), ((64, 32, 64), False)):
        image = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert torch.equal(published(image), depth(image)) is same


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        (112, "96×96×96 below, 128×128×128 above"),
        (16 * 5, "64×64×64 below, 96×96×96 above"),
        ((48, 48, 64), "48×32×64 below, 48×64×64 above"),
        ((48, 48, 48), "32×32×32 below, 64×64×64 above"),
        ((144, 128, 32), None),
        ((128, 128, 96), None),
        ((64, 64, 48), None),
        ((128, 160, 112), None),
        ((32, 48, 32), "Nearest: 32×32×32 below, 32×64×32 above"),
        (40, "Nearest: 32×32×32 below, 64×64×64 above"),
        (100, "Nearest: 96×96×96 below, 128×128×128 above"),
        ((50, 50, 70), "Nearest: 48×32×64 below, 64×64×80 above"),
        (16, "Nearest: 32×32×32 above"),
        ((32, 32, 16), "Nearest: 32×32×32 above"),
        ((16, 64, 64), "Nearest: 32×64×64 above"),
    ],
)
def test_sizes_that_the_published_slices_do_not_divide_are_refused(size: object, nearest: str | None) -> None:
    request = {"in_channels": 4, "out_channels": 4, "image_size": size, "feat_size": WIDTHS}
    if nearest is None:
        models.create("segmamba_release", **request)
    else:
        with pytest.raises(ModelError, match=nearest):
            models.create("segmamba_release", **request)


def test_rule_of_the_slices_holds_for_the_networks_that_have_them_alone() -> None:
    request = {"in_channels": 4, "out_channels": 4, "image_size": 48, "feat_size": WIDTHS}
    for name, options in (
        ("segmamba", {}),
        ("segmamba_2024_01", {}),
        ("segmamba_release", {"scan": "cross"}),
        ("segmamba", {"scan": "tri", "num_slices": "depth"}),
    ):
        models.create(name, **request, **options)
    for name in ("segmamba", "segmamba_2024_01", "segmamba_2024_03"):
        with pytest.raises(ImageSizeError, match="D·H·W a multiple of 32768"):
            models.create(name, **request, scan="tri")


@pytest.mark.parametrize("residual", [False, True])
def test_released_block_adds_its_input_in_the_final_state_alone(residual: bool) -> None:
    torch.manual_seed(0)
    block = NormedMamba(8, Mamba(8), residual=residual).double()
    z = torch.randn(2, 6, 8, dtype=torch.float64)
    expected = block.mamba(torch.nn.functional.layer_norm(z, (8,)))
    torch.testing.assert_close(block(z, (6, 1, 1)), z + expected if residual else expected)
    assert (FINAL.block, MARCH_2024.block) == ("residual", "bare")


def test_spatial_mixing_adds_its_branches_and_its_input() -> None:
    torch.manual_seed(0)
    layer = SpatialMixing(4).double()
    x = torch.randn(2, 4, 5, 6, 7, dtype=torch.float64)

    def step(convolution: nn.Conv3d, x: Tensor) -> Tensor:
        y = F.conv3d(x, convolution.weight, convolution.bias, padding=convolution.kernel_size[0] // 2)
        mean = y.mean((2, 3, 4), keepdim=True)
        return torch.relu((y - mean) / (y.var((2, 3, 4), unbiased=False, keepdim=True) + 1e-5).sqrt())

    wide = step(layer.wide[1][0], step(layer.wide[0][0], x))
    torch.testing.assert_close(layer(x), step(layer.merge[0], wide + step(layer.narrow[0], x)) + x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scan": "trio"}, r"scan 'trio' is unknown. Did you mean 'tri'\?.*forward, bidirectional, tri, cross"),
        ({"num_slices": "dept"}, "Did you mean 'depth'"),
        ({"scan": "cross", "d_conv": 3}, "d_conv=3 would change nothing; leave it at 4"),
        ({"mlp_ratio": 0}, "mlp_ratio must be at least 1"),
    ],
)
def test_wrong_option_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        models.create("segmamba", in_channels=4, out_channels=4, image_size=32, **options)
