"""SegMamba: its paper's equation 1, and the three states of its released code."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from models.card import ModelCard, VolumeRule
from models.cards.shared_names import UXNET_DECODER, Rules
from models.errors import ModelError
from models.published import Published
from models.registry import register
from models.request import at_least_one, check_scales, one_of
from models.segmamba_variant import EQUATION_1, FINAL, JANUARY_2024, MARCH_2024, Variant

if TYPE_CHECKING:
    from torch import nn

_SCALES = 4
_D_CONV = 4
_SCANS = ("forward", "bidirectional", "tri", "cross")
_SLICES = ("published", "depth")
_SUFFIXES = ("", "_b", "_s")  # of the released code, for the orders forward, backward, slices

# For each scale's tokens to divide into its published number of slices.
_SLICED = VolumeRule(8 * 16**3, (("scan", "tri"), ("num_slices", "published")), 'num_slices="depth" takes any volume')

_PAPER = (
    "Xing et al., SegMamba: Long-range Sequential Modeling Mamba For 3D Medical Image Segmentation, arXiv:2401.13560"
)
_WIDTHS = "Widths and decoder may change with feat_size; the released code fixes the last convolution's input at 48."
_RECIPE = {
    "data.normalise": "box",
    "data.placement": "centred",
    "train.epochs": 1000,
    "train.batch_size": 2,
    "train.loss": "cross_entropy",
    "train.optimiser": "sgd",
    "train.learning_rate": 1e-2,
    "train.momentum": 0.99,
    "train.schedule": "poly",
    "train.precision": "fp16",
}

_EQUATION_1 = ModelCard(
    name="segmamba",
    title="SegMamba, equation 1 of the paper",
    family="state space",
    paper=f"{_PAPER}v1",
    year=2024,
    repository="https://github.com/ge-xing/SegMamba",
    commit="none holds it to the letter; f9d89cc is the code of the paper's date",
    licence="Apache-2.0 (written from the paper)",
    deviations=(
        "No released state of the code is equation 1 to the letter: this is a reading of the paper, and where the "
        "paper is silent the code of its date (f9d89cc, January 2024) decides; its numbers are not that code's.",
        "A later commit (00eb915) has equation 1's block, but with a bidirectional scan, a full convolution as stem "
        "and no norm between the scales.",
        "The stem is depth-wise as the paper says, which with several modalities means one group of "
        "filters for each; the released code mixes the modalities in a full convolution and adds a layer "
        "norm.",
        "Widths 48, 96, 192, 384 are the code's; the paper gives the first only.",
        "Down-sampling between scales, unspecified in the paper, is a layer norm over the channels and a "
        "convolution of kernel 2 and stride 2, as in the code.",
        "The scan runs in one direction, forwards with W fastest, with state 16, convolution 4 and "
        "expansion 2; the paper mentions no other direction, the released code scans in two or three.",
        "The perceptron has ratio 4 and GELU and is part of the trunk with a residual, as equation 1 says; "
        "the released code applies one on the skips only.",
        "The features go to the decoder as they leave a scale, without a further norm.",
        "The decoder, unspecified in the paper, is 3D UX-Net's, as in the code.",
        "Mamba layers start as in mamba-ssm, all others as PyTorch's defaults.",
    ),
    size_multiple=16,
    minimum_size=32,
    fixed_size=False,
    recipe="SGD 1e-2, polynomial decay, 1000 epochs, cross entropy, patches of 128³, batch 2 on each of "
    "four GPUs, weight decay 1e-5",
    recipe_fields=_RECIPE | {"train.weight_decay": 1e-5},
    parameters_4to4=58_242_916,
    gmacs_128=1399.97,
    scan_gmacs_128=4.88,
    volume_rule=_SLICED,
)

_FINAL = replace(
    _EQUATION_1,
    name="segmamba_release",
    title="SegMamba, the final state of the released code",
    paper=f"{_PAPER}v4 (MICCAI 2024)",
    commit="cff35970e0c542ad940b5701267f1ac888298b06",
    licence="Apache-2.0 (written anew after the released code)",
    deviations=(
        _WIDTHS,
        "The released code cuts the sequence into 64, 32, 16 and 8 runs at its four scales whatever the image size, "
        'which are slices for 128³ only; num_slices="depth" takes the true depth of each scale.',
        "In the gated spatial convolution the branches are added, as in the code; the paper's text multiplies them.",
        "Options that the released code accepts and ignores (drop path, layer scale) are not there.",
    ),
    recipe="SGD 1e-2, momentum 0.99 (Nesterov), polynomial decay over 250,000 steps, cross entropy, patches of 128³, "
    "batch 2, weight decay 3e-5, fp16, gradient norm clipped at 12",
    recipe_fields=_RECIPE | {"train.weight_decay": 3e-5, "train.clip_norm": 12},
    parameters_4to4=67_416_196,
    gmacs_128=1468.69,
    scan_gmacs_128=14.64,
)

_MARCH_2024 = replace(
    _FINAL,
    name="segmamba_2024_03",
    title="SegMamba, the released code of March 2024: no residual around Mamba",
    commit="70a922a",
)

_JANUARY_2024 = replace(
    _FINAL,
    name="segmamba_2024_01",
    title="SegMamba, the released code of January 2024: bidirectional, perceptrons on the skips",
    paper=f"{_PAPER}v1",
    commit="f9d89cc",
    deviations=(_WIDTHS, _FINAL.deviations[-1]),
    recipe=f"none was published with this state; the paper's: {_EQUATION_1.recipe}",
    recipe_fields=_EQUATION_1.recipe_fields,
    parameters_4to4=56_976_964,
    gmacs_128=1406.83,
    scan_gmacs_128=9.76,
)


def _names(*rules: tuple[str, str]) -> Rules:
    """Rules of the released code, which tells the orders of a Mamba layer apart by suffixes."""

    def suffix(match: re.Match[str]) -> str:
        tail = _SUFFIXES[int(match[1])]
        return f".mamba.A{tail}_log" if match[2] == "A_log" else f".mamba.{match[2]}{tail}{match[3]}"

    return (
        *UXNET_DECODER,
        *rules,
        (r"\.mamba\.ssms\.(\d)\.(\w+)(.*)$", suffix),
        (r"\.spatial\.(\d)\.wide\.0\.0\.", r".gscs.\1.proj."),
        (r"\.spatial\.(\d)\.wide\.1\.0\.", r".gscs.\1.proj2."),
        (r"\.spatial\.(\d)\.narrow\.0\.", r".gscs.\1.proj3."),
        (r"\.spatial\.(\d)\.merge\.0\.", r".gscs.\1.proj4."),
        (r"\.exits\.(\d)\.1\.", r".mlps.\1.fc1."),
        (r"\.exits\.(\d)\.3\.", r".mlps.\1.fc2."),
        (r"\.downs\.", ".downsample_layers."),
    )


def _register(
    card: ModelCard, published: Published, variant: Variant, default_mlp_ratio: int, default_scan: str
) -> None:
    @register(card, published)
    def build(
        in_channels: int,
        out_channels: int,
        _image_size: tuple[int, int, int],
        *,
        feat_size: tuple[int, ...] = (48, 96, 192, 384),
        depths: tuple[int, ...] = (2, 2, 2, 2),
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        mlp_ratio: int = default_mlp_ratio,
        scan: str = default_scan,
        num_slices: str = "published",
    ) -> nn.Module:
        """Build a state of SegMamba.

        Args:
            in_channels: number of image channels.
            out_channels: number of logits per voxel.
            feat_size: channels at 1/2, 1/4, 1/8 and 1/16 of the image; under equation 1 the first is a multiple of
                `in_channels`.
            depths: Mamba layers at each of these scales.
            d_state: states per inner channel of a Mamba layer.
            d_conv: extent of its causal convolution in tokens.
            expand: its inner channels per channel.
            mlp_ratio: hidden channels of a perceptron per channel.
            scan: orders in which a Mamba layer reads the volume: ``forward``; ``bidirectional``, backwards too (Vision
                Mamba); ``tri``, slice by slice too (the released code); ``cross``, along each axis forwards and
                backwards (after VMamba).
            num_slices: runs of the slice order, which ``tri`` alone has: ``published`` (64, 32, 16, 8) or the ``depth``
                of each scale.

        Raises:
            ModelError: an option is out of its range, or the depth-wise stem does not divide.
        """
        name = card.name
        at_least_one(name, d_state=d_state, d_conv=d_conv, expand=expand, mlp_ratio=mlp_ratio)
        check_scales(name, _SCALES, feat_size=feat_size, depths=depths)
        one_of(name, "scan", scan, _SCANS)
        one_of(name, "num_slices", num_slices, _SLICES)
        if variant.stem == "depthwise":
            _check_stem(name, in_channels, feat_size[0])
        if scan == "cross" and d_conv != _D_CONV:
            raise ModelError(
                f'{name}: scan="cross" has a 3³ convolution in place of the causal one, so d_conv={d_conv} would '
                f"change nothing; leave it at {_D_CONV}."
            )
        from models import segmamba

        return segmamba.SegMamba(
            in_channels,
            out_channels,
            variant,
            feat_size,
            depths,
            mlp_ratio,
            scan,
            segmamba.PUBLISHED_SLICES if num_slices == "published" else (None,) * _SCALES,
            d_state,
            d_conv,
            expand,
        )


def _check_stem(name: str, in_channels: int, width: int) -> None:
    if width % in_channels:
        below = width // in_channels * in_channels
        smaller = f"{below} or " if below else ""
        raise ModelError(
            f"{name}: the depth-wise stem gives each of the {in_channels} image channels as many filters, so "
            f"feat_size must begin with a multiple of {in_channels}, such as {smaller}{below + in_channels}; "
            f"got {width}."
        )


_VIT = _names((r"^encoder\.downs\.0\.", "encoder.downs.0.0."), (r"^encoder\.", "vit."))
_MAMBA_ENCODER = _names((r"^encoder\.exits\.(\d)\.0\.", r"mamba_encoder.norm\1."), (r"^encoder\.", "mamba_encoder."))
_TWINS = (
    "a file of SegMamba's released code fits segmamba_2024_03 and segmamba_release alike: the same parameters, but "
    "only the latter adds a residual around Mamba, and the wrong one gives wrong results without a sign. Take "
    "segmamba_release for code from 2024-06-05 on."
)

_register(_EQUATION_1, Published(), EQUATION_1, default_mlp_ratio=4, default_scan="forward")
_register(_JANUARY_2024, Published(_MAMBA_ENCODER), JANUARY_2024, default_mlp_ratio=4, default_scan="bidirectional")
_register(_MARCH_2024, Published(_VIT, caution=_TWINS), MARCH_2024, default_mlp_ratio=2, default_scan="tri")
_register(_FINAL, Published(_VIT, caution=_TWINS), FINAL, default_mlp_ratio=2, default_scan="tri")
