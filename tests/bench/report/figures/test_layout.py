"""Swarms and labels: nothing overlaps where there is room, and everything is in order."""

from __future__ import annotations

import numpy as np
import pytest

from bench.report.figures.layout import label_points, spread, swarm
from bench.report.figures.style import new_figure, settle


def test_a_swarm_keeps_points_apart_where_there_is_room() -> None:
    along = np.array([0.51, 0.52, 0.53, 0.9])
    steps = swarm(along, width=0.1, height=0.2, half=1.0)
    assert sorted(steps[:3]) == pytest.approx([-0.2, 0, 0.2])
    assert steps[3] == 0


def test_a_swarm_never_leaves_its_row() -> None:
    steps = swarm(np.full(500, 0.5), width=0.1, height=0.2, half=0.3)
    assert np.abs(steps).max() == pytest.approx(0.3)
    assert len(np.unique(steps)) == 500


def test_spread_moves_no_more_than_it_must() -> None:
    assert spread([1, 5, 9], [1, 1, 1], 0, 10) == [1, 5, 9]
    assert spread([5, 5], [2, 2], 0, 10) == [4, 6]
    assert spread([9.9, 0.2], [1, 1], 0, 10) == [9.5, 0.5]
    assert spread([5, 5], [2, 4], 0, 10) == [3.5, 6.5]
    assert spread([], [], 0, 10) == []


def test_spread_keeps_order_and_distances_within_the_limits() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        wanted, heights = random.uniform(0, 10, 8), random.uniform(0.5, 1.2, 8)
        placed = np.array(spread(list(wanted), list(heights), 0, 10))
        order = np.argsort(wanted)
        assert (np.diff(placed[order]) >= (heights[order][:-1] + heights[order][1:]) / 2 - 1e-9).all()
        assert (placed - heights / 2 >= -1e-9).all()
        assert (placed + heights / 2 <= 10 + 1e-9).all()


def test_spread_shares_what_is_too_little() -> None:
    assert spread([5] * 5, [4] * 5, 0, 10) == pytest.approx([1, 3, 5, 7, 9])


def test_labels_hide_neither_each_other_nor_points() -> None:
    random = np.random.default_rng(1)
    points = [(float(x), float(y), f"a model, number {n}") for n, (x, y) in enumerate(random.uniform(0, 1, (20, 2)))]
    figure = new_figure(7.2, 4.4, "labels")
    axes = figure.subplots()
    axes.set_xlim(-0.2, 1.2)
    settle(figure)
    notes = label_points(figure, axes, points)
    boxes = [note.get_window_extent() for note in notes]  # type: ignore[call-arg]
    at = axes.transData.transform([point[:2] for point in points])
    texts = [type(note).__mro__[1].get_window_extent(note) for note in notes]  # without the line to the point
    assert len(boxes) == len(points)
    assert not any(one.overlaps(two) for n, one in enumerate(texts) for two in texts[n + 1 :])
    assert not any(text.contains(*point) for text in texts for point in at)
