"""One case given as single files, in the order of the dataset's channels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from data.brats import OLD_NAMES
from data.card import DatasetCard
from data.dataset_json import DECATHLON
from data.errors import DataError
from data.folder_files import split_channel, stem
from data.volume import CaseFiles

_LAST_WORD = re.compile(r"(?:(?P<case>.*)[-_])?(?P<word>[^-_]+)")


_NO_IMAGES = {"seg", "label", "mask"}


def case_from_files(files: Sequence[Path], card: DatasetCard) -> CaseFiles:
    """A case without a label whose files are named one by one.

    Names need not follow the dataset's layout. Where they do end in a channel (``-t1c``, ``_flair``, nnU-Net's
    ``_0002``), they must say the channel of their place, and those of one case; the rest of the name is the identifier.

    Args:
        files: one for each channel in the order of the card; in the layout of the Decathlon one with all of them.
        card: of the dataset.

    Raises:
        DataError: too many or too few files, one of another type, one given twice, or names that say another channel or
            several cases.
    """
    order = " ".join(card.channels)
    whole = len(files) == 1 and card.layout == DECATHLON
    if len(files) != len(card.channels) and not whole:
        raise DataError(
            f"found {len(files)} files ({', '.join(path.name for path in files)}); {card.name} has "
            f"{len(card.channels)} channels. Expected one file for each, in this order: {order}."
        )
    for path in files:
        if stem(path) is None:
            raise DataError(f"{path} is no NIfTI file by its name; expected files ending in .nii.gz or .nii: {order}.")
    if len({path.resolve() for path in files}) < len(files):
        raise DataError(
            f"found one file for several channels: {', '.join(map(str, files))}; expected one for each: {order}."
        )
    names = [stem(path) or "" for path in files]
    for path, name in zip(files, names, strict=True):
        match = _LAST_WORD.fullmatch(name)
        if match and match["word"].casefold() in _NO_IMAGES - {channel.casefold() for channel in card.channels}:
            raise DataError(f"{path.name} is a label map by its name; expected images in this order: {order}.")
    told = [(names[0], None)] if whole else _told(names, card)
    for path, wanted, (_, found) in zip(files, card.channels, told, strict=not whole):
        if found is not None and found != wanted:
            raise DataError(
                f"{path.name} is given as {wanted}, but its name says {found}; expected files in this order: {order}. "
                "Put them in that order, or rename what is named wrongly."
            )
    cases = list(dict.fromkeys(case for case, found in told if found is not None))
    if len(cases) > 1:
        raise DataError(
            f"found files of {len(cases)} cases ({', '.join(cases)}); expected those of one: {order}. Give each case "
            "by itself, or rename what is named wrongly."
        )
    case = (cases[0] if cases else names[0]) or files[0].resolve().parent.name
    return CaseFiles(id=case, patient=case, images=tuple(files), label=None)


def _told(names: Sequence[str], card: DatasetCard) -> list[tuple[str, str | None]]:
    """What each name says: the case, and the channel or None."""
    numbered = [split_channel(name) for name in names]
    # Four digits alone may be the number of a patient; those of all channels, each once, are not.
    if {one[1] for one in numbered if one is not None} == set(range(len(names))) and len(names) > 1:
        return [(one[0], card.channels[one[1]]) for one in numbered if one is not None]
    return [_by_word(name, card) for name in names]


def _by_word(name: str, card: DatasetCard) -> tuple[str, str | None]:
    channels = {channel.casefold(): channel for channel in card.channels}
    match = _LAST_WORD.fullmatch(name)
    if match is None:
        return name, None
    word = match["word"].casefold()
    found = channels.get(word) or channels.get(OLD_NAMES.get(word, ""))
    return (match["case"] or "", found) if found else (name, None)
