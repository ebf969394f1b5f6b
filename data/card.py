"""What a dataset is: the facts that every other room needs, as one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from data.errors import DataError

_CT = "ct"


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
        lesionwise: the BraTS 2023 challenge whose lesion-wise settings apply, empty for none.
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
    lesionwise: str = ""

    @property
    def classes(self) -> int:
        """Number of mutually exclusive classes, background included."""
        return len(self.labels)

    @property
    def ct_channels(self) -> tuple[int, ...]:
        """Indices of the channels called CT, in any case: their values are Hounsfield units."""
        return tuple(index for index, name in enumerate(self.channels) if name.strip().casefold() == _CT)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, from which `from_dict` makes the card again where the dataset is not at hand."""
        return {
            **vars(self),
            "labels": {str(value): name for value, name in self.labels.items()},
            "regions": {region: list(values) for region, values in self.regions.items()},
            "channels": list(self.channels),
            "spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> DatasetCard:
        """The card that `to_dict` wrote.

        Raises:
            DataError: the facts are not those of a card.
        """
        try:
            spacing_mm = facts["spacing_mm"]
            told = {"lesionwise": "", **facts}  # cards were written without it once
            known = {field.name: told[field.name] for field in fields(cls)}
            return cls(
                **{
                    **known,
                    "channels": tuple(facts["channels"]),
                    "labels": {int(value): name for value, name in facts["labels"].items()},
                    "regions": {region: tuple(values) for region, values in facts["regions"].items()},
                    "spacing_mm": None if spacing_mm is None else (spacing_mm[0], spacing_mm[1], spacing_mm[2]),
                }
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(
                f"found the dataset card {dict(facts)!r}, which cannot be read ({error!r}); expected what "
                "DatasetCard.to_dict wrote. Restore the file that holds it."
            ) from error
