"""Dice and HD95 per region of a segmentation, with a named rule for empty masks.

`score_case` scores a label map, `score_mask` one mask, `measure_case` adds volumes and empty states. `CONVENTIONS` are
the rules for empty masks. Spacing is always in array-axis order and never has a default.
"""

from bench.metrics.case import BRATS_REGIONS, RegionMeasurement, measure_case, score_case, score_mask
from bench.metrics.conventions import CONVENTIONS, Convention, EmptyState, convention

__all__ = [
    "BRATS_REGIONS",
    "CONVENTIONS",
    "Convention",
    "EmptyState",
    "RegionMeasurement",
    "convention",
    "measure_case",
    "score_case",
    "score_mask",
]
