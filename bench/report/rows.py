"""One row of a table for each network: means over seeds of the means over cases, and what a reader must know of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bench.protocol import show, value_of
from bench.report.costs import Costs, network_key
from bench.report.folds import Pool, folds_text
from bench.report.frame import AVERAGE, Group, cross_validated, plain, pools
from bench.report.shown import Metric
from bench.store import Record


@dataclass(frozen=True)
class Row:
    """One network of a table.

    Attributes:
        label: what the row is called.
        model: registered name, or the name given to predictions from elsewhere.
        options: its options.
        protocol: as tables print it.
        status: ``complete`` where there is at least one complete record.
        seeds: how many complete runs the numbers rest on; the folds of a seed are one.
        cases: how many test cases, each counted once.
        mean: (region, metric) to the mean over seeds of the mean over cases; fractions, and mm.
        std: the same, standard deviation over seeds; empty for one seed.
        costs: figures by name, see `bench.report.costs`.
        remarks: what a reader must know of this row.
        as_published: whether it is a complete run of ours of the network with its published options.
        folds: of a cross-validation, such as ``folds 0-3 of 5``; empty for none.
        lacks: whether it lacks cases that other rows of the cross-validation have, so that it cannot be compared.
    """

    label: str
    model: str
    options: Mapping[str, Any]
    protocol: str
    status: str
    seeds: int
    cases: int
    mean: Mapping[tuple[str, str], float]
    std: Mapping[tuple[str, str], float]
    costs: Mapping[str, float]
    remarks: tuple[str, ...]
    as_published: bool
    folds: str = ""
    lacks: bool = False


def make_rows(
    group: Group,
    labels: Mapping[str, str],
    scores: pd.DataFrame,
    metrics: Sequence[Metric],
    costs: Costs | None = None,
) -> list[Row]:
    """All rows of a group, in the order of their first records.

    Args:
        group: the records.
        labels: of `bench.report.frame.row_labels`.
        scores: of `bench.report.frame.case_scores`.
        metrics: which.
        costs: figures of networks; None for none.
    """
    names = [metric.name for metric in metrics]
    means = scores.groupby(["run", "region"], sort=False)[names].mean()
    # Over the regions of each case first, as in statistics: it matters where a score is undefined for some.
    averages = scores.groupby(["run", "case"], sort=False)[names].mean().groupby("run", sort=False).mean()
    by_run = {name: means[name].unstack("region").assign(**{AVERAGE: averages[name]}) for name in names}
    cases = scores.groupby("model")["case"].agg(set)
    compared = set(scores["case"]) if cross_validated(group) else None
    rows = []
    for label, pool in pools(group, labels).items():
        mine = set(cases.get(label, ()))
        row = _row(label, pool, by_run, len(mine), costs)
        rows.append(replace(row, lacks=compared is not None and bool(mine) and mine != compared))
    return rows


def _row(
    label: str,
    pool: Pool,
    by_run: Mapping[str, pd.DataFrame],
    cases: int,
    costs: Costs | None,
) -> Row:
    records = pool.records
    first = records[0].content
    job = first["job"]
    complete = [run[0].key for run in pool.runs]
    others = [record for record in records if record.status != "complete"]
    mean: dict[tuple[str, str], float] = {}
    std: dict[tuple[str, str], float] = {}
    for metric, frame in by_run.items() if complete else ():
        found = frame.loc[complete]
        for region, value in found.mean().items():
            if pd.notna(value):
                mean[str(region), metric] = float(value)
        if len(complete) > 1:
            std |= {(str(region), metric): float(value) for region, value in found.std(ddof=1).items()}
    figures = costs.figures.get(network_key(job["model"], job.get("model_options") or {}), {}) if costs else {}
    return Row(
        label=label,
        model=job["model"],
        options=job.get("model_options") or {},
        protocol=first.get("protocol_title", "none"),
        status="complete" if complete else others[0].status,
        seeds=len(complete),
        cases=cases,
        mean=mean,
        std=std,
        costs=figures,
        remarks=(*_remarks(records[0], others), *_folds(pool)),
        as_published=bool(complete) and records[0].kind == "run" and not _unlike_published(records[0]),
        folds=pool.text,
    )


def _remarks(record: Record, unfinished: Sequence[Record]) -> list[str]:
    remarks = []
    if changed := _unlike_published(record):
        remarks.append(f"not as published: {'; '.join(changed)}")
    job = record.content["job"]
    if tuned := record.content.get("tuned"):
        remarks.append(f"tuned on validation cases: {_tuned(job, tuned)}; {_recipe(job['protocol'])}")
    elif job.get("protocol", {}).get("author_of"):
        changes = record.content["protocol_title"].removeprefix(job["protocol"]["name"]).strip()
        remarks.append(f"recipe of its authors{' changed ' + changes if changes else ''}: {_recipe(job['protocol'])}")
    if record.kind == "external":
        remarks.append("predictions made elsewhere, scored here; not trained under this protocol")
    remarks += [str(note) for note in record.content.get("execution", {}).get("notes", ())]
    for other in unfinished:
        why = "; ".join(other.faults) or other.content.get("message", "")
        job = other.content["job"]
        fold = f", fold {job['fold']}" if "fold" in job else ""
        seed = f"seed {job.get('seed')}{fold}: " if "seed" in job else ""
        remarks.append(f"{seed}{other.status}{': ' + why.splitlines()[0] if why else ''}")
    return remarks


def _folds(pool: Pool) -> list[str]:
    """What there is of a cross-validation that is not whole."""
    told = [pool.text] if 0 < len(pool.folds) < pool.of else []
    for seed, folds in (pool.left_out or {}).items():
        told.append(f"seed {seed}: {folds_text(folds)} of {pool.of}, not counted until it has those of the other seeds")
    return told


def _unlike_published(record: Record) -> list[str]:
    """Options that are not the defaults, less those that the protocol itself asks for."""
    job, defaults = record.content["job"], record.content.get("default_options", {})
    protocol = job.get("protocol", {})
    deep = protocol.get("train", {}).get("deep_supervision")
    return [
        f"{option} {plain(value)} instead of {plain(defaults.get(option))}"
        for option, value in (job.get("model_options") or {}).items()
        if plain(value) != plain(defaults.get(option))
        and not (option == "deep_supervision" and value == deep)
        and option not in record.content.get("recipe_options", ())
    ]


def _tuned(job: Mapping[str, Any], fields: Sequence[str]) -> str:
    values = []
    for field in fields:
        section, _, name = field.partition(".")
        options = section == "model_options"
        value = job["model_options"][name.partition(".")[2]] if options else value_of(job["protocol"], field)
        values.append(f"{field} {show(value)}")
    return ", ".join(values)


def _recipe(protocol: Mapping[str, Any]) -> str:
    train, patch = protocol["train"], protocol["data"]["patch_size"]
    budget = next(f"{train[name]:,} {name}" for name in ("epochs", "steps", "gpu_seconds") if train[name] is not None)
    loss = train["loss"].replace("_", " ") + (" of regions" if value_of(protocol, "train.target") == "regions" else "")
    return (
        f"{train['optimiser']} {train['learning_rate']:g}, {loss}, {budget}, batch "
        f"{train['batch_size']}, patches of {plain(patch)}"
    )


def options_text(options: Mapping[str, Any]) -> str:
    """Options as JSON, empty where there are none."""
    return json.dumps(options) if options else ""
