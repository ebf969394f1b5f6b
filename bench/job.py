"""A job: one model, one dataset, one protocol, one split (or fold), one seed. Its key names its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError
from bench.key import key_of
from bench.protocol import Protocol, show
from data.prepare import PREPARATION_VERSION
from data.split import Split


@dataclass(frozen=True)
class Job:
    """One training and evaluation.

    Attributes:
        model: registered name.
        model_options: every option with which it is built, defaults included, so that a changed default is another
            job and a default that was spelt out is the same.
        dataset: registered name.
        data_fingerprint: hash of the dataset's files (`data.fingerprint`).
        card_sha256: hash of what a dataset's own description says of channels, labels and regions; empty where the
            dataset's name stands for that.
        protocol: what all models share.
        split: which cases train, validate and test.
        seed: of the network's initial weights and of the stream of patches.
        fold: which of the protocol's folds the split tests, from 0; None where it has none.

    Raises:
        BenchError: the fold is none of the protocol's, or there is none though the protocol has folds.
    """

    model: str
    model_options: Mapping[str, Any]
    dataset: str
    data_fingerprint: str
    protocol: Protocol
    split: Split
    seed: int
    card_sha256: str = ""
    fold: int | None = None

    def __post_init__(self) -> None:
        folds = self.protocol.split.folds
        if (self.fold is None) != (folds is None) or (self.fold is not None and not 0 <= self.fold < (folds or 0)):
            expected = f"one of 0 to {folds - 1}, of" if folds else "none, with"
            raise BenchError(f"found a job of fold {self.fold}; expected {expected} split.folds={show(folds)}")

    @property
    def title(self) -> str:
        """For people, e.g. ``segmamba on phantom, seed 0, fold 2``."""
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"{self.model} on {self.dataset}, seed {self.seed}{fold}"

    def to_dict(self) -> dict[str, Any]:
        """The canonical form: everything that may change the outcome, and nothing else."""
        return {
            "model": self.model,
            "model_options": dict(self.model_options),
            "dataset": self.dataset,
            "data_fingerprint": self.data_fingerprint,
            **({"card_sha256": self.card_sha256} if self.card_sha256 else {}),
            "preparation": PREPARATION_VERSION,
            "protocol": self.protocol.canonical(),
            "split_sha256": self.split.sha256,
            "seed": self.seed,
            **({} if self.fold is None else {"fold": self.fold}),
        }

    @property
    def key(self) -> str:
        """Hash of the canonical form, 16 hexadecimal digits: equal jobs share a record, others never do."""
        return key_of(self.to_dict())
