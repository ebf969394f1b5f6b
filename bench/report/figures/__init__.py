"""Figures of a report: tidy DataFrames and arrays in, a `matplotlib.figure.Figure` out.

Every figure is drawn with the object-oriented API, so no window system, global figure or changed default stays behind.
Colour never stands alone: models also differ in marker and line style, and what matters is written as text, so that a
figure can be read in grey.

The tidy long frame that several of them take has one row per record, case, region and metric, with the columns
key, case, model, seed, region, metric and value (Dice in 0..1, HD95 in mm).
"""

from bench.report.figures.cliques import critical_difference
from bench.report.figures.curves import training
from bench.report.figures.distribution import cases
from bench.report.figures.field import Field, radial_shares, receptive_fields
from bench.report.figures.growth import growth
from bench.report.figures.matrix import significance
from bench.report.figures.planes import case_panel, slices
from bench.report.figures.ranks import rank_stability
from bench.report.figures.saving import save, to_svg
from bench.report.figures.tradeoff import cost

__all__ = [
    "Field",
    "case_panel",
    "cases",
    "cost",
    "critical_difference",
    "growth",
    "radial_shares",
    "rank_stability",
    "receptive_fields",
    "save",
    "significance",
    "slices",
    "to_svg",
    "training",
]
