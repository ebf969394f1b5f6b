"""What all figures share: sizes, fonts, how a model looks, what a metric is called."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.errors import BenchError, unknown
from bench.report.shown import METRICS, Metric

WIDTH_IN = 7.2
"""Width of a figure on paper: the text width of A4. Figures that need more grow; their fonts stay as they are."""
FONT_PT = 8.0
TITLE_PT = 10.0
LINE_IN = 0.135
"""Height of a line of text."""
NAME_CHARACTERS = 24
"""Longer model names go on in a second line."""

GREY = "#595959"
PALE = "#d9d9d9"
BAND = "#f0f0f0"

# Okabe and Ito, "Color Universal Design", 2008; without its yellow, which thin lines lose on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# The lengths have no common divisor, so that all 280 combinations occur before one comes twice.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1.2, 1, 1.2, 1, 1.2)))


@dataclass(frozen=True)
class Look:
    """How a model is drawn: ``colour`` as #rrggbb, ``marker`` and ``line`` as matplotlib names them."""

    colour: str
    marker: str
    line: Any


def metric_named(name: str) -> Metric:
    """The metric of that name, if there is a good end of it.

    Raises:
        BenchError: there is none; the message suggests the nearest and lists all.
    """
    ranked = [metric.name for metric in METRICS.values() if metric.ranked]
    if name not in ranked:
        raise BenchError(unknown("metric", str(name), ranked))
    return METRICS[name]


def looks(models: Iterable[str], report: Sequence[str] | None = None) -> dict[str, Look]:
    """How each model is drawn, by its place among all models in alphabetical order.

    Args:
        models: of the figure.
        report: all models of the report, so that one looks the same in each of its figures; by default ``models``.
    """
    everyone = sorted({*models, *(report or ())})
    return {
        model: Look(COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)], LINES[n % len(LINES)])
        for n, model in enumerate(everyone)
    }


def wrapped(name: str, characters: int = NAME_CHARACTERS) -> str:
    """A model's name in lines of at most ``characters``, broken after a hyphen or a space where there is one."""
    return "\n".join(textwrap.wrap(name, characters)) or name


def heights_in(names: Iterable[str]) -> list[float]:
    """Height of each wrapped name in inches."""
    return [LINE_IN * (wrapped(name).count("\n") + 1) for name in names]


def row_in(names: Sequence[str], least: float = 0.0) -> float:
    """Height of equal rows, in inches, in which no name of several lines touches the one above or below."""
    heights = heights_in(names)
    return max([least, *((one + next) / 2 + 0.04 for one, next in itertools.pairwise(heights))])


_DEFAULTS: dict[str, Any] = {
    # A font that matplotlib brings along: the same figure on every machine.
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": FONT_PT,
    "axes.titlesize": FONT_PT,
    "axes.labelsize": FONT_PT,
    "xtick.labelsize": FONT_PT,
    "ytick.labelsize": FONT_PT,
    "legend.fontsize": FONT_PT,
    "legend.title_fontsize": FONT_PT,
    "figure.titlesize": TITLE_PT,
    "figure.titleweight": "bold",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    # A model may be called "a_$x$": names are no formulas.
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Defaults for drawing; the caller's, whatever they were, are back afterwards. Also a decorator."""
    with matplotlib.style.context(["default", _DEFAULTS]):
        yield


def new_figure(width_in: float, height_in: float, title: str) -> Figure:
    """An empty figure whose parts `settle` will arrange; the title is broken to the width."""
    figure = Figure(figsize=(width_in, height_in), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    # A bold character of DejaVu Sans is about 0.65 em wide.
    characters = int((width_in - 0.3) * 72 / (0.65 * TITLE_PT))
    figure.suptitle("\n".join(line for part in title.split("\n") for line in textwrap.wrap(part, characters)))
    return figure


def settle(figure: Figure) -> Figure:
    """Arrange a figure once and for all: constrained layout moves things a little each time it runs."""
    figure.draw_without_rendering()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure
