"""The datasets there are: the built-in ones and those that other distributions add.

A distribution adds a dataset through an entry point of the group ``segmamba_bench.datasets`` that names an
object with a ``card`` and ``open(root)``, see `data.dataset.DatasetSource`.

Beside names, every function takes the path of a folder with a ``dataset.json``, see `data.folder_dataset`. What holds
a separator is a path, and so is the name of such a folder that is no dataset's name.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from data.card import DatasetCard
from data.errors import DataError
from data.locate import configured, locate
from data.phantom_cache import POPULATIONS, cached_phantom

if TYPE_CHECKING:
    from data.dataset import Dataset, DatasetSource

ENTRY_POINT_GROUP = "segmamba_bench.datasets"


def names() -> list[str]:
    """Names of all datasets: the built-in ones, then those of plug-ins. A broken plug-in is a warning."""
    return [*_built_in(), *_plugged_in()]


def card(name: str) -> DatasetCard:
    """The facts about a dataset, by its name or its folder.

    Raises:
        DataError: there is no such dataset, or the folder's ``dataset.json`` cannot be used.
    """
    return _source(name).card


def open_dataset(name: str, root: Path | str | None = None, on_case: Callable[[str], None] | None = None) -> Dataset:
    """Open a dataset in ``root``, or where `data.locate.locate` finds it.

    Phantoms need no place: where nothing names one they are generated into the cache, and ``on_case`` hears
    each case's identifier as it is made. A dataset that is named as a folder lies there.

    Raises:
        DataError: there is no dataset of that name, or nothing says where it lies, or two folders are named.
    """
    source = _source(name)
    root = None if root is None else Path(root)
    if (folder := _folder(name)) is not None:
        if root is not None and root.resolve() != folder.resolve():
            raise DataError(
                f"the dataset is named as the folder {folder}, and --data-dir names another, {root}; expected one of "
                "them. Leave out --data-dir."
            )
        return source.open(folder)
    if name in POPULATIONS and configured(name, root) is None:
        return source.open(cached_phantom(name, on_case))
    return source.open(locate(name, root, source.card.how_to_obtain))


def open_folder(name: str | DatasetCard, folder: Path) -> Dataset:
    """Open a folder as the dataset of that name, or of that card: cases to segment, wherever they lie.

    A card stands for a dataset that was named as a folder and may be out of reach by now; that of a registered
    dataset opens as its name would.

    Raises:
        DataError: there is no such dataset.
    """
    if isinstance(name, str):
        return _source(name).open(folder)
    from data.folder_dataset import LAYOUTS, FolderDataset

    return FolderDataset(name, folder) if name.layout in LAYOUTS else _source(name.name).open(folder)


def _source(name: str) -> DatasetSource:
    # Built-in ones first: looking for plug-ins walks over everything that is installed.
    known = _built_in()
    if (folder := _folder(name)) is not None:
        from data.folder_dataset import FolderSource

        source = FolderSource(folder)
        if source.card.name in names():
            raise DataError(
                f"the folder {folder} is called as the dataset '{source.card.name}' is; expected another name, so that "
                "no record is taken for one of that dataset. Rename the folder, or pass a link of another name to it."
            )
        return source
    if name not in known:
        known |= _plugged_in()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else "."
        if Path(name).is_dir():
            hint = f", and the folder {name} holds no dataset.json, which would make it one."
        raise DataError(
            f"there is no dataset '{name}'{hint} There are: {', '.join(known)}. A folder in the layout of nnU-Net or "
            "of the Medical Segmentation Decathlon is named by its path, with a /."
        )
    return known[name]


def _folder(name: str) -> Path | None:
    """The folder that a dataset is named as; None for a name."""
    path = Path(name).expanduser()
    if os.sep in name or (os.altsep and os.altsep in name):
        return path
    # A relative folder must not hide a dataset of that name.
    if name and (path / "dataset.json").is_file() and name not in names():
        return path
    return None


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
