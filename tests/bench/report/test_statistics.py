"""What a table says its differences are worth, against scipy and statsmodels on the records' own cases."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from bench import stats
from bench.job import Job
from bench.metrics import RegionMeasurement
from bench.report.frame import AVERAGE, group_records
from bench.report.render import render_sheet
from bench.report.sheet import Sheet
from bench.report.statistics import METHOD, Statistics, first_tier, statistics, statistics_frame, statistics_sheets
from bench.report.table import ALIKE, Table, make_table, table_sheet
from bench.store import Record, Store

REGIONS = {"WT": [1, 2, 3], "ET": [3]}
CASES = 20
RESAMPLES = 299
# Of the mean Dice; segresnet is not told apart from segmamba, the others are.
GAINS = {"segmamba": 0.001, "segresnet": 0.0, "unetr": -0.1, "swinunetr": -0.2}


def _write(root: Path, job: Job, gain: float) -> Record:
    cases, own = np.random.default_rng(7), np.random.default_rng([*job.model.encode(), job.seed])
    measured = {
        case: [
            RegionMeasurement(
                region,
                float(np.clip(cases.uniform(0.6, 0.8) + gain + own.normal(0, 0.02), 0, 1)),
                float(cases.uniform(5, 9) - 20 * gain + own.normal(0, 0.5)),
                *(1.0, 1.0, "neither"),
                volume_error=0.1,
            )
            for region in REGIONS
        ]
        for case in job.split.test
    }
    record = Store(root).open_run(job, data={"regions": REGIONS})
    record.write_cases(measured)
    return record.finish("complete")


@pytest.fixture
def compared(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Table, Statistics]]:
    """The table of these models' seeds, and its statistics, with fewer resamples."""
    monkeypatch.setattr("bench.report.statistics.RESAMPLES", RESAMPLES)
    # statsmodels collects garbage in every correction, which takes longer the more tests there were before.
    monkeypatch.setattr(gc, "collect", lambda *_: 0)

    def make(gains: Mapping[str, float], seeds: tuple[int, ...] = (0,)) -> tuple[Table, Statistics]:
        for model, gain in gains.items():
            for seed in seeds:
                _write(tmp_path, make_job(model=model, seed=seed, cases=CASES), gain)
        (group,) = group_records(Store(tmp_path).records())
        table = make_table(group)
        found = statistics(table)
        assert found is not None
        return table, found

    return make


def _values(table: Table, model: str, region: str, metric: str) -> np.ndarray:
    """(cases,) as the record's own table of cases has them."""
    frames = [
        record.cases() for record in table.group.records if record.content["job"]["model"] == model
    ]  # of one seed each
    cases = pd.concat(frames)
    if region != AVERAGE:
        cases = cases[cases["region"] == region]
    return cases.groupby("case")[metric].mean().sort_index().to_numpy()


def _cells(sheet: Sheet, name: str) -> dict[str, str]:
    at = [column.label for column in sheet.columns].index(name)
    return {row[0].text: row[at].text for row in sheet.rows}


def test_tests_intervals_and_effects_are_scipys(compared: Callable) -> None:
    table, found = compared(GAINS)
    for metric in ("dice", "hd95"):
        for region in (*REGIONS, AVERAGE):
            _compare_with_scipy(table, found, region, metric)


def _compare_with_scipy(table: Table, found: Statistics, region: str, metric: str) -> None:
    frame = statistics_frame(found).set_index(["region", "metric", "model"])
    values = {model: _values(table, model, region, metric) for model in GAINS}
    choose = min if metric == "hd95" else max
    best = choose(values, key=lambda model: values[model].mean())
    others = [model for model in values if model != best]
    p = []
    for model in others:
        difference = values[best] - values[model]
        p.append(scipy_stats.wilcoxon(difference, correction=False, method="approx").pvalue)
        ranks = scipy_stats.rankdata(np.abs(difference))
        effect = (ranks[difference > 0].sum() - ranks[difference < 0].sum()) / ranks.sum()
        row = frame.loc[(region, metric, model)]
        assert row["best"] == best
        assert row["p"] == pytest.approx(p[-1], rel=1e-6)
        assert row["rank_biserial"] == pytest.approx(effect, abs=1e-9)
        assert row["best_minus_model_mean_difference"] == pytest.approx(difference.mean(), abs=1e-9)
    holm = dict(zip(others, multipletests(p, method="holm")[1], strict=True))
    (sheet,) = [one for one in statistics_sheets(found, table) if one.title == _title(region, metric)]
    for model in others:
        assert frame.loc[(region, metric, model), "p_holm"] == pytest.approx(holm[model], rel=1e-6)
        printed = _cells(sheet, "p (Holm)")[model]
        assert printed == ("<0.001" if holm[model] < 0.001 else f"{holm[model]:.3f}")
    assert _cells(sheet, "p (Holm)")[best] == ""
    for model, of_model in values.items():
        interval = scipy_stats.bootstrap(
            (of_model,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(0)
        ).confidence_interval
        row = frame.loc[(region, metric, model)]
        assert row["mean_low"] == pytest.approx(interval.low, rel=1e-6)
        assert row["mean_high"] == pytest.approx(interval.high, rel=1e-6)
        scale = 100 if metric == "dice" else 1
        assert f"{scale * interval.low:.2f} to {scale * interval.high:.2f}" in render_sheet(sheet, "text")


def _title(region: str, metric: str) -> str:
    return f"{region}, {'Dice %' if metric == 'dice' else 'HD95 mm'}, {CASES} cases"


def test_all_pairs_state_p_of_all_and_the_effect_of_the_row_over_the_column(compared: Callable) -> None:
    table, found = compared(GAINS)
    (sheet,) = [one for one in statistics_sheets(found, table) if one.title.startswith("WT, Dice %: all pairs")]
    names = [row[0].text for row in sheet.rows]
    assert [column.label for column in sheet.columns[1:]] == names
    pairs = [(one, two) for n, one in enumerate(names) for two in names[n + 1 :]]
    values = {model: _values(table, model, "WT", "dice") for model in names}
    p = [
        scipy_stats.wilcoxon(values[one] - values[two], correction=False, method="approx").pvalue for one, two in pairs
    ]
    for (one, two), holm in zip(pairs, multipletests(p, method="holm")[1], strict=True):
        for row, column, larger in ((one, two, values[one] - values[two]), (two, one, values[two] - values[one])):
            ranks = scipy_stats.rankdata(np.abs(larger))
            effect = (ranks[larger > 0].sum() - ranks[larger < 0].sum()) / ranks.sum()
            cell = sheet.rows[names.index(row)][1 + names.index(column)]
            assert cell.text == f"{'<0.001' if holm < 0.001 else f'{holm:.3f}'} ({effect:+.2f})"
            assert cell.best == (holm < 0.05)


def test_all_that_cases_do_not_tell_from_the_best_are_marked_the_best_among_them(compared: Callable) -> None:
    table, found = compared(GAINS)
    alike = first_tier(found)
    sheet = table_sheet(table, alike)
    assert sheet.notes[0].startswith(f"{ALIKE} not distinguishable")
    heads = [column.label for column in sheet.columns]
    for region, metric, head in (("WT", "dice", "WT Dice %"), (AVERAGE, "hd95", "Avg HD95 mm")):
        assert set(alike[region, metric]) == {"segmamba", "segresnet"}
        marks = {row[0].value: row[heads.index(head)].mark for row in sheet.rows}
        assert marks == {"segmamba": ALIKE, "segresnet": ALIKE, "unetr": "", "swinunetr": ""}
    assert not any(cell.mark for row in table_sheet(table).rows for cell in row)


def test_the_csv_holds_the_numbers_of_bench_stats(compared: Callable) -> None:
    table, found = compared(GAINS, (0, 1))
    tidy = pd.DataFrame(
        [
            {
                "case": case,
                "model": record.content["job"]["model"],
                "seed": record.content["job"]["seed"],
                "region": region,
                "metric": metric,
                "value": rows[metric].mean(),
            }
            for record in table.group.records
            for case, of_case in record.cases().groupby("case")
            for region in (*REGIONS, AVERAGE)
            for rows in [of_case if region == AVERAGE else of_case[of_case["region"] == region]]
            for metric in ("dice", "hd95")
        ]
    )
    keys = ["region", "metric", "model"]
    frame = statistics_frame(found)
    assert len(frame) == len(frame[keys].drop_duplicates()) == 3 * 2 * len(GAINS)
    frame = frame.set_index(keys).sort_index()
    expected = {
        "mean mean_low mean_high median std seed_std seeds cases": stats.summarise(tidy, resamples=RESAMPLES),
        "tier rank": stats.tiers(tidy),
        "first_share rank_low rank_high": stats.rank_stability(tidy).models,
        "average_rank": stats.friedman(tidy).ranks,
        "case_variance seed_variance residual_variance": stats.variance(tidy),
        "seed_ranks": _listed(stats.rank_by_seed(tidy).models, keys),
    }
    for columns, of_stats in expected.items():
        wanted = of_stats.set_index(keys).sort_index()[columns.split()]
        pd.testing.assert_frame_equal(frame[columns.split()], wanted, check_dtype=False)
    best = (
        stats.against_best(tidy, resamples=RESAMPLES).rename(columns={"model_b": "model"}).set_index(keys).sort_index()
    )
    others = frame[frame["best"].notna()]
    assert len(others) == len(best) == 3 * 2 * (len(GAINS) - 1)
    same = ("best_minus_model_difference_low", "best_minus_model_standard_error_both")
    for ours, theirs in (("p_holm", "p_holm"), ("best", "model_a"), *((name, name) for name in same)):
        wanted = best[theirs.removeprefix("best_minus_model_")]
        pd.testing.assert_series_equal(others[ours], wanted, check_names=False)


def _listed(ranks: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    wide = ranks.pivot(index=keys, columns="seed", values="rank")
    return (wide["0"].astype(str) + ", " + wide["1"].astype(str)).rename("seed_ranks").reset_index()


def test_seeds_are_spoken_of_only_where_there_are_several(compared: Callable) -> None:
    two = {name: GAINS[name] for name in ("segmamba", "unetr")}
    table, found = compared(two)
    sheets = statistics_sheets(found, table)
    assert all(sheet.title != "Cases and seeds" for sheet in sheets)
    assert not any("all pairs" in sheet.title for sheet in sheets)  # of two the first table says it all
    assert [sheet.notes[: len(METHOD)] == METHOD for sheet in sheets] == [True] + [False] * (len(sheets) - 1)
    assert not any(column.label in ("by seed", "s.e. with seeds") for sheet in sheets for column in sheet.columns)
    assert not any("between the rankings" in note for sheet in sheets for note in sheet.notes)
    table, found = compared(two, (0, 1))
    *networks, last = statistics_sheets(found, table)
    assert [_cells(sheet, "by seed") for sheet in networks] == [{"segmamba": "1, 1", "unetr": "2, 2"}] * 6
    best = stats.against_best(found.frame, resamples=RESAMPLES, lower_is_better=["hd95"])
    errors = best.set_index(["region", "metric"])["standard_error_both"]
    for sheet in networks:
        assert "Kendall's τ between the rankings of 2 seeds: 1.00." in sheet.notes
        region, label = sheet.title.split(", ")[:2]
        scale, metric = (100, "dice") if label == "Dice %" else (1, "hd95")
        told = f"{scale * errors[region, metric]:.2f}"
        assert _cells(sheet, "s.e. with seeds") == {"segmamba": "", "unetr": told}
    assert last.title == "Cases and seeds"
    variance = stats.variance(found.frame).set_index(["region", "metric", "model"])
    assert len(last.rows) == 3 * 2 * 2
    for row in last.rows:
        region, label, model, seeds, share = (cell.text for cell in row[:5])
        metric = "dice" if label == "Dice %" else "hd95"
        assert seeds == "2"
        assert share == f"{variance.loc[(region, metric, model), 'case_share']:.1%}"
    lacking = found.frame[(found.frame["model"] == "segmamba") | (found.frame["seed"] == 0)]
    assert set(lacking["model"]) == set(two)
    apart = replace(
        found,
        best=stats.against_best(lacking, resamples=RESAMPLES, lower_is_better=["hd95"]),
        by_seed=stats.rank_by_seed(lacking, ["hd95"]),
    )
    heads = [column.label for column in statistics_sheets(apart, table)[0].columns]
    assert not {"by seed", "s.e. with seeds"} & set(heads)
    table, found = compared(two, (0, 1, 2))
    (note,) = [note for note in statistics_sheets(found, table)[0].notes if "between the rankings" in note]
    assert note == "Kendall's τ between the rankings of 3 seeds: 1.00 (1.00 to 1.00)."


def test_a_network_alone_has_intervals_and_no_tests(compared: Callable) -> None:
    table, found = compared({"segmamba": 0.0})
    assert first_tier(found) == {}
    assert found.pairs.empty
    frame = statistics_frame(found)
    assert frame[["p", "p_holm", "best", "rank_biserial"]].isna().all(axis=None)
    assert (frame["mean_low"] < frame["mean_high"]).all()
    sheets = statistics_sheets(found, table)
    assert [sheet.title for sheet in sheets] == [_title(r, m) for m in ("dice", "hd95") for r in (*REGIONS, AVERAGE)]
    for sheet in sheets:
        assert set(_cells(sheet, "p (Holm)").values()) == {""}
        assert not any(cell.best or cell.mark for row in sheet.rows for cell in row)
        assert " to " in sheet.rows[0][2].text


def test_of_nothing_complete_there_are_no_statistics(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    Store(tmp_path).open_run(make_job()).finish("oom", message="CUDA out of memory")
    (group,) = group_records(Store(tmp_path).records())
    assert statistics(make_table(group)) is None
