"""Networks for 3D medical image segmentation under one interface.

`create` builds one, `names` lists them, `card` gives the facts about one, `options` what can be set on it,
`resolve_options` what is set in the end, `register` adds one. Nothing heavy is imported before a network is built.
"""

from models.registry import card, create, names, options, register, resolve_options

# Imported for its effect: each of its modules registers a network.
from models import cards  # noqa: F401  # isort: skip

__all__ = ["card", "create", "names", "options", "register", "resolve_options"]
