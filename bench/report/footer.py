"""What a reader must know of a table, in the lines under it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.metrics import convention
from bench.report.costs import Costs
from bench.report.frame import LESIONWISE, Group, cross_validated
from bench.report.published import PublishedTable
from bench.report.rows import Row
from bench.report.shown import Metric


def footer(
    group: Group,
    rows: Sequence[Row],
    scores: pd.DataFrame,
    metrics: Sequence[Metric],
    *,
    challenge: str,
    costs: Costs | None,
    published: PublishedTable | None,
    published_is_shown: bool,
) -> list[str]:
    """The lines, in order.

    Args:
        group, rows, scores, metrics: of the table.
        challenge: by whose settings lesions were scored; empty where no lesion-wise score is shown.
        costs: the figures beside the scores.
        published: what a paper states, where it was asked for.
        published_is_shown: whether its regions are those of the table.
    """
    lines = [*_cases(scores, rows), *_folds(group), _dataset(group), *_protocol(group), _convention(group, challenge)]
    if any(metric.name == "volume_error" for metric in metrics):
        told = "0 where both are empty, left out where only the reference is"
        lines.append(f"Volume error: (prediction − reference) / reference; {told}.")
    if challenge and group.convention != LESIONWISE:
        lines.append(f"Lesion-wise scores: BraTS 2023's ranking metric, settings {challenge}.")
    lines += _untrained(group)
    if published is not None:
        lines += _published(group, published, published_is_shown)
    if costs is not None and any(row.costs for row in rows):
        lines.append(f"Costs: profiles on {costs.hardware}{', ' + costs.setting if costs.setting else ''}.")
    return lines + [f"{row.label}: {remark}" for row in rows for remark in row.remarks]


def _cases(scores: pd.DataFrame, rows: Sequence[Row]) -> list[str]:
    if scores.empty:
        return []
    sets = {frozenset(cases) for _, cases in scores.groupby("run")["case"]}
    one = scores[scores["run"] == scores["run"].iloc[0]]
    if len(sets) > 1:
        smallest, largest = min(map(len, sets)), max(map(len, sets))
        told = f"{smallest} to {largest}" if smallest < largest else f"{smallest}"
        lacking = any(row.lacks for row in rows)
        apart = " Those that lack folds which others have stand last and are not compared." if lacking else ""
        return [
            f"The rows rest on different test cases, {told} each: their differences are those of the cases too.{apart}"
        ]
    absent = one[one["empty"].isin(["reference", "both"])].groupby("region", sort=False).size()
    told = ", ".join(f"{region} in {count}" for region, count in absent.items()) or "no region in any"
    number = one["case"].nunique()
    return [f"{number} test case{'s' if number != 1 else ''}; absent from the reference: {told}."]


def _folds(group: Group) -> list[str]:
    if not cross_validated(group):
        return []
    told = "each case is scored by a network that was not trained on its patient"
    return [f"Cross-validation, {group.facets['split'][0]}: {told}."]


def _dataset(group: Group) -> str:
    facts = group.records[0].content.get("data", {})
    synthetic = " Synthetic data: nothing here is a statement on patients." if facts.get("synthetic") else ""
    files = f", files {group.data_fingerprint[:12]}" if group.data_fingerprint else ""
    return f"Dataset: {group.dataset}{files}.{synthetic}"


def _protocol(group: Group) -> list[str]:
    lines = []
    if group.mixed:
        mixture = "; ".join(f"{name} {' | '.join(group.facets[name])}" for name in group.mixed)
        lines.append(f"Mixed on request: {mixture}. Differences between rows are theirs as well.")
    if "protocol" not in group.mixed:
        told = group.records[0].content.get("protocol_description", "")
        lines.append(f"Protocol: {group.protocol}{': ' + told if told else ''}.")
    return lines


def _convention(group: Group, challenge: str) -> str:
    if group.convention == LESIONWISE:
        told = "a missed or invented lesion scores 0 and 374 mm"
        return f"Dice and HD95 lesion-wise (BraTS 2023's ranking metric, settings {challenge}): {told}."
    if not group.convention:
        return "Empty masks: each row under the convention of its own protocol."
    rule = convention(group.convention)
    return f"Empty masks, convention {rule.name}: {rule.title}."


def _untrained(group: Group) -> list[str]:
    """Of those records only whose own convention is the one that is shown: other scores were not kept."""
    found = [
        record.content["untrained"]["mean_dice"]
        for record in group.records
        if record.kind == "run"
        and "mean_dice" in record.content.get("untrained", {})
        and record.content["job"]["protocol"]["evaluate"]["convention"] == group.convention
    ]
    return [f"Untrained networks reach at most {100 * max(found):.2f} % average Dice."] if found else []


def _published(group: Group, published: PublishedTable, shown: bool) -> list[str]:
    if not shown:
        return [f"Published: {published.title} has other regions than {group.dataset}, so it is not shown."]
    told = "other cases, another training; in brackets what the one row of that network, as published, has more"
    if group.dataset != published.dataset:
        told = f"they are of {published.dataset}, this table of {group.dataset}, so nothing is compared"
    elif group.convention == LESIONWISE:
        told = "they are not lesion-wise, so nothing is compared"
    elif group.convention != published.convention:
        told += (
            f". Its empty masks most probably scored as under {published.convention}: --convention "
            f"{published.convention} compares like with like"
        )
    return [f"Published figures: {published.source}; {told}."]
