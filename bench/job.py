"""A job: one model, one dataset, one protocol, one split, one seed. Its key names its record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from bench.protocol import Protocol
from data.split import Split

KEY_DIGITS = 16


@dataclass(frozen=True)
class Job:
    """One training and evaluation.

    Attributes:
        model: registered name.
        dataset: registered name.
        data_fingerprint: hash of the dataset's files (`data.fingerprint`).
        protocol: what all models share.
        split: which cases train, validate and test.
        seed: of the network's initial weights and of the stream of patches.
    """

    model: str
    dataset: str
    data_fingerprint: str
    protocol: Protocol
    split: Split
    seed: int

    @property
    def model_options(self) -> dict[str, Any]:
        """Options with which the protocol builds this model."""
        return dict(self.protocol.model_options.get(self.model, {}))

    def to_dict(self) -> dict[str, Any]:
        """The canonical form: everything that may change the outcome, and nothing else."""
        protocol = self.protocol.model_dump(mode="json", exclude={"description", "changes", "model_options"})
        return {
            "model": self.model,
            "model_options": self.model_options,
            "dataset": self.dataset,
            "data_fingerprint": self.data_fingerprint,
            "protocol": protocol,
            "split_sha256": self.split.sha256,
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        """Hash of the canonical form, 16 hexadecimal digits: equal jobs share a record, others never do."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]
