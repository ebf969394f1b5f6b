"""A job's training on one device or several, tried again with less at once where memory runs out."""

from __future__ import annotations

import gc
from dataclasses import asdict, replace

import torch
from torch import nn

from bench.engine.checkpoint import TrainingState, load_checkpoint, load_weights
from bench.engine.execution import Execution
from bench.engine.interrupt import StopRequest
from bench.engine.memory import is_out_of_memory, peak, reset_peak
from bench.engine.options import RunOptions
from bench.engine.ranks import RankOutOfMemory, train_in_ranks
from bench.engine.task import TrainingTask
from bench.progress import Watcher
from bench.store import WEIGHTS, OpenRecord


def train_job(
    task: TrainingTask,
    model: nn.Module,
    record: OpenRecord,
    options: RunOptions,
    watcher: Watcher,
    stop: StopRequest,
) -> tuple[nn.Module, TrainingState]:
    """Train a job's network. Where memory runs out it is tried once more with half the micro-batch, which is recorded.

    Args:
        model: the task's network, untrained; it may be replaced by one like it.

    Returns:
        The network with its last weights, and the state at the end.

    Raises:
        As `bench.engine.train.train`, and what says that memory ran out.
    """
    try:
        return model, _train(task, model, record, options, watcher, stop)
    except Exception as error:
        micro_batch = _micro_batch(record, task, options.gpus)
        if not (is_out_of_memory(error) or isinstance(error, RankOutOfMemory)) or micro_batch == 1:
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
    # Only here, since the error held on to the tensors of its frames.
    half = micro_batch // 2
    watcher.say(f"out of memory ({reason}); trying again with a micro-batch of {half} instead of {micro_batch}")
    record.update(out_of_memory={"micro_batch": micro_batch, "message": reason}, largest_micro_batch=half)
    for parameter in model.parameters():
        parameter.grad = None
    model.to("cpu")  # whoever called holds on to it
    _free(options.device)
    again = replace(task, most=half)
    model = again.network(options.device)
    return model, _train(again, model, record, options, watcher, stop)


def _train(
    task: TrainingTask,
    model: nn.Module,
    record: OpenRecord,
    options: RunOptions,
    watcher: Watcher,
    stop: StopRequest,
) -> TrainingState:
    def on_execution(execution: Execution) -> None:
        record.update(execution={**asdict(execution), "devices": options.gpus})
        for note in execution.notes:
            watcher.say(f"note: {note}")

    reset_peak(options.device)
    if options.gpus == 1:
        try:
            return task.run(model, options.device, watcher, stop, on_execution)
        finally:
            _remember(record, peak(options.device))
    model.to("cpu")  # a rank needs all of the device
    _free(options.device)
    _remember(record, train_in_ranks(task, options.gpus, options.device.type, stop, on_execution))
    model.to(options.device)
    content = load_checkpoint(record.folder / WEIGHTS, options.device)
    load_weights(content, model, record.folder / WEIGHTS)
    return TrainingState(**content["progress"])


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _remember(record: OpenRecord, found: dict[str, int]) -> None:
    """Keep the larger of each number: a job that was interrupted took the most memory of its attempts."""
    earlier = record.content.get("memory", {}).get("train", {})
    record.update(memory={"train": {name: max(earlier.get(name, 0), value) for name, value in found.items()}})


def _micro_batch(record: OpenRecord, task: TrainingTask, devices: int) -> int:
    """Patches that passed through the network at once when memory ran out."""
    chosen = record.content.get("execution", {}).get("micro_batch")
    share = -(-task.job.protocol.train.batch_size // devices)
    return min(chosen or share, task.most or share)
