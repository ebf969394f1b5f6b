"""MedNeXt beyond its fingerprints: kernels of 5 and deep supervision against the copy in MONAI, faithful for size S."""

import re

import pytest
import torch
from torch import Tensor, nn

import models


def monai_name(ours: str) -> str:
    rules = (
        (r"^encoder\.(\d)\.", r"enc_stages.\1."),
        (r"^downs\.(\d)\.", r"down_blocks.\1."),
        (r"^ups\.(\d)\.", r"up_blocks.\1."),
        (r"^decoder\.(\d)\.", r"dec_stages.\1."),
        (r"^heads\.0\.", "out_0.conv_out."),
        (r"^heads\.(\d)\.", lambda match: f"out_blocks.{4 - int(match[1])}.conv_out."),
        (r"\.depthwise\.", ".conv1."),
        (r"\.widen\.", ".conv2."),
        (r"\.narrow\.", ".conv3."),
        (r"\.shortcut\.", ".res_conv."),
    )
    for pattern, replacement in rules:
        ours = re.sub(pattern, replacement, ours)
    return ours


def build(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return models.create(
        "mednext_s", in_channels=4, out_channels=3, image_size=32, n_channels=4, deep_supervision=True, **options
    )


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_outputs_at_all_scales_equal_monais(kernel_size: int) -> None:
    from monai.networks.nets.mednext import MedNeXt

    ours = build(kernel_size=kernel_size)
    theirs = MedNeXt(
        spatial_dims=3,
        init_filters=4,
        in_channels=4,
        out_channels=3,
        kernel_size=kernel_size,
        use_residual_connection=True,
        deep_supervision=True,
        encoder_expansion_ratio=2,
        decoder_expansion_ratio=2,
        bottleneck_expansion_ratio=2,
        blocks_down=(2, 2, 2, 2),
        blocks_bottleneck=2,
        blocks_up=(2, 2, 2, 2),
    )
    theirs.load_state_dict({monai_name(key): t for key, t in ours.state_dict().items() if key != "unused_scalar"})
    image = torch.randn(1, 4, 32, 32, 32)
    for found, expected in zip(ours.train()(image), theirs.train()(image), strict=True):
        torch.testing.assert_close(found, expected)


def test_gradient_checkpointing_changes_nothing_but_memory() -> None:
    image = torch.randn(1, 4, 32, 32, 32)

    def gradients(**options: object) -> list[Tensor]:
        network = build(**options).train()
        sum(output.square().mean() for output in network(image)).backward()
        return [parameter.grad for parameter in network.parameters() if parameter.requires_grad]

    assert models.options("mednext_l")["gradient_checkpointing"] is True
    assert models.options("mednext_b")["gradient_checkpointing"] is False
    for plain, checkpointed in zip(gradients(), gradients(gradient_checkpointing=True), strict=True):
        assert torch.equal(plain, checkpointed)


def test_blocks_between_levels_have_the_ratio_of_where_they_lead() -> None:
    """Where MONAI's copy differs: the sizes B, M and L."""
    network = models.create("mednext_l", in_channels=4, out_channels=4, image_size=32, n_channels=4)
    ratios = (3, 4, 8, 8, 8, 8, 8, 4, 3)
    hidden = [down.widen.out_channels // down.widen.in_channels for down in network.downs]
    assert hidden == list(ratios[1:5])
    hidden = [up.widen.out_channels // up.widen.in_channels for up in network.ups]
    assert hidden == list(ratios[5:])
