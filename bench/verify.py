"""Whether records hold what they claim: a compliance check that anybody can repeat."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

import data
from bench.metrics import convention
from bench.store import Record
from data.errors import DataError
from data.fingerprint import fingerprint
from data.split import PARTS, Split

# Means are sums of the same numbers; only the order of the sums may differ.
_TOLERANCE = 1e-9
_HIGHEST = {
    **dict.fromkeys(("dice", "sensitivity", "precision", "nsd", "lesion_dice"), 1.0),
    **dict.fromkeys(("hd95", "lesion_hd95", "prediction_mm3", "reference_mm3"), math.inf),
    **dict.fromkeys(("lesion_tp", "lesion_fp", "lesion_fn"), math.inf),
}
_ALWAYS = ("dice", "hd95", "prediction_mm3", "reference_mm3")
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError)


@dataclass(frozen=True)
class Finding:
    """What one check found wrong.

    Attributes:
        records: keys of the records; several where they disagree.
        check: which check.
        severity: ``error`` where a claim does not hold, ``warning`` where it cannot be checked or is not finished.
        message: what was found, what was expected, and how to mend it.
    """

    records: tuple[str, ...]
    check: str
    severity: Literal["error", "warning"]
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.check}: {self.message}"


def verify(records: Sequence[Record], on_record: Callable[[str], None] = lambda _key: None) -> list[Finding]:
    """Check records one by one, then those that a table would put side by side.

    Of each: schema and hashes of its files, label maps and weights too; that split, cases and references are those
    that the job names, and the dataset's files, where they are at hand; that ``cases.csv`` yields the stated means and
    follows the stated convention; that the training is as long as its protocol says; that a clean commit made it.
    Between records: that one name of a protocol is one protocol, that one split was scored against the same
    references, and that the folds of a cross-validation are divisions of the same cases, no two of which test a case.

    Args:
        records: of `bench.store.Store.records`.
        on_record: told each key when it was checked.
    """
    findings = []
    fingerprints: dict[tuple[str, str], str] = {}
    for record in records:
        checks = _Checks(record, fingerprints)
        checks.all()
        findings += checks.findings
        on_record(record.key)
    return findings + list(_between(records))


@dataclass
class _Checks:
    """The checks of one record."""

    record: Record
    fingerprints: dict[tuple[str, str], str]
    findings: list[Finding] = field(default_factory=list)

    def error(self, check: str, message: str) -> None:
        self.findings.append(Finding((self.record.key,), check, "error", message))

    def warning(self, check: str, message: str) -> None:
        self.findings.append(Finding((self.record.key,), check, "warning", message))

    def all(self) -> None:
        record = self.record
        if record.faults:
            for fault in record.faults:
                self.error("schema and hashes", fault)
            return
        if record.status != "complete":
            told = str(record.content.get("message", ""))
            self.warning("status", record.status + (f": {told.splitlines()[0]}" if told else ""))
            return
        checks = [self.provenance, self.scores]
        if record.kind == "run":
            checks += [self.split, self.means, self.length, self.files, self.data]
        if record.kind == "external":
            checks.append(self.external)
        for check in checks if record.kind != "profile" else ():
            try:
                check()
            except _UNREADABLE as fault:
                self.error(check.__name__, f"cannot be checked ({fault!r}); expected a record as `bench run` writes it")

    def provenance(self) -> None:
        provenance = self.record.content.get("provenance", {})
        packages, code = provenance.get("packages", {}), provenance.get("code", {})
        if not packages:
            self.error("provenance", "no versions of packages are stated; expected those of the run")
        if self.record.kind == "run" and not provenance.get("hardware"):
            self.error("provenance", "no hardware is stated; expected that of the run")
        if code.get("dirty"):
            commit = str(code.get("commit"))[:12]
            self.error(
                "code", f"made by commit {commit} with changes that nobody else has. Commit them, and run it again"
            )
        elif not code.get("commit"):
            release = packages.get("segmamba-bench", "unknown")
            self.warning("code", f"made by release {release} without a checkout, so its commit is not known")

    def scores(self) -> None:
        cases = self.record.cases()
        regions = set(self.record.content["data"]["regions"])
        repeated = cases[cases.duplicated(["case", "region"])]
        if len(repeated):
            self.error("cases", f"cases.csv has {_some(repeated['case'])} twice; expected a row per case and region")
        partial = [case for case, found in cases.groupby("case")["region"].agg(set).items() if found != regions]
        if partial:
            expected = ", ".join(sorted(regions))
            self.error("cases", f"cases.csv has other regions of {_some(partial)} than {expected}; expected just those")
        for metric, highest in _HIGHEST.items():
            known = cases if metric in _ALWAYS else cases.dropna(subset=[metric])
            values = known[metric].astype(float)
            bad = known[~values.map(math.isfinite) | (values < 0) | (values > highest)]
            if len(bad):
                value = bad[metric].iloc[0]
                self.error("cases", f"{metric} of {_some(bad['case'])} is out of range, the first is {value:g}")
        rule = convention(_convention(self.record))
        for row in cases[cases["empty"] != "neither"].to_dict("records"):
            expected_scores = rule.scores(row["empty"])
            if expected_scores is None or not all(map(_same, (row["dice"], row["hd95"]), expected_scores)):
                where = f"{row['case']}, {row['region']}, where empty is {row['empty']!r}"
                found = f"Dice {row['dice']:g}, HD95 {row['hd95']:g}"
                self.error("convention", f"{where}: {found}; expected {expected_scores}, as {rule.name} scores it")
                return

    def split(self) -> None:
        stated = json.loads((self.record.folder / "split.json").read_text())
        parts = {part: tuple(stated[part]) for part in PARTS}
        split = Split(**parts, seed=stated["seed"])
        named = self.record.content["job"]["split_sha256"]
        if split.sha256 != named:
            self.error("split", f"split.json hashes to {split.sha256[:12]}; the job names {named[:12]}")
        for number, one in enumerate(PARTS):
            for other in PARTS[number + 1 :]:
                if both := set(parts[one]) & set(parts[other]):
                    self.error("split", f"{_some(both)} stands in {one} and in {other}; expected parts without overlap")
        fold, folds = _fold(self.record)
        if (fold is None) != (folds is None) or (fold is not None and fold not in range(folds or 0)):
            expected = f"one of 0 to {folds - 1}" if folds else "none, as its protocol has no folds"
            self.error("folds", f"the job is of fold {fold}; expected {expected}")
        if differing := set(self.record.cases()["case"]) ^ set(split.test):
            self.error("split", f"cases.csv and the test part differ in {_some(differing)}; expected the same cases")
        if differing := set(self.record.content.get("references", {})) ^ set(split.test):
            self.error("references", f"checksums and the test part differ in {_some(differing)}; expected one each")

    def means(self) -> None:
        cases, stated = self.record.cases(), self.record.content
        found = cases.groupby("region")[["dice", "hd95"]].mean()
        if differing := set(stated["results"]) ^ set(found.index):
            self.error("means", f"means are stated of other regions than cases.csv has: {_some(differing)}")
            return
        for region, scores in stated["results"].items():
            for metric in ("dice", "hd95"):
                value = scores[metric]
                if not _same(found.loc[region, metric], value):
                    told = f"cases.csv yields {found.loc[region, metric]:.6g}, the record says {value:.6g}"
                    self.error("means", f"mean {metric} of {region}: {told}; expected one number")
        if not _same(cases["dice"].mean(), stated["mean_dice"]):
            told = f"cases.csv yields {cases['dice'].mean():.6g}, the record says {stated['mean_dice']:.6g}"
            self.error("means", f"mean Dice: {told}; expected one number")

    def length(self) -> None:
        train, steps = self.record.content["job"]["protocol"]["train"], self.record.content["steps"]
        asked = train["steps"] or (train["epochs"] * train["steps_per_epoch"] if train["epochs"] else None)
        if asked is not None and steps != asked:
            self.error("length", f"it was trained for {steps} steps; its protocol says {asked}")
        history = pd.read_csv(self.record.folder / "history.csv")["step"]
        if int(history.iloc[-1]) != steps or not history.is_monotonic_increasing:
            self.error("length", f"history.csv ends at step {int(history.iloc[-1])}; the record says {steps}")

    def files(self) -> None:
        """Label maps and weights by their hashes, which reading a record leaves out because they are large."""
        for name, stated in self.record.content["files"].items():
            path = self.record.folder / name
            if name.startswith("checkpoint/") and path.exists() and _sha256(path) != stated["sha256"]:
                self.error("hashes", f"{path} has changed since the record was completed. Restore it, or run it again")
        maps: Mapping[str, str] = self.record.content.get("predictions", {}).get("sha256", {})
        missing = []
        for case, sha256 in maps.items():
            path = self.record.folder / "predictions" / f"{case}.nii.gz"
            if not path.exists():
                missing.append(case)
            elif _sha256(path) != sha256:
                self.error("hashes", f"{path} has changed since it was written. Restore it, or run it again")
        if missing:
            told = f"{len(missing)} of {len(maps)} label maps are not there"
            self.warning("hashes", f"{told}, so the scores cannot be repeated from them")

    def data(self) -> None:
        job, root = self.record.content["job"], str(self.record.content["data"].get("root", ""))
        if not root or not Path(root).is_dir():
            self.warning("data", f"the dataset is not in {root or 'a known place'}, so its hash was not repeated")
            return
        place = job["dataset"], root
        try:
            if place not in self.fingerprints:
                card = data.DatasetCard.from_dict(self.record.content["data"]["card"])
                self.fingerprints[place] = fingerprint(data.open_folder(card, Path(root)).cases())
        except DataError as fault:
            self.warning("data", f"the dataset in {root} cannot be read, so its hash was not repeated: {fault}")
            return
        if self.fingerprints[place] != job["data_fingerprint"]:
            found, named = self.fingerprints[place][:12], job["data_fingerprint"][:12]
            self.error("data", f"the files in {root} hash to {found}; the job names {named}. They have changed since")

    def external(self) -> None:
        if differing := set(self.record.cases()["case"]) ^ set(self.record.content["job"]["references"]):
            self.error("cases", f"cases.csv and the job differ in {_some(differing)}; expected the same cases")


def _between(records: Sequence[Record]) -> Iterator[Finding]:
    runs = [record for record in records if record.kind == "run" and record.status == "complete"]
    yield from _disagreeing(
        runs,
        "protocol",
        _protocol_name,
        lambda record: record.content["job"]["protocol"],
        "under the one name {name} they follow different protocols. Run the older ones again",
    )
    yield from _disagreeing(
        runs,
        "references",
        lambda record: f"{record.content['job']['dataset']}, split {record.content['job']['split_sha256'][:12]}",
        lambda record: record.content.get("references", {}),
        "on the one split {name} they were scored against different references. Run the older ones again",
    )
    yield from _between_folds(runs)


def _between_folds(runs: Sequence[Record]) -> Iterator[Finding]:
    """Whether records of one cross-validation divide the same cases, each fold in one way, into disjoint test parts."""
    found: dict[str, dict[int, dict[str, list[Record]]]] = {}
    for record in runs:
        job, (fold, folds) = record.content["job"], _fold(record)
        if isinstance(fold, int) and folds:
            dealt = [job["dataset"], job["data_fingerprint"], job.get("card_sha256"), job["protocol"]["split"]]
            by_fold = found.setdefault(json.dumps(dealt, sort_keys=True), {})
            by_fold.setdefault(fold, {}).setdefault(job["split_sha256"], []).append(record)
    for by_fold in found.values():
        tested: dict[str, tuple[int, list[str]]] = {}
        everything: set[str] = set()
        for fold, divisions in sorted(by_fold.items()):
            keys = [record.key for records in divisions.values() for record in records]
            if len(divisions) > 1:
                told = f"they divide the cases in {len(divisions)} ways for the one fold {fold}; expected one"
                yield Finding(tuple(keys), "folds", "error", f"{told}. Run the older ones again")
                continue
            parts = _parts(next(iter(divisions.values()))[0])
            if parts is None:  # told with the record itself
                continue
            cases, test = {case for part in parts for case in part}, parts[PARTS.index("test")]
            if everything and cases != everything:
                told = f"fold {fold} is of other cases than the folds before it: {_some(cases ^ everything)}"
                yield Finding(tuple(keys), "folds", "error", f"{told}; expected the same for all. Run it again")
            everything = everything or cases
            for other, others in dict(tested[case] for case in test if case in tested).items():
                both = [case for case in test if case in tested and tested[case][0] == other]
                told = f"folds {other} and {fold} both test {_some(both)}; expected folds without a case in common"
                yield Finding((*others, *keys), "folds", "error", f"{told}. Run the older ones again")
            tested |= {case: (fold, keys) for case in test if case not in tested}


def _parts(record: Record) -> tuple[tuple[str, ...], ...] | None:
    try:
        stated = json.loads((record.folder / "split.json").read_text())
        return tuple(tuple(stated[part]) for part in PARTS)
    except _UNREADABLE:
        return None


def _fold(record: Record) -> tuple[int | None, int | None]:
    """Number of the fold, and in how many the protocol deals the cases."""
    job = record.content["job"]
    return job.get("fold"), job["protocol"].get("split", {}).get("folds")


def _protocol_name(record: Record) -> str:
    author_of = record.content["job"]["protocol"].get("author_of")
    return str(record.content["protocol_title"]) + (f" of {author_of}" if author_of else "")


def _disagreeing(
    runs: Sequence[Record],
    check: str,
    name_of: Callable[[Record], str],
    content_of: Callable[[Record], Any],
    message: str,
) -> Iterator[Finding]:
    by_name: dict[str, dict[str, list[str]]] = {}
    for record in runs:
        content = json.dumps(content_of(record), sort_keys=True)
        by_name.setdefault(name_of(record), {}).setdefault(content, []).append(record.key)
    for name, contents in by_name.items():
        if len(contents) > 1:
            keys = tuple(key for found in contents.values() for key in found)
            yield Finding(keys, check, "error", message.format(name=name))


def _convention(record: Record) -> str:
    job = record.content["job"]
    return str(job["convention"] if record.kind == "external" else job["protocol"]["evaluate"]["convention"])


def _same(one: Any, two: Any) -> bool:
    return math.isclose(float(one), float(two), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _some(cases: Any, most: int = 3) -> str:
    listed = sorted(set(cases))
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
