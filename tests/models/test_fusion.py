"""Exchanging layers for fused ones: what is exchanged, and that it comes back; that results stay is in the contract."""

from __future__ import annotations

import pytest
import torch
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import nn

from models import fusion
from models.fusion import fuse, unfuse
from models.norm import ChannelsFirstLayerNorm


def spy(monkeypatch: pytest.MonkeyPatch, name: str) -> list[dict[str, object]]:
    """What a fused operation is asked for."""
    calls: list[dict[str, object]] = []
    usual = getattr(fusion, name)

    def watch(*tensors: object, **options: object) -> object:
        calls.append(options)
        return usual(*tensors, **options)

    monkeypatch.setattr(fusion, name, watch)
    return calls


def test_a_norm_takes_the_activation_after_it_in(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv3d(2, 4, 1), nn.InstanceNorm3d(4, eps=1e-3), nn.LeakyReLU(0.2), nn.Sigmoid())
    image = torch.randn(1, 2, 4, 4, 4)
    expected = network(image)
    assert fuse(network) == 2
    calls = spy(monkeypatch, "instance_norm")
    torch.testing.assert_close(network(image), expected)
    assert calls == [{"eps": 1e-3, "negative_slope": 0.2}]
    assert fuse(network) == 0


def test_residual_blocks_are_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    block = UnetResBlock(3, 2, 4, 3, 1, "instance", act_name=("leakyrelu", {"negative_slope": 0.1}))
    image = torch.randn(1, 2, 4, 4, 4)
    expected = block(image)
    fuse(block)
    calls = spy(monkeypatch, "instance_norm")
    torch.testing.assert_close(block(image), expected)
    assert [call["negative_slope"] for call in calls] == [0.1, 0.1]
    assert calls[1]["normalise_residual"] is True
    calls.clear()
    straight = UnetResBlock(3, 2, 2, 3, 1, "instance")
    expected = straight(image)
    fuse(straight)
    torch.testing.assert_close(straight(image), expected)
    assert calls[1]["normalise_residual"] is False


@pytest.mark.parametrize(
    "layer",
    [
        nn.InstanceNorm3d(4, track_running_stats=True),
        nn.GroupNorm(2, 4),
        nn.BatchNorm3d(4),
        nn.Conv3d(4, 4, 3, padding=1),
        nn.Conv3d(4, 8, 3, groups=4),
        nn.Conv3d(4, 4, (3, 1, 1), groups=4),
        nn.Conv3d(4, 4, 3, groups=4, dilation=2),
        nn.Conv3d(4, 4, 3, groups=4, padding=1, padding_mode="circular"),
        nn.Conv3d(4, 4, 3, groups=4, padding="same"),
        UnetResBlock(3, 4, 4, 3, 1, ("instance", {"affine": True, "track_running_stats": True})),
        UnetResBlock(3, 4, 4, 3, 1, "batch"),
        UnetResBlock(3, 4, 4, 3, 1, "batch", act_name="prelu"),
    ],
)
def test_what_computes_something_else_is_left_alone(layer: nn.Module) -> None:
    network = nn.Sequential(layer)
    assert fuse(network) == 0


def test_a_group_norm_with_a_group_to_each_channel_is_an_instance_norm() -> None:
    network = nn.Sequential(nn.GroupNorm(4, 4), nn.ReLU())
    nn.init.normal_(network[0].weight)
    image = torch.randn(2, 4, 3, 4, 5)
    expected = network(image)
    assert fuse(network) == 2
    torch.testing.assert_close(network(image), expected)


def test_depthwise_convolutions_are_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv3d(4, 4, 5, stride=2, padding=1, groups=4, bias=False))
    image = torch.randn(2, 4, 9, 8, 7)
    expected = network(image)
    assert fuse(network) == 1
    calls = spy(monkeypatch, "depthwise_conv3d")
    torch.testing.assert_close(network(image), expected)
    assert calls == [{"stride": 2, "padding": 1}]


def test_transposed_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.ConvTranspose3d(4, 4, 3, stride=2, padding=1, output_padding=(1, 0, 1), groups=4))
    image = torch.randn(1, 4, 3, 4, 2)
    expected, larger = network(image), network[0](image, output_size=[6, 8, 4])
    assert fuse(network) == 1
    calls = spy(monkeypatch, "depthwise_conv_transpose3d")
    torch.testing.assert_close(network(image), expected)
    assert calls == [{"stride": 2, "padding": 1, "output_padding": (1, 0, 1)}]
    torch.testing.assert_close(network[0](image, output_size=[6, 8, 4]), larger)
    assert len(calls) == 1


def test_an_image_without_its_batch_is_normalised_as_before() -> None:
    network = nn.Sequential(nn.InstanceNorm3d(4))
    image = torch.randn(4, 3, 4, 5)
    expected = network(image)
    fuse(network)
    torch.testing.assert_close(network(image), expected)


def test_unfusing_gives_the_classes_back() -> None:
    network = nn.Sequential(nn.Conv3d(2, 2, 3, groups=2), nn.InstanceNorm3d(2), nn.ReLU())
    before = [type(module) for module in network.modules()]
    fuse(network)
    assert [type(module) for module in network.modules()] != before
    unfuse(network)
    assert [type(module) for module in network.modules()] == before
    assert "slope" not in network[1].__dict__
    assert fuse(network) == 3


@pytest.mark.parametrize(
    "layer", [nn.LayerNorm(6), ChannelsFirstLayerNorm(6), nn.LayerNorm(6, elementwise_affine=False)]
)
def test_layer_norms_of_bf16_stay_in_bf16(layer: nn.Module) -> None:
    """Of the same value as autocast's fp32 result rounded to what comes in, and gradients in the parameters' type."""
    torch.manual_seed(0)
    network = nn.Sequential(layer)
    for parameter in network.parameters():
        nn.init.normal_(parameter, mean=1.0)
    x = torch.randn(2, 6, 4, 5, 6)
    exact = network(x)
    assert fuse(network) == 1
    torch.testing.assert_close(network(x), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=2**-6, atol=0.06)
    if list(network.parameters()):
        found.sum().backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layer_norms_leave_fp16_to_autocast_alone(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Sums over tokens of a scaled loss need more range."""
    network = nn.Sequential(nn.LayerNorm(6))
    fuse(network)
    given = []

    def watch(x: torch.Tensor, _shape: object, weight: torch.Tensor, *_rest: object) -> torch.Tensor:
        given.append((x.dtype, weight.dtype, torch.is_autocast_enabled("cpu")))
        return x

    monkeypatch.setattr(nn.functional, "layer_norm", watch)
    with torch.autocast("cpu", dtype=dtype):
        network(torch.randn(2, 6).to(dtype))
    assert given == [
        (torch.bfloat16, torch.bfloat16, False) if dtype == torch.bfloat16 else (torch.float16, torch.float32, True)
    ]
