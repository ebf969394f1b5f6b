"""What the differences in a table are worth: `bench.stats` on its scores, as tables."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench import stats
from bench.errors import BenchError
from bench.report.frame import cross_validated, tidy
from bench.report.sheet import Cell, Column, Sheet
from bench.report.shown import METRICS, Metric
from bench.report.table import FEW_CASES, Table

ALPHA = 0.05
CONFIDENCE = 0.95
RESAMPLES = 9999

_DIFFERENCES = ("mean_difference", "difference_low", "difference_high", "median_difference")
_ERRORS = ("standard_error_cases", "standard_error_both")
_ERROR_WITH_SEEDS = "best_minus_model_standard_error_both"

METHOD = (
    f"Intervals: {CONFIDENCE:.0%}, BCa bootstrap over cases, {RESAMPLES} resamples. p: two-sided Wilcoxon signed-rank "
    "over cases (normal approximation, no continuity correction, cases without a difference left out), corrected by "
    "Holm within one region and metric, over the comparisons with the best or over all pairs. The best was chosen on "
    "the cases that it is tested on. r: matched-pairs rank-biserial correlation, above 0 where the first is larger.",
    f"Tier 1: not distinguishable from the best at {ALPHA:g}; tier 2: likewise from the best of the rest. Rank, first "
    "places, τ: by the mean, in 1000 resamples of the cases. By seed: the ranks by the trainings of one seed alone. "
    "Average rank: over cases; CD: Nemenyi's critical difference.",
    "Scores of one case are averaged over seeds first. Intervals, p and tiers speak of other cases under the networks "
    "as they were trained, not of training them again. Where networks have several seeds, s.e. with seeds is the "
    "standard error of best − model over cases and training runs; it is rough where the seeds are few.",
)


@dataclass(frozen=True)
class Statistics:
    """Results of `bench.stats`, whose columns they have.

    Attributes:
        frame: the tidy table that they are of.
        summary: means, intervals, medians.
        pairs: all pairs of networks.
        best: each network against the best.
        tiers: who is distinguishable from whom.
        stability: of the ranking over resamples of the cases.
        by_seed: the ranking of each seed that all networks have.
        friedman: all networks at once.
        variance: between cases and between seeds.
    """

    frame: pd.DataFrame
    summary: pd.DataFrame
    pairs: pd.DataFrame
    best: pd.DataFrame
    tiers: pd.DataFrame
    stability: stats.RankStability
    by_seed: stats.SeedRanking
    friedman: stats.Friedman
    variance: pd.DataFrame


def statistics(table: Table) -> Statistics | None:
    """Everything for the regions and ranked metrics that a table shows; None where no network is complete.

    Raises:
        BenchError: the networks have different test cases, unless some have all folds of a cross-validation that any
            has: the statistics are of those then. The message names the difference.
    """
    shown = [metric for metric in table.metrics if metric.ranked]
    compared = [row.label for row in table.rows if row.seeds and not row.lacks]
    if not compared and any(row.lacks for row in table.rows):
        told = "; ".join(f"{row.label} has {row.folds or f'{row.cases} cases'}" for row in table.rows if row.seeds)
        raise BenchError(
            f"{table.group.dataset}: no network has all the folds that any has, so nothing can be compared: {told}. "
            "Run those that are missing, or choose folds that all have with --fold"
        )
    frame = tidy(table.scores[table.scores["model"].isin(compared)], shown, table.regions)
    if frame.empty:
        return None
    lower = [metric.name for metric in METRICS.values() if metric.lower_is_better]
    return Statistics(
        frame=frame,
        summary=stats.summarise(frame, CONFIDENCE, RESAMPLES),
        pairs=stats.compare(frame, CONFIDENCE, RESAMPLES),
        best=stats.against_best(frame, ALPHA, CONFIDENCE, RESAMPLES, lower_is_better=lower),
        tiers=stats.tiers(frame, ALPHA, lower),
        stability=stats.rank_stability(frame, lower_is_better=lower),
        by_seed=stats.rank_by_seed(frame, lower),
        friedman=stats.friedman(frame, ALPHA, lower),
        variance=stats.variance(frame),
    )


def first_tier(found: Statistics) -> dict[tuple[str, str], list[str]]:
    """(region, metric) to the networks that are not distinguishable from the best, itself among them."""
    first = found.tiers[found.tiers["tier"] == 1]
    return {
        (str(where[0]), str(where[1])): list(rows["model"])
        for where, rows in first.groupby(["region", "metric"])
        if len(found.tiers[(found.tiers["region"] == where[0]) & (found.tiers["metric"] == where[1])]) > 1
    }


def statistics_frame(found: Statistics) -> pd.DataFrame:
    """One row per region, metric and network, in the units of ``cases.csv``; for CSV."""
    keys = ["region", "metric", "model"]
    best = found.best.rename(columns={"model_a": "best", "model_b": "model"})
    best = best[[*keys, "best", *_DIFFERENCES, *_ERRORS, "p", "p_holm", "rank_biserial"]]
    renamed = {name: f"best_minus_model_{name}" for name in (*_DIFFERENCES, *_ERRORS)}
    return (
        found.summary.merge(best.rename(columns=renamed), on=keys, how="left")
        .merge(found.tiers[[*keys, "tier"]], on=keys, how="left")
        .merge(found.stability.models, on=keys, how="left")
        .merge(_seed_ranks(found), on=keys, how="left")
        .merge(found.friedman.ranks, on=keys, how="left")
        .merge(found.variance[[*keys, "case_variance", "seed_variance", "residual_variance"]], on=keys, how="left")
    )


def _seed_ranks(found: Statistics) -> pd.DataFrame:
    """``seed_ranks``: a network's rank on each seed that all have, such as 6, 1; without rows where they share one."""
    keys = ["region", "metric", "model"]
    ranks = found.by_seed.models
    texts = ranks.assign(seed_ranks=ranks["rank"].astype(str)).groupby(keys, sort=False)["seed_ranks"]
    return texts.agg(", ".join).reset_index()


def statistics_sheets(found: Statistics, table: Table) -> list[Sheet]:
    """For each metric and region a table of the networks, and one of all pairs; a last one for the seeds."""
    frame = statistics_frame(found)
    sheets = []
    for metric in table.metrics:
        for region in table.regions:
            rows = frame[(frame["region"] == region) & (frame["metric"] == metric.name)]
            if len(rows):
                sheets.append(_networks(found, rows, region, metric))
                if len(rows) > 2:  # of two the first table says it all
                    sheets.append(_pairs(found, rows, region, metric))
    if sheets:
        notes = (*METHOD, *_folds(table), *sheets[0].notes)
        sheets[0] = Sheet(sheets[0].title, sheets[0].columns, sheets[0].rows, notes)
    if (found.variance["seeds"] > 1).any():
        sheets.append(_seeds(found))
    return sheets


def _folds(table: Table) -> list[str]:
    if not cross_validated(table.group):
        return []
    # Bengio and Grandvalet, No unbiased estimator of the variance of k-fold cross-validation, JMLR 5, 2004.
    notes = [
        "Cross-validation: scores depend on each other through the network of their fold, and through the training "
        "cases that folds share; intervals and p values take them as independent."
    ]
    if lacking := [f"{row.label} ({row.folds or f'{row.cases} cases'})" for row in table.rows if row.lacks]:
        notes.append(
            f"Left out, since they lack folds that others have: {', '.join(lacking)}. --fold chooses folds that all "
            "have."
        )
    return notes


def _networks(found: Statistics, rows: pd.DataFrame, region: str, metric: Metric) -> Sheet:
    ranked = bool(rows["seed_ranks"].notna().all())
    retrained = bool(rows[_ERROR_WITH_SEEDS].notna().any())
    columns = (
        Column("model", numeric=False),
        Column("mean"),
        Column("interval"),
        Column("median"),
        Column("best − model"),
        Column("interval"),
        *([Column("s.e. with seeds")] if retrained else []),
        Column("p (Holm)"),
        Column("r"),
        Column("tier"),
        Column("rank"),
        *([Column("by seed")] if ranked else []),
        Column("first places"),
        Column("average rank"),
    )
    body = []
    for row in rows.sort_values(["rank", "model"]).to_dict("records"):
        leads = bool(pd.isna(row["best"]))
        body.append(
            (
                Cell(str(row["model"]), str(row["model"])),
                Cell(metric.text(row["mean"]), row["mean"], best=leads and len(rows) > 1),
                Cell(_interval(metric, row["mean_low"], row["mean_high"])),
                Cell(metric.text(row["median"]), row["median"]),
                *_against_best(row, metric, leads, retrained),
                Cell(_whole(row["tier"]), row["tier"]),
                Cell(_ranks(row), row["rank"]),
                *([Cell(str(row["seed_ranks"]))] if ranked else []),
                Cell("–" if pd.isna(row["first_share"]) else f"{row['first_share']:.0%}", row["first_share"]),
                Cell(f"{row['average_rank']:.2f}", row["average_rank"]),
            )
        )
    title = f"{region}, {metric.label}, {_whole(rows['cases'].iloc[0])} cases"
    return Sheet(title, columns, tuple(body), tuple(_together(found, region, metric)))


def _against_best(row: Mapping[Hashable, Any], metric: Metric, leads: bool, retrained: bool) -> list[Cell]:
    if leads:
        return [Cell("")] * (5 if retrained else 4)
    difference, low, high = (row[f"best_minus_model_{name}"] for name in _DIFFERENCES[:3])
    error = row[_ERROR_WITH_SEEDS]
    return [
        Cell(metric.text(difference), difference),
        Cell(_interval(metric, low, high)),
        *([Cell("–" if pd.isna(error) else metric.text(error), error)] if retrained else []),
        Cell(p_text(row["p_holm"]), row["p_holm"]),
        Cell(f"{row['rank_biserial']:+.2f}", row["rank_biserial"]),
    ]


def _together(found: Statistics, region: str, metric: Metric) -> list[str]:
    """What holds of all networks at once."""
    notes = []
    tests = found.friedman.tests
    test = tests[(tests["region"] == region) & (tests["metric"] == metric.name)].iloc[0]
    if test["reason"]:
        notes.append(f"Friedman's test: {test['reason']}.")
    else:
        rejected = "" if test["rejected"] else "; the average ranks do not differ, so CD says nothing"
        notes.append(
            f"Friedman: χ² {test['statistic']:.1f}, p {p_text(test['p'])}; CD {test['critical_difference']:.2f}"
            f"{rejected}."
        )
    if test["cases"] < FEW_CASES:
        notes.append(
            f"With {test['cases']} cases the normal approximation of Wilcoxon's test is coarse and few p values can "
            "occur: not distinguishable may mean too few cases."
        )
    taus = found.stability.tau
    tau = taus[(taus["region"] == region) & (taus["metric"] == metric.name)].iloc[0]
    if pd.notna(tau["tau_mean"]):
        notes.append(
            f"Kendall's τ of the ranking to that on resampled cases: {tau['tau_mean']:.2f} "
            f"({tau['tau_low']:.2f} to {tau['tau_high']:.2f})."
        )
    taus = found.by_seed.tau
    tau = taus[(taus["region"] == region) & (taus["metric"] == metric.name)].iloc[0]
    if pd.notna(tau["tau_mean"]):
        spread = f" ({tau['tau_low']:.2f} to {tau['tau_high']:.2f})" if tau["seeds"] > 2 else ""
        notes.append(f"Kendall's τ between the rankings of {tau['seeds']} seeds: {tau['tau_mean']:.2f}{spread}.")
    return notes


def _pairs(found: Statistics, rows: pd.DataFrame, region: str, metric: Metric) -> Sheet:
    """p of all pairs, and the effect of row over column."""
    order = list(rows.sort_values(["rank", "model"])["model"])
    pairs = found.pairs[(found.pairs["region"] == region) & (found.pairs["metric"] == metric.name)]
    stated: dict[tuple[str, str], tuple[float, float]] = {}
    for pair in pairs.to_dict("records"):
        one, two = str(pair["model_a"]), str(pair["model_b"])
        stated[one, two] = pair["p_holm"], pair["rank_biserial"]
        stated[two, one] = pair["p_holm"], -pair["rank_biserial"]
    body = []
    for one in order:
        cells = [Cell(one, one)]
        for two in order:
            if one == two:
                cells.append(Cell("–"))
                continue
            p, effect = stated[one, two]
            cells.append(Cell(f"{p_text(p)} ({effect:+.2f})", p, best=p < ALPHA))
        body.append(tuple(cells))
    title = f"{region}, {metric.label}: all pairs, p (Holm over all) and r of the row over the column"
    return Sheet(title, (Column("", numeric=False), *(Column(name) for name in order)), tuple(body))


def _seeds(found: Statistics) -> Sheet:
    columns = (
        *(Column(name, numeric=False) for name in ("region", "metric", "model")),
        Column("seeds"),
        Column("share of cases"),
        Column("share of seeds"),
        Column("share of rest"),
        Column("s.e. over cases"),
        Column("s.e. over cases and seeds"),
    )
    body = []
    for row in found.variance[found.variance["seeds"] > 1].to_dict("records"):
        metric = METRICS[str(row["metric"])]
        shares = [row[f"{part}_share"] for part in ("case", "seed", "residual")]
        errors = [row["standard_error_cases"], row["standard_error_both"]]
        body.append(
            (
                *(Cell(text, text) for text in (str(row["region"]), metric.label, str(row["model"]))),
                Cell(_whole(row["seeds"]), row["seeds"]),
                *(Cell("–" if pd.isna(share) else f"{share:.1%}", share) for share in shares),
                *(Cell("–" if pd.isna(error) else metric.text(error), error) for error in errors),
            )
        )
    note = "Variance of the scores by a two-way random-effects analysis, cases × seeds; the rest is their interaction."
    return Sheet("Cases and seeds", columns, tuple(body), (note,))


def _interval(metric: Metric, low: float, high: float) -> str:
    return "–" if np.isnan(low) or np.isnan(high) else f"{metric.text(low)} to {metric.text(high)}"


def p_text(p: float) -> str:
    """A p value as it is printed."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _ranks(row: Mapping[Hashable, Any]) -> str:
    if np.isnan(row["rank_low"]):
        return _whole(row["rank"])
    return f"{_whole(row['rank'])} ({_whole(row['rank_low'])} to {_whole(row['rank_high'])})"


def _whole(value: float) -> str:
    return f"{value:.0f}"
