"""Profiles sorted into what may stand in one table."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.frame import plain
from bench.report.settings import WHATS, is_profile, on_gpu, option_words, scan_backend, size_text
from bench.store import Record

MODES = {"infer": "inference", "train": "training"}
# What a row or a block tells; all else is shared by a table.
_OF_ROWS = frozenset(("model", "model_options", "image_size", "mode", "batch", "flips", "run", "backend"))
# Parts of networks, of which tables and figures go by the tokens and in several widths.
OF_TOKENS = ("mixer", "scan")
_OF_WIDTHS = frozenset(("in_channels", "classes"))
_OF_SCANS = frozenset(("layout",))


@dataclass(frozen=True)
class Measurement:
    """A record of the kind ``profile``.

    Attributes:
        record: as it was read.
        label: its network, and what tells it from others of the same name.
    """

    record: Record
    label: str

    @property
    def job(self) -> Mapping[str, Any]:
        """What was measured."""
        job: Mapping[str, Any] = self.record.content["job"]
        return job

    @property
    def found(self) -> Mapping[str, Any]:
        """The figures; of one that is not complete, what it had reached."""
        found: Mapping[str, Any] = self.record.content.get("measured") or {}
        return found

    @property
    def complete(self) -> bool:
        """Whether there are figures to compare."""
        return self.record.status == "complete"

    @property
    def mode(self) -> str:
        """``infer`` or ``train``."""
        return str(self.job["mode"])

    @property
    def batch(self) -> int:
        """Images at once."""
        return int(self.job["batch"])

    @property
    def voxels(self) -> int:
        """Of one image; of features the number of tokens."""
        return math.prod(self.job["image_size"])

    @property
    def size(self) -> str:
        """Of one image, and what was asked for where the network did not take it."""
        asked = self.record.content.get("asked_size")
        told = size_text(self.job["image_size"])
        return told if not asked or asked == self.job["image_size"] else f"{told} (asked {size_text(asked)})"

    @property
    def seconds(self) -> float | None:
        """The median of a pass; None where there is none."""
        time = self.found.get("time") if self.complete else None
        return float(time["median_s"]) if time else None

    @property
    def name(self) -> str:
        """For a note: which row it is."""
        width = f" {self.job['in_channels']} channels" if self.job["what"] in OF_TOKENS else ""
        told = f"{self.label}{width} {size_text(self.job['image_size'])}"
        told += ", mirror images" if self.job.get("flips", 1) > 1 else ""
        return told + (f", batch {self.batch}" if self.batch > 1 else "")

    def memory(self, name: str) -> float | None:
        """One of the record's numbers of bytes; None where nobody counted."""
        value = (self.found.get("memory") or {}).get(name)
        return None if value is None else float(value)


@dataclass(frozen=True)
class Group:
    """Measurements that may be compared: one kind of thing, on the same hardware and software, in the same way.

    Attributes:
        what: one of `WHATS`.
        shared: the fields of their jobs in which they agree.
        members: in the order of the records.
        beside: what tells it from a group that is called the same; mostly empty.
    """

    what: str
    shared: Mapping[str, Any]
    members: tuple[Measurement, ...]
    beside: str = ""

    @property
    def hardware(self) -> str:
        """What they were measured on."""
        return str(self.shared["hardware"])

    @property
    def on_gpu(self) -> bool:
        """Whether that is a GPU."""
        return on_gpu(self.hardware)

    @property
    def told(self) -> str:
        """Hardware and what was set, for a title."""
        words = option_words(self.shared)
        if "in_channels" in self.shared:
            words.append(f"{self.shared['in_channels']} channels in, {self.shared['classes']} classes out")
        if "shape" in self.shared:
            words.append(f"volumes of {size_text(self.shared['shape'])}, overlap {self.shared['overlap']:g}")
        if "limit_bytes" in self.shared:
            words.append(f"within {self.shared['limit_bytes'] / 2**30:.4g} GiB")
        if "states" in self.shared:
            words.append(f"{self.shared['states']} states")
        if "inputs" in self.shared:
            words.append(f"mean of {self.shared['inputs']} inputs")
        return f"on {self.hardware}: {', '.join([*words, *([self.beside] if self.beside else [])])}"

    def of_mode(self, mode: str) -> list[Measurement]:
        """Its members of one mode, by size, then the fastest first; those without a time last."""
        found = [member for member in self.members if member.mode == mode]
        return sorted(found, key=lambda m: (m.voxels, m.batch, m.seconds is None, m.seconds or 0.0, m.label))


def group(records: Iterable[Record]) -> list[Group]:
    """Sort measurements into groups, whatever the order of the records; other records are left out.

    Two kinds of hardware, two versions of PyTorch and two ways of measuring are never in one group; networks, sizes,
    modes, batches and backends of the scan, which most networks do without, may be.
    """
    found: dict[tuple[str, str], list[Record]] = {}
    for record in filter(is_profile, records):
        found.setdefault((_what(record), json.dumps(_shared(record), sort_keys=True)), []).append(record)
    keys = sorted(found, key=lambda key: (WHATS.index(key[0]), key[1]))
    groups = [Group(what, json.loads(shared), tuple(labelled(found[what, shared]))) for what, shared in keys]
    return [_set_apart(one, [other for other in groups if other is not one]) for one in groups]


def labelled(records: Sequence[Record]) -> list[Measurement]:
    """The records with labels: a network's name, and the options and the scans in which those of that name differ."""
    apart: dict[str, list[str]] = {}
    scans: dict[str, set[str]] = {}
    for record in records:
        job = record.content["job"]
        alike = [other.content["job"] for other in records if other.content["job"]["model"] == job["model"]]
        if job["what"] != "scan" and (backend := scan_backend(record)):  # tables of scans have a column for it
            scans.setdefault(job["model"], set()).add(backend)
        names = dict.fromkeys(name for other in alike for name in other["model_options"])
        apart[job["model"]] = [
            name for name in names if len({json.dumps(other["model_options"].get(name)) for other in alike}) > 1
        ]
    several = {name for name, backends in scans.items() if len(backends) > 1}
    return [Measurement(record, _label(record, apart, several)) for record in records]


def _label(record: Record, apart: Mapping[str, Sequence[str]], several: Collection[str]) -> str:
    job = record.content["job"]
    name = str(record.content.get("title") or job["model"])
    told = [f"{name}={plain(job['model_options'].get(name))}" for name in apart[job["model"]]]
    if job["model"] in several and (backend := scan_backend(record)):
        told.append(f"scan by {backend}")
    if job.get("run"):
        told.append(f"trained, {str(job['run'])[:6]}")
    return f"{name} ({', '.join(told)})" if told else name


def _what(record: Record) -> str:
    return str(record.content["job"]["what"])


def _shared(record: Record) -> dict[str, Any]:
    job = record.content["job"]
    rows = _OF_ROWS
    rows |= _OF_WIDTHS if job["what"] in OF_TOKENS else frozenset()
    rows |= _OF_SCANS if job["what"] == "scan" else frozenset()
    return {name: value for name, value in job.items() if name not in rows}


def _set_apart(one: Group, others: Sequence[Group]) -> Group:
    """Say in a title what differs from a table of otherwise the same title."""
    alike = [other for other in others if (other.what, other.told) == (one.what, one.told)]
    names = sorted(
        {name for other in alike for name in one.shared.keys() | other.shared.keys()
         if one.shared.get(name) != other.shared.get(name)}
    )  # fmt: skip
    told = [f"{_WORDS.get(name, name)} {plain(one.shared.get(name))}" for name in names]
    return Group(one.what, one.shared, one.members, ", ".join(told))


_WORDS = {"torch": "PyTorch"}
