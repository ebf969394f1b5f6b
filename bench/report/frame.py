"""Records as one tidy DataFrame, and the groups of records that may stand in one table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bench.store import CASE_COLUMNS, Record


@dataclass(frozen=True)
class Group:
    """Records that answer the same question: same data, split, protocol and convention.

    Attributes:
        dataset: registered name.
        data_fingerprint: of the dataset's files.
        protocol: as tables print it.
        mixed: whether its records followed different protocols, which somebody must have asked for.
        convention: how empty masks are scored.
        records: finished or not, in the order of their keys.
    """

    dataset: str
    data_fingerprint: str
    protocol: str
    convention: str
    records: tuple[Record, ...]
    mixed: bool = False


def group_records(records: Iterable[Record], mix_protocols: bool = False) -> list[Group]:
    """Sort records into tables; two protocols, splits or versions of a dataset never share one.

    Runs that each followed their own authors' recipe share a table of their own. With ``mix_protocols`` all that have
    the same data, split and convention share one.

    Predictions from elsewhere join every group with the same dataset, convention and references of the test cases.
    Where there is none they form a group of their own.
    """
    runs: dict[str, list[Record]] = {}
    external = []
    for record in records:
        if not record.content:
            continue
        if record.kind == "external":
            external.append(record)
            continue
        job = record.content["job"]
        same = [
            job["dataset"],
            job["data_fingerprint"],
            job.get("card_sha256"),
            job["split_sha256"],
            _protocol_key(record, mix_protocols),
        ]
        runs.setdefault(json.dumps(same, sort_keys=True), []).append(record)
    groups = [_run_group(found) for found in runs.values()]
    joined = [_with_external(group, external) for group in groups]
    placed = {record.key for group in joined for record in group.records}
    alone: dict[str, list[Record]] = {}
    for record in external:
        if record.key not in placed:
            job = record.content["job"]
            same = [job["dataset"], job["convention"], job["references"]]
            alone.setdefault(json.dumps(same, sort_keys=True), []).append(record)
    return joined + [_external_group(found) for found in alone.values()]


def tidy(records: Sequence[Record]) -> pd.DataFrame:
    """One row per record, case and region: key, model, seed, case, region, dice, hd95 (mm), volumes (mm³), empty."""
    columns = ["key", "model", "seed", *CASE_COLUMNS]
    frames = [pd.DataFrame(columns=columns)] if not records else []
    for record in records:
        job = record.content["job"]
        frames.append(record.cases().assign(key=record.key, model=job["model"], seed=job.get("seed", -1))[columns])
    return pd.concat(frames, ignore_index=True)


def _protocol_key(record: Record, mix_protocols: bool) -> Any:
    """What two runs of one table must share of their protocols."""
    protocol = record.content["job"]["protocol"]
    if mix_protocols:
        return protocol["evaluate"]["convention"]
    if protocol.get("author_of"):
        return ["author", protocol["infer"], protocol["evaluate"]]
    return protocol


def _title(record: Record) -> str:
    """Of authors' recipes, which differ in any case, each row tells its own changes."""
    return "author" if record.content["job"]["protocol"].get("author_of") else str(record.content["protocol_title"])


def _run_group(records: list[Record]) -> Group:
    first = records[0].content
    titles = list(dict.fromkeys(_title(record) for record in records))
    return Group(
        dataset=first["job"]["dataset"],
        data_fingerprint=first["job"]["data_fingerprint"],
        protocol=" and ".join(titles),
        convention=first["job"]["protocol"]["evaluate"]["convention"],
        records=tuple(records),
        mixed=len(titles) > 1,
    )


def _external_group(records: list[Record]) -> Group:
    job = records[0].content["job"]
    return Group(job["dataset"], "", "none: predictions from elsewhere", job["convention"], tuple(records))


def _with_external(group: Group, external: list[Record]) -> Group:
    references = group.records[0].content.get("references")
    fitting = [
        record
        for record in external
        if record.content["job"]["dataset"] == group.dataset
        and record.content["job"]["convention"] == group.convention
        and record.content["job"]["references"] == references
    ]
    return replace(group, records=(*group.records, *fitting))
