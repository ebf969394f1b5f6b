"""Which differences between models the cases support: a matrix of models by models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.report.figures.style import house_style, metric_named, new_figure, row_in, settle, wrapped
from bench.report.figures.tables import demand, each, of

ALPHA = 0.05
_COLUMNS = ("region", "metric", "model_a", "model_b", "p_holm", "rank_biserial", "cases")
_CELL_IN = 0.44
# Its two ends are apart for every kind of colour blindness; in grey the arrows tell them apart.
_COLOURS = colormaps["PuOr"]


@house_style()
def significance(compare: pd.DataFrame, region: str, metric: str, order: Sequence[str] | None = None) -> Figure:
    """Paired comparisons of one region and metric: colour is the effect, text the corrected p.

    A cell speaks of its row against its column: purple where the row is better, orange where it is worse. Significant
    ones (p after Holm below 0.05) are bold with ▲ for better and ▼ for worse, so that neither needs the colour.

    Args:
        compare: one row per pair: region, metric, model_a, model_b, cases, p_holm, and rank_biserial in -1..1,
            positive where model_a scores higher than model_b. Whether higher is better follows from the metric.
        order: models, best first, e.g. by mean rank; by default by their mean rank-biserial correlation with the
            others, which is that order where all pairs are there.

    Raises:
        BenchError: a column is missing, nothing is there for region and metric, a pair stands twice, or ``order`` is
            not the frame's models.
    """
    demand(compare, _COLUMNS, "comparisons")
    facts = metric_named(metric)
    rows = of(compare, region, metric, "comparisons")
    models = sorted({*rows["model_a"], *rows["model_b"]})
    effect, p = _matrices(rows, models, -1 if facts.lower_is_better else 1)
    if order is None:
        score = np.nanmean(np.where(np.eye(len(models), dtype=bool), np.nan, effect), axis=1)
        order = sorted(models, key=lambda model: (-np.nan_to_num(score[models.index(model)]), model))
    elif sorted(order) != models:
        raise BenchError(
            f"found the order {', '.join(order)}; expected the models of the comparisons, {', '.join(models)}. Name "
            "each of them once."
        )
    places = [models.index(model) for model in order]
    effect, p = effect[np.ix_(places, places)], p[np.ix_(places, places)]

    side = _CELL_IN * len(models)
    margin = 0.3 + 0.075 * max(len(line) for model in order for line in wrapped(model).split("\n"))
    cases = "/".join(str(count) for count in sorted(rows["cases"].astype(int).unique()))
    figure = new_figure(
        max(side + margin + 1.1, 5.6),
        row_in(order, _CELL_IN) * len(models) + margin + 1.0,
        f"{facts.title} of {region}, row against column over {cases} cases\n"
        f"p after Holm; bold where p < {ALPHA:g}: ▲ row better, ▼ row worse",
    )
    axes = figure.subplots()
    image = axes.imshow(effect, cmap=_COLOURS, vmin=-1, vmax=1, aspect="auto")
    ticks = range(len(order))
    axes.set_yticks(ticks, [wrapped(model) for model in order])
    axes.set_xticks(ticks, [wrapped(model) for model in order], rotation=90 if len(order) > 4 else 0)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(1, len(order)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(order)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for row, column in np.argwhere(np.isfinite(p)):
        _write(figure, row, column, effect[row, column], p[row, column])
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 3.0 / side), aspect=18)
    bar.set_label("rank-biserial correlation,\npositive where the row is better")
    bar.outline.set_visible(False)
    return settle(figure)


def _matrices(rows: pd.DataFrame, models: list[str], sign: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(models, models): the effect in favour of the row's model, and p; NaN where the pair was not compared."""
    effect = np.full((len(models), len(models)), np.nan)
    p = effect.copy()
    for pair in each(rows):
        a, b = models.index(pair["model_a"]), models.index(pair["model_b"])
        if a == b or np.isfinite(p[a, b]):
            raise BenchError(
                f"found the pair {pair['model_a']} and {pair['model_b']} twice, or a model paired with itself; "
                "expected each pair of models once. Drop the surplus rows."
            )
        effect[a, b], effect[b, a] = sign * pair["rank_biserial"], -sign * pair["rank_biserial"]
        p[a, b] = p[b, a] = pair["p_holm"]
    return effect, p


def _write(figure: Figure, row: int, column: int, effect: float, p: float) -> None:
    said = "<.001" if p < 0.001 else ">.99" if p > 0.99 else f"{p:.3f}"[1:] if p < 0.1 else f"{p:.2f}"[1:]
    significant = p < ALPHA
    if significant and effect:
        said = f"{'▲' if effect > 0 else '▼'}\n{said}"
    figure.axes[0].text(
        column, row, said, ha="center", va="center", fontweight="bold" if significant else "normal", linespacing=0.95,
        color="black" if _luminance(effect) > 0.179 else "white",
    )  # fmt: skip


def _luminance(effect: float) -> float:
    """Relative luminance of a cell; from 0.179 on black text has more contrast than white (WCAG 2, 1.4.3)."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in _COLOURS((effect + 1) / 2)[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
