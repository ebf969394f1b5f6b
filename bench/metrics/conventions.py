"""What a region scores when the prediction, the reference or both hold none of it.

Dice is 0/0 and a surface distance has no meaning on an empty mask, so every published table rests on a rule
for these cases, and the rules differ. Here the rule has a name, and the name stands under every table.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from bench.errors import BenchError, unknown

EmptyState = Literal["neither", "prediction", "reference", "both"]
"""Which of the two masks are empty; `both` is a true negative."""


@dataclass(frozen=True)
class Convention:
    """Scores for masks on which Dice and HD95 are undefined, as (Dice, HD95 in mm) pairs."""

    name: str
    title: str
    both_empty: tuple[float, float]
    one_empty: tuple[float, float]
    source: str


BRATS_DIAGONAL_MM = math.hypot(240, 240, 155)
"""Diagonal of a BraTS volume, 240×240×155 voxels of 1 mm: no distance inside one can be longer."""

CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        known.name: known
        for known in (
            Convention(
                name="brats",
                title="a true negative is perfect (Dice 1, HD95 0); a missed or invented region is the worst "
                "(Dice 0, HD95 373.13 mm)",
                both_empty=(1.0, 0.0),
                one_empty=(0.0, BRATS_DIAGONAL_MM),
                source="BraTS challenges up to 2022, as commonly coded",
            ),
            Convention(
                name="segmamba",
                title="Dice 0 and HD95 50 mm as soon as either mask is empty, true negatives included",
                both_empty=(0.0, 50.0),
                one_empty=(0.0, 50.0),
                source="released evaluation script of SegMamba (Xing et al., MICCAI 2024)",
            ),
        )
    }
)


def convention(name: str) -> Convention:
    """The convention of that name.

    Raises:
        BenchError: there is none; the message suggests the nearest and lists all.
    """
    if name not in CONVENTIONS:
        raise BenchError(unknown("empty-mask convention", str(name), list(CONVENTIONS)))
    return CONVENTIONS[name]
