"""The datasets there are: the built-in ones and those that other distributions add.

A distribution adds a dataset through an entry point of the group ``segmamba_bench.datasets`` that names an
object with a ``card`` and ``open(root)``, see `data.dataset.DatasetSource`.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from data.card import DatasetCard
from data.errors import DataError
from data.locate import configured, locate

if TYPE_CHECKING:
    from data.dataset import Dataset, DatasetSource

ENTRY_POINT_GROUP = "segmamba_bench.datasets"


def names() -> list[str]:
    """Names of all datasets: the built-in ones, then those of plug-ins. A broken plug-in is a warning."""
    return [*_built_in(), *_plugged_in()]


def card(name: str) -> DatasetCard:
    """The facts about a dataset.

    Raises:
        DataError: there is no dataset of that name.
    """
    return _source(name).card


def open_dataset(name: str, root: Path | str | None = None, on_case: Callable[[str], None] | None = None) -> Dataset:
    """Open a dataset in ``root``, or where `data.locate.locate` finds it.

    The phantom needs no place: where nothing names one it is generated into the cache, and ``on_case`` hears
    each case's identifier as it is made.

    Raises:
        DataError: there is no dataset of that name, or nothing says where it lies.
    """
    source = _source(name)
    root = None if root is None else Path(root)
    if name == "phantom" and configured(name, root) is None:
        from data.phantom_cache import default_phantom

        return source.open(default_phantom(on_case))
    return source.open(locate(name, root, source.card.how_to_obtain))


def open_folder(name: str, folder: Path) -> Dataset:
    """Open a folder as the dataset of that name: cases to segment, wherever they lie.

    Raises:
        DataError: there is no dataset of that name.
    """
    return _source(name).open(folder)


def _source(name: str) -> DatasetSource:
    # Built-in ones first: looking for plug-ins walks over everything that is installed.
    known = _built_in()
    if name not in known:
        known |= _plugged_in()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else "."
        raise DataError(f"there is no dataset '{name}'{hint} There are: {', '.join(known)}.")
    return known[name]


def _built_in() -> dict[str, DatasetSource]:
    from data.brats import SOURCES

    return {source.card.name: source for source in SOURCES}


def _plugged_in() -> dict[str, DatasetSource]:
    from importlib.metadata import entry_points

    found: dict[str, DatasetSource] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        distribution = point.dist.name if point.dist else "unknown"
        origin = f"dataset plug-in '{point.name}' of the distribution '{distribution}'"
        try:
            source = point.load()
            name = source.card.name
        except Exception as error:  # a stranger's import may raise anything, and must not take the others with it
            warnings.warn(f"{origin} cannot be loaded and is left out: {error!r}", stacklevel=3)
            continue
        if name in _built_in() or name in found:
            warnings.warn(f"{origin} is left out: there already is a dataset '{name}'", stacklevel=3)
            continue
        found[name] = source
    return found
