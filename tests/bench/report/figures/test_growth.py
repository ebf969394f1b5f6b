"""Growth of time and memory: panels, points, exponents, names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.report import figures
from bench.report.figures.style import looks

SIZES = (64, 96, 128)


def _grown(model: str, exponent: float, panel: str = "inference", sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    x = np.array([float(n) ** 3 for n in sizes])
    names = [f"{n}³" for n in sizes]
    measured = {"time_s": 1e-8 * x**exponent, "memory_bytes": 2.0**30 * (x / 64**3) ** (exponent / 2)}
    return pd.DataFrame({"model": model, "panel": panel, "x": x, "size": names, **measured, "status": "complete"})


def _draw(*frames: pd.DataFrame, **more: Sequence[str]) -> Figure:
    return figures.growth(pd.concat(frames, ignore_index=True), "Growth", "voxels", **more)


def _texts(axes: Axes, gid: str) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_gid() == gid]


def _lines(axes: Axes, gid: str = "growth") -> list:
    return [line for line in axes.lines if line.get_gid() == gid]


def test_points_stand_at_their_sizes_on_logarithmic_axes() -> None:
    time, memory, _ = _draw(_grown("unet", 1.0)).axes
    for axes, column, scale, label in (
        (time, "time_s", 1e3, "time (ms)"),
        (memory, "memory_bytes", 2**-30, "memory (GiB)"),
    ):
        (line,) = _lines(axes)
        expected = _grown("unet", 1.0)
        np.testing.assert_allclose(line.get_xdata(), expected["x"])
        np.testing.assert_allclose(line.get_ydata(), scale * expected[column])
        assert (axes.get_xscale(), axes.get_yscale(), axes.get_ylabel()) == ("log", "log", label)
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["128³", "96³", "64³"]
        np.testing.assert_allclose(axes.get_xticks(), sorted(expected["x"], reverse=True))


def test_exponents_stand_beside_the_names_the_slowest_first() -> None:
    figure = _draw(_grown("unet", 1.0), _grown("attention", 2.0), _grown("new", 1.0, sizes=(64, 96)))
    beside = figure.axes[2]
    assert _texts(beside, "head") == ["exponent at the end", "time", "memory"]
    assert _texts(beside, "name") == ["attention", "unet", "new"]
    assert _texts(beside, "exponent") == ["2.00", "1.00", "1.00", "0.50", "–", "–"]


def test_exponents_are_those_between_the_two_largest_sizes() -> None:
    bent = _grown("bent", 1.0, sizes=(8, 16, 64, 128)).sample(frac=1, random_state=0)
    bent["time_s"] += 1e-5
    figure = _draw(bent)
    x = np.array([64.0, 128.0]) ** 3
    expected = np.diff(np.log(1e-8 * x + 1e-5))[0] / np.log(8)
    assert _texts(figure.axes[2], "exponent")[0] == f"{expected:.2f}"


def test_models_differ_in_more_than_colour_and_look_as_in_the_whole_report() -> None:
    report = ["attention", "mamba", "unet"]
    figure = _draw(_grown("unet", 1.0), _grown("mamba", 1.1), models=report)
    look = looks(report)
    for line, model in zip(_lines(figure.axes[0]), ("mamba", "unet"), strict=True):
        assert (line.get_color(), line.get_marker()) == (look[model].colour, look[model].marker)
    samples = {line.get_color() for line in figure.axes[2].lines}
    assert samples == {look["unet"].colour, look["mamba"].colour}


def test_each_panel_has_a_row_of_its_own_and_its_own_exponents() -> None:
    figure = _draw(_grown("a", 1.0, "48 channels"), _grown("a", 2.0, "96 channels"), _grown("b", 1.0, "96 channels"))
    assert [axes.get_title("left") for axes in figure.axes[::3]] == ["48 channels", "96 channels"]
    assert [len(_lines(axes)) for axes in figure.axes[::3]] == [1, 2]
    assert _texts(figure.axes[2], "exponent") == ["1.00", "0.50"]
    assert _texts(figure.axes[5], "exponent") == ["2.00", "1.00", "1.00", "0.50"]
    assert [axes.get_xlabel() for axes in figure.axes[::3]] == ["", "voxels"]


def test_what_was_not_measured_is_told_with_its_reason_and_drawn_nowhere() -> None:
    frame = _grown("unet", 1.0, sizes=(64, 96, 128, 160))
    frame.loc[frame["size"] == "160³", ["time_s", "memory_bytes", "status"]] = [np.nan, np.nan, "oom"]
    never = frame.assign(model="unetr", time_s=np.nan, memory_bytes=np.nan, status="timeout")
    figure = _draw(frame, never)
    (line,) = _lines(figure.axes[0])
    assert len(line.get_xdata()) == 3
    told = " ".join(_texts(figure.axes[2], "unmeasured"))
    assert "oom: unet 160³" in told
    assert "timeout: unetr 64³, unetr 96³, unetr 128³, unetr 160³" in told
    assert _texts(figure.axes[2], "name") == ["unet", "unetr"]


def test_what_is_proportional_lies_below_all_points() -> None:
    figure = _draw(_grown("unet", 0.8), _grown("attention", 1.7))
    for axes in figure.axes[:2]:
        (slope,) = _lines(axes, "proportional")
        (x0, x1), (y0, y1) = slope.get_data()
        assert y1 / y0 == pytest.approx(x1 / x0)
        for line in _lines(axes):
            assert (np.asarray(line.get_ydata()) > y0 / x0 * np.asarray(line.get_xdata())).all()


def test_little_memory_is_shown_in_a_smaller_unit() -> None:
    frame = _grown("unet", 1.0)
    axes = _draw(frame.assign(memory_bytes=[2**20, 2**21, 2**22])).axes[1]
    assert axes.get_ylabel() == "memory (MiB)"
    assert list(_lines(axes)[0].get_ydata()) == [1, 2, 4]


@pytest.mark.parametrize("memory", ["absent", "unknown"])
def test_without_memory_there_is_time_alone(memory: str) -> None:
    frame = _grown("unet", 1.0)
    frame = frame.drop(columns="memory_bytes") if memory == "absent" else frame.assign(memory_bytes=np.nan)
    figure = _draw(frame)
    assert [axes.get_ylabel() for axes in figure.axes] == ["time (ms)", ""]
    assert _texts(figure.axes[1], "exponent") == ["1.00"]


def test_neither_names_nor_sizes_cover_each_other() -> None:
    sizes = (48, 64, 72, 80, 96, 112, 128, 144, 160, 192)
    models = ["segmamba (d_state=16, scan=bidirectional)", *(f"network number {n}" for n in range(9))]
    frames = [_grown(model, 1 + n / 10, sizes=sizes) for n, model in enumerate(models)]
    frames[1].loc[:, "time_s"] = np.nan
    figure = _draw(*frames, *(frame.assign(panel="training") for frame in frames))
    ticks = [label for axes in figure.axes[:2] for label in axes.get_xticklabels()]
    assert len({label.get_text() for label in ticks}) < len(sizes)
    for axes in (*figure.axes[2::3], figure.axes[0], figure.axes[1]):
        shown = axes.texts or axes.get_xticklabels()
        boxes = [text.get_window_extent() for text in shown if text.get_text()]
        for number, box in enumerate(boxes):
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1 + 1
            assert not any(box.overlaps(other) for other in boxes[number + 1 :])
    lowest = min(text.get_window_extent().y0 for text in figure.axes[2].texts)
    assert lowest >= max(text.get_window_extent().y1 for text in figure.axes[5].texts), "the panels' names are apart"


def test_one_size_is_drawn_without_exponents() -> None:
    figure = _draw(_grown("unet", 1.0, sizes=(64,)))
    assert _texts(figure.axes[2], "exponent") == ["–", "–"]
    assert [len(_lines(axes)) for axes in figure.axes[:2]] == [1, 1]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["64³"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (_grown("a", 1.0).drop(columns="size"), "growths lack the column size"),
        (_grown("a", 1.0).iloc[:0], "growths have no row"),
        (_grown("a", 1.0).assign(x=np.nan), "growths hold 3 values of x that are not finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        _draw(frame)
