"""Datasets: their cards, where they lie, and readers that check what they read.

``data.names()``, ``data.card(name)`` and ``data.open_dataset(name)`` are the way in. Importing this package
costs no array library; the modules that read voxels do.
"""

# `data.card` is also a module. Its import comes first, so that the function keeps the name.
from data.card import DatasetCard
from data.errors import DataError
from data.registry import card, names, open_dataset, open_folder

__all__ = ["DataError", "DatasetCard", "card", "names", "open_dataset", "open_folder"]
