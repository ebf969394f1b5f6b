"""Segmenting new cases with a trained run, or with published weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

import data
import models
from bench.engine.checkpoint import load_checkpoint, load_foreign_weights, load_weights
from bench.engine.interrupt import StopRequest
from bench.engine.network import build_network
from bench.engine.outputs import Outputs
from bench.engine.segment import Segmenter
from bench.errors import BenchError
from bench.fields import InferFields, Size, Target
from bench.progress import Watcher
from bench.protocol import Protocol, value_of
from bench.store import BEST, WEIGHTS, Record
from data.card import DatasetCard
from data.dataset import Dataset
from data.nifti import write_image, write_label
from data.prepare import Preparation, prepare_volume
from models.errors import PublishedWarning

CHECKPOINTS = {"last": WEIGHTS, "best": BEST}


@dataclass(frozen=True)
class Predictor:
    """A trained network with the preparation and inference that it needs.

    Attributes:
        card: of the dataset whose channels it reads and whose labels it gives.
        preparation: how a case becomes what the network was trained on.
    """

    card: DatasetCard
    preparation: Preparation
    _segmenter: Segmenter

    @property
    def region_names(self) -> tuple[str, ...]:
        """Of the regions that the network's channels are of, in order; empty where they are of the card's classes."""
        return self._segmenter.region_names

    @classmethod
    def from_record(cls, record: Record, device: torch.device, checkpoint: str = "") -> Predictor:
        """The network of a run, under the protocol that it was trained under.

        Args:
            checkpoint: ``last`` or ``best`` weights; by default those that the run was tested with.

        Raises:
            BenchError: the record is not that of a trained network, or its weights are missing or damaged.
            DataError: the record's dataset is none that this version knows.
        """
        if record.kind == "external":
            raise BenchError(f"{record.folder} holds predictions from elsewhere, so there is no network to run")
        if record.status != "complete":
            faults = "".join(f"\n{fault}" for fault in record.faults)
            raise BenchError(
                f"{record.folder} is {record.status}; expected a complete run. Run the same job again.{faults}"
            )
        weights = _weights(record, checkpoint)
        job = record.content["job"]
        card = card_of(record)
        try:
            patch_size = TypeAdapter(Size).validate_python(job["protocol"]["data"]["patch_size"])
            # Records from before these fields were segmented so.
            infer = InferFields.model_validate({"output": "argmax", "precision": "fp32", **job["protocol"]["infer"]})
            preparation = _preparation(record)
            target = target_of(record)
        except (ValidationError, KeyError, TypeError) as error:
            raise BenchError(f"{record.folder} holds a protocol that this version does not know: {error}") from error
        model = build_network(job["model"], job["model_options"], card, patch_size, device, target)
        try:
            load_weights(load_checkpoint(weights, device), model, weights)
        except BenchError as error:
            raise BenchError(f"{error} To train anew, delete {record.folder} and run the same job again.") from error
        return cls(card, preparation, Segmenter(model, patch_size, infer, card.regions, device, target=target))

    @classmethod
    def from_weights(
        cls,
        weights: Path,
        name: str,
        options: Mapping[str, Any],
        card: DatasetCard,
        protocol: Protocol,
        device: torch.device,
        watcher: Watcher,
    ) -> Predictor:
        """A network with weights that its authors, or anybody's code under their names, saved.

        Args:
            weights: the file.
            name: registered name of the network.
            options: those with which it is built.
            card: of the dataset whose channels and labels the weights were made for.
            protocol: gives patch size, preparation and inference. There are no training cases here, so the spacing
                ``median`` leaves each case its own.
            device: where to run.
            watcher: is told what a file cannot tell.

        Raises:
            BenchError: the file cannot be read, the network does not take the protocol's patch, the protocol trains
                regions, whose order is not known here, or the dataset has CT, which is scaled by the intensities of
                training cases.
            ModelError: there is no such network or option, or the file does not hold this network's weights.
        """
        fields = protocol.data
        if card.ct_channels:
            raise BenchError(
                f"--weights {weights}: {card.name} has channels of CT, which are scaled by the intensities of the "
                "training cases, and a file of weights does not hold those. Expected a dataset without CT, or a run of "
                "this package (RUN), whose record holds them"
            )
        if protocol.train.target == "regions":
            raise BenchError(
                f"--weights {weights}: a file of weights does not say which of its outputs is of which region. "
                "Expected a network of classes (--set train.target=classes), or a run of this package (RUN)"
            )
        if fields.spacing_mm == "median":
            watcher.say("note: data.spacing_mm=median has no training cases here; each case keeps its own spacing")
        preparation = Preparation(
            normalise=fields.normalise,
            storage=fields.storage,
            spacing_mm=None if isinstance(fields.spacing_mm, str) else fields.spacing_mm,
        )
        model = build_network(name, options, card, fields.patch_size, device)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PublishedWarning)
            models.load_published(model, load_foreign_weights(weights))
        for warning in caught:
            if issubclass(warning.category, PublishedWarning):
                watcher.say(f"note: {warning.message}")
        return cls(card, preparation, Segmenter(model, fields.patch_size, protocol.infer, card.regions, device))

    def predict(self, dataset: Dataset, plan: Sequence[Outputs], watcher: Watcher, stop: StopRequest) -> None:
        """Segment each case into its files: the case's grid and affine, the dataset's labels.

        Probabilities are of the card's classes, or of `region_names` where there are such.

        A case's label map is written after its probabilities, so that where it is, they are.

        Raises:
            Diverged: a logit is not finite.
            DataError: a case is damaged or a file cannot be written.
            Interrupted: ``stop`` was requested; the files written so far stay.
        """
        torch.backends.cudnn.benchmark = True  # every window has the same size
        with watcher.bar("segmenting", len(plan)) as bar:

            def on_window(done: int, total: int) -> None:
                stop.check()
                bar.note(f"window {done}/{total}")

            for outputs in plan:
                case = outputs.case
                ready = prepare_volume(case.id, dataset.read(case), self.preparation)
                segmentation = self._segmenter.segment(ready, on_window)
                _make_folder(outputs.label.parent)
                if outputs.probabilities:
                    each = segmentation.each_probability()
                    for file, probability in zip(outputs.probabilities, each, strict=True):
                        write_image(file, probability, ready.geometry)
                write_label(outputs.label, segmentation.label(), ready.geometry)
                bar.advance(case.id)


def _weights(record: Record, checkpoint: str) -> Path:
    if not checkpoint:
        return record.weights
    if checkpoint not in CHECKPOINTS:
        raise BenchError(f"--checkpoint {checkpoint!r}: expected {' or '.join(CHECKPOINTS)}")
    file = record.folder / CHECKPOINTS[checkpoint]
    if checkpoint == "best" and not file.exists():
        raise BenchError(
            f"--checkpoint best: there is no {file}. A run has one where it validated while training "
            "(validation.every_epochs, and cases to validate on); a published record may come without. "
            "Use --checkpoint last"
        )
    return file


def card_of(record: Record) -> DatasetCard:
    """The dataset's card as the run saw it: a dataset that was named as a folder may be out of reach by now.

    Raises:
        DataError: the record holds none, and its dataset is none that this version knows.
    """
    stated = record.content.get("data", {}).get("card")
    return data.card(record.content["job"]["dataset"]) if stated is None else DatasetCard.from_dict(stated)


def target_of(record: Record) -> Target:
    """What the network of a run was trained on.

    Raises:
        ValidationError: something that this version does not know.
    """
    return TypeAdapter(Target).validate_python(value_of(record.content["job"]["protocol"], "train.target"))


def _preparation(record: Record) -> Preparation:
    stated: dict[str, Any] | None = record.content.get("preparation")
    if stated is None:  # from before there was more to decide
        return Preparation(normalise=record.content["job"]["protocol"]["data"]["normalise"])
    return Preparation.from_dict(stated)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"cannot make the folder {folder}: {error.strerror}. Give another OUTPUT.") from error
