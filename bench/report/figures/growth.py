"""How time and memory grow with the size of an image or the number of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from bench.report.figures.style import (
    FONT_PT,
    GREY,
    LINE_IN,
    PALE,
    WIDTH_IN,
    Look,
    house_style,
    looks,
    new_figure,
    settle,
    wrapped,
)
from bench.report.figures.tables import demand, demand_finite, each
from bench.stats.scaling import fit_power_law

LEAST_SIZES = 3
# Column, label of its axis, factor to its unit.
_TIME = ("time_s", "time (ms)", 1e3)
_GIB, _MIB = ("memory_bytes", "memory (GiB)", 2.0**-30), ("memory_bytes", "memory (MiB)", 2.0**-20)
_NAME_CHARACTERS = 18
_NOTE_CHARACTERS = 36
_ROW_IN = LINE_IN + 0.03
_LEAST_IN = 2.2
# What a panel has above and below its axes.
_AROUND_IN = 0.5
# Widths of plots and of the names beside them.
_PLOT, _NAMES = 1.0, 1.4
# Beside a panel: how long a sample of a line is, where names begin, how wide a column of exponents is.
_SAMPLE_IN, _NAME_IN, _COLUMN_IN = 0.28, 0.36, 0.5


@dataclass(frozen=True)
class _Beside:
    """What stands beside a panel: models with their exponents, and what was not measured."""

    exponents: Mapping[str, Sequence[str]]
    unmeasured: Sequence[str]

    @property
    def height_in(self) -> float:
        """Of all lines, the head among them."""
        rows = [wrapped(model, _NAME_CHARACTERS).count("\n") + 1 for model in self.exponents]
        return _ROW_IN + sum(LINE_IN * lines + 0.03 for lines in rows) + LINE_IN * len(self.unmeasured) + 0.06


@house_style()
def growth(frame: pd.DataFrame, title: str, x_label: str, models: Sequence[str] | None = None) -> Figure:
    """Time and memory against size, both axes logarithmic: a row for each panel, a line for each model.

    Beside each row stand its models with the exponents of their lines between the two largest sizes, where there are
    three or more: smaller ones cost what every pass costs. The slowest at its largest size stands first. A dotted line
    has the slope of what grows in proportion.

    Args:
        frame: model, panel (what its row is called), x (voxels or tokens), size (how x is written on the axis), time_s,
            and optionally memory_bytes and status; one row per model, panel and x. A time that is NaN was not measured,
            for the reason that the status gives.
        title: of the figure.
        x_label: what x is.
        models: all models of the report, see `bench.report.figures.style.looks`.

    Raises:
        BenchError: a column is missing, there is no row, or an x is not finite.
    """
    demand(frame, ("model", "panel", "x", "size", "time_s"), "growths")
    demand_finite(frame, ("x",), "growths")
    look = looks(frame["model"], models)
    shown = [_TIME, *_memory(frame)]
    panels = {str(name): rows.sort_values("x") for name, rows in frame.groupby("panel", sort=False)}
    beside = {name: _Beside(_exponents(rows, shown), _unmeasured(rows)) for name, rows in panels.items()}
    heights = [max(_LEAST_IN, one.height_in + _AROUND_IN) for one in beside.values()]
    figure = new_figure(WIDTH_IN, 0.8 + sum(heights), title)
    widths = [_PLOT * 2 / len(shown)] * len(shown)
    grid = figure.subplots(
        len(panels), len(widths) + 1, squeeze=False, width_ratios=[*widths, _NAMES], height_ratios=heights
    )
    for row, (name, rows) in zip(grid, panels.items(), strict=True):
        for axes, (column, label, scale) in zip(row, shown, strict=False):
            _panel(axes, rows, column, scale, look)
            _ticks(axes, frame, 1.0 / len(shown))
            axes.set_ylabel(label)
            axes.set_xlabel(x_label if name == list(panels)[-1] else "")
        row[0].set_title(name, loc="left", fontweight="bold")
        row[-1].set_axis_off()
    slope = Line2D([], [], color=GREY, linestyle=":", linewidth=0.9, label="grows in proportion to the size")
    figure.legend(handles=[slope], loc="outside lower center")
    settle(figure)
    for axes, one in zip(grid[:, -1], beside.values(), strict=True):
        _names(figure, axes, one, [label.partition(" ")[0] for _, label, _ in shown], look)
    return figure


def _memory(frame: pd.DataFrame) -> list[tuple[str, str, float]]:
    """How memory is shown: in GiB, or MiB where there is little; not at all where nothing is known of it."""
    if "memory_bytes" not in frame or frame["memory_bytes"].isna().all():
        return []
    return [_GIB if frame["memory_bytes"].max() >= 2**28 else _MIB]


def _exponents(rows: pd.DataFrame, shown: Sequence[tuple[str, str, float]]) -> dict[str, list[str]]:
    """Each model's exponents as text, the slowest model at its largest size first."""
    measured = rows[rows["time_s"].notna()]
    last = measured.groupby("model")["time_s"].last().sort_values(ascending=False, kind="stable")
    found = {}
    for model in [*last.index, *(name for name in dict.fromkeys(rows["model"]) if name not in last)]:
        mine = rows[rows["model"] == model]
        found[str(model)] = [_exponent(mine[mine[column].notna()], column) for column, _, _ in shown]
    return found


def _exponent(rows: pd.DataFrame, column: str) -> str:
    if rows["x"].nunique() < LEAST_SIZES:
        return "–"
    last = rows[rows["x"] >= sorted(set(rows["x"]))[-2]]
    return f"{fit_power_law(list(last['x']), list(last[column])).exponent:.2f}".replace("-", "−")


def _unmeasured(rows: pd.DataFrame) -> list[str]:
    """Lines that say what there is no time of, and why."""
    lost: dict[str, list[str]] = {}
    for row in each(rows[rows["time_s"].isna()]):
        lost.setdefault(str(row.get("status", "not measured")), []).append(f"{row['model']} {row['size']}")
    lines = [wrapped(f"{status}: {', '.join(names)}", _NOTE_CHARACTERS) for status, names in lost.items()]
    return "\n".join(lines).split("\n") if lines else []


def _panel(axes: Axes, rows: pd.DataFrame, column: str, scale: float, look: Mapping[str, Look]) -> None:
    known = rows[rows[column].notna()] if column in rows else rows.iloc[:0]
    for model, mine in known.groupby("model", sort=True):
        drawn = look[str(model)]
        axes.plot(
            mine["x"], scale * mine[column].astype(float), color=drawn.colour, linestyle=drawn.line, linewidth=1.2,
            marker=drawn.marker, markersize=4.5, markeredgecolor="white", markeredgewidth=0.4, gid="growth",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(color=PALE, linewidth=0.4)
    axes.set_axisbelow(True)
    if known.empty:
        axes.set_yticks([])
        return
    x, y = known["x"].to_numpy(dtype=float), scale * known[column].to_numpy(dtype=float)
    low, high = y.min() / 1.3, y.max() * 1.3
    axes.set_ylim(low, high)
    steps = (1, 1.5, 2, 3, 5, 7) if high < 8 * low else (1, 2, 5) if high < 80 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    # Below all points, where it hides none.
    at = np.array([x.min(), x.max()])
    axes.plot(at, (y / x).min() / 1.25 * at, color=GREY, linestyle=":", linewidth=0.9, zorder=1, gid="proportional")


def _ticks(axes: Axes, frame: pd.DataFrame, share: float) -> None:
    """Ticks at the sizes that were measured, as many as there is room for, the largest first."""
    sizes = frame.drop_duplicates("x").sort_values("x", ascending=False)
    x = np.log(sizes["x"].to_numpy(dtype=float))
    span = max(float(x.max() - x.min()), 1e-9)
    # A character is about 0.65 em wide, and the plots have less than half of the figure.
    character = 0.65 * FONT_PT / 72 / (0.45 * WIDTH_IN * share)
    kept: list[tuple[float, str]] = []
    for at, size in zip(x, sizes["size"].astype(str), strict=True):
        if not kept or (kept[-1][0] - at) / span > character * (len(size) + len(kept[-1][1])) / 2 + character:
            kept.append((float(at), size))
    axes.xaxis.set_major_locator(FixedLocator([float(np.exp(at)) for at, _ in kept]))
    axes.xaxis.set_major_formatter(FixedFormatter([size for _, size in kept]))
    axes.xaxis.set_minor_locator(FixedLocator(list(np.exp(x))))
    axes.xaxis.set_minor_formatter(NullFormatter())
    margin = np.exp(0.07 * span) if span > 1e-6 else 1.5
    axes.set_xlim(np.exp(x.min()) / margin, np.exp(x.max()) * margin)


def _names(figure: Figure, axes: Axes, beside: _Beside, labels: Sequence[str], look: Mapping[str, Look]) -> None:
    """The models as a small table, from the top of the axes down."""
    box = axes.get_window_extent()
    width, height = box.width / figure.dpi, box.height / figure.dpi
    columns = [width - _COLUMN_IN * place for place in reversed(range(len(labels)))]
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)  # inches from the top left
    axes.text(0.0, 0.0, "exponent at the end", color=GREY, va="center", gid="head")
    for at, label in zip(columns, labels, strict=True):
        axes.text(at, 0.0, label, color=GREY, ha="right", va="center", gid="head")
    y = _ROW_IN / 2
    for model, exponents in beside.exponents.items():
        name, drawn = wrapped(model, _NAME_CHARACTERS), look[model]
        row_in = LINE_IN * (name.count("\n") + 1) + 0.03
        y += row_in / 2
        axes.plot([0, _SAMPLE_IN], [y, y], color=drawn.colour, linestyle=drawn.line, linewidth=1.2, clip_on=False)
        axes.plot([_SAMPLE_IN / 2], [y], color=drawn.colour, marker=drawn.marker, markersize=4.5, clip_on=False)
        axes.text(_NAME_IN, y, name, va="center", linespacing=0.95, gid="name")
        for at, text in zip(columns, exponents, strict=True):
            axes.text(at, y, text, ha="right", va="center", gid="exponent")
        y += row_in / 2
    for line in beside.unmeasured:
        y += LINE_IN
        axes.text(0.0, y, line, color=GREY, va="center", gid="unmeasured")
