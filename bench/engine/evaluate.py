"""Segmenting held-out cases and scoring them in their original grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from bench.engine.interrupt import StopRequest
from bench.engine.segment import Segmenter
from bench.fields import InferFields
from bench.metrics import RegionMeasurement, measure_case
from bench.progress import Watcher
from bench.protocol import Protocol
from bench.store import OpenRecord
from data.nifti import read_label, write_label
from data.prepare import StoredCase
from data.volume import CaseFiles

Measured = dict[str, list[RegionMeasurement]]


def evaluate(
    model: nn.Module,
    regions: Mapping[str, tuple[int, ...]],
    cases: Sequence[CaseFiles],
    prepared: Mapping[str, StoredCase],
    protocol: Protocol,
    *,
    infer: InferFields | None = None,
    challenge: str | None = None,
    device: torch.device,
    watcher: Watcher,
    stop: StopRequest,
    title: str = "testing",
    record: OpenRecord | None = None,
) -> Measured:
    """Segment and score cases.

    Args:
        regions: region name to labels.
        cases: with references.
        prepared: the same cases, by id.
        infer: how to segment, where it is not as the protocol says: while a network is trained, without flips.
        challenge: by whose settings lesions are scored one by one, a card's ``lesionwise``; None leaves that out.
        record: keeps the label maps; None keeps none. A map that the record says is of these weights is taken
            instead of a new inference, so that an interrupted evaluation goes on.

    Raises:
        Interrupted: ``stop`` was requested.
        Diverged: a logit is not finite.
        DataError, BenchError: a reference cannot be read, a prediction cannot be written, the network does not return
            logits, or not for each region, or these regions cannot be painted as ``train.target`` or ``infer.output``
            asks.
    """
    patch_size, target = protocol.data.patch_size, protocol.train.target
    segmenter = Segmenter(model, patch_size, infer or protocol.infer, regions, device, target=target)
    measured: Measured = {}
    with watcher.bar(title, len(cases)) as bar:

        def on_window(done: int, total: int) -> None:
            stop.check()
            bar.note(f"window {done}/{total}")

        for case in cases:
            label = None
            if record is not None and record.has_prediction(case.id):
                label, _ = read_label(record.prediction(case.id))
            if label is None:
                ready = prepared[case.id]
                label = segmenter.segment(ready, on_window).label()
                if record is not None:
                    record.prediction(case.id).parent.mkdir(exist_ok=True)
                    write_label(record.prediction(case.id), label, ready.geometry)
                    record.note_prediction(case.id)
            assert case.label is not None
            reference, geometry = read_label(case.label)
            measured[case.id] = measure_case(
                label,
                reference,
                geometry.spacing_mm,
                regions=regions,
                convention=protocol.evaluate.convention,
                challenge=challenge,
            )
            stop.check()
            bar.advance(f"Dice {mean_dice(measured):.3f}")
    return measured


def mean_dice(measured: Measured) -> float:
    """Mean over all cases and regions."""
    return float(np.mean([m.dice for regions in measured.values() for m in regions]))


def means(measured: Measured) -> dict[str, dict[str, float]]:
    """Mean Dice and HD95 (mm) over cases, by region."""
    by_region: dict[str, list[RegionMeasurement]] = {}
    for regions in measured.values():
        for m in regions:
            by_region.setdefault(m.region, []).append(m)
    return {
        region: {
            "dice": float(np.mean([m.dice for m in found])),
            "hd95": float(np.mean([m.hd95 for m in found])),
        }
        for region, found in by_region.items()
    }
