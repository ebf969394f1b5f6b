"""A measurement as it is handed to a process of its own, and what comes back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.profiling.setting import Setting

# What they are called in the folder by which they pass.
ANSWER, NEWS, OUTPUT = "answer.json", "news", "output.txt"
# Files that appear when its process has begun, with the number of it, and when it has ended, with its status.
STARTED, ENDED = "started", "ended"


@dataclass(frozen=True)
class Order:
    """What a process is to measure.

    Attributes:
        device: as typed by the user; empty for the GPU if there is one.
        setting: what; None only asks what machine this is.
        limit_s: seconds that it may take.
        operators: how many operators are listed by the time that they take.
        trace: file for a Chrome trace; empty for none.
        command: what the user typed, for the record.
    """

    device: str
    setting: Setting | None
    limit_s: float
    operators: int = 0
    trace: str = ""
    command: tuple[str, ...] = ()

    def to_json(self) -> str:
        """In one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        """What `to_json` made."""
        content = json.loads(text)
        if content["setting"] is not None:
            stated = content["setting"]
            sizes = {name: tuple(stated[name]) for name in ("image_size", "asked_size")}
            content["setting"] = Setting(**{**stated, **sizes})
        return cls(**{**content, "command": tuple(content["command"])})


@dataclass(frozen=True)
class Answer:
    """What came of it.

    Attributes:
        status: ``complete``, ``oom``, ``refused`` where the request cannot be met, or ``failed``.
        message: why not complete.
        found: the figures; of a measurement that ran out of memory what it had reached.
        provenance: of the process.
        notes: what a reader of the figures must know.
        files: names of what lies in the folder beside the answer.
    """

    status: str
    message: str = ""
    found: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
