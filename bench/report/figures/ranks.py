"""How firm a ranking is: where models come out when cases are drawn anew."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.report.figures.style import (
    GREY,
    PALE,
    WIDTH_IN,
    house_style,
    looks,
    metric_named,
    new_figure,
    row_in,
    settle,
    wrapped,
)
from bench.report.figures.tables import demand, each, of


@house_style()
def rank_stability(
    stability: pd.DataFrame, taus: pd.DataFrame, region: str, metric: str, models: Sequence[str] | None = None
) -> Figure:
    """Rank of each model with its interval over bootstrap samples of the cases, and how often it came first.

    Args:
        stability: region, metric, model, rank (1 is best), rank_low, rank_high, first_share (0..1).
        taus: region, metric, tau_mean, tau_low, tau_high: Kendall's tau between a sample's ranking and that of all
            cases.
        models: all models of the report, see `bench.report.figures.style.looks`.

    Raises:
        BenchError: a column is missing, or nothing is there for region and metric.
    """
    demand(stability, ("region", "metric", "model", "rank", "rank_low", "rank_high", "first_share"), "rank stabilities")
    demand(taus, ("region", "metric", "tau_mean", "tau_low", "tau_high"), "taus")
    rows = of(stability, region, metric, "rank stabilities").sort_values(["rank", "model"])
    tau = of(taus, region, metric, "taus").iloc[0]
    order, look = list(rows["model"]), looks(rows["model"], models)
    height_in = row_in(order, least=0.25)
    figure = new_figure(
        WIDTH_IN,
        1.2 + height_in * len(order),
        f"Ranks by {metric_named(metric).title} of {region} when the cases are drawn anew\n"
        f"Kendall's tau to the ranking of all cases: {tau.tau_mean:.2f} ({tau.tau_low:.2f} to {tau.tau_high:.2f})",
    )
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for place, row in enumerate(each(rows)):
        mine, share = look[row["model"]], row["first_share"]
        ends = [row["rank_low"], row["rank_high"]]
        left.plot(ends, [place] * 2, color=GREY, linewidth=2.2, solid_capstyle="butt", gid="interval")
        left.plot(
            row["rank"], place, linestyle="", marker=mine.marker, color=mine.colour, markersize=7,
            markeredgecolor="black", markeredgewidth=0.6, gid="rank",
        )  # fmt: skip
        right.text(100 * share + 2, place, _percent(share), va="center")
    right.barh(range(len(order)), 100 * rows["first_share"], height=0.6, color=PALE, edgecolor=GREY, linewidth=0.6)
    last = max(len(order), float(rows["rank_high"].max()))
    left.set_xlim(0.5, last + 0.5)
    left.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, steps=[1, 2, 5, 10]))
    left.set_xlabel("rank, 1 is best: of all cases (mark) and its interval over samples (bar)")
    left.set_yticks(range(len(order)), [wrapped(model) for model in order])
    left.set_ylim(len(order) - 0.5, -0.5)
    left.tick_params(axis="y", length=0)
    left.grid(axis="x", color=PALE, linewidth=0.4)
    left.set_axisbelow(True)
    right.set_xlim(0, 138)  # room for "100 %" beside the longest bar
    right.set_xticks([0, 50, 100])
    right.set_xlabel("first place (% of samples)")
    right.tick_params(axis="y", length=0)
    return settle(figure)


def _percent(share: float) -> str:
    """In whole percent, but what happened now and then is not called never, nor almost always always."""
    if 0 < share < 0.005:
        return "<1 %"
    return ">99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"
