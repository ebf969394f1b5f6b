"""Effective receptive fields: where in the image the logits of one voxel come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.report.figures.style import (
    GREY,
    PALE,
    WIDTH_IN,
    house_style,
    looks,
    new_figure,
    settle,
    wrapped,
)
from bench.report.figures.tables import demand, demand_finite

# Each plane's name, and the axes along its rows and its columns.
PLANES = {"axial": ("H", "W"), "coronal": ("D", "W"), "sagittal": ("D", "H")}
_CIRCLES: dict[str, Any] = {"r50": "-", "r90": (0, (3, 2))}
# Powers of ten below the largest energy that colours tell apart.
_DECADES = 10
_NAME_CHARACTERS = 17
_NAMES_IN = 1.45
_GAP_IN, _LEAST_IN, _TALLEST_IN = 0.1, 1.3, 11.0
_SHARES = (0.5, 0.9)
_MARKS = 6
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Field:
    """The receptive field of one network.

    Attributes:
        model: what its row is called.
        planes: of each of `PLANES` the decimal logarithm of the energy as a share of the largest, through the central
            voxel (D // 2, H // 2, W // 2): (H, W), (D, W) and (D, H).
        radii: ``r50`` and ``r90``, in voxels.
    """

    model: str
    planes: Mapping[str, NDArray[np.floating]]
    radii: Mapping[str, float]


@house_style()
def receptive_fields(fields: Sequence[Field], title: str) -> Figure:
    """The three central planes of each network in a row, with circles within which half and 90 % of the energy lie.

    Colours are logarithmic and their brightness rises with the energy; colours and lengths are the same for all.

    Raises:
        BenchError: there is no network, one comes twice, or a plane is missing.
    """
    if not fields:
        raise BenchError("found no receptive field to show; expected one or more. Leave the figure out.")
    names = [field.model for field in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BenchError(f"found {', '.join(twice)} more than once; expected one receptive field each. Rename them.")
    for field in fields:
        if missing := [name for name in PLANES if name not in field.planes]:
            raise BenchError(f"the receptive field of {field.model} lacks {', '.join(missing)}; expected all planes.")
    side_in = min((WIDTH_IN - _NAMES_IN) / 3 - _GAP_IN, max(_LEAST_IN, _TALLEST_IN / len(fields) - _GAP_IN))
    # One scale for all, so that circles can be compared.
    half = max(edge for field in fields for plane in field.planes.values() for edge in plane.shape) / 2 + 0.5
    width_in = _NAMES_IN + len(PLANES) * (side_in + _GAP_IN)
    figure = new_figure(width_in, 1.75 + len(fields) * (side_in + _GAP_IN), title)
    figure.set_layout_engine("compressed")
    grid = figure.subplots(len(fields), len(PLANES), squeeze=False)
    for place, (row, field) in enumerate(zip(grid, fields, strict=True)):
        for axes, name in zip(row, PLANES, strict=True):
            drawn = _plane(axes, field, name, half)
            if place == 0:
                axes.set_title(f"{name}, {'×'.join(PLANES[name])}")
            if place + 1 < len(fields):
                axes.set_xticklabels([])
        told = "\n".join([wrapped(field.model, _NAME_CHARACTERS), *(_radius(field, name) for name in _CIRCLES)])
        row[0].set_ylabel(told, rotation=0, ha="right", va="center", multialignment="right", labelpad=6)
    bar = figure.colorbar(drawn, ax=grid, location="bottom", shrink=0.55, aspect=40, pad=0.01, extend="min")
    bar.set_label("energy as a share of the largest")
    bar.set_ticks(range(-_DECADES, 1, 2))
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(int(value))))
    circles = [
        Line2D([], [], color="black", linestyle=line, linewidth=1.1, label=f"{name}: {100 * share:g} % of the energy")
        for (name, line), share in zip(_CIRCLES.items(), _SHARES, strict=True)
    ]
    figure.legend(
        handles=circles, loc="outside lower center", ncols=2, title="Axes: voxels from the centre.", handlelength=2.6
    )
    return settle(figure)


@house_style()
def radial_shares(frame: pd.DataFrame, title: str, models: Sequence[str] | None = None) -> Figure:
    """What share of the energy lies within each distance of the voxel whose logits it is: a curve for each network.

    Distances are on a logarithmic axis from one voxel on. The list of networks begins with the one that looks farthest.

    Args:
        frame: model, radius (voxels), share (0..1); one row per model and radius.
        title: of the figure.
        models: all models of the report, see `bench.report.figures.style.looks`.

    Raises:
        BenchError: a column is missing, there is no row, or a number is not finite.
    """
    demand(frame, ("model", "radius", "share"), "radial shares")
    demand_finite(frame, ("radius", "share"), "radial shares")
    look = looks(frame["model"], models)
    figure = new_figure(WIDTH_IN, 3.4, title)
    axes = figure.subplots()
    curves = {str(model): rows.sort_values("radius") for model, rows in frame.groupby("model", sort=True)}
    half = {model: float(np.interp(0.5, rows["share"], rows["radius"])) for model, rows in curves.items()}
    handles = []
    for place, model in enumerate(sorted(curves, key=lambda name: (-half[name], name))):
        rows = curves[model][curves[model]["radius"] >= 1]
        mine = look[model]
        (line,) = axes.plot(
            rows["radius"], rows["share"], color=mine.colour, linestyle=mine.line, linewidth=1.3, marker=mine.marker,
            markersize=4.5, markevery=_marked(rows["radius"].to_numpy(dtype=float), place), label=wrapped(model),
            gid="curve",
        )  # fmt: skip
        handles.append(line)
    for share in _SHARES:
        axes.axhline(share, color=GREY, linewidth=0.7, linestyle=":", zorder=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(1, max(2.0, float(frame["radius"].max())))
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.set_xlabel("distance from the central voxel (voxels)")
    axes.set_ylabel("energy within it")
    axes.grid(color=PALE, linewidth=0.4)
    axes.set_axisbelow(True)
    figure.legend(handles=handles, loc="outside right center", handlelength=3.2)
    return settle(figure)


def _plane(axes: Axes, field: Field, name: str, half: float) -> AxesImage:
    plane = np.asarray(field.planes[name], dtype=float)
    height, width = plane.shape
    # The central voxel's middle is the origin.
    left, top = -(width // 2) - 0.5, -(height // 2) - 0.5
    drawn = axes.imshow(
        plane, cmap="inferno", vmin=-_DECADES, vmax=0, extent=(left, left + width, top + height, top),
        interpolation="nearest",
    )  # fmt: skip
    axes.set_xlim(-half, half)
    axes.set_ylim(half, -half)
    for radius, line in _CIRCLES.items():
        circle = Circle((0, 0), field.radii[radius], fill=False, edgecolor="white", linewidth=1.1, linestyle=line)
        circle.set_path_effects([Stroke(linewidth=2.2, foreground="black"), Normal()])
        circle.set_gid(radius)
        axes.add_patch(circle)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 4, 5, 10]))
    axes.tick_params(length=2, pad=1.5)
    axes.spines[:].set_visible(False)
    if name != "axial":
        axes.set_yticklabels([])
    return drawn


def _radius(field: Field, name: str) -> str:
    return f"{name} {field.radii[name]:.1f}"


def _power(exponent: int) -> str:
    return f"10{str(exponent).translate(_RAISED)}" if exponent else "1"


def _marked(radii: NDArray[np.float64], place: int) -> list[int]:
    """Where a curve has marks: at even steps of the logarithm, those of different curves at different ones."""
    step = np.log(radii[-1] / radii[0]) / _MARKS
    wanted = radii[0] * np.exp(step * (np.arange(_MARKS) + (place % 4) / 4))
    return sorted({int(np.abs(radii - at).argmin()) for at in wanted})
