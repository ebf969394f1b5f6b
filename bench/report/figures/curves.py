"""How training went: loss, and Dice on the validation cases where it was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from bench.report.figures.layout import spread
from bench.report.figures.style import (
    GREY,
    PALE,
    WIDTH_IN,
    Look,
    heights_in,
    house_style,
    looks,
    new_figure,
    settle,
    wrapped,
)
from bench.report.figures.tables import demand

_SMOOTH_FROM = 100  # points of a curve
_WINDOW_SHARE = 0.02
_MARKS = 6


@house_style()
def training(histories: pd.DataFrame, models: Sequence[str] | None = None) -> Figure:
    """Loss over steps, and below it validation Dice if any was measured; names stand at the ends of the curves.

    A loss of more than 100 points is smoothed by a running mean over 2 % of them, with the points faintly behind it.
    The axis of losses is logarithmic where they span more than a factor of ten. Seeds of one model look alike.

    Args:
        histories: model, seed, step, loss, and optionally dice (0..1; NaN where nothing was validated).
        models: all models of the report, see `bench.report.figures.style.looks`.

    Raises:
        BenchError: a column is missing, or there is no row.
    """
    demand(histories, ("model", "seed", "step", "loss"), "histories")
    names = list(dict.fromkeys(histories["model"]))
    look = looks(names, models)
    curves = [("loss", "training loss")]
    if "dice" in histories and histories["dice"].notna().any():
        curves.append(("dice", "mean Dice of the validation cases"))
    height_in = max(2.1, 0.2 + sum(heights_in(names)))
    smoothed = bool((histories.groupby(["model", "seed"])["loss"].count() > _SMOOTH_FROM).any())
    figure = new_figure(
        WIDTH_IN,
        0.8 + height_in * len(curves),
        "Training: loss" + (" (running mean, points behind it)" if smoothed else "")
        + (" and validation Dice" if len(curves) > 1 else ""),
    )  # fmt: skip
    panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    ends: list[dict[str, tuple[float, float]]] = []
    for axes, (column, label) in zip(panels, curves, strict=True):
        ends.append(_panel(axes, histories, column, look))
        axes.set_ylabel(label)
        axes.grid(color=PALE, linewidth=0.4)
        axes.set_axisbelow(True)
    _loss_scale(panels[0], histories["loss"].to_numpy(dtype=float))
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panels[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    last = float(histories["step"].max())
    panels[-1].set_xlim(0, last or 1)
    # Names are written beside the axes, where the layout must leave them room.
    longest = max((line for name in names for line in wrapped(name).split("\n")), key=len)
    holders = [axes.annotate(longest, (1, 0.5), (34, 0), xycoords="axes fraction", textcoords="offset points")
               for axes in panels]  # fmt: skip
    settle(figure)
    for axes, end, holder in zip(panels, ends, holders, strict=True):
        holder.remove()
        _name(figure, axes, end, look)
    return figure


def _panel(axes: Axes, histories: pd.DataFrame, column: str, look: dict[str, Look]) -> dict[str, tuple[float, float]]:
    """Draw the curves of a column; returns where each model's last one ends."""
    ends = {}
    for place, (key, run) in enumerate(histories.groupby(["model", "seed"], sort=False)):
        model = str(key[0])
        run = run[np.isfinite(run[column].astype(float))].sort_values("step")
        if run.empty:
            continue
        x, y = run["step"].to_numpy(dtype=float), run[column].to_numpy(dtype=float)
        mine = look[model]
        if column == "loss" and len(y) > _SMOOTH_FROM:
            axes.plot(x, y, color=mine.colour, alpha=0.22, linewidth=0.5, zorder=1, gid="raw")
            y = _running_mean(y, max(3, int(_WINDOW_SHARE * len(y)) | 1))
        every = max(1, len(x) // _MARKS)
        # Marks of different models stand at different steps, so that one does not hide the next.
        first = (place * every // max(len(look), 1)) % every
        axes.plot(x, y, color=mine.colour, linestyle=mine.line, linewidth=1.3, marker=mine.marker, markersize=4.5,
                  markevery=(first, every), zorder=2, clip_on=False, gid="curve")  # fmt: skip
        ends[model] = (float(x[-1]), float(y[-1]))
    return ends


def _running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Centred mean of an odd number of values; at the ends of those that there are."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _loss_scale(axes: Axes, losses: NDArray[np.float64]) -> None:
    known = losses[np.isfinite(losses)]
    if len(known) and known.min() > 0 and known.max() > 10 * known.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _name(figure: Figure, axes: Axes, ends: dict[str, tuple[float, float]], look: dict[str, Look]) -> None:
    """Models' names beside the axes, near the ends of their curves, each with a line to it."""
    box = axes.get_window_extent()
    models = list(ends)
    heights = [height * figure.dpi for height in heights_in(models)]
    wanted = [float(axes.transData.transform(ends[model])[1]) for model in models]
    for model, pixel in zip(models, spread(wanted, heights, box.y0, box.y1), strict=True):
        mine, at = look[model], (pixel - box.y0) / box.height
        beside = box.x1 + 22 / 72 * figure.dpi
        axes.annotate(
            "", ends[model], ((beside - box.x0) / box.width, at), textcoords="axes fraction", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        axes.plot([(beside - box.x0) / box.width + 4 / 72 * figure.dpi / box.width], [at], transform=axes.transAxes,
                  clip_on=False, linestyle="", marker=mine.marker, markersize=4.5, color=mine.colour)  # fmt: skip
        axes.annotate(wrapped(model), (1, at), (34, 0), xycoords="axes fraction", textcoords="offset points",
                      va="center", linespacing=0.95, gid="name")  # fmt: skip
