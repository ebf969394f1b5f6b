"""Which records may stand in one table, and their scores as one DataFrame."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.key import key_of
from bench.metrics import apply_convention
from bench.protocol import AUTHOR
from bench.report.folds import Pool, fold_count, pool
from bench.report.shown import Metric
from bench.store import CASE_COLUMNS, Record

AVERAGE = "Avg"
LESIONWISE = "lesionwise"
# What two runs of one table share, and how a reader is told of it.
_FIELDS = "fields of the protocol"  # told only where a title does not tell them apart
_FACETS = ("dataset", "files", "split", "protocol", _FIELDS, "convention", "code")


@dataclass(frozen=True)
class Group:
    """Records that answer the same question: same data, split, protocol, convention and version of the code.

    Attributes:
        dataset: registered name.
        data_fingerprint: of the dataset's files.
        protocol: as tables print it.
        convention: how empty masks are scored.
        records: finished or not, in the order of their keys.
        facets: what its runs share, by name; where somebody asked for a mixture there may be several of each.
    """

    dataset: str
    data_fingerprint: str
    protocol: str
    convention: str
    records: tuple[Record, ...]
    facets: Mapping[str, tuple[str, ...]]

    @property
    def mixed(self) -> tuple[str, ...]:
        """Names of the facets in which its runs differ."""
        found = [name for name, values in self.facets.items() if len(values) > 1]
        return tuple(name for name in found if not (name == _FIELDS and "protocol" in found))


def group_records(records: Iterable[Record], *, allow_mixed: bool = False, convention: str = "") -> list[Group]:
    """Sort records into tables.

    Runs share one only if they agree in the files of the dataset, the split, the protocol, the convention for empty
    masks and the version of the code; the folds of a cross-validation are one split. Runs that each
    followed their own authors' recipe share a table of their own, and so do those that one search has tuned. With
    ``allow_mixed`` all runs on one dataset share one. A ``convention`` that is asked for holds for all.

    Predictions from elsewhere join every group with the same dataset, convention and references of the test cases.
    Where there is none they form a group of their own.
    """
    runs: dict[str, list[Record]] = {}
    external = []
    for record in records:
        if not record.content or record.kind == "profile":
            continue
        if record.kind == "external":
            external.append(record)
            continue
        same = _key(record, convention)
        if allow_mixed:
            same = {"dataset": same["dataset"]}
        runs.setdefault(json.dumps(same, sort_keys=True), []).append(record)
    groups = [_run_group(found, external, convention) for found in runs.values()]
    placed = {record.key for group in groups for record in group.records}
    alone: dict[str, list[Record]] = {}
    for record in external:
        if record.key not in placed:
            job = record.content["job"]
            alike = [job["dataset"], convention or job["convention"], job["references"]]
            alone.setdefault(json.dumps(alike, sort_keys=True), []).append(record)
    return groups + [_external_group(found, convention) for found in alone.values()]


def differences(groups: Sequence[Group]) -> list[str]:
    """In what the runs of several tables differ, a line for each facet."""
    by_dataset: dict[str, list[Group]] = {}
    for group in groups:
        by_dataset.setdefault(group.dataset, []).append(group)
    lines = []
    for dataset, found in by_dataset.items():
        runs = [group for group in found if group.facets]
        for name in distinct_facets(runs):
            values = dict.fromkeys(" and ".join(group.facets[name]) for group in runs)
            lines.append(f"{dataset}: {name} {' | '.join(values)}")
    return lines


def distinct_facets(groups: Sequence[Group]) -> list[str]:
    """Names of the facets in which groups of runs differ."""
    runs = [group for group in groups if group.facets]
    found = [name for name in _FACETS if len({group.facets[name] for group in runs}) > 1]
    return [name for name in found if not (name == _FIELDS and "protocol" in found)]


def row_labels(group: Group) -> dict[str, str]:
    """What each record's row is called, by key: its model, and what tells it from other rows of that model.

    Seeds and folds of one network share a row; of predictions from elsewhere each set is a row of its own.
    """
    rows: dict[str, dict[str, Record]] = {}
    row_of = {}
    for record in group.records:
        row = _row(record)
        row_of[record.key] = row
        rows.setdefault(record.content["job"]["model"], {}).setdefault(row, record)
    labels = {}
    for model, alike in rows.items():
        told = _told_apart(alike)
        repeated = Counter(told.values())
        for row, text in told.items():
            suffix = ", ".join([*([text] if text else []), *([alike[row].key[:6]] if repeated[text] > 1 else [])])
            labels[row] = f"{model} ({suffix})" if suffix else model
    return {key: labels[row] for key, row in row_of.items()}


def case_scores(group: Group, labels: Mapping[str, str]) -> pd.DataFrame:
    """Scores of the complete records that count, see `bench.report.folds.pool`, under the group's convention.

    Returns:
        One row per record, case and region: key, run (the key of the first record of the seed, of which there are
        several in a cross-validation), model (the row's label), seed, then `CASE_COLUMNS`, scores as fractions,
        distances in mm, volumes in mm³. Under the convention ``lesionwise`` dice and hd95 are lesion-wise.

    Raises:
        BenchError: lesion-wise scores are asked for and a record has none, or two folds tested the same case.
    """
    columns = ["key", "run", "model", "seed", *CASE_COLUMNS]
    run_of = {record.key: run[0].key for found in pools(group, labels).values() for run in found.runs for record in run}
    frames = []
    for record in group.records:
        if record.key not in run_of:
            continue
        seed = record.content["job"].get("seed", 0)
        cases = record.cases()
        if group.convention == LESIONWISE and cases[["lesion_dice", "lesion_hd95"]].isna().any(axis=None):
            raise BenchError(
                f"{record.folder} holds no lesion-wise scores: it is older than they are, or its dataset has no "
                "settings for them. Choose other records with --model, or another --convention"
            )
        frames.append(cases.assign(key=record.key, model=labels[record.key], seed=seed))
    if not frames:
        return pd.DataFrame(columns=columns)
    scores = pd.concat(frames, ignore_index=True)
    several = len(set(run_of.values())) < len(run_of)
    scores = scores.assign(run=scores["key"].map(run_of) if several else scores["key"])[columns]
    if several:
        _check_folds(scores)
    if group.convention == LESIONWISE:
        return scores.assign(dice=scores["lesion_dice"], hd95=scores["lesion_hd95"])
    if group.convention:
        return apply_convention(scores, group.convention)
    return scores  # several conventions, each row under its own


def pools(group: Group, labels: Mapping[str, str]) -> dict[str, Pool]:
    """What each row rests on, by its label, in the order of the rows' first records."""
    by_row: dict[str, list[Record]] = {}
    for record in group.records:
        by_row.setdefault(labels[record.key], []).append(record)
    return {label: pool(records) for label, records in by_row.items()}


def cross_validated(group: Group) -> bool:
    """Whether all of its runs are folds of one cross-validation."""
    runs = [record for record in group.records if record.kind == "run"]
    return bool(runs) and all(map(fold_count, runs)) and len(group.facets["split"]) == 1


def _check_folds(scores: pd.DataFrame) -> None:
    """A record with a case twice is damaged; two records of one run with a case are of different divisions."""
    tested = scores[["run", "case", "key"]].drop_duplicates()
    double = tested[tested.duplicated(["run", "case"], keep=False)]
    if len(double):
        (_, case), found = next(iter(double.groupby(["run", "case"])))
        raise BenchError(
            f"the records {' and '.join(found['key'])} tested {case} (cases like it: {double['case'].nunique()}); "
            "expected folds of one cross-validation, which have no case in common. `bench verify` tells which records "
            "are wrong: move them to another folder"
        )


def challenge(group: Group) -> str:
    """By whose settings the lesions of a group were scored one by one.

    Raises:
        BenchError: some by one, some by another, or not at all.
    """
    found: dict[str, str] = {}
    for record in group.records:
        if record.status == "complete":
            card = record.content.get("data", {}).get("card") or {}
            stated = record.content["job"].get("lesionwise") if record.kind == "external" else card.get("lesionwise")
            found.setdefault(str(stated or "none"), record.content["job"]["model"])
    if len(found) > 1:
        told = ", ".join(f"{name} ({model})" for name, model in found.items())
        raise BenchError(
            f"{group.dataset}: lesions were scored under different settings: {told}; expected one. Choose networks "
            "with --model, or score the predictions again with --challenge"
        )
    return next(iter(found), "none")


def tidy(scores: pd.DataFrame, metrics: Sequence[Metric], regions: Sequence[str] | None = None) -> pd.DataFrame:
    """Scores in long form, for statistics and figures.

    Args:
        scores: of `case_scores`.
        metrics: which.
        regions: which, `AVERAGE` among them for the mean over all regions of the dataset; None for all.

    Returns:
        case, model, seed, region, metric, value, key, and empty (an `EmptyState`; "neither" for the average); a row
        each. What is undefined for a case because only its reference holds nothing of the region is left out.
    """
    names = [metric.name for metric in metrics]
    identity = ["key", "model", "seed", "case"]
    average = scores.groupby(identity, sort=False)[names].mean().reset_index().assign(region=AVERAGE, empty="neither")
    wide = pd.concat([scores[[*identity, "region", "empty", *names]], average], ignore_index=True)
    if regions is not None:
        wide = wide[wide["region"].isin(list(regions))]
    long = wide.melt([*identity, "region", "empty"], names, var_name="metric", value_name="value")
    return long.dropna(subset=["value"]).reset_index(drop=True)


def _row(record: Record) -> str:
    job = record.content["job"]
    if record.kind == "external":
        return record.key
    # With what tables keep apart: on request those stand in one, and seeds of different cases are no seeds of one row.
    return json.dumps([job["model"], job.get("model_options"), job["protocol"], _key(record, "")], sort_keys=True)


def _told_apart(rows: Mapping[str, Record]) -> dict[str, str]:
    """In what each row of one model differs from the others."""
    runs = {row: record for row, record in rows.items() if record.kind != "external"}
    aspects: dict[str, dict[str, str]] = {row: {} for row in rows}
    for row, record in runs.items() if len(rows) > 1 else ():
        job, facets = record.content["job"], _facets(record, "")
        options = {f"{name}=": plain(value) for name, value in (job.get("model_options") or {}).items()}
        places = {f"{name} ": facets[name] for name in ("files", "split", "code")}
        aspects[row] = options | {"": str(record.content["protocol_title"])} | places
    names = dict.fromkeys(name for found in aspects.values() for name in found)
    apart = [name for name in names if len({aspects[row].get(name) for row in runs}) > 1]
    return {row: ", ".join(f"{name}{found[name]}" for name in apart if name in found) for row, found in aspects.items()}


def plain(value: Any) -> str:
    """An option's value as it is typed: a list with commas."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _key(record: Record, convention: str) -> dict[str, Any]:
    """What two runs of one table must share."""
    job = record.content["job"]
    protocol = dict(job["protocol"])
    evaluate = dict(protocol["evaluate"])
    if convention:
        evaluate.pop("convention")
    folds = fold_count(record)
    if protocol.get("author_of"):  # recipes differ; how they are tested must not, nor how they were tuned
        dealt = {"split": protocol["split"]} if folds else {}
        protocol = {"author": protocol_title(record, convention), "infer": protocol["infer"], **dealt}
    return {
        "dataset": job["dataset"],
        "files": [job["data_fingerprint"], job.get("card_sha256")],
        "split": [folds, job["protocol"]["split"]["seed"]] if folds else job["split_sha256"],
        "protocol": {**protocol, "evaluate": evaluate},
        "code": code_version(record),
    }


def code_version(record: Record) -> str:
    """Commit of the code that finished a record, or its release where it ran without a checkout."""
    return record.code


def _facets(record: Record, convention: str) -> dict[str, str]:
    """As `_key`, in words."""
    job, folds = record.content["job"], fold_count(record)
    return {
        "dataset": job["dataset"],
        "files": job["data_fingerprint"][:12] + (f", card {job['card_sha256'][:6]}" if job.get("card_sha256") else ""),
        "split": f"{folds} folds, seed {job['protocol']['split']['seed']}" if folds else job["split_sha256"][:12],
        "protocol": protocol_title(record, convention),
        _FIELDS: key_of(_key(record, convention)["protocol"])[:8],
        "convention": convention or job["protocol"]["evaluate"]["convention"],
        "code": code_version(record),
    }


def protocol_title(record: Record, convention: str = "") -> str:
    """As tables print it; a ``convention`` that was asked for takes the place of the protocol's own.

    Of authors' recipes, which differ in any case, each row tells its own changes. Networks that a search has tuned
    share all but the fields that it searched.
    """
    protocol = record.content["job"]["protocol"]
    if protocol.get("author_of") and protocol["name"] == AUTHOR:
        return AUTHOR
    title = str(record.content["protocol_title"])
    if convention:
        title = re.sub(r"evaluate\.convention=\w+(, )?", "", title).replace(", )", ")").replace(" ()", "")
    return title


def _run_group(records: list[Record], external: Sequence[Record], convention: str) -> Group:
    told = [_facets(record, convention) for record in records]
    facets = {name: tuple(dict.fromkeys(facet[name] for facet in told)) for name in _FACETS}
    conventions = facets["convention"]
    references = records[0].content.get("references")
    if all(map(fold_count, records)):  # together they test every case
        references = {case: held for record in records for case, held in record.content.get("references", {}).items()}
    fitting = [
        record
        for record in external
        if record.content["job"]["dataset"] == told[0]["dataset"]
        and (convention or record.content["job"]["convention"] in conventions)
        and record.content["job"]["references"] == references
    ]
    return Group(
        dataset=told[0]["dataset"],
        data_fingerprint=records[0].content["job"]["data_fingerprint"] if len(facets["files"]) == 1 else "",
        protocol=" and ".join(facets["protocol"]),
        convention=conventions[0] if len(conventions) == 1 else "",
        records=(*records, *fitting),
        facets=facets,
    )


def _external_group(records: list[Record], convention: str) -> Group:
    job = records[0].content["job"]
    return Group(
        dataset=job["dataset"],
        data_fingerprint="",
        protocol="none: predictions from elsewhere",
        convention=convention or job["convention"],
        records=tuple(records),
        facets={},
    )
