"""Training one network under a protocol."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bench.engine.checkpoint import TrainingState, load_checkpoint, restore, save_checkpoint
from bench.engine.diverged import Diverged
from bench.engine.interrupt import Interrupted, StopRequest
from bench.engine.loss import cross_entropy
from bench.errors import BenchError
from bench.fields import TrainFields
from bench.progress import Watcher
from bench.store import OpenRecord
from data.sampling import PatchSampler

_CHECKPOINT_INTERVAL_S = 600.0


class _Patches(Dataset[tuple[Tensor, Tensor]]):
    """The sampler's batches, by step."""

    def __init__(self, sampler: PatchSampler, steps: int) -> None:
        self._sampler, self._steps = sampler, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        batch = self._sampler.batch(step)
        return torch.from_numpy(batch.image), torch.from_numpy(batch.label)


def train(
    model: nn.Module,
    sampler: PatchSampler,
    fields: TrainFields,
    *,
    record: OpenRecord,
    checkpoint: Path,
    device: torch.device,
    workers: int,
    watcher: Watcher,
    stop: StopRequest,
) -> TrainingState:
    """Train to the end of the budget, going on from ``checkpoint`` if it is there.

    SGD with Nesterov momentum, the rate falling polynomially with every step (SegMamba, section 3.4).

    Args:
        model: on ``device``; returns logits (B, K, D, H, W) for images (B, C, D, H, W), or in training a list of them
            as `cross_entropy` takes.
        sampler: gives the patches of each step.
        fields: the protocol's training section.
        record: takes the history.
        checkpoint: where the state is kept.
        workers: processes that cut patches; 0 cuts them in this one.
        watcher: is shown the progress.
        stop: asks for an end; the state is saved before `Interrupted` is raised.

    Raises:
        Diverged: the loss or a weight is NaN or infinite.
        Interrupted: ``stop`` was requested.
        BenchError: the disk refuses.
    """
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=fields.learning_rate,
        momentum=fields.momentum,
        nesterov=fields.momentum > 0,
        weight_decay=fields.weight_decay,
    )
    state = _resume(checkpoint, model, optimiser, device, watcher)
    total = fields.total_steps
    loader = DataLoader(
        _Patches(sampler, total),
        batch_size=None,
        sampler=range(state.step, total),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        # A loader draws a seed when it starts; from a generator of its own, a resumed training's stays in step.
        generator=torch.Generator(),
    )
    model.train()
    saved = time.monotonic()
    with watcher.bar("training", total, state.step) as bar:
        arrived = time.monotonic()
        for image, label in loader:
            started = time.monotonic()
            rate = fields.learning_rate * (1 - state.step / total) ** fields.poly_power
            loss = _step(model, optimiser, image.to(device), label.to(device), rate, fields.clip_norm)
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss} at step {state.step}, learning rate {rate:.3g}")
            ended = time.monotonic()
            state.step += 1
            state.seconds += ended - arrived
            state.pending.append((loss, ended - started, started - arrived))
            bar.advance(f"loss {loss:.4f}, {ended - started:.2f} s a step")
            if state.step % fields.steps_per_epoch == 0 or state.step == total:
                _close_epoch(state, rate)
                record.write_history(state.history)
            if state.step == total or stop.requested or ended - saved > _CHECKPOINT_INTERVAL_S:
                if not all(torch.isfinite(p).all() for p in model.parameters()):
                    raise Diverged(f"weights are not finite after step {state.step}, learning rate {rate:.3g}")
                save_checkpoint(checkpoint, model, optimiser, state)
                saved = time.monotonic()
            if stop.requested and state.step < total:
                raise Interrupted
            arrived = time.monotonic()
    return state


def _step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    image: Tensor,
    label: Tensor,
    rate: float,
    clip_norm: float | None,
) -> float:
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    loss = cross_entropy(model(image), label)
    loss.backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimiser.step()
    return float(loss.detach())


def _close_epoch(state: TrainingState, rate: float) -> None:
    means = [sum(values) / len(values) for values in zip(*state.pending, strict=True)]
    names = ("loss", "step_s", "data_wait_s")
    state.history.append({"step": state.step, "learning_rate": rate, **dict(zip(names, means, strict=True))})
    state.pending.clear()


def _resume(
    checkpoint: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
    watcher: Watcher,
) -> TrainingState:
    fresh = TrainingState(step=0, history=[], pending=[], seconds=0.0)
    if not checkpoint.exists():
        return fresh
    try:
        state = restore(load_checkpoint(checkpoint, device), model, optimiser, checkpoint)
    except BenchError as error:
        aside = checkpoint.with_suffix(".damaged")
        checkpoint.replace(aside)
        watcher.say(f"{error}\nIt was set aside as {aside.name}; training begins anew.")
        return fresh
    watcher.say(f"going on from step {state.step}")
    return state
