"""Trying a step before training: does the network answer, does it bear what was asked, does it fit in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from bench.engine.execution import Execution
from bench.engine.group import Group
from bench.engine.live_memory import peak_tensor_bytes
from bench.engine.memory import GIB, is_out_of_memory, limit_memory
from bench.engine.precision import arithmetic
from bench.engine.recompute import BATCH_NORMS, recompute
from bench.engine.regions import RegionLabels
from bench.engine.step import Step
from bench.engine.undisturbed import undisturbed
from bench.errors import BenchError
from bench.fields import TrainFields
from data.sampling import Batch

# How torch begins to say so under `torch.use_deterministic_algorithms`.
_UNREPEATABLE = "does not have a deterministic implementation"
# More bytes than any device has.
_TOO_MUCH = 2**62
# The allocator's blocks are cut for the sizes of a first step, so that a later one may want more.
_TRIAL_STEPS = 3
# Validation and the batches made ahead cut blocks of their own sizes, which leave gaps.
_SHARE_FOR_TENSORS = 0.97
_MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}


class DoesNotFit(BenchError):
    """No way of doing a training step keeps within the memory that it may take."""


def fit(
    model: nn.Module,
    batch: Batch,
    fields: TrainFields,
    device: torch.device,
    group: Group,
    most: int | None = None,
    beside: int = 0,
    regions: RegionLabels = (),
) -> Execution:
    """Choose how to carry out a training's steps by trying one; weights, buffers and random states stay as they were.

    Args:
        model: on ``device``, in training mode. Where activations are to be recomputed it is changed for that.
        batch: this process's part of a batch.
        fields: the protocol's training section.
        device: where the model is.
        group: the processes of the job; all come to the same choice.
        most: largest micro-batch to try; None for the whole part.
        beside: bytes of the device that are taken by something else while a step is carried out.
        regions: as `bench.engine.step.Step`.

    Raises:
        BenchError: the network does not return logits.
        DoesNotFit: under ``train.memory_gib`` not even one patch with recomputed activations fits.
    """
    largest = min(most or len(batch.image), len(batch.image))
    with undisturbed(model, device):
        execution = _bearable(model, batch, fields, device, Execution(largest), group, regions)
        if fields.memory_gib is not None:
            execution = _fitting(model, batch, fields, device, execution, int(fields.memory_gib * GIB), beside, regions)
    execution = _agreed(execution, group)
    if execution.micro_batch < fields.batch_size and any(isinstance(part, BATCH_NORMS) for part in model.modules()):
        note = f"batch normalisation sees {execution.micro_batch} of {fields.batch_size} patches at a time"
        execution = replace(execution, notes=(*execution.notes, note))
    return execution


def apply_recompute(model: nn.Module, batch: Batch, fields: TrainFields, device: torch.device) -> int:
    """Let a network recompute its activations; returns how many blocks do. Random states and buffers stay."""

    def pass_once() -> None:
        with arithmetic(fields.precision, device):
            model(batch.image[:1])

    with undisturbed(model, device):
        return recompute(model, pass_once)


def _bearable(
    model: nn.Module,
    batch: Batch,
    fields: TrainFields,
    device: torch.device,
    execution: Execution,
    group: Group,
    regions: RegionLabels,
) -> Execution:
    """The execution with compilation and layout as asked, less what the network does not bear."""
    notes: list[str] = []
    one = Batch(batch.image[:1], batch.label[:1])
    wanted = [name for name in ("channels_last", "fused", "compile", "graph") if getattr(fields, name)]
    chosen = replace(execution, micro_batch=1)
    for name in wanted:
        on: dict[str, Any] = {name: True}
        attempt = replace(chosen, **on)
        try:
            _possible(name, fields, device, group)
            Step(model, fields, attempt, device, regions=regions).accumulate(one)
            chosen = attempt
        except Exception as error:  # what a compiler or a kernel may raise is no closed list
            if is_out_of_memory(error):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            notes.append(f"{name} is off: {reason}")
            if name == "channels_last":
                model.to(memory_format=torch.contiguous_format)
            if name == "fused":
                from models.fusion import unfuse

                unfuse(model)
    trial = Step(model, fields, replace(chosen, compile=False, graph=False), device, regions=regions)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trial.accumulate(one)
    notes += _unrepeatable(str(warning.message) for warning in caught)
    if fields.precision == "fp16" and device.type == "cpu":
        notes.append("few CPUs compute in fp16, and others take many times longer than with train.precision=fp32")
    if fields.deep_supervision and trial.outputs == 1:
        notes.append("train.deep_supervision changes nothing: the network has one output")
    unused = sum(p.requires_grad and p.grad is None for p in model.parameters())
    return replace(chosen, micro_batch=execution.micro_batch, unused_parameters=unused, notes=tuple(notes))


def _possible(name: str, fields: TrainFields, device: torch.device, group: Group) -> None:
    """See that there is nothing against a way to carry out steps that a trial would not show.

    Raises:
        BenchError: there is.
    """
    if name in ("fused", "graph") and device.type != "cuda":
        raise BenchError("it needs a GPU")
    if name == "graph" and group.size > 1:
        raise BenchError("the processes of a job speak with each other within a step")
    if name == "graph" and fields.memory_gib is not None:
        raise BenchError("train.memory_gib may have activations computed again, which a graph cannot record")


def _fitting(
    model: nn.Module,
    batch: Batch,
    fields: TrainFields,
    device: torch.device,
    execution: Execution,
    limit: int,
    beside: int,
    regions: RegionLabels,
) -> Execution:
    needed = _TOO_MUCH
    for blocks in (False, True):
        count: int | None = _recomputing(model, batch, fields, device, limit) if blocks else 0
        if count is None:
            break
        for size in _halvings(execution.micro_batch):
            attempt = replace(execution, micro_batch=size, recomputed_blocks=count)
            needed = _step_bytes(model, batch, fields, device, attempt, limit, beside, regions)
            if needed <= limit:
                return replace(attempt, step_memory_bytes=needed)
    raise DoesNotFit(
        f"a training step does not fit in train.memory_gib={fields.memory_gib:g}: with one patch at a time and "
        f"recomputed activations it takes {_size(needed)}. Allow more, or set a smaller data.patch_size"
    )


def _recomputing(model: nn.Module, batch: Batch, fields: TrainFields, device: torch.device, limit: int) -> int | None:
    """Let a network recompute its activations; how many blocks do, or None where not even a forward pass fits."""
    try:
        with limit_memory(device, limit):
            return apply_recompute(model, batch, fields, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None


def _step_bytes(
    model: nn.Module,
    batch: Batch,
    fields: TrainFields,
    device: torch.device,
    execution: Execution,
    limit: int,
    beside: int,
    regions: RegionLabels,
) -> int:
    """Most bytes of tensors in a step and beside it; `_TOO_MUCH` where the device runs out of them within the limit.

    A GPU's allocator holds more than tensors take, so there the trial itself must get along with what is allowed.
    """
    step = Step(model, fields, execution, device, regions=regions)
    part = Batch(batch.image[: execution.micro_batch], batch.label[: execution.micro_batch])
    several = execution.micro_batch < len(batch.image)  # then the gradients of one part wait for those of the next
    weights = sum(p.nbytes for p in model.parameters())
    gradients = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    moments = _MOMENTS[fields.optimiser] + (fields.amsgrad and fields.optimiser != "sgd")
    moments = 0 if fields.optimiser == "sgd" and fields.momentum == 0 else moments
    absent = beside + moments * gradients + (gradients if several else 0)  # of what a step takes, not in this trial
    try:
        with (
            limit_memory(device, max(int(_SHARE_FOR_TENSORS * (limit - absent)), 1)),
            peak_tensor_bytes(device) as peak,
        ):
            for _ in range(_TRIAL_STEPS if device.type == "cuda" else 1):
                step.accumulate(part)
        found = peak()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return _TOO_MUCH
    finally:
        step.optimiser.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if device.type == "cpu":  # where the weights were there before anybody counted
        found += weights + batch.image.nbytes + batch.label.nbytes
    return found + absent


def _unrepeatable(warned: Iterable[str]) -> list[str]:
    """Which operations said that they have no form that is repeatable to the bit."""
    names = {text.partition(" does not have a deterministic")[0] for text in warned if _UNREPEATABLE in text}
    return [f"not repeatable to the bit on this device: {', '.join(sorted(names))}"] if names else []


def _halvings(size: int) -> Iterator[int]:
    while size > 1:
        yield size
        size = -(-size // 2)
    yield 1


def _agreed(execution: Execution, group: Group) -> Execution:
    """What every process can do."""
    all_ = group.gather(execution)
    return replace(
        execution,
        micro_batch=min(one.micro_batch for one in all_),
        recomputed_blocks=max(one.recomputed_blocks for one in all_),
        channels_last=all(one.channels_last for one in all_),
        compile=all(one.compile for one in all_),
        fused=all(one.fused for one in all_),
        graph=all(one.graph for one in all_),
        step_memory_bytes=max(one.step_memory_bytes for one in all_),
    )


def _size(count: int) -> str:
    return "more than that" if count == _TOO_MUCH else f"{count / GIB:.3g} GiB"
