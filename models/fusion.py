"""Letting a network's layers run as fused operations, whoever wrote them, and back again.

What changes is how layers compute, never what: classes are exchanged for subclasses that compute the same function, so
that parameters, their names and a checkpoint stay as they are. It serves every network alike: instance norms with the
residual and the activation that follow them, layer norms, depth-wise convolutions, and perceptrons on single channels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor, nn

from models.nnunet import ResidualBlock
from models.norm import ChannelsFirstLayerNorm
from models.ops.channel_perceptron import channel_perceptron
from models.ops.depthwise_conv import depthwise_conv3d, depthwise_conv_transpose3d
from models.ops.instance_norm import instance_norm
from models.ops.layer_norm import layer_norm
from models.umamba import ProjectedBlock
from models.uxnet import UxBlock

_WAS = "_unfused_class"


def fuse(network: nn.Module) -> int:
    """Exchange what can be fused; returns how many layers were. Layers that are fused already stay so."""
    before = _fused(network)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            for layer, following in pairwise(module.children()):
                if _is_instance_norm(layer) and _slope(following) is not None:
                    _exchange(layer, _NORMS[type(layer)])
                    layer.__dict__["slope"] = _slope(following)
                    _exchange(following, _Absorbed)
        if type(module) in _BLOCKS and _block_fits(module):
            _exchange(module, _BLOCKS[type(module)])
        elif _is_instance_norm(module):
            _exchange(module, _NORMS[type(module)])
        elif type(module) in _LAYER_NORMS:
            _exchange(module, _LAYER_NORMS[type(module)])
        elif type(module) in _CONVOLUTIONS and _is_depthwise(module):
            _exchange(module, _CONVOLUTIONS[type(module)])
    return _fused(network) - before


def unfuse(network: nn.Module) -> None:
    """Undo `fuse`."""
    for module in network.modules():
        was = module.__dict__.pop(_WAS, None)
        if was is not None:
            module.__class__ = was
            module.__dict__.pop("slope", None)


def _fused(network: nn.Module) -> int:
    return sum(_WAS in module.__dict__ for module in network.modules())


def _exchange(module: nn.Module, fused: type[nn.Module]) -> None:
    if _WAS not in module.__dict__:
        module.__dict__[_WAS] = type(module)
        module.__class__ = fused


def _is_instance_norm(module: nn.Module) -> bool:
    if type(module) is nn.GroupNorm:
        return module.num_groups == module.num_channels
    return type(module) is nn.InstanceNorm3d and not module.track_running_stats


def _slope(module: nn.Module) -> float | None:
    """Of a leaky ReLU; 0 for ReLU, None for anything else."""
    if type(module) is nn.LeakyReLU:
        return float(module.negative_slope)
    return 0.0 if type(module) is nn.ReLU else None


def _is_depthwise(convolution: Any) -> bool:
    """Of a kind that the fused operation takes: one filter to a channel, odd cubes, padding by zeros."""
    kernel, stride, padding = convolution.kernel_size, convolution.stride, convolution.padding
    alike = all(not isinstance(one, str) and len(set(one)) == 1 for one in (kernel, stride, padding))
    return (
        alike
        and convolution.groups == convolution.in_channels == convolution.out_channels
        and kernel[0] in (3, 5, 7)
        and stride[0] in (1, 2)
        and set(convolution.dilation) == {1}
        and convolution.padding_mode == "zeros"
    )


def _block_fits(block: Any) -> bool:
    """Whether a residual block has the norms and the activation that its fused form knows."""
    if not isinstance(block, UnetResBlock):
        return True
    norms = [block.norm1, block.norm2, *([block.norm3] if hasattr(block, "norm3") else [])]
    plain = all(_is_instance_norm(norm) and getattr(norm, "weight", None) is None for norm in norms)
    return plain and _slope(block.lrelu) is not None


class _InstanceNorm(nn.InstanceNorm3d):
    """The norm and the activation after it."""

    slope: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5:  # an image without its batch, whose first axis is the channels
            return super().forward(x)
        return instance_norm(x, self.weight, self.bias, eps=self.eps, negative_slope=self.slope)


class _ChannelNorm(nn.GroupNorm):
    """A group norm with a group to each channel, which is an instance norm, and the activation after it."""

    slope: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x, self.weight, self.bias, eps=self.eps, negative_slope=self.slope)


class _LayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class _ChannelsFirstLayerNorm(ChannelsFirstLayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


class _Absorbed(nn.Module):
    """An activation that the norm before it does."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class _DepthwiseConv3d(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        stride, padding = self.stride[0], self.padding[0]
        assert isinstance(padding, int)
        return depthwise_conv3d(x, self.weight, self.bias, stride=stride, padding=padding)


class _DepthwiseConvTranspose3d(nn.ConvTranspose3d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None:
            return super().forward(x, output_size)
        padding = self.padding[0]
        assert isinstance(padding, int)
        return depthwise_conv_transpose3d(
            x,
            self.weight,
            self.bias,
            stride=self.stride[0],
            padding=padding,
            output_padding=self.output_padding,
        )


class _UnetResBlock(UnetResBlock):
    def forward(self, x: Tensor) -> Tensor:
        slope, shortcut = _slope(self.lrelu), hasattr(self, "conv3")
        out = instance_norm(self.conv1(x), eps=self.norm1.eps, negative_slope=slope)
        return instance_norm(
            self.conv2(out),
            eps=self.norm2.eps,
            negative_slope=slope,
            residual=self.conv3(x) if shortcut else x,
            normalise_residual=shortcut,
        )


class _SumBlock(nn.Module):
    """A residual block of nnU-Net's kind: the last norm takes the shortcut and the activation in."""

    conv1: nn.Module
    conv2: nn.Module
    shortcut: nn.Module
    activation: nn.LeakyReLU

    def forward(self, x: Tensor) -> Tensor:
        convolution, norm = self.conv2.children()
        return instance_norm(
            convolution(self.conv1(x)),
            norm.weight,  # type: ignore[arg-type]
            norm.bias,  # type: ignore[arg-type]
            eps=norm.eps,  # type: ignore[arg-type]
            negative_slope=self.activation.negative_slope,
            residual=self.shortcut(x),
        )


class _UxBlock(UxBlock):
    def forward(self, x: Tensor) -> Tensor:
        channels = len(self.scale)
        assert self.widen.bias is not None
        assert self.narrow.bias is not None
        branch = channel_perceptron(
            self.norm(self.depthwise(x)),
            self.widen.weight.view(channels, -1),
            self.widen.bias.view(channels, -1),
            self.narrow.weight.flatten(1) * self.scale[:, None],
            self.narrow.bias * self.scale,
        )
        mixed: Tensor = x + self.drop_path(branch)
        return mixed


_NORMS: dict[type[nn.Module], type[nn.Module]] = {nn.InstanceNorm3d: _InstanceNorm, nn.GroupNorm: _ChannelNorm}
_LAYER_NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LayerNorm: _LayerNorm,
    ChannelsFirstLayerNorm: _ChannelsFirstLayerNorm,
}
_CONVOLUTIONS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv3d: _DepthwiseConv3d,
    nn.ConvTranspose3d: _DepthwiseConvTranspose3d,
}
_BLOCKS: dict[type[nn.Module], type[nn.Module]] = {
    UnetResBlock: _UnetResBlock,
    ResidualBlock: _SumBlock,
    ProjectedBlock: _SumBlock,
    UxBlock: _UxBlock,
}
