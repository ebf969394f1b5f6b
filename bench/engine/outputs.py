"""Which files a prediction is written to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from data.card import DatasetCard
from data.volume import CaseFiles

_ENDINGS = (".nii.gz", ".nii")
_OTHER_FORMATS = (".mha", ".mhd", ".nrrd", ".nhdr", ".img", ".hdr", ".dcm", ".mgz", ".gz", ".npy", ".npz", ".tif")


@dataclass(frozen=True)
class Outputs:
    """The files of one case.

    Attributes:
        case: what is segmented.
        label: its label map.
        probabilities: one file for each class in the order of the card's labels, or for each region in that of the
            network's channels; empty where they are not wanted.
    """

    case: CaseFiles
    label: Path
    probabilities: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.label, *self.probabilities)


def plan_outputs(
    cases: Sequence[CaseFiles], output: Path, card: DatasetCard, probabilities: bool, regions: Sequence[str] = ()
) -> list[Outputs]:
    """Where each case's files go.

    Label maps go to ``output`` itself if it names a NIfTI file, else to ``output/<case>.nii.gz``; probabilities lie
    beside them, ``<case>_<label or region>.nii.gz``, where characters that do not belong into a file's name are ``_``.

    Args:
        cases: what is segmented.
        output: a file or a folder.
        card: whose classes the probabilities are of.
        probabilities: whether they are wanted.
        regions: those that they are of instead, where the network gives regions.

    Raises:
        BenchError: several cases for one file, two outputs of one name, or an output that is one of the inputs.
    """
    if output.name.endswith(_ENDINGS):
        if len(cases) != 1:
            raise BenchError(f"{output} is one file, but there are {len(cases)} cases; give a folder as OUTPUT")
        if output.is_dir():
            raise BenchError(f"{output} is a folder; expected a file of that name, or a folder named otherwise")
        labels = [output]
    else:
        if output.name.lower().endswith(_OTHER_FORMATS):
            raise BenchError(f"{output}: label maps are written as NIfTI; expected a folder, or a file named .nii.gz")
        if output.is_file():
            raise BenchError(f"{output} is a file; expected a folder, or a name that ends in .nii.gz")
        if output.resolve() in {image.resolve().parent for case in cases for image in case.images}:
            raise BenchError(
                f"{output} holds the inputs, and label maps among them would be taken for images; give another folder "
                "as OUTPUT"
            )
        labels = [output / f"{case.id}.nii.gz" for case in cases]
    classes = [card.labels[value] for value in sorted(card.labels)]
    suffixes = _suffixes(regions or classes) if probabilities else []
    plan = [
        Outputs(case, label, tuple(label.with_name(f"{_stem(label)}_{suffix}.nii.gz") for suffix in suffixes))
        for case, label in zip(cases, labels, strict=True)
    ]
    _check(plan)
    return plan


def _check(plan: Sequence[Outputs]) -> None:
    counts = Counter(file for outputs in plan for file in outputs.files)
    repeated = [file for file, count in counts.items() if count > 1]
    if repeated:
        raise BenchError(
            f"two cases have the same identifier, so both would be written to {repeated[0]}; rename one of them"
        )
    inputs = {image.resolve() for outputs in plan for image in outputs.case.images}
    for file in counts:
        if file.resolve() in inputs:
            raise BenchError(f"{file} would be overwritten, and it is an input; give another OUTPUT")


def _suffixes(channels: Sequence[str]) -> list[str]:
    """What names each class or region in a file's name."""
    names = [re.sub(r"[^\w.-]+", "_", channel) for channel in channels]
    if len({name.casefold() for name in names}) < len(names):
        return [f"{place}_{name}" for place, name in enumerate(names)]
    return names


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
