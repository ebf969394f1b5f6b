"""The networks of this package: one module for each, holding its card and its builder.

They import neither torch nor a framework before they build, so that listing the networks stays light.
"""

from models.cards import segmamba, segresnet, unetr

__all__ = ["segmamba", "segresnet", "unetr"]
