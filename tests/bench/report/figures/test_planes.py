"""Slices: which one, which way round, in which proportions, with which outlines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.contour import ContourSet
from matplotlib.text import Text

from bench.errors import BenchError
from bench.report import figures
from bench.report.cases_shown import Choice, ShownCase, Unavailable
from bench.report.figures.orientation import views

REGIONS = {"WT": (1, 2), "TC": (1,)}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
RAS = np.eye(4)


def _head() -> tuple[np.ndarray, np.ndarray]:
    """A (D, H, W) = (20, 24, 28) image with a tumour, its largest slices at z 6, y 15 and x 20."""
    image = np.zeros((20, 24, 28), dtype=np.float32)
    image[2:18, 2:22, 2:26] = 1
    label = np.zeros(image.shape, dtype=np.uint8)
    label[5:8, 13:18, 17:24] = 2
    label[6, 12:19, 16:25] = 2
    label[4:9, 15, 16:25] = 2
    label[4:9, 12:19, 20] = 2
    label[6, 15, 20] = 1
    image[label > 0] = 2
    return image, label


def test_each_plane_shows_the_slice_with_the_largest_area() -> None:
    image, label = _head()
    found = views(image, label, label, (1, 1, 1), LPS)
    assert [(view.name, view.index) for view in found] == [("axial", 6), ("coronal", 15), ("sagittal", 20)]


def test_without_reference_the_prediction_decides_and_without_either_the_middle() -> None:
    image, label = _head()
    none = np.zeros_like(label)
    assert views(image, none, label, (1, 1, 1), LPS)[0].index == 6
    assert views(image, none, none, (1, 1, 1), LPS)[0].index == 10


@pytest.mark.parametrize(
    ("affine", "x_right", "y_front"), [(LPS, 0, 0), (RAS, 27, 23)], ids=["LPS: x from right to left", "RAS"]
)
def test_the_patients_right_is_on_the_left_whatever_the_file_says(
    affine: np.ndarray, x_right: int, y_front: int
) -> None:
    image, label = _head()
    near = np.zeros_like(label)
    near[6, abs(y_front - 3), abs(x_right - 5)] = 1  # to the patient's right and front, at z = 6 of 20
    axial, coronal, sagittal = views(image, near, near, (1, 1, 1), affine)
    assert axial.sides == ("R", "L", "A", "P")
    assert coronal.sides == ("R", "L", "S", "I")
    assert sagittal.sides == ("A", "P", "S", "I")
    for view, row, column in ((axial, 3, 5), (coronal, 13, 5), (sagittal, 13, 3)):
        assert np.argwhere(view.reference).tolist() == [[row, column]], view.name


def test_axes_in_another_order_are_put_in_order() -> None:
    image, label = _head()
    swapped = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # the file's x is the world's z
    usual = views(image, label, label, (1, 2, 3), RAS)
    turned = views(image.T.copy(), label.T.copy(), label.T.copy(), (3, 2, 1), swapped)
    for one, two in zip(usual, turned, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        assert one.spacing_mm == two.spacing_mm


def test_without_an_affine_no_side_is_claimed() -> None:
    image, label = _head()
    found = views(image, label, label, (1, 1, 1))
    assert [view.name for view in found] == ["xy plane", "xz plane", "yz plane"]
    assert found[0].sides == ("x", "x=0", "y", "y=0")


def test_air_is_cut_away_and_no_label() -> None:
    image, label = _head()
    image = np.pad(image, 40)
    label = np.pad(label, 40)
    prediction = label.copy()
    prediction[50, 90, 90] = 1
    (axial,) = views(image, label, prediction, (1, 1, 1), LPS, ("axial",))
    assert axial.image.shape == (90 - 42 + 1 + 8, 90 - 42 + 1 + 8)
    assert views(image, label, label, (1, 1, 1), LPS, ("axial",))[0].image.shape == (20 + 8, 24 + 8)


def test_slices_are_in_proportion_with_outlines_of_both() -> None:
    image, label = _head()
    shifted = np.roll(label, 2, axis=1)
    figure = figures.slices(np.stack([image, image]), label, shifted, REGIONS, (3.0, 1.0, 2.0), "one case", affine=LPS)
    assert figure.get_suptitle() == "one case"
    assert [axes.get_title() for axes in figure.axes] == ["axial, slice 6", "coronal, slice 15", "sagittal, slice 20"]
    for axes, rows_mm, columns_mm in zip(figure.axes, (1, 3, 3), (2, 2, 1), strict=True):
        (shown,) = axes.images
        left, right, bottom, top = shown.get_extent()
        rows, columns = shown.get_array().shape
        assert (bottom - top, right - left) == (rows * rows_mm, columns * columns_mm)
        assert axes.get_aspect() == 1
    contours = [child for child in figure.axes[0].get_children() if isinstance(child, ContourSet)]
    assert len(contours) == 4


def test_an_outline_lies_around_its_mask() -> None:
    image, label = _head()
    figure = figures.slices(image, label, np.zeros_like(label), {"WT": (1, 2)}, (2.0, 2.0, 2.0), "case", affine=LPS)
    (contour,) = [child for child in figure.axes[0].get_children() if isinstance(child, ContourSet)]
    (path,) = contour.get_paths()
    box = path.get_extents()
    # 4 mm of margin begin at voxel 0: rows 12..18 and columns 16..24, from edge to edge.
    assert (box.x0, box.x1, box.y0, box.y1) == (16 * 2, 25 * 2, 12 * 2, 19 * 2)


def test_a_legend_names_both_outlines_of_each_region_and_the_convention() -> None:
    image, label = _head()
    figure = figures.slices(image, label, label, REGIONS, (1.0, 1.0, 1.0), "case", affine=LPS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "WT reference",
        "WT prediction",
        "TC reference",
        "TC prediction",
    ]
    assert "patient's right (R) is on the left" in figure.legends[0].get_title().get_text()


def _cells(models: list[str]) -> Iterator[tuple[str, Choice, ShownCase | Unavailable]]:
    image, label = _head()
    for model in models:
        for place, dice in (("best", 0.9), ("median", 0.8), ("worst", 0.1)):
            choice = Choice(place, f"BraTS-GLI-00001-{model}", dice)  # type: ignore[arg-type]
            if (model, place) == ("b", "worst"):
                yield model, choice, Unavailable("files of brats2023 cannot be read: /data is no folder")
            else:
                yield model, choice, ShownCase(image, "t1c", label, label, REGIONS, (1.0, 1.0, 1.0), LPS)


def test_a_panel_has_a_row_per_place_and_a_column_per_model() -> None:
    figure = figures.case_panel(_cells(["a", "b"]), "cases")
    assert [axes.get_ylabel() for axes in figure.axes] == ["best", "", "median", "", "worst", ""]
    assert figure.axes[0].get_title() == "a\nBraTS-GLI-00001-a\nDice 0.900"
    assert figure.axes[4].get_title() == "BraTS-GLI-00001-a\nDice 0.100"
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert figure.axes[5].texts[0].get_text().replace("\n", " ").startswith("not shown: files of brats2023")
    assert "Image: t1c." in figure.legends[0].get_title().get_text()


def test_more_than_five_models_go_on_below() -> None:
    figure = figures.case_panel(_cells(list("abcdefg")), "cases")
    assert sum(bool(axes.axison) for axes in figure.axes) == 7 * 3
    assert len(figure.axes) == 2 * 3 * 5


@pytest.mark.parametrize("what", ["slices", "panel"])
def test_no_text_leaves_the_canvas_or_is_small(what: str) -> None:
    image, label = _head()
    figure = (
        figures.slices(image, label, label, {f"region {n}": (1,) for n in range(8)}, (1.0, 1.0, 1.0), "a case " * 20)
        if what == "slices"
        else figures.case_panel(_cells(["a", "b", "the predictions of a winning team, an ensemble"]), "cases")
    )
    figure.draw_without_rendering()
    canvas = figure.bbox.padded(1)
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            extent = text.get_window_extent()
            assert text.get_fontsize() >= 8
            assert canvas.contains(*extent.min), text
            assert canvas.contains(*extent.max), text


def test_arrays_that_do_not_fit_are_refused() -> None:
    image, label = _head()
    with pytest.raises(BenchError, match=r"a reference of \(19, 24, 28\)"):
        figures.slices(image, label[1:], label, REGIONS, (1.0, 1.0, 1.0), "case")
    with pytest.raises(BenchError, match="found 9 regions; expected at most 8"):
        figures.slices(image, label, label, {str(n): (1,) for n in range(9)}, (1.0, 1.0, 1.0), "case")
    with pytest.raises(BenchError, match="found no case to show"):
        figures.case_panel([], "cases")
    with pytest.raises(BenchError, match="found the best case of a twice"):
        figures.case_panel(_cells(["a", "a"]), "cases")
