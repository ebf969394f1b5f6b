"""From a results folder and a request to tables: which records, in which groups, under which convention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError, unknown
from bench.metrics import CONVENTIONS
from bench.protocol import fits, wanted_values
from bench.report.costs import costs, network_key
from bench.report.frame import LESIONWISE, differences, group_records
from bench.report.published import segmamba_table1
from bench.report.settings import is_profile
from bench.report.table import Choice, Table, make_table
from bench.store import Record, Store, describe


@dataclass(frozen=True)
class Request:
    """What somebody wants to see; what is empty lets all pass.

    Attributes:
        results: folder of records.
        models, dataset, protocol, seeds, folds: of the records.
        changes: ``FIELD=VALUE`` that their protocols have.
        convention: what empty masks score, or ``lesionwise``; empty for each protocol's own.
        choice: metrics, regions, order.
        published: whether the SegMamba paper's Table 1 stands in a block of its own.
        allow_mixed: whether runs on one dataset share a table in any case.
        profiles_alone: whether measured costs are something to show where there is nothing else in the folder.
    """

    results: Path
    models: Sequence[str]
    dataset: str
    protocol: str
    seeds: Sequence[int]
    convention: str
    choice: Choice
    published: bool
    allow_mixed: bool
    folds: Sequence[int] = ()
    changes: Sequence[str] = ()
    profiles_alone: bool = False


@dataclass(frozen=True)
class Selection:
    """What there is of it.

    Attributes:
        records: those that passed.
        profiles: measured costs of the networks that were named.
        tables: of their groups.
        damaged: what is wrong with records of the folder.
        left_out: why tables could not be made as asked.
        apart: in what the runs of several tables differ.
    """

    records: Sequence[Record]
    profiles: Sequence[Record]
    tables: Sequence[Table]
    damaged: Sequence[str]
    left_out: Sequence[str]
    apart: Sequence[str]

    @property
    def told(self) -> list[str]:
        """Everything that a reader should be told beside the tables, a line each."""
        lines = [*(f"damaged: {fault}" for fault in self.damaged)]
        lines += [f"a table is left out: {reason}" for reason in self.left_out]
        if self.apart:
            count = len(self.tables) + len(self.left_out)
            lines.append(f"{count} tables, since these differ and are not mixed (--allow-mixed mixes them):")
        return lines + [f"  {line}" for line in self.apart]


def select(request: Request) -> Selection:
    """Read the records and make the tables.

    Raises:
        BenchError: no record passes, there is no such convention or field, or no table can be made as asked.
    """
    wanted = wanted_values(request.changes)
    if request.convention and request.convention not in (*CONVENTIONS, LESIONWISE):
        raise BenchError(unknown("convention", request.convention, [*CONVENTIONS, LESIONWISE]))
    everything = Store(request.results).records()
    records = [record for record in everything if _passes(record, request, wanted)]
    profiles = [
        record
        for record in everything
        if is_profile(record) and (not request.models or record.content["job"]["model"] in request.models)
    ]
    kinds = {record.kind for record in everything if record.content}
    if not records and not (request.profiles_alone and profiles and kinds == {"profile"}):
        raise BenchError(_nothing(request, everything))
    groups = group_records(records, allow_mixed=request.allow_mixed, convention=request.convention)
    published = segmamba_table1() if request.published else None
    tables, refusals = [], []
    for group in groups:
        try:
            jobs = [record.content["job"] for record in group.records]
            shown = {network_key(job["model"], job.get("model_options") or {}) for job in jobs}
            beside = costs(everything, shown)
            tables.append(make_table(group, request.choice, costs=beside, published=published))
        except BenchError as error:  # one dataset's lack of a region or a metric is not the others'
            refusals.append(error)
    if refusals and not tables:
        raise refusals[0]
    damaged = [fault for record in everything for fault in record.faults]
    return Selection(records, profiles, tables, damaged, [str(error) for error in refusals], differences(groups))


def _passes(record: Record, request: Request, wanted: Mapping[str, Any]) -> bool:
    job = record.content.get("job", {})
    # What predictions from elsewhere were trained under is not known: they join the runs that pass.
    protocol = job.get("protocol")
    return bool(
        job
        and record.kind != "profile"
        and (not request.models or job["model"] in request.models)
        and (not request.dataset or job["dataset"] == request.dataset)
        and (not protocol or fits(protocol, request.protocol, wanted))
        and (not request.seeds or job.get("seed", request.seeds[0]) in request.seeds)
        and (not request.folds or job.get("fold", request.folds[0]) in request.folds)
    )


def _nothing(request: Request, everything: Sequence[Record]) -> str:
    """Says that no record passes, and which there are."""
    lines = [f"no record in {request.results} to show"]
    if everything:
        lines = [f"{lines[0]} with these filters; there are:", *(f"  {describe(record)}" for record in everything)]
    lines.append("Make one with: bench run --model segmamba --dataset phantom")
    if any(record.kind == "profile" for record in everything):
        lines.append("See what was measured of networks with: bench profile --show")
    return "\n".join(lines)
