"""What a region scores when the prediction, the reference or both hold none of it.

Dice is 0/0 and a surface distance has no meaning on an empty mask, so every published table rests on a rule
for these cases, and the rules differ. Here the rule has a name, and the name stands under every table.

The conventions differ in Dice and HD95 only. What no published rule speaks of scores the same under all of them:

=====================================  ==========  ================  ===============
empty                                  both        prediction alone  reference alone
=====================================  ==========  ================  ===============
sensitivity, precision, surface Dice   1           0                 0
relative volume error                  0           −1                NaN: no volume to relate to
=====================================  ==========  ================  ===============

The lesion-wise scores have rules of their own, see `bench.metrics.lesionwise`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from bench.errors import BenchError, unknown

if TYPE_CHECKING:
    import pandas as pd

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

    def scores(self, empty: EmptyState) -> tuple[float, float] | None:
        """Dice and HD95 (mm) of a region in that state; None where neither mask is empty and they were measured."""
        if empty == "neither":
            return None
        return self.both_empty if empty == "both" else self.one_empty


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


def empty_share(empty: EmptyState) -> float:
    """Sensitivity, precision and surface Dice of a region in a state other than "neither", under every convention."""
    return 1.0 if empty == "both" else 0.0


def convention(name: str) -> Convention:
    """The convention of that name.

    Raises:
        BenchError: there is none; the message suggests the nearest and lists all.
    """
    return _known(name)


def apply_convention(cases: pd.DataFrame, convention: str) -> pd.DataFrame:
    """A table of cases as another convention scores it, whatever convention it was measured under.

    Args:
        cases: a row per case and region, with at least the columns ``dice``, ``hd95`` (mm) and ``empty``, an
            `EmptyState`. It is left alone.
        convention: a name from `CONVENTIONS`.

    Returns:
        The table with other ``dice`` and ``hd95`` where ``empty`` is not "neither".

    Raises:
        BenchError: there is no such convention, a column is missing, or ``empty`` holds something else.
    """
    rule = _known(convention)
    missing = [column for column in ("dice", "hd95", "empty") if column not in cases.columns]
    if missing:
        raise BenchError(
            f"The table has the columns {list(cases.columns)} but not {missing}; expected dice, hd95 and empty, as "
            "Record.cases() returns them."
        )
    states = cases["empty"].to_numpy(dtype=object)
    strange = sorted({str(state) for state in states} - set(get_args(EmptyState)))
    if strange:
        raise BenchError(
            f"The column 'empty' holds {strange}; expected {', '.join(get_args(EmptyState))}, as measure_case states "
            "them. Without them nobody can tell which scores a convention made."
        )
    dice, hd95 = (cases[column].to_numpy(dtype=np.float64, copy=True) for column in ("dice", "hd95"))
    for state in get_args(EmptyState):
        if (scores := rule.scores(state)) is not None:
            dice[states == state], hd95[states == state] = scores
    return cases.assign(dice=dice, hd95=hd95)


def _known(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise BenchError(unknown("empty-mask convention", str(name), list(CONVENTIONS)))
    return CONVENTIONS[name]
