"""Critical-difference diagram (Demšar, Journal of Machine Learning Research 7, 2006, figure 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.report.figures.style import (
    GREY,
    WIDTH_IN,
    house_style,
    metric_named,
    new_figure,
    row_in,
    settle,
    wrapped,
)
from bench.report.figures.tables import demand, of

ALPHA = 0.05
_BEYOND = 0.03  # of the axis: how far a clique's bar reaches past its models


@house_style()
def critical_difference(
    friedman: pd.DataFrame,
    ranks: pd.DataFrame,
    cliques: Sequence[tuple[str, ...]],
    region: str,
    metric: str,
) -> Figure:
    """Average ranks on an axis; bars join models whose ranks differ by less than the critical difference.

    The better half of the models stands on the left, from the best down, the other half on the right. Where the
    Friedman test does not reject that all models are alike, the title says so: the bars then mean nothing more.

    Args:
        friedman: region, metric, cases, models, statistic, p, critical_difference (Nemenyi, in ranks).
        ranks: region, metric, model, average_rank (1 is best).
        cliques: of this region and metric: models among which no difference is shown.

    Raises:
        BenchError: a column is missing, nothing is there for region and metric, or a clique names an unknown model.
    """
    demand(friedman, ("region", "metric", "cases", "models", "p", "critical_difference"), "Friedman tests")
    demand(ranks, ("region", "metric", "model", "average_rank"), "average ranks")
    test = of(friedman, region, metric, "Friedman tests").iloc[0]
    rows = of(ranks, region, metric, "average ranks").sort_values(["average_rank", "model"])
    rank = {model: float(value) for model, value in zip(rows["model"], rows["average_rank"], strict=True)}
    strange = sorted({model for clique in cliques for model in clique} - rank.keys())
    if strange:
        raise BenchError(
            f"cliques name {', '.join(strange)}; expected models with an average rank: {', '.join(rank)}. Take both "
            "from the same test."
        )
    bars = sorted((clique for clique in cliques if len(clique) > 1), key=lambda clique: min(rank[m] for m in clique))
    order = list(rank)
    half = math.ceil(len(order) / 2)
    line_in = max(row_in(order[:half], 0.19), row_in(order[half:], 0.19))
    levels = _levels(bars, rank)
    bars_in = 0.14 + 0.12 * (max(levels, default=-1) + 1)
    depth_in = bars_in + line_in * half
    p = "p < 0.001" if test.p < 0.001 else f"p = {test.p:.3f}"
    verdict = (
        f"Friedman test: not all are alike ({p})"
        if test.p < ALPHA
        else f"Friedman test does not reject ({p}): no model is shown to differ"
    )
    figure = new_figure(
        WIDTH_IN,
        depth_in + 1.5,
        f"Average ranks by {metric_named(metric).title} of {region} over {int(test.cases)} cases\n{verdict}",
    )
    axes = figure.subplots()
    axes.set_ylim(depth_in, -0.45)  # in inches below the axis of ranks
    axes.set_axis_off()
    last = max(len(order), 2)
    axes.set_xlim(1, last)  # the layout makes room for the names beside it
    _rank_axis(axes, last, float(test.critical_difference))
    for place, model in enumerate(order):
        left = place < half
        row = place if left else len(order) - 1 - place
        _model(axes, model, rank[model], bars_in + line_in * (row + 0.5), left, 1 if left else last)
    for clique, level in zip(bars, levels, strict=True):
        reach = _BEYOND * (last - 1) / 2
        ends = [min(rank[m] for m in clique) - reach, max(rank[m] for m in clique) + reach]
        axes.plot(ends, [0.14 + 0.12 * level] * 2, color="black", linewidth=3.5, solid_capstyle="butt", gid="clique",
                  zorder=3)  # fmt: skip
    return settle(figure)


def _levels(bars: Sequence[tuple[str, ...]], rank: dict[str, float]) -> list[int]:
    """The lowest free level for each bar, so that bars which overlap lie under each other."""
    ends: list[float] = []  # right end of the last bar of each level
    gap = 2 * _BEYOND * max(len(rank) - 1, 1) / 2
    levels = []
    for clique in bars:
        left, right = min(rank[m] for m in clique), max(rank[m] for m in clique)
        level = next((n for n, end in enumerate(ends) if end + gap < left), len(ends))
        ends[level : level + 1] = [right]
        levels.append(level)
    return levels


def _rank_axis(axes: Axes, last: int, critical: float) -> None:
    axes.plot([1, last], [0, 0], color="black", linewidth=0.9)
    for tick in range(1, last + 1):
        axes.plot([tick, tick], [0, -0.06], color="black", linewidth=0.9)
        if last <= 12 or tick == 1 or tick % 5 == 0:
            axes.text(tick, -0.09, f"{tick}", ha="center", va="bottom")
    axes.plot([1, 1 + critical], [-0.33, -0.33], color="black", linewidth=1.4, marker="|", markersize=6, gid="CD")
    axes.text(1 + critical / 2, -0.37, f"critical difference {critical:.2f}", ha="center", va="bottom")


def _model(axes: Axes, model: str, rank: float, down: float, left: bool, end: int) -> None:
    axes.plot([rank, rank, end], [0, down, down], color="black", linewidth=0.7, gid="model")
    name, number = wrapped(model), f"{rank:.2f}"
    axes.annotate(name, (end, down), (-34 if left else 34, 0), textcoords="offset points",
                  ha="right" if left else "left", va="center_baseline", linespacing=0.95, gid="name")  # fmt: skip
    axes.annotate(number, (end, down), (-4 if left else 4, 0), textcoords="offset points",
                  ha="right" if left else "left", va="center_baseline", color=GREY)  # fmt: skip
