"""What each figure shows: panels, order, positions and counts, not pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.errors import BenchError
from bench.report import figures
from bench.report.figures.style import looks

Scores = Callable[..., pd.DataFrame]


def _by_gid(axes: Axes, gid: str) -> list:
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def _rows(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def _texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def test_cases_has_a_panel_per_region_and_models_by_their_mean(scores: Scores) -> None:
    frame = scores(regions=("WT", "TC", "ET", "ED"))
    for metric, best in (("dice", "alpha"), ("hd95", "alpha")):
        figure = figures.cases(frame, metric)
        titles = [axes.get_title() for axes in figure.axes]
        assert titles == ["WT, 5 cases", "TC, 5 cases", "ET, 5 cases", "ED, 5 cases"]
        means = frame[frame["metric"] == metric].groupby("model")["value"].mean()
        expected = list(means.sort_values(ascending=metric == "hd95").index)
        assert _rows(figure.axes[0]) == expected
        assert expected[0] == best
    assert figure.axes[-1].get_xlabel() == "HD95 (mm)"


def test_every_case_is_a_point_at_its_value(scores: Scores) -> None:
    frame = scores(penalised=2)
    figure = figures.cases(frame, "hd95")
    frame = frame[(frame["metric"] == "hd95") & (frame["value"] < 373)].set_index(["region", "model"])["value"]
    for region, axes in zip(("WT", "TC", "ET"), figure.axes, strict=True):
        for model, points in zip(_rows(figure.axes[0]), _by_gid(axes, "cases"), strict=True):
            np.testing.assert_allclose(points.get_offsets()[:, 0], np.sort(frame[region, model]))


def test_a_box_holds_quartiles_median_and_mean(scores: Scores) -> None:
    frame = scores(["alpha"], 30, ["WT"])
    (axes,) = figures.cases(frame, "hd95").axes
    values = frame[frame["metric"] == "hd95"]["value"]
    (box,), (median,), (mean,) = (_by_gid(axes, gid) for gid in ("box", "median", "mean"))
    quartiles = [box.get_x(), median.get_xdata()[0], box.get_x() + box.get_width()]
    np.testing.assert_allclose(quartiles, values.quantile([0.25, 0.5, 0.75]))
    assert mean.get_xdata()[0] == pytest.approx(values.mean())


@pytest.mark.parametrize("metric", ["dice", "hd95"])
def test_penalised_cases_are_counted_beside_the_axis_and_in_the_mean(scores: Scores, metric: str) -> None:
    frame = scores(cases=7, penalised=2)
    figure = figures.cases(frame, metric)
    assert [len(_by_gid(axes, "penalised")) for axes in figure.axes] == [0, 0, 3]
    assert {text.get_text() for text in _by_gid(figure.axes[2], "penalised")} == {"2"}
    assert "(6 in all panels)" in figure.legends[0].get_title().get_text()
    (band,) = _by_gid(figure.axes[2], "band")
    at_its_end = band.get_x() == 0 if metric == "dice" else np.isclose(band.get_x() + band.get_width(), 1)
    assert at_its_end, "the band lies within the panel, where the bad scores are"
    means = [line.get_xdata()[0] for line in _by_gid(figure.axes[2], "mean")]
    mine = frame[(frame["metric"] == metric) & (frame["region"] == "ET")]
    np.testing.assert_allclose(sorted(means), sorted(mine.groupby("model")["value"].mean()))


def test_only_empty_masks_count_as_penalised_where_that_is_known(scores: Scores) -> None:
    frame = scores(penalised=2).assign(empty="neither")
    frame.loc[(frame["case"] == "case-0") & (frame["value"] == 0), "empty"] = "prediction"
    (_, _, axes) = figures.cases(frame, "dice").axes
    assert {text.get_text() for text in _by_gid(axes, "penalised")} == {"1"}


def test_a_model_looks_the_same_in_every_figure_of_a_report() -> None:
    report = ["delta", "alpha", "beta"]
    assert looks(["beta"], report)["beta"] == looks(report)["beta"]
    many = looks([f"model {n}" for n in range(280)])
    assert len({(look.colour, look.marker, str(look.line)) for look in many.values()}) == 280


def _profiles(**latency_s: float) -> pd.DataFrame:
    return pd.DataFrame({"model": list(latency_s), "latency_s": list(latency_s.values()), "device": "H100"})


def test_cost_puts_models_at_their_numbers_and_steps_along_the_front() -> None:
    high = [0.8, 0.9, np.nan, 1, 0.8]
    means = pd.DataFrame({"model": list("abcde"), "mean": [0.7, 0.8, 0.75, 0.9, 0.72], "low": 0.6, "high": high})
    figure = figures.cost(means, _profiles(a=0.1, b=0.2, c=0.3, d=2.0, e=0.2))
    (axes,) = figure.axes
    placed = [(line.get_xdata()[0], line.get_ydata()[0]) for line in _by_gid(axes, "model")]
    assert placed == [(100, 0.7), (200, 0.72), (200, 0.8), (300, 0.75), (2000, 0.9)]
    (front,) = _by_gid(axes, "front")
    assert list(front.get_ydata()) == [0.7, 0.8, 0.9, 0.9]
    assert list(front.get_xdata())[:3] == [100, 200, 2000]
    assert front.get_drawstyle() == "steps-post"
    assert len(_by_gid(axes, "interval")) == 4
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "inference time (ms), on H100"


def test_cost_is_linear_within_a_factor_of_ten_and_names_who_is_missing() -> None:
    means = pd.DataFrame({"model": list("abc"), "mean": [0.7, 0.8, 0.75]})
    (axes,) = figures.cost(means, _profiles(a=0.1, b=0.9)).axes
    assert axes.get_xscale() == "linear"
    assert "without this number: c" in axes.get_xlabel()


def test_cost_is_shown_in_its_unit() -> None:
    profiles = pd.DataFrame({"model": ["a"], "peak_memory_bytes": [3 * 2**30]})
    (axes,) = figures.cost(pd.DataFrame({"model": ["a"], "mean": [0.7]}), profiles, "peak_memory_bytes").axes
    assert _by_gid(axes, "model")[0].get_xdata()[0] == 3
    assert axes.get_xlabel() == "training memory (GiB)"


def test_cost_refuses_two_profiles_of_a_model() -> None:
    means = pd.DataFrame({"model": ["a"], "mean": [0.7]})
    profiles = pd.concat([_profiles(a=1.0), _profiles(a=2.0)])
    with pytest.raises(BenchError, match="a more than once; expected one row per model"):
        figures.cost(means, profiles)


@pytest.mark.parametrize(
    ("metric", "order"), [("dice", ["gamma", "alpha", "beta"]), ("hd95", ["beta", "alpha", "gamma"])]
)
def test_significance_speaks_of_the_row_against_the_column(
    comparisons: pd.DataFrame, metric: str, order: list[str]
) -> None:
    axes = figures.significance(comparisons, "ET", metric).axes[0]
    assert _rows(axes) == order
    effect = axes.images[0].get_array()
    assert effect[0, 2] == pytest.approx(0.7)
    assert effect[2, 0] == pytest.approx(-0.7)
    said = {(int(t.get_position()[1]), int(t.get_position()[0])): t for t in axes.texts}
    assert len(said) == 6
    assert said[0, 2].get_text() == "▲\n.004"
    assert said[2, 0].get_text() == "▼\n.004"
    assert said[0, 2].get_fontweight() == "bold"
    assert said[0, 1].get_fontweight() == "normal"
    assert said[0, 1].get_text() == (".20" if metric == "dice" else ".30")


def test_significance_takes_an_order_and_only_of_its_models(comparisons: pd.DataFrame) -> None:
    figure = figures.significance(comparisons, "ET", "dice", order=["beta", "gamma", "alpha"])
    assert _rows(figure.axes[0]) == ["beta", "gamma", "alpha"]
    with pytest.raises(BenchError, match="expected the models of the comparisons"):
        figures.significance(comparisons, "ET", "dice", order=["beta", "gamma"])


def test_rank_stability_has_ranks_intervals_shares_and_tau(stability: pd.DataFrame, taus: pd.DataFrame) -> None:
    figure = figures.rank_stability(stability, taus, "ET", "dice")
    left, right = figure.axes
    assert _rows(left) == ["beta", "alpha", "c"]
    assert [line.get_xdata()[0] for line in _by_gid(left, "rank")] == [1, 2, 3]
    assert [tuple(line.get_xdata()) for line in _by_gid(left, "interval")] == [(1, 2), (1, 3), (2, 3)]
    assert [text.get_text() for text in right.texts] == ["70 %", "30 %", "0 %"]
    assert [bar.get_width() for bar in right.patches] == pytest.approx([70, 30, 0])
    assert "0.81 (0.33 to 1.00)" in figure.get_suptitle()


def test_critical_difference_bars_cover_exactly_their_models(friedman: pd.DataFrame, ranks: pd.DataFrame) -> None:
    figure = figures.critical_difference(friedman, ranks, [("c", "b", "a"), ("e", "d"), ("d", "c")], "ET", "dice")
    (axes,) = figure.axes
    bars = [np.asarray(line.get_xdata()) for line in _by_gid(axes, "clique")]
    values = [1.4, 2.3, 3.1, 3.9, 4.3]
    covered = [[value for value in values if low <= value <= high] for low, high in bars]
    assert covered == [[1.4, 2.3], [2.3, 3.1], [3.1, 3.9, 4.3]]
    assert bars[2].tolist() == pytest.approx([3.1 - 0.06, 4.3 + 0.06])
    # Bars on one level do not touch.
    levels: dict[float, list] = {}
    for line in _by_gid(axes, "clique"):
        levels.setdefault(line.get_ydata()[0], []).append(tuple(line.get_xdata()))
    for spans in levels.values():
        assert all(one[1] < two[0] for one, two in zip(sorted(spans), sorted(spans)[1:], strict=False))
    (cd,) = _by_gid(axes, "CD")
    assert cd.get_xdata()[1] - cd.get_xdata()[0] == pytest.approx(1.1)
    assert [line.get_xdata()[0] for line in _by_gid(axes, "model")] == values
    names = [(text.get_text(), text.get_ha()) for text in _by_gid(axes, "name")]
    assert names == [("e", "right"), ("d", "right"), ("c", "right"), ("b", "left"), ("a", "left")]


def test_critical_difference_says_when_nothing_is_shown(friedman: pd.DataFrame, ranks: pd.DataFrame) -> None:
    rejected = figures.critical_difference(friedman, ranks, [], "ET", "dice").get_suptitle()
    kept = figures.critical_difference(friedman, ranks, [], "WT", "dice").get_suptitle()
    assert "not all are alike (p < 0.001)" in rejected
    assert "does not reject (p = 0.210)" in kept
    with pytest.raises(BenchError, match="cliques name z"):
        figures.critical_difference(friedman, ranks, [("a", "z")], "ET", "dice")


def test_training_smooths_long_curves_only_with_their_points_behind(histories: pd.DataFrame) -> None:
    figure = figures.training(histories)
    loss, dice = figure.axes
    assert [len(_by_gid(axes, "curve")) for axes in figure.axes] == [3, 3]
    (raw,) = _by_gid(loss, "raw")
    np.testing.assert_array_equal(raw.get_ydata(), histories.query("model == 'beta'")["loss"])
    short, _, smooth = _by_gid(loss, "curve")
    np.testing.assert_array_equal(short.get_ydata(), histories.query("model == 'alpha' and seed == 0")["loss"])
    np.testing.assert_allclose(smooth.get_ydata()[1], histories.query("model == 'beta'")["loss"][:3].mean())
    assert [len(line.get_xdata()) for line in _by_gid(dice, "curve")] == [5, 5, 15]
    assert {text.get_text() for text in _by_gid(loss, "name")} == {"alpha", "beta"}
    assert loss.get_yscale() == "log"


def test_training_without_validation_has_one_panel(histories: pd.DataFrame) -> None:
    assert len(figures.training(histories.drop(columns="dice")).axes) == 1
    assert len(figures.training(histories.assign(dice=np.nan)).axes) == 1


LONG = "the predictions of a winning team, an ensemble of five networks"
MANY = [LONG, "$x_1$ & <b>", *(f"model-{n}" for n in range(18))]


@pytest.mark.parametrize("what", ["cases", "hd95", "cost", "significance", "ranks", "cd", "training", "few"])
def test_no_text_leaves_the_canvas_or_is_small(what: str, scores: Scores) -> None:
    value = np.linspace(1, 19, 20)
    both = {"region": "ET", "metric": "dice", "model": MANY}
    match what:
        case "cases" | "hd95":
            figure = figures.cases(scores(MANY, 4, [f"R{n}" for n in range(8)], 1), "dice" if what == "cases" else what)
        case "few":
            figure = figures.cases(scores([LONG], 1, ["WT"]), "hd95")
        case "cost":
            means = pd.DataFrame({"model": MANY, "mean": 0.8 + 0.001 * (value * 7 % 5), "low": 0.79, "high": 0.82})
            figure = figures.cost(means, pd.DataFrame({"model": MANY, "gmacs": 10 * value}), "gmacs")
        case "significance":
            pairs = [(a, b) for n, a in enumerate(MANY) for b in MANY[n + 1 :]]
            frame = pd.DataFrame(pairs, columns=["model_a", "model_b"])
            frame = frame.assign(region="ET", metric="dice", cases=5, p_holm=0.0001, rank_biserial=0.9)
            figure = figures.significance(frame, "ET", "dice")
        case "ranks":
            frame = pd.DataFrame({**both, "rank": value, "rank_low": 1, "rank_high": 20, "first_share": 1.0})
            tau = {"region": "ET", "metric": "dice", "tau_mean": [1.0], "tau_low": 1, "tau_high": 1}
            figure = figures.rank_stability(frame, pd.DataFrame(tau), "ET", "dice")
        case "cd":
            test = {"region": ["ET"], "metric": "dice", "cases": 250, "models": 20, "p": 0.3, "critical_difference": 2}
            ranked = pd.DataFrame({**both, "average_rank": value})
            figure = figures.critical_difference(pd.DataFrame(test), ranked, [tuple(MANY)], "ET", "dice")
        case "training":
            runs = [pd.DataFrame({"model": m, "seed": 0, "step": [1, 20], "loss": [1, 0.5], "dice": 0.8}) for m in MANY]
            figure = figures.training(pd.concat(runs, ignore_index=True))
    _assert_readable(figure)


def _assert_readable(figure: Figure) -> None:
    figure.draw_without_rendering()
    canvas = figure.bbox.padded(1)
    for text in _texts(figure):
        extent = text.get_window_extent()
        assert text.get_fontsize() >= 8
        inside = canvas.contains(*extent.min) and canvas.contains(*extent.max)
        # Tick labels beyond the limits exist, but are not drawn.
        assert inside or text in _undrawn(figure), text


def _undrawn(figure: Figure) -> list[Text]:
    return [
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    ]


def test_names_of_models_do_not_overlap(scores: Scores) -> None:
    names = [LONG, f"{LONG} again", *MANY[1:]]
    figure = figures.cases(scores(names, 4), "dice")
    extents = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert not any(one.overlaps(two) for n, one in enumerate(extents) for two in extents[n + 1 :])


def test_faulty_frames_are_refused_by_name(scores: Scores, taus: pd.DataFrame, stability: pd.DataFrame) -> None:
    frame = scores()
    with pytest.raises(BenchError, match=r"scores lack the column region; found key, case"):
        figures.cases(frame.drop(columns="region"), "dice")
    with pytest.raises(BenchError, match="unknown metric 'dise': did you mean 'dice'"):
        figures.cases(frame, "dise")
    with pytest.raises(BenchError, match="scores for lesion_dice have no row"):
        figures.cases(frame, "lesion_dice")
    with pytest.raises(BenchError, match=r"1 values of value that are not finite, the first in .*case-0"):
        figures.cases(frame.assign(value=[np.nan, *frame["value"][1:]]), "dice")
    with pytest.raises(BenchError, match="hold nothing on WT/dice; found ET/dice"):
        figures.rank_stability(stability, taus, "WT", "dice")
    with pytest.raises(BenchError, match="unknown cost 'latency'"):
        figures.cost(pd.DataFrame(), pd.DataFrame(), "latency")  # type: ignore[arg-type]
