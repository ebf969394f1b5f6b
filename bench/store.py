"""The record store: the only code that writes or reads a record.

A record is a folder ``results/<key>/``::

    record.json     the job, its status, provenance, times, memory, results; written last and atomically
    split.json      case ids of each part
    cases.csv       one row per case and region
    history.csv     one row per epoch
    checkpoint/     last.pt and best.pt, the weights; may be left out when records are published
    tensorboard/    events, for looking on
    predictions/    label maps in the original grid
    log.txt         what happened when
    lease/          which process writes here, see `bench.lease`; progress.json, how far it is; output.txt, what a
                    job in a process of its own printed

A record that says ``complete`` names the size and hash of the files it rests on. One whose files do not agree
(weights by their size, the others by their hash), or that lies under another key, reads as ``damaged``, never as
complete.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.atomic import atomic_file, write_text
from bench.errors import BenchError
from bench.key import key_of
from bench.lease import Lease, Watch, looks_alive, take

if TYPE_CHECKING:
    import pandas as pd

    from bench.job import Job
    from bench.metrics import RegionMeasurement

SCHEMA = 1
DEFAULT_RESULTS = Path("results")
KINDS = ("run", "external", "profile")
# What an attempt ends in that goes on from its checkpoint, or did not end.
UNFINISHED = ("running", "interrupted", "damaged")
STATUSES = ("running", "interrupted", "complete", "failed", "oom", "nan", "timeout", "damaged")
CASE_COLUMNS = (
    *("case", "region", "dice", "hd95", "prediction_mm3", "reference_mm3", "empty"),
    *("sensitivity", "precision", "nsd", "volume_error"),
    *("lesion_dice", "lesion_hd95", "lesion_tp", "lesion_fp", "lesion_fn"),
)
NEVER = ("", "")
WEIGHTS = "checkpoint/last.pt"
BEST = "checkpoint/best.pt"
EVENTS = "tensorboard"


@dataclass(frozen=True)
class Record:
    """One record as it was read.

    Attributes:
        folder: where it lies.
        content: ``record.json``; empty where it cannot be understood.
        faults: why it is damaged; empty where it is sound.
    """

    folder: Path
    content: Mapping[str, Any]
    faults: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The job's key, which is the folder's name."""
        return self.folder.name

    @property
    def status(self) -> str:
        """One of `STATUSES`. A run whose process is gone was interrupted, though nobody was left to write that."""
        if self.faults:
            return "damaged"
        status = str(self.content["status"])
        return "interrupted" if status == "running" and not looks_alive(self.folder) else status

    @property
    def kind(self) -> str:
        """One of `KINDS`: a training, scored predictions from elsewhere, what a network costs; empty if unknown."""
        return str(self.content.get("kind", ""))

    @property
    def weights(self) -> Path:
        """The weights that were tested; the file need not be there in a published record."""
        evaluated = self.content.get("job", {}).get("protocol", {}).get("evaluate", {})
        return self.folder / (BEST if evaluated.get("checkpoint") == "best" else WEIGHTS)

    @property
    def code(self) -> str:
        """Commit of the code that finished the record, or its release where it ran without a checkout."""
        return code_name(self.content.get("provenance", {}))

    @property
    def end(self) -> tuple[str, str]:
        """Names the attempt that ended last: when the run began, and when it ended."""
        return str(self.content.get("started", "")), str(self.content.get("ended", ""))

    def settled_since(self, end: tuple[str, str]) -> bool:
        """Whether the job has come to an end, in whatever way, after the attempt that ``end`` names.

        A job that failed before may be run again; one that failed elsewhere in the meantime need not.
        """
        return self.status == "complete" or (self.status not in UNFINISHED and self.end != end)

    def cases(self) -> pd.DataFrame:
        """The table of cases: the columns `CASE_COLUMNS`, which are the fields of `RegionMeasurement`.

        What was not measured is NaN, as are all columns that the record is too old to have.
        """
        import pandas as pd

        path = self.folder / "cases.csv"
        cases = pd.read_csv(path, dtype={"case": str, "region": str}, float_precision="round_trip")
        return cases.reindex(columns=list(CASE_COLUMNS))

    def last_epoch(self) -> dict[str, float] | None:
        """The numbers in the last row of ``history.csv``; None where there is none that can be read."""
        try:
            with (self.folder / "history.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            return {name: float(value) for name, value in rows[-1].items() if value}
        except (OSError, ValueError, IndexError, TypeError):
            return None


@dataclass
class OpenRecord:
    """A record being written. Nothing says ``complete`` until `complete` has put everything on the disk."""

    folder: Path
    content: dict[str, Any]
    lease: Lease | None = None
    _files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def update(self, **facts: Any) -> None:
        """Add facts to ``record.json`` and write it.

        Raises:
            BenchError: the disk refuses; the record on disk is as it was.
            LeaseLost: another process has taken the record over.
        """
        if self.lease is not None:
            self.lease.check()
        content = {**self.content, **facts}
        write_text(self.folder / "record.json", json.dumps(content, indent=1) + "\n")
        self.content = content

    def write_split(self, split: Mapping[str, object]) -> None:
        """Write the case ids of each part."""
        self._write("split.json", json.dumps(split, indent=1) + "\n")

    def write_cases(self, measured: Mapping[str, Sequence[RegionMeasurement]]) -> None:
        """Write the table of cases from the measurements by case id."""
        rows = [{"case": case, **vars(m)} for case in sorted(measured) for m in measured[case]]
        self._write("cases.csv", _csv(CASE_COLUMNS, rows))

    def write_history(self, rows: Sequence[Mapping[str, float | None]]) -> None:
        """Write one line per epoch; what a row has no value for stays empty."""
        self._write("history.csv", _csv(list(dict.fromkeys(name for row in rows for name in row)), rows))

    def attach(self, name: str, content: bytes) -> None:
        """Write a file that belongs to the record."""
        with atomic_file(self.folder / name) as file:
            file.write(content)
        self._files[name] = _identity(self.folder / name)

    def begin_predictions(self, weights_file: str = WEIGHTS) -> None:
        """Forget label maps that other weights than those in the record's file made."""
        weights = _identity(self.folder / weights_file)["sha256"]
        if self.content.get("predictions", {}).get("weights_sha256") != weights:
            self.update(predictions={"weights_sha256": weights, "sha256": {}})

    def prediction(self, case: str) -> Path:
        """Where a case's label map lies, or will."""
        return self.folder / "predictions" / f"{case}.nii.gz"

    def has_prediction(self, case: str) -> bool:
        """Whether a case's label map is there as the weights in the record made it."""
        path = self.prediction(case)
        stated = self.content["predictions"]["sha256"].get(case)
        return stated is not None and path.exists() and _identity(path)["sha256"] == stated

    def note_prediction(self, case: str) -> None:
        """Remember a label map that was just written."""
        known = self.content["predictions"]
        made = {**known["sha256"], case: _identity(self.prediction(case))["sha256"]}
        self.update(predictions={**known, "sha256": made})

    def finish(self, status: str, **facts: Any) -> Record:
        """Close the record with a status; ``complete`` also states the hash of every file it rests on.

        Raises:
            BenchError: the disk refuses; the record keeps its earlier status.
        """
        files = dict(self._files)
        for name in (WEIGHTS, BEST):
            if status == "complete" and (self.folder / name).exists():
                files[name] = _identity(self.folder / name)
        self.update(status=status, ended=now(), files=files, **facts)
        return Record(self.folder, self.content)

    def _write(self, name: str, text: str) -> None:
        if self.lease is not None:
            self.lease.check()
        write_text(self.folder / name, text)
        self._files[name] = _identity(self.folder / name)


class Store:
    """The folder of records.

    Args:
        root: e.g. ``results``; made when the first record is opened.
    """

    def __init__(self, root: Path = DEFAULT_RESULTS) -> None:
        self.root = root

    def take(self, key: str, watch: Watch | None = None) -> Lease | None:
        """Hold a record for this process; None while another does.

        Raises:
            BenchError: the results folder cannot be written.
        """
        return take(self.root / key, watch)

    def open_run(self, job: Job, lease: Lease | None = None, **facts: Any) -> OpenRecord:
        """Open, or open again, the record of a job, with status ``running``.

        Facts of an earlier, unfinished attempt that are not given again are kept.

        Args:
            lease: of the record; without it nothing keeps another process from writing there.

        Raises:
            BenchError: the results folder cannot be written, or holds this job as a newer version wrote it.
        """
        folder = self.root / job.key
        earlier = self.get(job.key)
        if earlier and earlier.content.get("schema", SCHEMA) > SCHEMA:
            raise BenchError(f"{earlier.faults[0]}, or give another folder with --results")
        content = {
            **(dict(earlier.content) if earlier and not earlier.faults else {"started": now()}),
            "schema": SCHEMA,
            "key": job.key,
            "kind": "run",
            "job": job.to_dict(),
            "protocol_title": job.protocol.title,
            "protocol_description": job.protocol.description,
            **({"tuned": list(job.protocol.tuned)} if job.protocol.tuned else {}),
            "status": "running",
        }
        content.pop("message", None)
        if "provenance" in content:  # the attempts before this one may have run on another machine
            content["earlier_attempts"] = [*content.get("earlier_attempts", []), content.pop("provenance")]
        record = OpenRecord(folder, content, lease)
        record.update(**facts)
        return record

    def give_up(self, job: Job, status: str, message: str) -> Record | None:
        """Write how a job failed whose own process could not; None where somebody else has it by now.

        Raises:
            BenchError: the results folder cannot be written.
        """
        lease = self.take(job.key)
        if lease is None:
            return None
        with lease:
            earlier = self.get(job.key)
            if earlier is not None and earlier.status == "complete":
                return earlier
            return self.open_run(job, lease).finish(status, message=message)

    def open_external(self, name: str, facts: Mapping[str, Any]) -> OpenRecord:
        """Open the record of predictions that came from elsewhere; its key is the hash of ``facts``.

        Raises:
            BenchError: the results folder cannot be written.
        """
        job = {"model": name, **facts}
        folder = self.root / key_of(job)
        record = OpenRecord(folder, {"schema": SCHEMA, "key": folder.name, "kind": "external", "job": job})
        record.update(status="running", started=now())
        return record

    def records(self) -> list[Record]:
        """All records, by key. A damaged one is among them and says why."""
        return [self._read(folder) for folder in self._folders()]

    def open_profile(self, job: Mapping[str, Any], **facts: Any) -> OpenRecord:
        """Begin the record of a measurement, whose key is the hash of ``job``; nothing is written before it ends."""
        content = {"schema": SCHEMA, "key": key_of(job), "kind": "profile", "job": dict(job), "started": now(), **facts}
        return OpenRecord(self.root / content["key"], content)

    def get(self, key: str) -> Record | None:
        """The record with this key, or None."""
        folder = self.root / key
        return self._read(folder) if (folder / "record.json").exists() else None

    def find(self, name: str) -> Record:
        """The record named by its key, the beginning of its key, or its folder.

        Raises:
            BenchError: none, or more than one.
        """
        if (Path(name) / "record.json").exists():
            return self._read(Path(name).resolve())
        found = [folder for folder in self._folders() if name and folder.name.startswith(name)]
        found = [folder for folder in found if folder.name == name] or found
        if len(found) == 1:
            return self._read(found[0])
        listing = "\n".join(f"  {describe(record)}" for record in self.records()) or "  (none)"
        problem = f"{len(found)} runs begin with {name!r}" if found else f"no run {name!r} in {self.root}"
        raise BenchError(f"{problem}; expected a run's key, its beginning, or its folder. Runs there:\n{listing}")

    def within(self, name: str) -> list[Record]:
        """The record that `find` finds, or all records in a folder of that name, however deep.

        Raises:
            BenchError: as `find`.
        """
        folder = Path(name)
        below = () if (folder / "record.json").exists() else sorted(folder.rglob("record.json"))
        return [self._read(path.parent.resolve()) for path in below] or [self.find(name)]

    def _folders(self) -> Iterator[Path]:
        if self.root.is_dir():
            yield from sorted(path.parent for path in self.root.glob("*/record.json"))

    def _read(self, folder: Path) -> Record:
        path = folder / "record.json"
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            return Record(folder, {}, (f"{path} is no record: {error}",))
        if malformed := _malformed(content):
            return Record(folder, {}, (f"{path} lacks {malformed}, or holds something else there",))
        if content["schema"] > SCHEMA:
            return Record(folder, content, (f"{path} was written by a newer segmamba-bench; update this one",))
        if content["status"] not in STATUSES:
            return Record(folder, content, (f"{path} has the unknown status {content['status']!r}",))
        if content["key"] != folder.name or content["key"] != key_of(content["job"]):
            return Record(
                folder,
                {},
                (f"{folder} holds the record of {content['key']}: a copy, or a changed job. Remove or rename it.",),
            )
        if content["status"] == "complete":
            return Record(folder, content, tuple(_disagreements(folder, content)))
        return Record(folder, content)


# What makes a job of each kind one of that kind.
_JOB: Mapping[str, Mapping[str, type]] = {
    "run": {
        **dict.fromkeys(("model", "dataset", "data_fingerprint", "split_sha256"), str),
        "protocol": dict,
        "seed": int,
    },
    "external": {**dict.fromkeys(("model", "dataset", "convention"), str), "references": dict},
    "profile": {"model": str, "model_options": dict},
}


def _malformed(content: Any) -> str | None:
    """The first field without which a record means nothing, if it is not as it should be."""
    kinds = {"schema": int, "key": str, "kind": str, "status": str, "job": dict}
    if not isinstance(content, dict):
        return "every field"
    if content.get("kind") == "run":
        kinds |= {"protocol_title": str}
    if content.get("status") == "complete":
        kinds |= {"files": dict}
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            return name
    if content["kind"] not in KINDS:
        return "kind"
    for name, kind in _JOB[content["kind"]].items():
        if not isinstance(content["job"].get(name), kind):
            return f"job.{name}"
    if content["kind"] == "run" and not isinstance(content["job"]["protocol"].get("evaluate"), dict):
        return "job.protocol.evaluate"
    stated = content.get("files", {}).values()
    if not all(isinstance(facts, dict) and {"bytes", "sha256"} <= facts.keys() for facts in stated):
        return "files"
    optional = {"default_options": dict, "untrained": dict, "data": dict, "predictions": dict}
    return next((name for name, kind in optional.items() if not isinstance(content.get(name, {}), kind)), None)


def code_name(provenance: Mapping[str, Any]) -> str:
    """Commit of the code that a provenance states, or its release where it ran without a checkout."""
    code = provenance.get("code", {})
    if code.get("commit"):
        return f"{code['commit'][:12]}{', changed' if code.get('dirty') else ''}"
    version = provenance.get("packages", {}).get("segmamba-bench")
    return f"version {version}" if version else "unknown"


def describe(record: Record) -> str:
    """One line on a record for people: key, model, dataset, seed, status."""
    if not record.content:
        return f"{record.key}  damaged"
    job = record.content["job"]
    if record.kind == "profile":
        return f"{record.key}  profile of {job['model']}: {record.status}"
    fold = f", fold {job['fold']}" if "fold" in job else ""
    return f"{record.key}  {job['model']} on {job['dataset']}, seed {job.get('seed', '-')}{fold}: {record.status}"


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _disagreements(folder: Path, content: Mapping[str, Any]) -> Iterator[str]:
    files: Mapping[str, Mapping[str, Any]] = content.get("files", {})
    if "cases.csv" not in files and content["kind"] != "profile":
        yield f"{folder} says complete but names no cases.csv"
    for name, stated in files.items():
        path = folder / name
        if not path.exists():
            # Weights are large and may be left out of what is published; nothing else may.
            if name not in (WEIGHTS, BEST):
                yield f"{path} is missing"
        elif path.stat().st_size != stated["bytes"]:
            yield f"{path} has {path.stat().st_size} bytes; the record says {stated['bytes']}"
        elif name not in (WEIGHTS, BEST) and _identity(path)["sha256"] != stated["sha256"]:
            yield f"{path} has changed since the record was completed"


def _identity(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
