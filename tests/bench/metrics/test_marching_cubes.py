"""Area of the surface in a cell: against MONAI's tables, which are those of the reference."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from monai.metrics.utils import (
    create_table_neighbour_code_to_contour_length,
    create_table_neighbour_code_to_surface_area,
)

from bench.metrics.marching_cubes import FULL, areas_mm2, encode

SPACINGS_MM = [(1, 1, 1), (0.7, 0.7, 0.7), (1, 1, 2), (3, 0.9375, 0.9375), (0.7, 5, 1.2), (100, 0.01, 3)]


@pytest.fixture
def double_precision() -> Iterator[None]:
    """MONAI makes its table in torch's default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
def test_all_areas_are_those_of_the_reference(spacing_mm):
    expected, _ = create_table_neighbour_code_to_surface_area(spacing_mm)
    np.testing.assert_allclose(areas_mm2(np.array(spacing_mm, dtype=float)), expected.numpy(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("spacing_mm", [(1, 1), (0.5, 3)])
def test_in_two_dimensions_areas_are_lengths_of_the_contour(spacing_mm):
    expected, _ = create_table_neighbour_code_to_contour_length(spacing_mm)
    areas = areas_mm2(np.array(spacing_mm, dtype=float))
    for code in range(16):
        cell = np.array([code >> place & 1 for place in (3, 2, 1, 0)], dtype=bool).reshape(2, 2)
        assert areas[encode(np.pad(cell, 1))[1, 1]] == pytest.approx(float(expected[code]), rel=1e-12)


def test_the_surface_of_a_mask_is_that_of_its_complement():
    areas = areas_mm2(np.array([1.0, 0.7, 3.0]))
    np.testing.assert_array_equal(areas, areas[::-1])
    assert np.flatnonzero(areas == 0).tolist() == [0, FULL]


def test_a_box_has_its_area_less_what_marching_cubes_cut_from_edges_and_corners():
    """Of 4×5×6 voxels: faces of 3×4, 3×5 and 4×5 flat cells, 48 edge cells of √½ and 8 corner cells of √3/8."""
    codes = encode(np.pad(np.ones((4, 5, 6), dtype=bool), 1))
    flat, edges, corners = 2 * (12 + 15 + 20), 4 * (3 + 4 + 5) * np.sqrt(0.5), 8 * np.sqrt(3) / 8
    assert areas_mm2(np.ones(3))[codes].sum() == pytest.approx(flat + edges + corners, rel=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_first_voxel_of_a_cell_counts_most(axes):
    """In three dimensions by halves from 128; a mask of fewer is as if repeated along the axes before its own."""
    weights = np.array([128, 64, 32, 16, 8, 4, 2, 1]).reshape(2, 2, 2).sum(axis=tuple(range(3 - axes)))
    for place in product((0, 1), repeat=axes):
        cell = np.zeros((2,) * axes, dtype=bool)
        cell[place] = True
        codes = encode(np.pad(cell, 1))
        assert codes.shape == (3,) * axes
        assert codes[(1,) * axes] == weights[place]
