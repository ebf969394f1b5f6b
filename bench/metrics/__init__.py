"""Scores of a segmentation, region by region, with a named rule for empty masks.

`score_case` and `score_mask` give Dice and HD95, `score_lesionwise` what BraTS 2023 ranked by, `measure_case` all that
the harness records. `CONVENTIONS` are the rules for empty masks; `apply_convention` changes from one to another
afterwards. Spacing is always in array-axis order and never has a default.
"""

from bench.metrics.case import (
    BRATS_REGIONS,
    RegionMeasurement,
    measure_case,
    score_case,
    score_lesionwise,
    score_mask,
)
from bench.metrics.conventions import CONVENTIONS, Convention, EmptyState, apply_convention, convention
from bench.metrics.lesionwise import CHALLENGES, Challenge
from bench.metrics.surface_elements import NSD_TOLERANCE_MM

__all__ = [
    "BRATS_REGIONS",
    "CHALLENGES",
    "CONVENTIONS",
    "NSD_TOLERANCE_MM",
    "Challenge",
    "Convention",
    "EmptyState",
    "RegionMeasurement",
    "apply_convention",
    "convention",
    "measure_case",
    "score_case",
    "score_lesionwise",
    "score_mask",
]
