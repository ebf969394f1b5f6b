"""Accuracy against what it costs, with the models that nothing else beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from bench.errors import BenchError, unknown
from bench.report.costs import COSTS, Cost
from bench.report.figures.layout import label_points
from bench.report.figures.style import GREY, PALE, WIDTH_IN, house_style, looks, new_figure, settle, wrapped
from bench.report.figures.tables import demand, demand_finite, each


@house_style()
def cost(
    means: pd.DataFrame, profiles: pd.DataFrame, x: str = "latency_s", models: Sequence[str] | None = None
) -> Figure:
    """Mean Dice with its interval against a cost; a step line is the Pareto front.

    The front at a cost is the best mean Dice that no more than this cost buys. The axis of costs is logarithmic where
    they span more than a factor of ten.

    Args:
        means: one row per model: model, mean (Dice averaged over cases and regions, 0..1), and where there is an
            interval low and high.
        profiles: one row per model: model, the column ``x``, and where known resolution and device, for the axis.
        x: a name of `bench.report.costs.COSTS`. Models without it are named under the axis.
        models: all models of the report, see `bench.report.figures.style.looks`.

    Raises:
        BenchError: a column is missing, a model has two rows, or no model has both.
    """
    if x not in COSTS:
        raise BenchError(unknown("cost", str(x), list(COSTS)))
    axis = COSTS[x]
    demand(means, ("model", "mean"), "mean scores")
    demand_finite(means, ("mean",), "mean scores")
    demand(profiles, ("model", x), "profiles")
    for frame, what in ((means, "mean scores"), (profiles, "profiles")):
        if twice := sorted(frame.loc[frame["model"].duplicated(), "model"].unique()):
            raise BenchError(
                f"{what} hold {', '.join(twice)} more than once; expected one row per model. Choose one resolution "
                "and device."
            )
    rows = means.merge(profiles.drop(columns=["mean", "low", "high"], errors="ignore"), on="model", how="left")
    known = rows[np.isfinite(rows[x].astype(float)) & (rows[x].astype(float) > 0)]
    known = known.assign(cost=axis.scale * known[x].astype(float)).sort_values(["cost", "mean", "model"])
    if known.empty:
        raise BenchError(f"no model has both a mean Dice and {x}; profile the models of the table, or leave this out.")
    left_out = sorted(set(means["model"]) - set(known["model"]))

    figure = new_figure(WIDTH_IN, 4.4, f"Mean Dice against {axis.title}")
    axes = figure.subplots()
    front = _front(known)
    look = looks(known["model"], models)
    for row in each(known):
        if {"low", "high"} <= set(known.columns) and np.isfinite([row["low"], row["high"]]).all():
            axes.plot([row["cost"]] * 2, [row["low"], row["high"]], color=GREY, linewidth=0.9, zorder=2, gid="interval")
        mine = look[row["model"]]
        on_front = row["model"] in front
        axes.plot(
            row["cost"], row["mean"], linestyle="", marker=mine.marker, markersize=7, color=mine.colour, zorder=4,
            markeredgecolor="black" if on_front else "white", markeredgewidth=1.2 if on_front else 0.5, gid="model",
        )  # fmt: skip
    _scale(axes, known["cost"].to_numpy(dtype=float))
    _step(axes, known[known["model"].isin(front)])
    axes.set_xlabel(_cost_label(axis, known, left_out))
    axes.set_ylabel("mean Dice")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(color=PALE, linewidth=0.4)
    axes.set_axisbelow(True)
    handles = [
        Line2D([], [], color="black", linewidth=1.0, linestyle="--", label="Pareto front (its models with black edges)")
    ]
    if any(line.get_gid() == "interval" for line in axes.lines):
        handles.append(Line2D([], [], color=GREY, linewidth=0.9, label="interval of the mean"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    settle(figure)
    label_points(figure, axes, _labels(known), _drawn(axes))
    return figure


def _front(known: pd.DataFrame) -> list[str]:
    """Models that none equals or beats in both, unless equal in both; cheapest first."""
    return [
        row["model"]
        for row in each(known)
        if not (
            (known["cost"] <= row["cost"])
            & (known["mean"] >= row["mean"])
            & ((known["cost"] < row["cost"]) | (known["mean"] > row["mean"]))
        ).any()
    ]


def _scale(axes: Axes, costs: np.ndarray) -> None:
    low, high = float(costs.min()), float(costs.max())
    if high > 10 * low:
        axes.set_xscale("log")
        room = (high / low) ** 0.12
        axes.set_xlim(low / room, high * room)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        margin = 0.15 * (high - low) or 0.5 * high
        axes.set_xlim(max(low - margin, 0), high + margin)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.margins(y=0.14)


def _step(axes: Axes, front: pd.DataFrame) -> None:
    right = axes.get_xlim()[1]
    x, y = [*front["cost"], right], [*front["mean"], front["mean"].iloc[-1]]
    axes.step(x, y, where="post", color="black", linewidth=1.0, linestyle="--", zorder=3, gid="front")


def _cost_label(axis: Cost, known: pd.DataFrame, left_out: Sequence[str]) -> str:
    facts = []
    # Neither the device nor the size of a patch changes how many parameters there are.
    for column, said in (("resolution", "input of {}"), ("device", "on {}")):
        if column in known and (axis.on_device or (column == "resolution" and axis.name == "gmacs")):
            found = known[column].dropna().astype(str).unique()
            if len(found):
                facts.append(said.format(found[0]) if len(found) == 1 else f"different {column}s")
    label = f"{axis.title} ({axis.unit})" + (f", {', '.join(facts)}" if facts else "")
    return "\n".join([label, *([wrapped(f"without this number: {', '.join(left_out)}", 100)] if left_out else [])])


def _labels(known: pd.DataFrame) -> list[tuple[float, float, str]]:
    return [(c, m, wrapped(n)) for c, m, n in zip(known["cost"], known["mean"], known["model"], strict=True)]


def _drawn(axes: Axes) -> list[Bbox]:
    """Boxes in pixels around the intervals and the front, which labels should not hide."""
    boxes = []
    for line in axes.lines:
        if line.get_gid() == "model":
            continue
        at = axes.transData.transform(np.column_stack(line.get_data()).astype(float))
        if line.get_gid() == "front":  # corners of a step
            at = np.array([corner for a, b in pairwise(at) for corner in (a, (b[0], a[1]), b)])
        for start, end in pairwise(at):
            low, high = np.minimum(start, end) - 1, np.maximum(start, end) + 1
            boxes.append(Bbox([low, high]))
    return boxes
