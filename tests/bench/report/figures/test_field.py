"""Receptive fields: planes, circles, curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.report import figures

DEPTH, HEIGHT, WIDTH = 4, 6, 9


def _field(model: str = "unet", r50: float = 1.0, r90: float = 2.5) -> figures.Field:
    """The central voxel (2, 3, 4) is the brightest, and each plane rises along its columns."""
    shapes = {"axial": (HEIGHT, WIDTH), "coronal": (DEPTH, WIDTH), "sagittal": (DEPTH, HEIGHT)}
    planes = {}
    for name, (rows, columns) in shapes.items():
        planes[name] = np.full((rows, columns), -12.0, dtype=np.float16) + np.arange(columns, dtype=np.float16) / 4
        planes[name][rows // 2, columns // 2] = 0
    return figures.Field(model, planes, {"r50": r50, "r90": r90})


def _draw(*fields: figures.Field) -> Figure:
    return figures.receptive_fields(fields, "Fields")


def test_each_network_has_its_three_planes_about_the_central_voxel() -> None:
    figure = _draw(_field("unet"), _field("segmamba", 3.25, 7.5))
    panels = figure.axes[:6]
    assert [axes.get_title() for axes in panels] == ["axial, H×W", "coronal, D×W", "sagittal, D×H", "", "", ""]
    assert panels[0].get_ylabel() == "unet\nr50 1.0\nr90 2.5"
    assert panels[3].get_ylabel() == "segmamba\nr50 3.2\nr90 7.5"
    for axes, name in zip(panels, [*_field().planes] * 2, strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), _field().planes[name].astype(float))
        left, right, bottom, top = image.get_extent()
        rows, columns = _field().planes[name].shape
        # The brightest voxel's middle is the origin.
        assert (left + columns // 2 + 0.5, top + rows // 2 + 0.5) == (0, 0)
        assert (right - left, bottom - top) == (columns, rows)


def test_circles_have_the_radii_in_voxels_and_differ_in_their_lines() -> None:
    axes = _draw(_field(r50=1.0, r90=2.5)).axes[0]
    circles = {patch.get_gid(): patch for patch in axes.patches if patch.get_gid() in ("r50", "r90")}
    assert {name: circle.get_radius() for name, circle in circles.items()} == {"r50": 1.0, "r90": 2.5}
    assert {circle.get_center() for circle in circles.values()} == {(0, 0)}
    assert circles["r50"].get_linestyle() != circles["r90"].get_linestyle()
    legend = _draw(_field()).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["r50: 50 % of the energy", "r90: 90 % of the energy"]


def test_all_planes_share_scale_and_colours() -> None:
    large = figures.Field("large", {name: np.zeros((16, 16)) for name in _field().planes}, {"r50": 1, "r90": 20})
    panels = _draw(_field(), large).axes[:6]
    assert len({(*axes.get_xlim(), *axes.get_ylim()) for axes in panels}) == 1
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1], "rows run downwards, as in an array"
    assert {axes.images[0].get_clim() for axes in panels} == {(-10, 0)}
    widths = {round(axes.get_window_extent().width, 3) for axes in panels}
    assert len(widths) == 1
    assert panels[0].get_xlim()[1] >= 8


def test_brightness_rises_with_the_energy() -> None:
    (image,) = _draw(_field()).axes[0].images
    colours = image.cmap(np.linspace(0, 1, 64))[:, :3]
    brightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > 0).all()


@pytest.mark.parametrize("networks", [1, 9])
def test_names_leave_the_planes_free_and_stay_within_the_figure(networks: int) -> None:
    figure = _draw(*(_field(f"a network with a long name, {n}") for n in range(networks)))
    for axes in figure.axes[: 3 * networks : 3]:
        name = axes.yaxis.label.get_window_extent()
        assert name.x0 >= 0
        assert name.x1 <= axes.get_window_extent().x0
    tops = [axes.get_window_extent() for axes in figure.axes[: 3 * networks]]
    assert not any(one.overlaps(other) for n, one in enumerate(tops) for other in tops[n + 1 :])
    assert max(box.x1 for box in tops) <= figure.bbox.x1
    assert min(box.width for box in tops) > 1.2 * figure.dpi


def _shares(**curves: list[float]) -> pd.DataFrame:
    frames = [
        pd.DataFrame({"model": name, "radius": range(len(values)), "share": values}) for name, values in curves.items()
    ]
    return pd.concat(frames, ignore_index=True)


def test_curves_begin_at_one_voxel_and_the_farthest_is_named_first() -> None:
    frame = _shares(near=[0.5, 0.9, 1.0, 1.0], far=[0.0, 0.1, 0.4, 1.0])
    figure = figures.radial_shares(frame.sample(frac=1, random_state=0), "A title that takes two lines " * 5)
    (axes,) = figure.axes
    curves = {line.get_label(): line for line in axes.lines if line.get_gid() == "curve"}
    assert list(curves["far"].get_xdata()) == [1, 2, 3]
    assert list(curves["far"].get_ydata()) == [0.1, 0.4, 1.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["far", "near"]
    assert axes.get_xscale() == "log"
    assert curves["far"].get_marker() != curves["near"].get_marker()
    assert [line.get_ydata()[0] for line in axes.lines if line.get_gid() is None] == [0.5, 0.9]
    legend = figure.legends[0].get_window_extent()
    assert not legend.overlaps(axes.get_window_extent())
    assert not legend.overlaps(figure._suptitle.get_window_extent())


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(BenchError, match="found no receptive field"):
        _draw()
    with pytest.raises(BenchError, match="found unet more than once"):
        _draw(_field(), _field("segmamba"), _field())
    with pytest.raises(BenchError, match="receptive field of unet lacks coronal"):
        _draw(figures.Field("unet", {"axial": np.zeros((2, 2)), "sagittal": np.zeros((2, 2))}, {}))
    with pytest.raises(BenchError, match="radial shares lack the column share"):
        figures.radial_shares(_shares(a=[1.0]).drop(columns="share"), "Shares")
    with pytest.raises(BenchError, match="values of share that are not finite"):
        figures.radial_shares(_shares(a=[0.1, float("nan")]), "Shares")
