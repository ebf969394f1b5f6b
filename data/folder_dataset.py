"""Anybody's folder with a ``dataset.json``, in the layout of nnU-Net or of the Medical Segmentation Decathlon.

Its name is that of the folder, each case counts as a patient of its own, and every channel but those called CT is
normalised by z-score, whatever nnU-Net would do with its name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from data.card import DatasetCard
from data.dataset import Finding, Survey, read_case
from data.dataset_json import CONVERT, DATASET_JSON, DECATHLON, NNUNET, Description, read_description
from data.errors import DataError
from data.folder_files import (
    FOREIGN_ENDINGS,
    IMAGES,
    LABELS,
    cases_to_segment,
    files_in,
    has_channel_files,
    stem,
    training_cases,
)
from data.volume import CaseFiles, Volume

LAYOUTS = (NNUNET, DECATHLON)


@dataclass(frozen=True)
class FolderSource:
    """Opens folders under the card of the dataset in ``path``."""

    path: Path

    @cached_property
    def card(self) -> DatasetCard:
        """The facts that the folder's ``dataset.json`` states.

        Raises:
            DataError: there is no such folder, or its description cannot be used.
        """
        if not self.path.is_dir():
            what = "a file" if self.path.exists() else "nothing there"
            raise DataError(
                f"the dataset is named as the folder {self.path}, but there is {what}; expected a folder that holds a "
                f"{DATASET_JSON}, in the layout of nnU-Net or of the Medical Segmentation Decathlon. Correct the path."
            )
        description = read_description(self.path)
        # A link keeps its own name; a path like .. has none.
        name = self.path.name if self.path.name not in ("", "..") else self.path.resolve().name
        return description.card(name, NNUNET if has_channel_files(description) else DECATHLON)

    def open(self, root: Path) -> FolderDataset:
        """The folder ``root``, which may be this one or one with images to segment."""
        return FolderDataset(self.card, root)


@dataclass(frozen=True)
class FolderDataset:
    """A folder under a card, see `data.dataset.Dataset`. Only to list training cases it needs a ``dataset.json``."""

    card: DatasetCard
    root: Path

    def cases(self, labelled: bool = True) -> list[CaseFiles]:
        """The training cases, sorted by identifier; those without a label file only if not ``labelled``.

        Raises:
            DataError: there are none, a file is missing, or the ``dataset.json`` cannot be used.
        """
        description = read_description(self.root)
        cases = training_cases(description)
        if not cases:
            raise DataError(str(self._no_case(description)))
        if not labelled:
            cases = [replace(case, label=case.label if case.label and case.label.is_file() else None) for case in cases]
        missing = [
            path
            for case in cases
            for path in (*case.images, *([case.label] if case.label else []))
            if not path.is_file()
        ]
        if missing:
            first = ", ".join(str(path.relative_to(self.root)) for path in missing[:3])
            raise DataError(
                f"{self.root}: of the files of its {len(cases)} cases, {len(missing)} are missing: {first}"
                f"{', ...' if len(missing) > 3 else ''}. Expected {self.card.layout}. `bench data check` lists every "
                "fault and how to mend it."
            )
        return cases

    def inputs(self) -> list[CaseFiles]:
        """The cases to segment in the folder, or in one folder for each, see `data.folder_files.cases_to_segment`.

        Raises:
            DataError: there are none, a channel is missing, or the files are named otherwise.
        """
        return cases_to_segment(self.root, self.card)

    def read(self, case: CaseFiles) -> Volume:
        """Read one case, see `data.dataset.read_case`."""
        return read_case(case, self.card)

    def survey(self) -> Survey:
        """Every training case as it should be, and whatever else lies beside them.

        Raises:
            DataError: the ``dataset.json`` cannot be used.
        """
        description = read_description(self.root)
        cases = training_cases(description)
        findings = [] if cases else [self._no_case(description)]
        findings += self._contradictions(description, cases) + self._surplus(description, cases)
        return Survey(cases, findings)

    def _contradictions(self, description: Description, cases: list[CaseFiles]) -> list[Finding]:
        """Where the description disagrees with the files, or with nnU-Net's rules, and can be read all the same."""
        name, declared = self.card.name, description.declared_cases
        findings = []
        if declared != len(cases):
            found = "no numTraining" if declared is None else f"numTraining {declared}"
            expected = f"{len(cases)}, the number of training cases"
            mend = "correct it, or see whether cases were lost"
            findings.append(Finding(name, DATASET_JSON, found, expected, mend, "warning"))
        if description.region_order_missing:
            expected = "regions_class_order, which nnU-Net wants where labels are regions"
            mend = "nothing for this package, which does not need it"
            findings.append(Finding(name, DATASET_JSON, "no regions_class_order", expected, mend, "warning"))
        return findings

    def _surplus(self, description: Description, cases: list[CaseFiles]) -> list[Finding]:
        """Files beside those of the cases: an error where images would be passed over that were meant."""
        known = {path.resolve() for case in cases for path in (*case.images, *([case.label] if case.label else []))}
        expected = f"only the files of cases: {self.card.layout}"
        findings = []
        for folder in (IMAGES, LABELS):
            for path in files_in(self.root / folder):
                if path.resolve() in known:
                    continue
                found, case = f"a file {folder}/{path.name} that is no part of a case", self.card.name
                if path.suffix.lower() in FOREIGN_ENDINGS:
                    findings.append(Finding(case, path.name, found, expected, CONVERT))
                elif stem(path) is None:
                    mend = "nothing if you want it there: it is not read"
                    findings.append(Finding(case, path.name, found, expected, mend, "warning"))
                elif description.listed is not None:
                    mend = f'list it under "training" in {DATASET_JSON}, or leave it: it is not read'
                    findings.append(Finding(case, path.name, found, expected, mend, "warning"))
                else:
                    mend = (
                        "rename it, move it away, or correct channel_names and file_ending "
                        f"({description.file_ending}) in {DATASET_JSON}"
                    )
                    findings.append(Finding(case, path.name, found, expected, mend))
        return findings

    def _no_case(self, description: Description) -> Finding:
        images = self.root / IMAGES
        there = len(files_in(images))
        foreign = [path for path in files_in(images) if path.suffix.lower() in FOREIGN_ENDINGS]
        found = f"no case in {self.root}: {there} files in {IMAGES}" if images.is_dir() else f"no folder {images}"
        mend = CONVERT if foreign else f"put the files there, ending in {description.file_ending}"
        return Finding(self.card.name, "layout", found, self.card.layout, mend)
