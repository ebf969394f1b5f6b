"""Networks for 3D medical image segmentation under one interface.

`create` builds one, `names` lists them, `card` gives the facts about one, `nearest_size` which image size it takes,
`options` what can be set on it, `resolve_options` what is set in the end, `register` adds one, `load_published` fills
one with weights from its authors' code. `SEGMAMBA_TABLE_1` names those that the SegMamba paper compares. Nothing heavy
is imported before a network is built.
"""

from models.loading import load_published
from models.registry import card, create, names, nearest_size, options, register, resolve_options

# Imported for its effect: each of its modules registers a network.
from models.cards import SEGMAMBA_TABLE_1  # isort: skip

__all__ = [
    "SEGMAMBA_TABLE_1",
    "card",
    "create",
    "load_published",
    "names",
    "nearest_size",
    "options",
    "register",
    "resolve_options",
]
