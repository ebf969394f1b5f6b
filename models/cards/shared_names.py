"""Rules from our names to the authors' that several networks share, see `models.published`."""

from __future__ import annotations

from models.published import Replacement

Rules = tuple[tuple[str, Replacement], ...]

# The decoder that 3D UX-Net and SegMamba took from SwinUNETR.
UXNET_DECODER: Rules = (
    (r"^decoder\.skips\.(\d)\.", lambda match: f"encoder{int(match[1]) + 1}."),
    (r"^decoder\.ups\.(\d)\.", lambda match: f"decoder{5 - int(match[1])}."),
    (r"^decoder\.refine\.", "decoder1."),
    (r"^decoder\.head\.", "out.conv.conv."),
)

# The decoder's heads in nnU-Net and what is built on it.
NNUNET_DECODER: Rules = ((r"^decoder\.heads\.", "decoder.seg_layers."),)

# There the decoder holds the encoder once more, and each block its convolution and norm as a list too.
NNUNET_ALIASES = (
    (r"^decoder\.encoder\.", "encoder."),
    (r"\.all_modules\.0\.", ".conv."),
    (r"\.all_modules\.1\.", ".norm."),
)
