"""The file ``dataset.json`` of nnU-Net (both versions) and of the Medical Segmentation Decathlon, as a dataset card.

The three say the same in different words. Channels: ``channel_names`` (nnU-Net v2) or ``modality``. Labels: name to
value (v2) or value to name; in v2 a value may be a list, and the name is then that of a region. Sources: nnU-Net's
documentation/dataset_format.md; Antonelli et al., Nature Communications 13:4128, 2022.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.card import DatasetCard
from data.nifti import FileFault

DATASET_JSON = "dataset.json"
NIFTI_ENDINGS = (".nii.gz", ".nii")
CONVERT = (
    "convert all images and labels to NIfTI (.nii.gz) with what wrote them, or with SimpleITK (ReadImage, WriteImage)"
)
NNUNET = "nnU-Net: imagesTr/CASE_0000.nii.gz, one file per channel, and labelsTr/CASE.nii.gz"
DECATHLON = (
    "Medical Segmentation Decathlon: imagesTr/CASE.nii.gz, channels along a fourth axis, and labelsTr/CASE.nii.gz"
)


@dataclass(frozen=True)
class Description:
    """What a ``dataset.json`` says.

    Attributes:
        path: of the file.
        channels: names, in order.
        labels: value to name; 0 is the background.
        regions: name to label values.
        region_order_missing: True where there are regions but no ``regions_class_order``.
        file_ending: of images and labels.
        listed: image and label of each training case as they are listed; None in nnU-Net v2, where file names say it.
        declared_cases: numTraining, or None.
        title, licence, citation: for people.
    """

    path: Path
    channels: tuple[str, ...]
    labels: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    region_order_missing: bool
    file_ending: str
    listed: tuple[tuple[Path, Path], ...] | None
    declared_cases: int | None
    title: str
    licence: str
    citation: str

    def card(self, name: str, layout: str) -> DatasetCard:
        """The dataset card."""
        return DatasetCard(
            name=name,
            title=self.title,
            channels=self.channels,
            labels=self.labels,
            regions=self.regions,
            spacing_mm=None,
            layout=layout,
            licence=self.licence,
            how_to_obtain="ask whoever keeps the folder.",
            citation=self.citation,
        )


def read_description(root: Path) -> Description:
    """Read ``root/dataset.json``.

    Raises:
        FileFault: the file is missing, is not JSON, lacks something or contradicts itself; or it describes what cannot
            be read here: other formats than NIfTI, an ignore label, labels that do not count up from 0.
    """
    path = root / DATASET_JSON
    facts = _parse(path)
    newer = "channel_names" in facts
    labels, regions = _labels(path, _get(path, facts, "labels", "the names and values of the labels"))
    if newer:
        ending = str(_get(path, facts, "file_ending", 'the ending of all files, ".nii.gz"'))
        listed = None
    else:
        listed = _listed(path, _get(path, facts, "training", "a list of the training cases"))
        ending = next((end for end in NIFTI_ENDINGS if listed[0][0].name.endswith(end)), listed[0][0].suffix)
    if ending not in NIFTI_ENDINGS:
        raise FileFault(
            path, f"files that end in {ending!r}", "NIfTI files, .nii.gz or .nii", f"{CONVERT}{_new(newer)}"
        )
    grouped = any(isinstance(value, list) for value in facts["labels"].values())
    return Description(
        path=path,
        channels=_channels(path, facts),
        labels=labels,
        regions=regions,
        region_order_missing=grouped and not _has_region_order(path, facts, labels, regions),
        file_ending=ending,
        listed=listed,
        declared_cases=_declared(path, facts),
        title=_title(facts, root),
        licence=_text(facts, "licence", "license") or f"Not stated in {DATASET_JSON}.",
        citation=_text(facts, "reference", "citation") or f"Not stated in {DATASET_JSON}.",
    )


def _new(newer: bool) -> str:
    return ', and set "file_ending" to ".nii.gz"' if newer else ', and correct the names under "training"'


def _parse(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileFault(
            path, "no such file", f"the description of a dataset, {DATASET_JSON}", _elsewhere(path)
        ) from None
    except OSError as error:
        raise FileFault(
            path, f"nothing that can be read ({error.strerror})", "a JSON file", "check its permissions"
        ) from error
    except ValueError as error:  # both bad JSON and bad UTF-8 are ValueErrors
        raise FileFault(path, f"no JSON ({error})", "a JSON file", "correct it, or obtain it again") from error
    if not isinstance(facts, dict):
        raise FileFault(path, f"a JSON {type(facts).__name__}", "a JSON object", "obtain the file again")
    return facts


def _elsewhere(path: Path) -> str:
    """What to do where there is no description: most often the folder above or below is meant."""
    root = path.parent
    if (root.parent / DATASET_JSON).is_file():
        return f"pass the folder above, {root.parent}"
    below = sorted(found.parent for found in root.glob(f"*/{DATASET_JSON}"))
    if below:
        return f"pass the folder that has one: {' or '.join(map(str, below[:3]))}"
    return "write one, or if the folder is laid out as BraTS 2023 use --dataset brats2023 --data-dir FOLDER"


def _get(path: Path, facts: Mapping[str, Any], key: str, what: str) -> Any:
    if key not in facts:
        raise FileFault(path, f"no key {key!r} (its keys: {', '.join(facts)})", f'"{key}": {what}', "add it")
    return facts[key]


def _text(facts: Mapping[str, Any], *keys: str) -> str:
    found = [str(facts[key]).strip() for key in keys if isinstance(facts.get(key), str)]
    return next((text for text in found if text), "")


def _title(facts: Mapping[str, Any], root: Path) -> str:
    title = ": ".join(dict.fromkeys(text for key in ("name", "description") if (text := _text(facts, key))))
    return title or f"{root.resolve().name}, a folder with a {DATASET_JSON}"


def _channels(path: Path, facts: Mapping[str, Any]) -> tuple[str, ...]:
    key = "channel_names" if "channel_names" in facts else "modality"
    expected = f'"{key}": {{"0": "T1", "1": "T2"}}, the channels counted from 0'
    if key not in facts:
        found = f"neither 'channel_names' nor 'modality' (its keys: {', '.join(facts)})"
        raise FileFault(path, found, '"channel_names" (nnU-Net) or "modality" (Decathlon)', "add it")
    names = facts[key]
    well_formed = isinstance(names, dict) and names and all(isinstance(name, str) for name in names.values())
    if not well_formed or sorted(names) != sorted(map(str, range(len(names)))):
        raise FileFault(path, f"{key}: {json.dumps(names)}", expected, "correct it")
    return tuple(names[str(index)].strip() or f"channel {index}" for index in range(len(names)))


def _labels(path: Path, found: Any) -> tuple[dict[int, str], dict[str, tuple[int, ...]]]:
    """Value to name, and region to values."""
    expected = '{"background": 0, "tumour": 1} or {"0": "background", "1": "tumour"}'
    if not isinstance(found, dict) or not found:
        raise FileFault(path, f"labels: {json.dumps(found)}", expected, "correct it")
    if all(key.isdecimal() for key in found) and all(isinstance(name, str) for name in found.values()):
        pairs = [(name.strip() or f"label {value}", [int(value)]) for value, name in found.items()]
    elif all(_is_value(value) for value in found.values()):
        pairs = [(name, list(value) if isinstance(value, list) else [value]) for name, value in found.items()]
    else:
        raise FileFault(path, f"labels: {json.dumps(found)}", expected, "correct it")
    for name, values in pairs:
        if name.casefold() == "ignore":
            raise FileFault(
                path,
                f"the label {name!r} ({', '.join(map(str, values))}), voxels that nobody annotated",
                "labels that all say what is there: losses and scores here have no voxels that do not count",
                "annotate these voxels or leave their cases out, and remove the label",
            )
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FileFault(path, f"two labels called {twice!r}", "a name for each label", "rename one of them")
    _demand_consecutive(path, sorted({value for _, values in pairs for value in values}))
    background = [name for name, values in pairs if 0 in values]
    if len(background) > 1 or len(dict(pairs)[background[0]]) > 1:
        found_text = ", ".join(f"{name}: {values}" for name, values in pairs if 0 in values)
        raise FileFault(path, f"the value 0 in {found_text}", "0 for the background alone", "correct the labels")
    regions = {name: tuple(values) for name, values in pairs if 0 not in values}
    if not regions:
        raise FileFault(path, "no label but the background", "at least one more label", "add it")
    return _names_of_values(path, pairs), regions


def _is_value(value: Any) -> bool:
    """Whether it is a label's value, or the values of a region, each once."""
    if isinstance(value, list):
        return bool(value) and all(type(one) is int for one in value) and len(set(value)) == len(value)
    return type(value) is int


def _demand_consecutive(path: Path, values: list[int]) -> None:
    wanted = list(range(len(values)))
    if values == wanted and len(values) <= 256:
        return
    found = f"the label values {', '.join(map(str, values))}"
    if 0 not in values:
        raise FileFault(path, found, "0 for the background, and the others counting up from 1", 'add "background": 0')
    changes = ", ".join(f"{old} to {new}" for old, new in zip(values, wanted, strict=True) if old != new)
    raise FileFault(
        path,
        found,
        f"{', '.join(map(str, wanted[:256]))}: the background 0, the others counting up from 1, at most 255",
        f"relabel {changes if min(values) == 0 and len(values) <= 256 else 'them'}, in all label files and in "
        f"{DATASET_JSON}",
    )


def _names_of_values(path: Path, pairs: list[tuple[str, list[int]]]) -> dict[int, str]:
    """A name for each value: that of the region which it makes up alone, else its number."""
    names: dict[int, str] = {}
    for name, values in pairs:
        if len(values) == 1:
            if values[0] in names:
                raise FileFault(
                    path,
                    f"the value {values[0]} for both {names[values[0]]!r} and {name!r}",
                    "a value of its own for each label",
                    "correct the labels, or remove one of the two",
                )
            names[values[0]] = name
    every = sorted({value for _, values in pairs for value in values})
    return {value: names.get(value, f"label {value}") for value in every}


def _has_region_order(
    path: Path, facts: Mapping[str, Any], labels: Mapping[int, str], regions: Mapping[str, tuple[int, ...]]
) -> bool:
    """Whether nnU-Net's order of regions is there; it must then fit them."""
    if "regions_class_order" not in facts:
        return False
    order = facts["regions_class_order"]
    foreground = sorted(value for value in labels if value)
    if not isinstance(order, list) or len(order) != len(regions) or any(one not in foreground for one in order):
        raise FileFault(
            path,
            f"regions_class_order: {json.dumps(order)}",
            f"one of the values {', '.join(map(str, foreground))} for each of the {len(regions)} regions "
            f"{', '.join(regions)}",
            "correct it",
        )
    return True


def _listed(path: Path, entries: Any) -> tuple[tuple[Path, Path], ...]:
    expected = '[{"image": "./imagesTr/CASE.nii.gz", "label": "./labelsTr/CASE.nii.gz"}, ...]'
    if not isinstance(entries, list) or not entries:
        raise FileFault(path, f"training: {json.dumps(entries)[:80]}", expected, "list the training cases")
    listed = []
    for index, entry in enumerate(entries):
        pair = [entry.get(key) for key in ("image", "label")] if isinstance(entry, dict) else [None]
        if not all(isinstance(file, str) and file.strip() for file in pair):
            found = f"training, entry {index} (counted from 0): {json.dumps(entry)[:80]}"
            raise FileFault(path, found, f"training: {expected}", "correct the entry")
        listed.append((path.parent / str(pair[0]), path.parent / str(pair[1])))
    images = [image.name for image, _ in listed]
    if len(set(images)) < len(images):
        twice = next(name for name in images if images.count(name) > 1)
        raise FileFault(path, f"training: {twice} more than once", "each case once", "remove the repetition")
    return tuple(listed)


def _declared(path: Path, facts: Mapping[str, Any]) -> int | None:
    declared = facts.get("numTraining")
    if declared is not None and type(declared) is not int:
        raise FileFault(path, f"numTraining: {json.dumps(declared)}", "the number of training cases", "correct it")
    return declared
