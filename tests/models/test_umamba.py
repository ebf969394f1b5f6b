"""U-Mamba: where Mamba stands and what it takes for tokens."""

import pytest
import torch

import models
from models.umamba import VolumeMamba


def mambas(name: str, size: int, widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320)) -> list[VolumeMamba | None]:
    """The Mamba layer of each encoder stage."""
    with torch.device("meta"):
        network = models.create(name, in_channels=4, out_channels=4, image_size=size, feat_size=widths)
    return [next((m for m in stage.modules() if isinstance(m, VolumeMamba)), None) for stage in network.encoder.stages]


@pytest.mark.parametrize(
    ("size", "widths", "by_channel"),
    [
        (128, (32, 64, 128, 256, 320, 320), [False] * 5 + [True]),
        (64, (32, 64, 128, 256, 320, 320), [False] * 4 + [True] * 2),
        (64, (8, 8, 8, 8, 8, 8), [False] * 5 + [True]),  # eight voxels, eight channels
        (64, (8, 8, 8, 8, 8, 7), [False] * 6),
    ],
)
def test_channels_are_tokens_where_they_are_no_fewer_than_voxels(
    size: int, widths: tuple[int, ...], by_channel: list[bool]
) -> None:
    layers = mambas("umamba_enc", size, widths)
    for stage, (layer, expected) in enumerate(zip(layers, by_channel, strict=True)):
        assert layer is not None
        assert layer.norm.normalized_shape == (((size >> stage) ** 3,) if expected else (widths[stage],))
        assert layer._by_channel is expected


def test_bot_has_mamba_after_the_last_stage_alone() -> None:
    assert [layer is not None for layer in mambas("umamba_bot", 64)] == [False] * 5 + [True]


@pytest.mark.parametrize("by_channel", [False, True])
def test_mamba_mixes_voxels_or_channels_and_nothing_goes_around_it(by_channel: bool) -> None:
    torch.manual_seed(0)
    layer = VolumeMamba(6, (2, 2, 1), by_channel=by_channel).double()
    x = torch.randn(2, 6, 2, 2, 1, dtype=torch.float64)
    tokens = x.flatten(2) if by_channel else x.flatten(2).mT
    expected = layer.mamba(torch.nn.functional.layer_norm(tokens, tokens.shape[-1:]))
    torch.testing.assert_close(layer(x), (expected if by_channel else expected.mT).reshape(x.shape))


def test_mamba_is_computed_in_fp32_under_autocast() -> None:
    layer = VolumeMamba(4, (2, 2, 2), by_channel=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(1, 4, 2, 2, 2).bfloat16()).dtype == torch.float32
