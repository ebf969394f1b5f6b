"""The networks of this package: one module for each family, holding its cards and builders.

They import neither torch nor a framework before they build, so that listing the networks stays light.
"""

from models.cards import (
    mednext,
    nnformer,
    nnunet,
    segmamba,
    segresnet,
    swinunetr,
    transbts,
    umamba,
    unetr,
    uxnet,
)

# What Table 1 of the SegMamba paper (arXiv:2401.13560) compares, in its order. The
# paper does not say which MedNeXt: B is the base from which its authors scale.
SEGMAMBA_TABLE_1 = ("segresnet", "uxnet", "mednext_b", "unetr", "swinunetr", "swinunetr_v2", "nnformer", "segmamba")

__all__ = [
    "SEGMAMBA_TABLE_1",
    "mednext",
    "nnformer",
    "nnunet",
    "segmamba",
    "segresnet",
    "swinunetr",
    "transbts",
    "umamba",
    "unetr",
    "uxnet",
]
