"""What a dataset is: the facts that every other room needs, as one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetCard:
    """The facts about one dataset.

    Attributes:
        name: the name used on the command line, e.g. ``brats2023``.
        title: one line for people.
        channels: names of the image channels in the order networks see them.
        labels: label value to anatomical name; 0 is always the background.
        regions: region name to the label values whose union it is, in the order tables print them.
        spacing_mm: nominal voxel spacing (D, H, W), or None where cases differ.
        layout: the file layout in one line.
        licence: the licence or terms of use.
        how_to_obtain: what a user does to get the data.
        citation: the reference to cite.
        synthetic: True where the data are generated, so that no result on them is a clinical one.
    """

    name: str
    title: str
    channels: tuple[str, ...]
    labels: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    spacing_mm: tuple[float, float, float] | None
    layout: str
    licence: str
    how_to_obtain: str
    citation: str
    synthetic: bool = False

    @property
    def classes(self) -> int:
        """Number of mutually exclusive classes, background included: the output channels of a network."""
        return len(self.labels)
