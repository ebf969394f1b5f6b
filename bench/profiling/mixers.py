"""Token mixers alone, on features: whose cost grows with the number of tokens, and whose with its square.

SegMamba (Xing et al. 2024, arXiv:2401.13560, section 1) rests on the first being true of Mamba (Gu and Dao 2023,
arXiv:2312.00752, abstract) and the second of self-attention (Vaswani et al. 2017, arXiv:1706.03762, table 1). Each
mixer is what networks have between a norm and a residual, and nothing else of them. Names and titles are at hand
without PyTorch, so that a request can be checked before anything heavy is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, unknown
from bench.profiling.setting import PASS_TIME, Setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.profiling.clock import Mark
    from bench.profiling.instruments import Instruments
    from bench.profiling.network import Pass

HEAD_CHANNELS = 16
# Those of SegMamba's layers, and of SwinUNETR's windows.
_D_STATE, _D_CONV, _EXPAND = 16, 4, 2
_WINDOW = (7, 7, 7)


@dataclass(frozen=True)
class Mixer:
    """One way to mix tokens.

    Attributes:
        title: for figures.
        build: makes it for a number of channels, a multiple of `HEAD_CHANNELS`; it takes features (B, C, D, H, W) of
            any size to the same shape.
    """

    title: str
    build: Callable[[int], nn.Module]


def check_mixer(name: str, channels: int) -> None:
    """See that a mixer can be built.

    Raises:
        BenchError: there is no such mixer, or its attention heads do not divide the channels.
    """
    if name not in MIXERS:
        raise BenchError(unknown("mixer", name, tuple(MIXERS)))
    if channels < 1 or channels % HEAD_CHANNELS:
        above = max(1, -(-channels // HEAD_CHANNELS)) * HEAD_CHANNELS
        raise BenchError(
            f"mixer {name} with {channels} channels: attention has heads of {HEAD_CHANNELS} channels, and all mixers "
            f"are compared on the same; expected a multiple of {HEAD_CHANNELS}, such as {above}"
        )


def measure_mixer(setting: Setting, tools: Instruments) -> dict[str, Any]:
    """Count, then time and weigh the passes of one mixer: what `measure_network` finds of a network, and its tokens.

    A training pass is that of the sum of all that comes out, with the gradients of what goes in and of the weights;
    nothing is optimised.

    Args:
        setting: ``model`` is a name of `MIXERS`, ``in_channels`` its channels, ``image_size`` the size of the features.
        tools: of this process.

    Raises:
        BenchError: as `check_mixer`.
    """
    check_mixer(setting.model, setting.in_channels)
    from bench.engine.checkpoint import seed_everything
    from bench.profiling.network import count, infer_work, measure, owned_bytes
    from bench.profiling.operators import top_operators

    seed_everything(0)
    mixer = MIXERS[setting.model].build(setting.in_channels).to(tools.device)
    facts = count(mixer, setting)
    make = infer_work if setting.mode == "infer" else _train_work
    work = make(mixer, setting, tools.device)
    found = measure(work, tools, lambda: owned_bytes(mixer, work))
    tokens, seconds = math.prod(setting.image_size), found["time"]["median_s"]
    found |= {PASS_TIME[setting.mode]: seconds, "voxels_per_s": setting.batch * tokens / seconds, "tokens": tokens}
    if tools.operators or tools.trace is not None:
        tools.on_pass("operators")
        found["operators"] = top_operators(work, tools.device, tools.operators, tools.trace)
    return {**facts, **found}


def _train_work(mixer: nn.Module, setting: Setting, device: torch.device) -> Pass:
    import torch

    from bench.engine.precision import arithmetic
    from bench.profiling.network import Pass

    mixer.train()
    layout = torch.channels_last_3d if setting.channels_last else torch.contiguous_format
    shape = (setting.batch, setting.in_channels, *setting.image_size)
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    features = drawn.to(device).contiguous(memory_format=layout).requires_grad_()
    if setting.channels_last:
        mixer.to(memory_format=layout)
    forward: Any = torch.compile(mixer) if setting.compile else mixer

    def run(mark: Mark) -> None:
        mixer.zero_grad(set_to_none=True)
        features.grad = None
        with arithmetic(setting.precision, device):
            total = forward(features).sum()
        mark("forward")
        # Autocast ends before the backward pass, which follows the types of the forward one.
        with arithmetic("tf32" if setting.precision != "fp32" else "fp32", device):
            total.backward()
        mark("backward")

    def starts_from() -> Iterator[Tensor]:
        yield features

    return Pass(run, starts_from)


def _on_tokens(layer: nn.Module) -> nn.Module:
    """Lets a layer that takes tokens (B, L, C) and the volume's size take the volume (B, C, D, H, W)."""
    from torch import nn

    from models.segmamba import as_tokens, as_volume

    class OnTokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, features: Tensor) -> Tensor:
            size = features.shape[2:]
            return as_volume(self.layer(as_tokens(features), size), size)

    return OnTokens()


def _mamba(scan: str, channels: int) -> nn.Module:
    """SegMamba's layer; the order by slices follows the volume's depth."""
    from models.segmamba import build_mixer

    return _on_tokens(build_mixer(scan, channels, None, _D_STATE, _D_CONV, _EXPAND))


def _attention(channels: int) -> nn.Module:
    """Self-attention of all tokens with all (Vaswani et al. 2017, arXiv:1706.03762, section 3.2), its heads fused."""
    import torch.nn.functional as F
    from torch import nn

    class SelfAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(channels, 3 * channels)
            self.out = nn.Linear(channels, channels)

        def forward(self, tokens: Tensor, _size: Sequence[int]) -> Tensor:
            heads = self.qkv(tokens).unflatten(-1, (3, -1, HEAD_CHANNELS))
            q, k, v = heads.permute(2, 0, 3, 1, 4)
            mixed: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            return mixed

    return _on_tokens(SelfAttention())


def _window_attention(channels: int) -> nn.Module:
    """SwinUNETR's attention in windows that are not shifted, by MONAI's own parts.

    As there, features are padded with zeros at their ends to whole windows, padding takes part in the attention, and
    windows are no larger than the features.
    """
    import torch.nn.functional as F
    from monai.networks.nets.swin_unetr import WindowAttention, get_window_size, window_partition, window_reverse
    from torch import nn

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = WindowAttention(channels, channels // HEAD_CHANNELS, _WINDOW, qkv_bias=True)

        def forward(self, features: Tensor) -> Tensor:
            depth, height, width = features.shape[2:]
            window = get_window_size((depth, height, width), _WINDOW)
            behind = [-size % edge for size, edge in zip((depth, height, width), window, strict=True)]
            padded = F.pad(features.permute(0, 2, 3, 4, 1), (0, 0, 0, behind[2], 0, behind[1], 0, behind[0]))
            mixed = self.attention(window_partition(padded, window), None)
            whole: Tensor = window_reverse(mixed.unflatten(1, window), window, padded.shape[:4])
            return whole[:, :depth, :height, :width].permute(0, 4, 1, 2, 3)

    return Windows()


def _convolution(edge: int, depthwise: bool, channels: int) -> nn.Module:
    from torch import nn

    return nn.Conv3d(channels, channels, edge, padding=edge // 2, groups=channels if depthwise else 1)


MIXERS: Mapping[str, Mixer] = {
    "mamba_1": Mixer("Mamba, one direction", partial(_mamba, "forward")),
    "mamba_2": Mixer("Mamba, two directions", partial(_mamba, "bidirectional")),
    "mamba_3": Mixer("Mamba, three directions", partial(_mamba, "tri")),
    "attention": Mixer("Self-attention", _attention),
    "window_attention_7": Mixer("Self-attention in windows of 7³", _window_attention),
    "depthwise_7": Mixer("Depth-wise convolution 7³", partial(_convolution, 7, True)),
    "conv_3": Mixer("Convolution 3³", partial(_convolution, 3, False)),
}
