"""What the states of SegMamba differ in; apart from the network, so that naming one imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Variant:
    """A state of SegMamba.

    Attributes:
        stem: the first convolution, 7³ with stride 2: ``depthwise``, ``plain`` or ``normed`` (then a layer norm).
        norm: before the convolutions that halve the size and before perceptrons on the skips: ``layer`` over the
            channels or ``instance``.
        spatial_mixing: whether two 3³ convolutions beside a 1³ one stand before the Mamba layers of each scale.
        block: ``equation_1`` (a residual around Mamba and one around a perceptron), ``residual`` (around Mamba, no
            perceptron) or ``bare`` (Mamba alone).
        skip_perceptron: norm and perceptron between each scale and the decoder.
    """

    stem: Literal["depthwise", "plain", "normed"]
    norm: Literal["layer", "instance"]
    spatial_mixing: bool
    block: Literal["equation_1", "residual", "bare"]
    skip_perceptron: bool


EQUATION_1 = Variant("depthwise", "layer", False, "equation_1", False)
JANUARY_2024 = Variant("normed", "layer", False, "bare", True)
MARCH_2024 = Variant("plain", "instance", True, "bare", True)
FINAL = Variant("plain", "instance", True, "residual", True)
