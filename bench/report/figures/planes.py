"""Segmentations on their images: outlines of reference and prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.report.cases_shown import PLACES, Choice, ShownCase, Unavailable
from bench.report.figures.orientation import View, views
from bench.report.figures.style import WIDTH_IN, house_style, new_figure, settle, wrapped

# Light ones of Okabe and Ito's colours, for grey images; their brightness falls from first to last.
_COLOURS = ("#F0E442", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#FFFFFF", "#E69F00", "#0072B2")
_REFERENCE: Any = "-"
_PREDICTION: Any = (0, (2.5, 1.2))
_MOST_COLUMNS = 5


@house_style()
def slices(
    image: NDArray[np.floating],
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer],
    regions: Mapping[str, Sequence[int]],
    spacing_mm: tuple[float, float, float],
    title: str,
    affine: NDArray[np.floating] | None = None,
    channel: int = 0,
) -> Figure:
    """Three orthogonal planes of one case, see `bench.report.figures.orientation.views`.

    Outlines of the reference are solid, those of the prediction dashed, in one colour per region.

    Args:
        image: (D, H, W), or (C, D, H, W) of which ``channel`` is shown.
        reference, prediction: (D, H, W) label maps.
        regions: region name to the label values whose union it is.
        spacing_mm: (D, H, W).
        affine: (4, 4) of the file's (x, y, z) voxel indices; without it the sides are named after these.

    Raises:
        BenchError: the arrays do not fit each other, or there are more than 8 regions.
    """
    _demand_colours(regions)
    shown = views(image[channel] if image.ndim == 4 else image, reference, prediction, spacing_mm, affine)
    widths = [view.size_mm[1] for view in shown]
    scale = (WIDTH_IN - 0.5) / sum(widths)
    figure = new_figure(WIDTH_IN, scale * max(view.size_mm[0] for view in shown) + 1.25, title)
    for axes, view in zip(figure.subplots(1, 3, width_ratios=widths), shown, strict=True):
        _draw(axes, view, regions)
        axes.set_title(f"{view.name}, slice {view.index}")
    _legend(figure, regions, affine is not None)
    return settle(figure)


@house_style()
def case_panel(cells: Iterable[tuple[str, Choice, ShownCase | Unavailable]], title: str) -> Figure:
    """Axial planes of the best, the median and the worst case of several models: a row per place, a column per model.

    More than five models go on in further rows. A case whose files are gone says why.

    Args:
        cells: model, choice and voxels; of a generator one volume at a time is in memory.

    Raises:
        BenchError: there is no cell, a cell comes twice, or there are more than 8 regions.
    """
    made: dict[tuple[str, str], tuple[Choice, View | str]] = {}
    regions: dict[str, Sequence[int]] = {}
    channels: dict[str, None] = {}
    for model, choice, case in cells:
        if (model, choice.place) in made:
            raise BenchError(f"found the {choice.place} case of {model} twice; expected it once. Name models apart.")
        if isinstance(case, Unavailable):
            made[model, choice.place] = choice, case.reason
            continue
        regions |= case.regions
        channels[case.channel] = None
        (view,) = views(case.image, case.reference, case.prediction, case.spacing_mm, case.affine, ("axial",))
        made[model, choice.place] = choice, view
    if not made:
        raise BenchError("found no case to show; expected one or more. Leave the figure out.")
    _demand_colours(regions)

    models = list(dict.fromkeys(model for model, _ in made))
    places = [place for place in PLACES if any((model, place) in made for model in models)]
    columns = min(len(models), _MOST_COLUMNS)
    blocks = [models[start : start + columns] for start in range(0, len(models), columns)]
    size_in = min((WIDTH_IN - 0.4) / columns, 2.2)
    figure = new_figure(WIDTH_IN, 1.0 + len(blocks) * (0.2 + len(places) * (size_in + 0.32)), title)
    grid = figure.subplots(len(blocks) * len(places), columns, squeeze=False)
    for number, block in enumerate(blocks):
        for row, place in enumerate(places):
            for column in range(columns):
                axes = grid[number * len(places) + row, column]
                cell = made.get((block[column], place)) if column < len(block) else None
                if cell is None:
                    axes.set_axis_off()
                    continue
                _cell(axes, *cell, regions)
                if row == 0:
                    axes.set_title(f"{wrapped(block[column], int(size_in * 12))}\n{axes.get_title()}")
                if column == 0:
                    axes.set_ylabel(place, fontweight="bold", labelpad=14)
    _legend(figure, regions, oriented=True, channels=list(channels))
    return settle(figure)


def _demand_colours(regions: Mapping[str, Sequence[int]]) -> None:
    if len(regions) > len(_COLOURS):
        raise BenchError(f"found {len(regions)} regions; expected at most {len(_COLOURS)}. Show some of them only.")


def _cell(axes: Axes, choice: Choice, shown: View | str, regions: Mapping[str, Sequence[int]]) -> None:
    axes.set_title(f"{_short(choice.case)}\nDice {choice.dice:.3f}", linespacing=1.0)
    if isinstance(shown, View):
        _draw(axes, shown, regions, scale=0.85)
        return
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    text = wrapped(f"not shown: {shown}", 18)
    lines = text.split("\n")
    axes.text(0.5, 0.5, "\n".join([*lines[:6], *(["..."] if len(lines) > 6 else [])]), ha="center", va="center",
              transform=axes.transAxes)  # fmt: skip


def _short(case: str) -> str:
    """A case's id in the width of a cell: its end tells it from others."""
    return case if len(case) <= 20 else f"…{case[-19:]}"


def _draw(axes: Axes, view: View, regions: Mapping[str, Sequence[int]], scale: float = 1.0) -> None:
    """The image with its outlines, in lines of up to 1.9 pt times ``scale``."""
    height, width = view.size_mm
    # Millimetres on both axes give the right proportions, whatever the spacing.
    low, high = _window(view.image)
    axes.imshow(view.image, cmap="gray", vmin=low, vmax=high, extent=(0, width, height, 0), interpolation="bilinear")
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    y = (np.arange(view.image.shape[0]) + 0.5) * view.spacing_mm[0]
    x = (np.arange(view.image.shape[1]) + 0.5) * view.spacing_mm[1]
    for number, labels in enumerate(regions.values()):
        for label, line in ((view.reference, _REFERENCE), (view.prediction, _PREDICTION)):
            mask = np.isin(label, list(labels)).astype(float)
            if mask.any() and min(mask.shape) > 1:
                thick = scale * _width_pt(number, len(regions))
                drawn = axes.contour(
                    x, y, mask, levels=[0.5], colors=_COLOURS[number], linewidths=thick, linestyles=[line]
                )
                drawn.set_path_effects([Stroke(linewidth=thick + scale, foreground="black", alpha=0.6), Normal()])
    for side, (at_x, at_y, ha, va) in zip(view.sides, _SIDES, strict=True):
        axes.text(at_x, at_y, side, transform=axes.transAxes, ha=ha, va=va, color="white", fontweight="bold",
                  path_effects=[Stroke(linewidth=2, foreground="black"), Normal()])  # fmt: skip


_SIDES = (
    (0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center"),
    (0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom"),
)  # fmt: skip


def _width_pt(number: int, regions: int) -> float:
    """Of a region's outline: nested regions share parts of theirs, and the inner one, drawn last, is the thinner."""
    return 1.9 - 0.9 * number / max(regions - 1, 1)


def _window(image: NDArray[np.floating]) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(image, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1)


def _legend(figure: Figure, regions: Mapping[str, Sequence[int]], oriented: bool, channels: Sequence[str] = ()) -> None:
    lines = []
    for number, region in enumerate(regions):
        thick = _width_pt(number, len(regions))
        for name, line in (("reference", _REFERENCE), ("prediction", _PREDICTION)):
            edge = [Stroke(linewidth=thick + 1, foreground="black"), Normal()]
            look = {"color": _COLOURS[number], "linestyle": line, "linewidth": thick, "path_effects": edge}
            lines.append(Line2D([], [], label=f"{region} {name}", **look))
    said = (
        "Radiological convention: the patient's right (R) is on the left. L left, A front, P back, S top, I bottom."
        if oriented
        else "The file gives no orientation: sides are its voxel axes, =0 where they begin."
    )
    if channels:
        said += f"\nImage: {', '.join(channels)}."
    legend = figure.legend(
        handles=lines, loc="outside lower center", ncols=min(len(regions), 4), title=said, handlelength=3
    )
    legend.get_title().set_multialignment("center")
