"""nnFormer (Zhou et al. 2021, arXiv:2109.03201), as its authors' code for brain tumours has it.

Features pass between the layers with their channels last, (B, D, H, W, C).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import DropPath, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from models.stochastic_depth import rising_rates

_PATCH = 4
_MLP_RATIO = 4
_STAGES = 4
_HIDDEN = -100.0  # added to the attention between tokens that only the cyclic shift made neighbours


class NnFormer(nn.Module):
    """Windowed-attention encoder at 1/4 to 1/32 of the image and decoder back to 1/4; the head does the rest.

    Args:
        in_channels: number of image channels.
        out_channels: number of logits per voxel.
        image_size: (D, H, W) in voxels, multiples of 32; the windows, and with them shapes of parameters, depend on it.
        width: channels at 1/4, doubled at each halving.
        depths: blocks at each of the four scales.
        num_heads: attention heads at each scale; the decoder has those of the next coarser one.
        windows: edges of the attention windows at each scale, in tokens.
        drop_path_rate: probability that the last block's branches are dropped for a sample; the first block's is 0
            and those between lie on a line, in the encoder and in the decoder.
        deep_supervision: in training also return logits at 1/2 and 1/4 of the image.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        image_size: tuple[int, int, int],
        width: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        windows: Sequence[int],
        drop_path_rate: float,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        widths = [width << stage for stage in range(_STAGES)]
        grids = [tuple(extent // (_PATCH << stage) for extent in image_size) for stage in range(_STAGES)]
        self.embedding = PatchEmbedding(in_channels, width)
        rates = rising_rates(drop_path_rate, depths)
        self.encoder = nn.ModuleList(
            nn.ModuleList(
                SwinBlock(widths[stage], num_heads[stage], Window(grids[stage], windows[stage], block % 2 == 1), rate)
                for block, rate in enumerate(rates[stage])
            )
            for stage in range(_STAGES)
        )
        self.downs = nn.ModuleList(Halving(channels) for channels in widths[:-1])
        self.norms = nn.ModuleList(map(nn.LayerNorm, widths))
        rates = rising_rates(drop_path_rate, depths[-2::-1])
        # From coarse to fine, as it runs.
        self.ups = nn.ModuleList(Doubling(channels) for channels in reversed(widths[1:]))
        self.decoder = nn.ModuleList(
            nn.ModuleList(
                (SwinBlock if block else SkipQueryBlock)(
                    widths[stage], num_heads[stage + 1], Window(grids[stage], windows[stage], block > 0), rate
                )
                for block, rate in enumerate(rates[turn])
            )
            for turn, stage in enumerate(reversed(range(_STAGES - 1)))
        )
        self.heads = nn.ModuleList(
            nn.ConvTranspose3d(channels, out_channels, _PATCH, stride=_PATCH)
            for channels in widths[: _STAGES - 1 if deep_supervision else 1]
        )
        self._deep_supervision = deep_supervision

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Images (B, in_channels, *image_size) to logits (B, out_channels, *image_size).

        In training with deep supervision a list: these logits, then those at 1/2 and 1/4.
        """
        x = self.embedding(image)
        skips = []
        for stage, blocks in enumerate(self.encoder):
            for block in blocks.children():
                x = block(x)
            skips.append(self.norms[stage](x))
            if stage < len(self.downs):
                x = self.downs[stage](x)
        x = skips.pop()
        features = []
        for up, blocks in zip(self.ups, self.decoder, strict=True):
            raised, skip = up(x), skips.pop()
            first, *others = blocks.children()
            x = first(raised, skip)
            for block in others:
                x = block(x)
            features.append(x)
        features.reverse()
        if self._deep_supervision and self.training:
            return [head(x.movedim(-1, 1)) for head, x in zip(self.heads, features, strict=True)]
        logits: Tensor = self.heads[0](features[0].movedim(-1, 1))
        return logits


class PatchEmbedding(nn.Module):
    """Four convolutions, two of them with stride 2, each but the last followed by GELU and layer norm."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        half = width // 2
        plan = ((in_channels, half, 2), (half, half, 1), (half, width, 2), (width, width, 1))
        self.convolutions = nn.ModuleList(
            nn.Conv3d(before, after, kernel_size=3, stride=stride, padding=1) for before, after, stride in plan
        )
        self.norms = nn.ModuleList(map(nn.LayerNorm, (half, half, width, width)))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, D/4, H/4, W/4, width)."""
        x = image
        last = len(self.convolutions) - 1
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = convolution(x)
            # Contiguous, since on GPUs these convolutions train faster with channels first.
            x = norm((x if index == last else F.gelu(x)).movedim(1, -1)).movedim(-1, 1).contiguous()
        return x.movedim(1, -1)


class Halving(nn.Module):
    """GELU, layer norm and a strided convolution that doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.convolution = nn.Conv3d(channels, 2 * channels, kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) to (B, D/2, H/2, W/2, 2C)."""
        halved: Tensor = self.convolution(self.norm(F.gelu(x)).movedim(-1, 1))
        return halved.movedim(1, -1)


class Doubling(nn.Module):
    """Layer norm and a transposed convolution that halves the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.convolution = nn.ConvTranspose3d(channels, channels // 2, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) to (B, 2D, 2H, 2W, C/2)."""
        doubled: Tensor = self.convolution(self.norm(x).movedim(-1, 1))
        return doubled.movedim(1, -1)


class Window:
    """How a grid of tokens is cut into cubes within which attention runs.

    Where the grid's shortest axis is no longer than the window, that axis is the window's edge and nothing shifts.

    Args:
        grid: tokens along (D, H, W).
        edge: of the cubes.
        shifted: whether the cubes are moved by half an edge.
    """

    def __init__(self, grid: Sequence[int], edge: int, shifted: bool) -> None:
        self.edge = min(edge, *grid)
        self.shift = edge // 2 if shifted and min(grid) > edge else 0
        self._grid = tuple(grid)
        self._padded = tuple(-(-extent // self.edge) * self.edge for extent in grid)

    def mask(self) -> Tensor | None:
        """What is added to the attention in each cube, (cubes, edge³, edge³); None where nothing is to be hidden."""
        if not self.shift:
            return None
        # Tokens stay neighbours if, on every axis, they lie on the same side of the seam that the shift made.
        part = torch.zeros(self._padded)
        for axis, extent in enumerate(self._padded):
            side = torch.zeros(extent)
            side[extent - self.edge : extent - self.shift] = 1
            side[extent - self.shift :] = 2
            part = 3 * part + side.view([-1 if other == axis else 1 for other in range(3)])
        tokens = self._cut(part.view(1, *self._padded, 1)).squeeze(-1)
        return torch.where(tokens.unsqueeze(1) == tokens.unsqueeze(2), 0.0, _HIDDEN)

    def split(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) to (B·cubes, edge³, C), zeros filling up the last cubes."""
        pad = [after - before for before, after in zip(self._grid, self._padded, strict=True)]
        x = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
        return self._cut(x.roll((-self.shift,) * 3, (1, 2, 3)) if self.shift else x)

    def join(self, windows: Tensor) -> Tensor:
        """Undo `split`."""
        edge, counts = self.edge, [extent // self.edge for extent in self._padded]
        x = windows.view(-1, *counts, edge, edge, edge, windows.shape[-1]).permute(0, 1, 4, 2, 5, 3, 6, 7)
        x = x.reshape(-1, *self._padded, windows.shape[-1])
        x = x.roll((self.shift,) * 3, (1, 2, 3)) if self.shift else x
        depth, height, width = self._grid
        return x[:, :depth, :height, :width]

    def _cut(self, x: Tensor) -> Tensor:
        for axis in (1, 3, 5):
            x = x.unflatten(axis, (-1, self.edge))
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, self.edge**3, x.shape[-1])


class WindowAttention(nn.Module):
    """Attention within windows, with a bias for each offset between tokens (Swin, arXiv:2103.14030).

    Args:
        channels: of the tokens.
        heads: attention heads; divide the channels.
        window: how the tokens are cut.
        own_query: project queries as well as keys and values; otherwise the queries are taken as they are.
    """

    mask: Tensor | None
    offset_index: Tensor

    def __init__(self, channels: int, heads: int, window: Window, *, own_query: bool) -> None:
        super().__init__()
        self.offset_bias = nn.Parameter(torch.zeros((2 * window.edge - 1) ** 3, heads))
        trunc_normal_(self.offset_bias, std=0.02)
        self.project_in = nn.Linear(channels, (3 if own_query else 2) * channels)
        self.project_out = nn.Linear(channels, channels)
        self.register_buffer("offset_index", published_offset_index(window.edge), persistent=False)
        self.register_buffer("mask", window.mask(), persistent=False)
        self._heads = heads

    def forward(self, windows: Tensor, query: Tensor | None = None) -> Tensor:
        """Windows (N, tokens, C), and the queries of the same shape where they are not projected; same shape."""
        parts = self.project_in(windows).unflatten(-1, (-1, self._heads, windows.shape[-1] // self._heads))
        if query is not None:
            parts = torch.cat([query.unflatten(-1, (1, *parts.shape[-2:])), parts], dim=2)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(len(windows)).to(q.dtype))
        projected: Tensor = self.project_out(mixed.transpose(1, 2).flatten(2))
        return projected

    def _bias(self, count: int) -> Tensor:
        """(1 or `count`, heads, tokens, tokens)."""
        bias = self.offset_bias[self.offset_index].permute(2, 0, 1).unsqueeze(0)
        if self.mask is None:
            return bias
        return (bias + self.mask.unsqueeze(1)).repeat(count // len(self.mask), 1, 1, 1)


class SwinBlock(nn.Module):
    """Attention within windows and a perceptron, each on normalised tokens and with a residual."""

    def __init__(self, channels: int, heads: int, window: Window, drop_path: float, *, own_query: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window, own_query=own_query)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, _MLP_RATIO * channels), nn.GELU(), nn.Linear(_MLP_RATIO * channels, channels)
        )
        self.drop_path = DropPath(drop_path)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) to the same shape."""
        mixed = self.window.join(self.attention(self.window.split(self.norm1(x))))
        return self.perceive(x + self.drop_path(mixed))

    def perceive(self, x: Tensor) -> Tensor:
        """The perceptron's half of the block."""
        mixed: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return mixed


class SkipQueryBlock(SwinBlock):
    """The decoder's first block: what comes from below asks, the encoder's feature answers (the skip attention).

    The same norm serves both, and the residual is their sum.
    """

    def __init__(self, channels: int, heads: int, window: Window, drop_path: float) -> None:
        super().__init__(channels, heads, window, drop_path, own_query=False)

    def forward(self, raised: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """Two features (B, D, H, W, C) to one."""
        keys, queries = (self.window.split(self.norm1(x)) for x in (skip, raised))
        return self.perceive(raised + skip + self.drop_path(self.window.join(self.attention(keys, queries))))


def published_offset_index(edge: int) -> Tensor:
    """Row of the bias table for each pair of tokens in a window, (edge³, edge³), as the authors' code computes it.

    That code weights the first axis by 3·edge - 1 where (2·edge - 1)² would tell all offsets apart, so different
    offsets share rows and most rows are never used. It is kept: trained weights rest on it.
    """
    coordinates = torch.cartesian_prod(*(torch.arange(edge),) * 3)
    offsets = coordinates.unsqueeze(1) - coordinates.unsqueeze(0) + edge - 1
    return (offsets * torch.tensor([3 * edge - 1, 2 * edge - 1, 1])).sum(-1)
