"""Every case's score: box plot and swarm, one panel per region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from bench.metrics.conventions import convention as convention_named
from bench.report.figures.layout import swarm
from bench.report.figures.style import (
    BAND,
    GREY,
    PALE,
    WIDTH_IN,
    Look,
    Metric,
    house_style,
    looks,
    metric_named,
    new_figure,
    row_in,
    settle,
    wrapped,
)
from bench.report.figures.tables import demand, demand_finite

_BAND = 0.17  # share of a panel's width that the penalised cases take
_SWARM_AT, _SWARM_HALF, _BOX_AT, _BOX_HEIGHT = -0.14, 0.24, 0.28, 0.2  # of a row's height, downwards
_MOST_VECTORS = 3000  # points; beyond, an SVG holds them as a picture


@house_style()
def cases(
    frame: pd.DataFrame, metric: str, convention: str | None = "brats", models: Sequence[str] | None = None
) -> Figure:
    """Box plot and swarm of all cases, a panel per region, the models in the order of their mean over the regions.

    Cases with the score that the convention gives where one mask is empty stand in a band of their own, with their
    number: an axis that reached them would leave no room for the others. Mean, median and quartiles include them.
    Distances have an axis that is linear up to 1 mm and logarithmic from there.

    Args:
        frame: the tidy long frame, see `bench.report.figures`; each record's cases count. With a column ``empty``
            (as in a record's cases) only masks that are empty count as penalised, else all with the penalty's value.
        metric: one of `bench.report.shown.METRICS`.
        convention: how empty masks were scored, one of `bench.metrics.CONVENTIONS`; None for rules of another kind, or
            several: no case is told apart then.
        models: all models of the report, see `bench.report.figures.style.looks`.

    Raises:
        BenchError: a column is missing, nothing is there for the metric, a value is not finite, or the metric or the
            convention is unknown.
    """
    demand(frame, ("model", "case", "region", "metric", "value"), "scores")
    facts = metric_named(metric)
    rows = frame[frame["metric"] == metric]
    demand(rows, (), f"scores for {metric}")
    demand_finite(rows, ("value",), "scores")
    penalty = convention_named(convention).one_empty[1 if facts.lower_is_better else 0] if convention else math.nan
    rows = rows.assign(penalised=_penalised(rows, penalty))
    regions = list(rows["region"].unique())
    order = _by_mean(rows, facts)
    look = looks(order, models)

    columns = {1: 1, 2: 2, 4: 2}.get(len(regions), 3)
    height_in = row_in(order, least=0.36 if len(order) <= 8 else 0.29)
    down = math.ceil(len(regions) / columns)
    figure = new_figure(
        WIDTH_IN,
        1.4 + down * (0.55 + height_in * len(order)),
        f"{facts.title} of each test case ({facts.direction}); models in the order of their mean",
    )
    grid = figure.subplots(down, columns, sharey=True, squeeze=False)
    banded = bool(rows["penalised"].any())
    for index, axes in enumerate(grid.flat):
        if index >= len(regions):
            axes.remove()
            continue
        # A panel below is missing where the last row is not full.
        lowest = index + columns >= len(regions)
        mine = rows[rows["region"] == regions[index]]
        _panel(axes, mine, order, facts, penalty if banded else None)
        axes.set_xlabel(facts.axis_label if lowest else "")
        count = mine["case"].nunique()
        axes.set_title(f"{regions[index]}, {count} case{'' if count == 1 else 's'}")
    _legend(figure, facts, penalty if banded else None, int(rows["penalised"].sum()))
    settle(figure)
    # How far points must step aside depends on the size of the panels, which is known now.
    for region, axes in zip(regions, figure.axes, strict=True):
        mine = rows[(rows["region"] == region) & ~rows["penalised"]]
        for row, model in enumerate(order):
            values = np.sort(mine[mine["model"] == model]["value"].to_numpy(dtype=float))
            _points(axes, row, values, look[model], figure.dpi, rasterized=len(rows) > _MOST_VECTORS)
    return figure


def _penalised(rows: pd.DataFrame, penalty: float) -> NDArray[np.bool_]:
    worst = np.isclose(rows["value"].to_numpy(dtype=float), penalty, rtol=1e-6, atol=1e-9)
    return worst & (rows["empty"] != "neither").to_numpy() if "empty" in rows else worst


def _by_mean(rows: pd.DataFrame, facts: Metric) -> list[str]:
    """Models, best first: a region counts as much as another, however many cases it has."""
    means = rows.groupby(["model", "region"])["value"].mean().groupby("model").mean()
    sign = 1 if facts.lower_is_better else -1
    return sorted(means.index, key=lambda model: (sign * means[model], model))


def _panel(axes: Axes, rows: pd.DataFrame, order: Sequence[str], facts: Metric, penalty: float | None) -> None:
    _scale(axes, _shown(rows), facts, penalty)
    axes.set_yticks(range(len(order)), [wrapped(model) for model in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for row in range(1, len(order)):
        axes.axhline(row - 0.5, color=PALE, linewidth=0.4, zorder=0)
    middle = 1 - _BAND / 2 if facts.lower_is_better else _BAND / 2
    for row, model in enumerate(order):
        mine = rows[rows["model"] == model]
        if len(mine):
            _box(axes, row, mine["value"].to_numpy(dtype=float))
        if count := int(mine["penalised"].sum()):
            axes.text(middle, row, f"{count}", transform=axes.get_yaxis_transform(), ha="center", va="center",
                      fontweight="bold", zorder=6, gid="penalised")  # fmt: skip


def _shown(rows: pd.DataFrame) -> NDArray[np.float64]:
    """What the axis must reach: the cases that are not penalised, and means unless mostly of penalised ones."""
    by_model = rows.groupby("model").agg(mean=("value", "mean"), penalised=("penalised", "mean"))
    means = by_model[by_model["penalised"] < 0.5]["mean"]
    values = np.concatenate([rows[~rows["penalised"]]["value"], means]).astype(float)
    return values if len(values) else np.zeros(1)


def _box(axes: Axes, row: int, values: NDArray[np.float64]) -> None:
    # By hand: `Axes.bxp` asks for every default, also for the backend, and that imports pyplot.
    low, median, high = np.percentile(values, (25, 50, 75))
    reach = 1.5 * (high - low)
    whiskers = [values[values >= low - reach].min(), values[values <= high + reach].max()]
    at, half = row + _BOX_AT, _BOX_HEIGHT / 2
    axes.plot(whiskers, [at, at], color=GREY, linewidth=0.6, marker="|", markersize=4, gid="whiskers")
    axes.add_patch(
        Rectangle(
            (low, at - half), high - low, 2 * half, facecolor=PALE, edgecolor=GREY, linewidth=0.6, zorder=2.1, gid="box"
        )
    )
    axes.plot([median] * 2, [at - half, at + half], color="black", linewidth=1.6, zorder=2.2, gid="median")
    axes.plot(values.mean(), at, linestyle="", zorder=2.3, gid="mean", **_MEAN)


def _points(axes: Axes, row: int, values: NDArray[np.float64], look: Look, dpi: float, rasterized: bool) -> None:
    size_pt = 3.6 if len(values) <= 60 else 2.4 if len(values) <= 300 else 1.6
    extent = axes.get_window_extent()
    size = size_pt / 72 * dpi
    rows = abs(np.diff(axes.get_ylim())[0])
    aside = swarm(_fraction(axes, values), size / extent.width, size / extent.height * rows, _SWARM_HALF)
    axes.scatter(
        values, row + _SWARM_AT + aside, s=size_pt**2, c=look.colour, marker=look.marker, linewidths=0, zorder=2.4,
        gid="cases", rasterized=rasterized,
    )  # fmt: skip


_MEAN: dict[str, Any] = {
    "marker": "D", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": "black", "markeredgewidth": 0.8,
}  # fmt: skip


def _scale(axes: Axes, shown: NDArray[np.floating], facts: Metric, penalty: float | None) -> None:
    """Limits and ticks for the cases that are not penalised, and the band for those that are."""
    if not facts.lower_is_better:
        low, high = float(shown.min()), float(shown.max())
        margin = max(0.04 * (high - low), 0.03 - (high - low) / 2)
        low, high = low - margin, high + margin
        ticks = [
            tick for tick in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= min(high, 1)
        ]
        left, right = (low - _BAND / (1 - _BAND) * (high - low), high) if penalty is not None else (low, high)
    else:
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        forward = axes.transScale.transform
        high = max(float(shown.max()), 2.0) * 1.12
        end, start = forward((high, 0))[0], forward((0, 0))[0] - 0.06
        ticks = [tick for tick in (0, 1, 3, 10, 30, 100, 300, 1000) if tick <= high]
        if penalty is not None:
            end += _BAND / (1 - _BAND) * (end - start)
        left, right = axes.transScale.inverted().transform([(start, 0), (end, 0)])[:, 0]
    axes.set_xlim(left, right)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if penalty is not None:
        begin = 1 - _BAND if facts.lower_is_better else 0.0
        # Above all but the numbers: a box that reaches the penalty ends here.
        axes.add_patch(Rectangle((begin, 0), _BAND, 1, facecolor=BAND, transform=axes.transAxes, zorder=5, gid="band"))
    axes.grid(axis="x", color=PALE, linewidth=0.4)
    axes.set_axisbelow(True)


def _fraction(axes: Axes, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where values lie along the axis, 0 at its left end and 1 at its right."""
    forward = axes.transScale.transform
    ends = forward([(x, 0) for x in axes.get_xlim()])[:, 0]
    return (forward(np.column_stack([values, np.zeros(len(values))]))[:, 0] - ends[0]) / (ends[1] - ends[0])


def _legend(figure: Figure, facts: Metric, penalty: float | None, penalised: int) -> None:
    handles: list[Any] = [
        Line2D([], [], linestyle="", color=GREY, marker="o", markersize=3, label="a case"),
        Line2D([], [], linestyle="", label="mean", **_MEAN),
        Line2D([], [], color="black", linewidth=1.6, label="median"),
        Patch(facecolor=PALE, edgecolor=GREY, linewidth=0.6, label="quartiles; whiskers to 1.5 times their distance"),
    ]
    note = None
    if penalty is not None:
        unit = f" {facts.axis_unit}" if facts.axis_unit else ""
        note = (
            f"Shaded: how many cases score {penalty:.4g}{unit}, as where a mask is empty ({penalised} in all panels). "
            "Mean and box include them."
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=4, title=note, columnspacing=1.2)
