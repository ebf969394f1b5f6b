"""One optimiser step: micro-batches forward and backward, the gradient clipped, the weights moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bench.engine.execution import Execution
from bench.engine.graph import Replayed
from bench.engine.group import ALONE, Group
from bench.engine.loss import make_loss
from bench.engine.optimise import make_optimiser
from bench.engine.precision import arithmetic
from bench.engine.regions import RegionLabels, check_count
from bench.engine.undisturbed import undisturbed
from bench.errors import BenchError
from bench.fields import TrainFields
from data.sampling import Batch


class Step:
    """Carries out the steps of one training.

    Args:
        model: on ``device``, in training mode; returns logits (B, K, D, H, W) for images (B, C, D, H, W), or a list of
            them, the first at full size and each other at half the size of the one before.
        fields: the protocol's training section.
        execution: micro-batch, layout, compilation.
        device: where the model is.
        group: the processes that share a batch; each does its part of it.
        regions: see `bench.engine.regions.RegionLabels`.

    Attributes:
        optimiser: moves the weights.
        scaler: scales the loss under fp16.
        outputs: how many logits the network returned in the last pass, 1 without deep supervision; 0 before the first.
        on_phase: told at the end of each ``forward``, ``backward`` and ``optimiser``, with the device still at work.
    """

    def __init__(
        self,
        model: nn.Module,
        fields: TrainFields,
        execution: Execution,
        device: torch.device,
        group: Group = ALONE,
        regions: RegionLabels = (),
    ) -> None:
        self.optimiser = make_optimiser(model.parameters(), fields)
        self.scaler = torch.amp.GradScaler(device.type, enabled=fields.precision == "fp16")
        self.outputs = 0
        self.on_phase: Callable[[str], None] = _ignore
        self._model = model
        self._fields = fields
        self._execution = execution
        self._device = device
        self._loss = make_loss(fields, regions)
        self._regions = regions
        self._layout = torch.channels_last_3d if execution.channels_last else torch.contiguous_format
        if execution.channels_last:
            model.to(memory_format=torch.channels_last_3d)
        if execution.fused:
            # It loads MONAI, whose blocks it knows: seconds that others need not wait.
            from models.fusion import fuse

            fuse(model)
        self._together: DistributedDataParallel | None = None
        if group.size > 1:
            self._together = DistributedDataParallel(
                model,
                device_ids=[device] if device.type == "cuda" else None,
                gradient_as_bucket_view=True,  # else the gradients lie in memory twice
                find_unused_parameters=execution.unused_parameters > 0,
            )
        network = self._together or model
        self._forward: Any = torch.compile(network) if execution.compile else network
        self._replayed = Replayed(self._passes, lambda: undisturbed(model, device)) if execution.graph else None

    def __call__(self, batch: Batch, rate: float) -> float:
        """Do one step on this process's part of a batch; returns its loss, the mean over its patches."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self.accumulate(batch)
        self.scaler.unscale_(self.optimiser)
        if self._fields.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._fields.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.on_phase("optimiser")
        return float(loss)

    def rehearse(self, batch: Batch) -> None:
        """Let kernels be chosen, compiled and recorded for batches of this size; weights and random states stay."""
        if self._replayed is not None:
            self._replayed.record(batch.image, batch.label)
            return
        with undisturbed(self._model, self._device):
            self._passes(batch.image, batch.label)

    def accumulate(self, batch: Batch) -> Tensor:
        """Put the gradient of a batch's mean loss, times the scaler's factor, into the parameters; returns the loss.

        Replayed as a graph it is one phase, ``backward``, and not two.
        """
        if self._replayed is None:
            return self._passes(batch.image, batch.label)
        loss = self._replayed(batch.image, batch.label)
        self.on_phase("backward")
        return loss

    def _passes(self, image: Tensor, label: Tensor) -> Tensor:
        batch = Batch(image, label)
        self.optimiser.zero_grad(set_to_none=True)
        parts = list(self._parts(batch))
        total = torch.zeros((), device=self._device)
        for number, (image, label) in enumerate(parts):
            last = number == len(parts) - 1
            with self._together.no_sync() if self._together and not last else nullcontext():
                with arithmetic(self._fields.precision, self._device):
                    logits = self._forward(image)
                    check_logits(logits, image, self._model, len(self._regions))
                    self.outputs = 1 if isinstance(logits, Tensor) else len(logits)
                    loss = self._loss(logits, label) * (len(image) / len(batch.image))
                    # Autocast ends before the backward pass, which follows the types of the forward one.
                    scaled = self.scaler.scale(loss)
                self._tell("forward")
                with arithmetic("tf32" if self._fields.precision != "fp32" else "fp32", self._device):
                    scaled.backward()
                self._tell("backward")
            total += loss.detach()
        return total

    def _tell(self, phase: str) -> None:
        if not self._execution.graph:  # in a recording nobody can look at the clock
            self.on_phase(phase)

    def _parts(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        size = self._execution.micro_batch
        for start in range(0, len(batch.image), size):
            image = batch.image[start : start + size].contiguous(memory_format=self._layout)
            yield image, batch.label[start : start + size]


def _ignore(_phase: str) -> None:
    """Nobody asks how long a phase takes."""


def check_logits(logits: Any, image: Tensor, model: nn.Module, regions: int = 0) -> None:
    """See that a network returned what a loss can be computed of.

    Args:
        logits: what it returned.
        image: of what.
        model: says its name.
        regions: how many the logits are of; 0 where they are of classes, which the labels count.

    Raises:
        BenchError: it did not.
    """
    levels = [logits] if isinstance(logits, Tensor) else logits
    name = getattr(model, "registered_name", type(model).__name__)
    expected = "logits (B, K, D, H, W) of the image's size, or a list of them, the finest first"
    if not isinstance(levels, (list, tuple)) or not all(isinstance(level, Tensor) for level in levels) or not levels:
        raise BenchError(f"{name} returned {_describe(logits)} in training; expected {expected}")
    finest = levels[0]
    if finest.ndim != image.ndim or finest.shape[2:] != image.shape[2:] or len(finest) != len(image):
        raise BenchError(
            f"{name} returned a tensor of shape {tuple(finest.shape)} for an image of {tuple(image.shape)}; expected "
            f"{expected}"
        )
    for level in levels if regions else ():
        check_count(name, level.shape[1], regions)


def _describe(thing: Any) -> str:
    if isinstance(thing, (list, tuple)):
        return f"a {type(thing).__name__} of {', '.join(sorted({type(item).__name__ for item in thing})) or 'nothing'}"
    return f"a {type(thing).__name__}"
