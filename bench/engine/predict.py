"""Segmenting new cases with a trained run, or with published weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

import data
import models
from bench.engine.checkpoint import load_checkpoint, load_foreign_weights, load_weights
from bench.engine.infer import predict_label
from bench.engine.interrupt import StopRequest
from bench.engine.network import build_network
from bench.errors import BenchError
from bench.fields import DataFields, InferFields
from bench.progress import Watcher
from bench.protocol import Protocol
from bench.store import Record
from data.card import DatasetCard
from data.dataset import Dataset
from data.nifti import write_label
from data.prepare import prepare_volume
from data.volume import CaseFiles
from models.errors import PublishedWarning


class Predictor:
    """A trained network with the preprocessing and inference settings that it needs.

    Args:
        model: on ``device``.
        card: of the dataset whose channels it reads and whose labels it gives.
        data_fields: patch size and normalisation.
        infer_fields: windows, blending and flips.
        device: where to run.
    """

    def __init__(
        self,
        model: nn.Module,
        card: DatasetCard,
        data_fields: DataFields,
        infer_fields: InferFields,
        device: torch.device,
    ) -> None:
        self.card = card
        self._model = model
        self._data = data_fields
        self._infer = infer_fields
        self._device = device

    @classmethod
    def from_record(cls, record: Record, device: torch.device) -> Predictor:
        """The network of a run, under the protocol that it was trained under.

        Raises:
            BenchError: the record is not that of a trained network, or its weights are missing or damaged.
        """
        if record.kind == "external":
            raise BenchError(f"{record.folder} holds predictions from elsewhere, so there is no network to run")
        if record.status != "complete":
            faults = "".join(f"\n{fault}" for fault in record.faults)
            raise BenchError(
                f"{record.folder} is {record.status}; expected a complete run. Run the same job again.{faults}"
            )
        job = record.content["job"]
        card = data.card(job["dataset"])
        try:
            data_fields = DataFields.model_validate(job["protocol"]["data"])
            infer_fields = InferFields.model_validate(job["protocol"]["infer"])
        except ValidationError as error:
            raise BenchError(f"{record.folder} holds a protocol that this version does not know: {error}") from error
        model = build_network(job["model"], job["model_options"], card, data_fields.patch_size, device)
        try:
            load_weights(load_checkpoint(record.weights, device), model, record.weights)
        except BenchError as error:
            raise BenchError(f"{error} To train anew, delete {record.folder} and run the same job again.") from error
        return cls(model, card, data_fields, infer_fields, device)

    @classmethod
    def from_weights(
        cls, weights: Path, name: str, card: DatasetCard, protocol: Protocol, device: torch.device, watcher: Watcher
    ) -> Predictor:
        """A network with weights that its authors, or anybody's code under their names, saved.

        Args:
            weights: the file.
            name: registered name of the network; its options are those of the protocol.
            card: of the dataset whose channels and labels the weights were made for.
            protocol: gives patch size, normalisation and inference.
            device: where to run.
            watcher: is told what a file cannot tell.

        Raises:
            BenchError: the file cannot be read, or the network does not take the protocol's patch.
            ModelError: there is no such network or option, or the file does not hold this network's weights.
        """
        model = build_network(name, protocol.model_options.get(name, {}), card, protocol.data.patch_size, device)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PublishedWarning)
            models.load_published(model, load_foreign_weights(weights))
        for warning in caught:
            if issubclass(warning.category, PublishedWarning):
                watcher.say(f"note: {warning.message}")
        return cls(model, card, protocol.data, protocol.infer, device)

    def predict(self, dataset: Dataset, cases: Mapping[Path, CaseFiles], watcher: Watcher, stop: StopRequest) -> None:
        """Segment each case into the file it is listed under: the case's grid and affine, the dataset's labels.

        Raises:
            DataError: a case is damaged or a file cannot be written.
            Interrupted: ``stop`` was requested; the files written so far stay.
        """
        with watcher.bar("segmenting", len(cases)) as bar:

            def on_window(done: int, total: int) -> None:
                stop.check()
                bar.note(f"window {done}/{total}")

            for file, case in cases.items():
                ready = prepare_volume(case.id, dataset.read(case), self._data.normalise)
                label = predict_label(
                    self._model, ready.image, self._data.patch_size, self._infer, self._device, on_window
                )
                _make_folder(file.parent)
                write_label(file, ready.uncrop(label), ready.geometry)
                bar.advance(case.id)


def output_files(cases: Sequence[CaseFiles], output: Path) -> dict[Path, CaseFiles]:
    """Where each case's label map goes: ``output`` itself if it names a NIfTI file, else ``output/<case>.nii.gz``.

    Raises:
        BenchError: several cases for one file, or two cases of one identifier.
    """
    if output.name.endswith((".nii", ".nii.gz")):
        if len(cases) != 1:
            raise BenchError(f"{output} is one file, but there are {len(cases)} cases; give a folder as OUTPUT")
        return {output: cases[0]}
    files = {output / f"{case.id}.nii.gz": case for case in cases}
    if len(files) < len(cases):
        raise BenchError("two cases have the same identifier, so their label maps would overwrite each other")
    return files


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"cannot make the folder {folder}: {error.strerror}. Give another OUTPUT.") from error
