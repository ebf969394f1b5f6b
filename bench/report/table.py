"""The table: rows models, columns regions and their average, Dice and HD95, with what a reader must know under it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from tabulate import tabulate

from bench.metrics.conventions import convention
from bench.report.frame import Group, tidy
from bench.store import Record

Format = Literal["text", "markdown", "csv", "latex"]
AVERAGE = "Avg"
METRICS = ("dice", "hd95")
_TABULATE = {"text": "simple", "markdown": "github", "latex": "latex_booktabs"}
_HEADERS = {"dice": "Dice %", "hd95": "HD95 mm"}


@dataclass(frozen=True)
class Row:
    """One model of a table.

    Attributes:
        model: registered name, or the name given to predictions from elsewhere.
        options: what differs from the model's defaults.
        protocol: as tables print it.
        status: ``complete`` where there is at least one complete seed.
        seeds: how many complete runs the numbers rest on.
        cases: how many test cases.
        mean: (region, metric) to the mean over seeds of the mean over cases; Dice in 0..1, HD95 in mm.
        std: the same, standard deviation over seeds; empty for one seed.
        remarks: what a reader must know of this row.
    """

    model: str
    options: Mapping[str, Any]
    protocol: str
    status: str
    seeds: int
    cases: int
    mean: Mapping[tuple[str, str], float]
    std: Mapping[tuple[str, str], float]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table and its footer.

    Attributes:
        group: the records it rests on.
        regions: in the dataset's order, the average last.
        rows: best average Dice first, failures last.
        footer: lines under the table.
    """

    group: Group
    regions: tuple[str, ...]
    rows: tuple[Row, ...]
    footer: tuple[str, ...]


def make_table(group: Group) -> Table:
    """Aggregate one group of records."""
    frame = tidy([record for record in group.records if record.status == "complete"])
    scores = pd.DataFrame(frame.groupby(["key", "region"])[list(METRICS)].mean().unstack("region"))
    cases = frame.groupby("key")["case"].nunique()
    regions = list(frame["region"].unique()) or list(group.records[0].content.get("data", {}).get("regions", {}))
    by_row: dict[str, list[Record]] = {}
    for record in group.records:
        job = record.content["job"]
        # Seeds of one network share a row; of predictions from elsewhere each set is a row of its own.
        same = [job["model"], job.get("model_options"), job.get("protocol")]
        row = record.key if record.kind == "external" else json.dumps(same, sort_keys=True)
        by_row.setdefault(row, []).append(record)
    rows = [_row(records, scores, cases) for records in by_row.values()]
    rows.sort(key=lambda row: (not row.seeds, -row.mean.get((AVERAGE, "dice"), 0.0), row.model))
    return Table(group, (*regions, AVERAGE), tuple(rows), tuple(_footer(group, rows, frame)))


def render(tables: Sequence[Table], how: Format) -> str:
    """Tables as text. Dice in percent as in the SegMamba paper's Table 1, except in CSV, which has full precision."""
    if how == "csv":
        buffer = io.StringIO()
        pd.concat([_csv_frame(table) for table in tables], ignore_index=True).to_csv(buffer, index=False)
        return buffer.getvalue()
    return "\n\n".join(_render_one(table, how) for table in tables) + "\n"


def _row(records: Sequence[Record], scores: pd.DataFrame, cases: pd.Series[int]) -> Row:
    job = records[0].content["job"]
    complete = [record.key for record in records if record.status == "complete"]
    others = [record for record in records if record.status != "complete"]
    mean: dict[tuple[str, str], float] = {}
    std: dict[tuple[str, str], float] = {}
    for metric in METRICS if complete else ():
        by_seed = pd.DataFrame(scores.loc[complete, metric])
        by_seed[AVERAGE] = by_seed.mean(axis=1)
        for region in by_seed.columns:
            mean[region, metric] = float(by_seed[region].mean())
            if len(complete) > 1:
                std[region, metric] = float(by_seed[region].std(ddof=1))
    return Row(
        model=job["model"],
        options=job.get("model_options") or {},
        protocol=records[0].content.get("protocol_title", "none"),
        status="complete" if complete else others[0].status,
        seeds=len(complete),
        cases=int(cases.loc[complete].max()) if complete else 0,
        mean=mean,
        std=std,
        remarks=tuple(_remarks(records[0], others)),
    )


def _remarks(record: Record, unfinished: Sequence[Record]) -> list[str]:
    remarks = []
    job = record.content["job"]
    defaults = record.content.get("default_options", {})
    changed = {o: v for o, v in (job.get("model_options") or {}).items() if _plain(v) != _plain(defaults.get(o))}
    if changed:
        told = [
            f"{option} {_plain(value)} instead of {_plain(defaults.get(option))}" for option, value in changed.items()
        ]
        remarks.append(f"not as published: {'; '.join(told)}")
    if job.get("protocol", {}).get("author_of"):
        changes = record.content["protocol_title"].removeprefix(job["protocol"]["name"]).strip()
        remarks.append(f"recipe of its authors{' changed ' + changes if changes else ''}: {_recipe(job['protocol'])}")
    if record.kind == "external":
        remarks.append("predictions made elsewhere, scored here; not trained under this protocol")
    for other in unfinished:
        why = "; ".join(other.faults) or other.content.get("message", "")
        seed = f"seed {other.content['job'].get('seed')}: " if "seed" in other.content["job"] else ""
        remarks.append(f"{seed}{other.status}{': ' + why.splitlines()[0] if why else ''}")
    return remarks


def _footer(group: Group, rows: Sequence[Row], frame: pd.DataFrame) -> list[str]:
    facts = group.records[0].content.get("data", {})
    lines = []
    if len(frame):
        one = frame[frame["key"] == frame["key"].iloc[0]]
        absent = one[one["empty"].isin(["reference", "both"])].groupby("region").size()
        told = ", ".join(f"{region} in {count}" for region, count in absent.items()) or "no region in any"
        lines.append(f"{one['case'].nunique()} test cases; absent from the reference: {told}.")
    synthetic = " Synthetic data: nothing here is a statement on patients." if facts.get("synthetic") else ""
    files = f", files {group.data_fingerprint[:12]}" if group.data_fingerprint else ""
    lines.append(f"Dataset: {group.dataset}{files}.{synthetic}")
    told = group.records[0].content.get("protocol_description", "")
    if group.mixed:
        lines.append(
            f"Different protocols side by side: {group.protocol}. Differences between rows are theirs as well."
        )
    else:
        lines.append(f"Protocol: {group.protocol}{': ' + told if told else ''}.")
    rule = convention(group.convention)
    lines.append(f"Empty masks, convention {rule.name}: {rule.title}.")
    found = [record.content.get("untrained", {}) for record in group.records]
    untrained = [scores["mean_dice"] for scores in found if "mean_dice" in scores]
    if untrained:
        lines.append(f"Untrained networks reach at most {100 * max(untrained):.2f} % average Dice.")
    for row in rows:
        lines += [f"{row.model}: {remark}" for remark in row.remarks]
    return lines


def _recipe(protocol: Mapping[str, Any]) -> str:
    train, patch = protocol["train"], protocol["data"]["patch_size"]
    budget = next(f"{train[name]:,} {name}" for name in ("epochs", "steps", "gpu_seconds") if train[name] is not None)
    return (
        f"{train['optimiser']} {train['learning_rate']:g}, {train['loss'].replace('_', ' ')}, {budget}, batch "
        f"{train['batch_size']}, patches of {_plain(patch)}"
    )


def _plain(value: Any) -> str:
    return ",".join(str(item) for item in value) if isinstance(value, (list, tuple)) else str(value)


def _render_one(table: Table, how: Format) -> str:
    headers = [
        "model",
        *(["protocol"] if table.group.mixed else []),
        *(f"{region} {_HEADERS[m]}" for region in table.regions for m in METRICS),
        "cases",
        "seeds",
    ]
    body = [
        [
            row.model + ("*" if row.remarks else ""),
            *([row.protocol] if table.group.mixed else []),
            *(_cell(row, region, metric) for region in table.regions for metric in METRICS),
            row.cases or "",
            row.seeds or "",
        ]
        for row in table.rows
    ]
    aligned = tuple("left" if header in ("model", "protocol") else "right" for header in headers)
    printed = tabulate(body, headers, tablefmt=_TABULATE[how], colalign=aligned, disable_numparse=True)
    if how == "latex":
        return printed + "\n" + "\n".join(f"% {line}" for line in table.footer)
    if how == "markdown":
        return printed + "\n\n" + "\n".join(f"- {line}" for line in table.footer)
    return printed + "\n\n" + "\n".join(table.footer)


def _cell(row: Row, region: str, metric: str) -> str:
    if (region, metric) not in row.mean:
        return row.status
    scale = 100 if metric == "dice" else 1
    text = f"{scale * row.mean[region, metric]:.2f}"
    return f"{text} ± {scale * row.std[region, metric]:.2f}" if row.std else text


def _csv_frame(table: Table) -> pd.DataFrame:
    rows = []
    for row in table.rows:
        cells = {
            f"{region}_{metric}{suffix}": values[region, metric]
            for suffix, values in (("", row.mean), ("_std", row.std))
            for region in table.regions
            for metric in METRICS
            if (region, metric) in values
        }
        rows.append(
            {
                "model": row.model,
                "model_options": json.dumps(row.options) if row.options else "",
                "dataset": table.group.dataset,
                "data_fingerprint": table.group.data_fingerprint,
                "protocol": row.protocol,
                "convention": table.group.convention,
                "status": row.status,
                "seeds": row.seeds,
                "cases": row.cases,
                **cells,
                "remarks": "; ".join(row.remarks),
            }
        )
    return pd.DataFrame(rows)
