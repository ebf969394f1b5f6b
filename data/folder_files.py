"""Which files of a folder are which case, in the layouts of nnU-Net and of the Medical Segmentation Decathlon."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from data.card import DatasetCard
from data.dataset_json import CONVERT, DATASET_JSON, NIFTI_ENDINGS, Description
from data.errors import DataError
from data.volume import CaseFiles

IMAGES, LABELS = "imagesTr", "labelsTr"
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
# Formats that nnU-Net reads and this package does not.
FOREIGN_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".tif", ".tiff", ".bmp", ".npy", ".npz", ".dcm", ".img")


def files_in(folder: Path) -> list[Path]:
    """The files of a folder, sorted, without those that some system hides there (macOS's ``._`` companions)."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def stem(path: Path) -> str | None:
    """The name of a NIfTI file without its ending; None for any other file."""
    ending = next((ending for ending in NIFTI_ENDINGS if path.name.endswith(ending)), None)
    return None if ending is None else path.name.removesuffix(ending)


def split_channel(name: str) -> tuple[str, int] | None:
    """``CASE_0001`` to ``CASE`` and 1; None where the name is not of that form."""
    match = _CHANNEL.fullmatch(name)
    return None if match is None else (match["case"], int(match["channel"]))


def has_channel_files(description: Description) -> bool:
    """Whether the channels lie in files of their own, as in nnU-Net, rather than along a fourth axis."""
    if description.listed is None:
        return True
    ending = description.file_ending
    split = sum(_channel_file(image, ending, 0).is_file() for image, _ in description.listed)
    whole = sum(image.is_file() for image, _ in description.listed)
    return split > whole


def training_cases(description: Description) -> list[CaseFiles]:
    """Every training case, sorted by identifier, with all files that it should have, whether they exist or not."""
    root, ending = description.path.parent, description.file_ending
    channels = range(len(description.channels))
    if description.listed is None:
        images = [split_channel(path.name.removesuffix(ending)) for path in _ending_in(root / IMAGES, ending)]
        labels = [path.name.removesuffix(ending) for path in _ending_in(root / LABELS, ending)]
        ids = {found[0] for found in images if found} | set(labels)
        pairs = [(root / IMAGES / f"{case}{ending}", root / LABELS / f"{case}{ending}") for case in sorted(ids)]
    else:
        pairs = sorted(description.listed, key=lambda pair: pair[0].name)
    split = has_channel_files(description)
    return [
        CaseFiles(
            id=(case := image.name.removesuffix(ending)),
            patient=case,
            images=tuple(_channel_file(image, ending, channel) for channel in channels) if split else (image,),
            label=label,
        )
        for image, label in pairs
    ]


def cases_to_segment(folder: Path, card: DatasetCard) -> list[CaseFiles]:
    """The cases that lie in a folder, or in one folder for each, without labels.

    They are named as nnU-Net wants them, ``CASE_0000.nii.gz`` and so on for each channel, or as the Decathlon does,
    ``CASE.nii.gz`` with all channels.

    Raises:
        DataError: there are none, a channel is missing, or what lies there is in another format or of another name.
    """
    wanted = f"CASE_0000.nii.gz and so on for {', '.join(card.channels)}, or CASE.nii.gz with all channels"
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected one that holds {wanted}.")
    if (folder / DATASET_JSON).is_file():
        tests = [path for path in (folder / "imagesTs", folder / IMAGES) if path.is_dir()]
        raise DataError(
            f"{folder} is a whole dataset, with {DATASET_JSON}; expected a folder of images to segment, {wanted}. "
            f"Pass a folder of images{f', for example {tests[0]}' if tests else ''}."
        )
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))]
    cases = [case for place in folders for case in _cases_of_one_folder(place, card, wanted)]
    if not cases:
        foreign = [path for place in folders for path in files_in(place) if path.suffix.lower() in FOREIGN_ENDINGS]
        if foreign:
            raise DataError(
                f"{folder}: found no NIfTI files but {len(foreign)} others, the first {foreign[0].name}; expected "
                f"{wanted}. To mend it, {CONVERT}."
            )
        raise DataError(f"{folder}: found no images to segment; expected {wanted}, here or in one folder per case.")
    return cases


def _cases_of_one_folder(folder: Path, card: DatasetCard, wanted: str) -> list[CaseFiles]:
    files = {name: path for path in files_in(folder) if (name := stem(path)) is not None}
    count = len(card.channels)
    found = {name: split_channel(name) for name in files}
    if not any(one is not None and one[1] < count for one in found.values()):
        return [CaseFiles(name, name, (path,), None) for name, path in files.items()]
    strange = [files[name].name for name, one in found.items() if one is None or one[1] >= count]
    if strange:
        raise DataError(
            f"{folder}: of its {len(files)} NIfTI files, {len(strange)} are no channel of a case, the first: "
            f"{strange[0]}; expected {wanted}. Rename them, or move them away."
        )
    channels: dict[str, dict[int, Path]] = defaultdict(dict)
    for name, one in found.items():
        if one is not None:
            channels[one[0]][one[1]] = files[name]
    for case, paths in channels.items():
        if len(paths) < count:
            lacking = ", ".join(f"{case}_{i:04d} ({card.channels[i]})" for i in range(count) if i not in paths)
            raise DataError(f"{folder}: {lacking} is missing; expected {wanted}. Add it, or rename what it is.")
    return [
        CaseFiles(case, case, tuple(paths[channel] for channel in range(count)), None)
        for case, paths in channels.items()
    ]


def _ending_in(folder: Path, ending: str) -> Iterable[Path]:
    return (path for path in files_in(folder) if path.name.endswith(ending))


def _channel_file(image: Path, ending: str, channel: int) -> Path:
    return image.with_name(f"{image.name.removesuffix(ending)}_{channel:04d}{ending}")
