"""Training one network under a protocol."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.engine.checkpoint import (
    TrainingState,
    Unreadable,
    load_checkpoint,
    load_weights,
    random_state,
    restore,
    save_checkpoint,
)
from bench.engine.device import deterministic
from bench.engine.diverged import Diverged
from bench.engine.execution import Execution
from bench.engine.feed import Feed
from bench.engine.fit import apply_recompute, fit
from bench.engine.group import ALONE, Group
from bench.engine.interrupt import Interrupted, StopRequest, TimedOut
from bench.engine.logbook import Logbook, Row
from bench.engine.memory import GIB, limit_memory
from bench.engine.optimise import learning_rate
from bench.engine.regions import RegionLabels
from bench.engine.step import Step
from bench.errors import BenchError
from bench.fields import TrainFields
from bench.progress import Bar, InnerWatcher, Watcher
from data.sampling import PatchSampler

Validate = Callable[[Watcher], Mapping[str, float]]


@dataclass(frozen=True)
class Surroundings:
    """Where a training takes place and who looks on; nothing here changes its outcome but by rounding.

    Attributes:
        last: checkpoint of the latest state.
        best: checkpoint of the best validation.
        events: folder of TensorBoard's events, or None.
        write_history: takes all rows of the history, at each new one.
        on_execution: is told how the steps are carried out, before the first.
        device: where the network is.
        workers: threads that cut patches; 0 cuts them in this one.
        watcher: is shown the progress.
        stop: asks for an end.
        group: the processes that train together.
        most: largest micro-batch on each device, or None.
        checkpoint_interval_s: seconds between two checkpoints, at most a step and a validation more.
    """

    last: Path
    best: Path
    events: Path | None
    write_history: Callable[[Sequence[Row]], None]
    on_execution: Callable[[Execution], None]
    device: torch.device
    workers: int
    watcher: Watcher
    stop: StopRequest
    group: Group = ALONE
    most: int | None = None
    checkpoint_interval_s: float = 600.0


def train(
    model: nn.Module,
    sampler: PatchSampler,
    fields: TrainFields,
    around: Surroundings,
    *,
    regions: RegionLabels = (),
    validate: Validate | None = None,
    validate_every: int = 1,
) -> TrainingState:
    """Train to the end of the budget, going on from the latest checkpoint if it is there.

    Args:
        model: on the device; see `bench.engine.step.Step` for what it returns.
        sampler: gives the patches of each step.
        fields: the protocol's training section.
        around: device, files, progress.
        regions: as `bench.engine.step.Step`.
        validate: scores the model on whole validation volumes; ``dice`` is the mean, further entries are regions'. It
            is called every ``validate_every`` epochs and at the end, and the best ``dice`` is kept as a checkpoint.

    Raises:
        Diverged: the loss or a weight is NaN or infinite.
        Interrupted, TimedOut: it was time to stop; the state is saved.
        BenchError: the network does not return logits, its step does not fit, or the disk refuses.
    """
    with deterministic(fields.deterministic or around.device.type == "cpu", around.device):
        return _Training(model, sampler, fields, around, regions, validate, validate_every).run()


class _Training:
    def __init__(
        self,
        model: nn.Module,
        sampler: PatchSampler,
        fields: TrainFields,
        around: Surroundings,
        regions: RegionLabels,
        validate: Validate | None,
        validate_every: int,
    ) -> None:
        self._model, self._sampler, self._fields, self._around = model, sampler, fields, around
        self._regions = regions
        self._validate, self._validate_every = validate, validate_every
        self._samples = around.group.share(sampler.batch_size)
        self._state = TrainingState()
        self._saved = time.monotonic()
        self._overdue = False

    def run(self) -> TrainingState:
        fields, around = self._fields, self._around
        self._model.train()
        content = self._found()
        if content is not None:
            state = TrainingState(**content["progress"])
            if self._spent(state) >= 1:
                return state
        execution = self._execution(content)
        limit = int(fields.memory_gib * GIB) if fields.memory_gib is not None else None
        with limit_memory(around.device, limit):
            step = Step(self._model, fields, execution, around.device, around.group, self._regions)
            if content is not None:
                self._state = restore(content, self._model, step.optimiser, step.scaler, around.last, around.group.rank)
                self._agree_with_best()
                around.watcher.say(f"going on from step {self._state.step}")
            self._state.execution = asdict(execution)
            around.on_execution(execution)
            del content
            if fields.gpu_seconds is not None:  # what is done once a start is not charged, however often it starts
                step.rehearse(self._sampler.batch(self._state.step, around.device, self._samples))
            self._go_on(step)
        return self._state

    def _found(self) -> dict[str, Any] | None:
        """The latest checkpoint, its weights in the model; one that is damaged is set aside."""
        last, group = self._around.last, self._around.group
        content, fault = None, ""
        if last.exists():
            try:
                content = load_checkpoint(last, self._around.device)
            except Unreadable:
                raise
            except BenchError as error:
                fault = str(error)
        if content is not None and not any(group.gather(fault)):
            try:  # only where all could read it: the weights change here
                load_weights(content, self._model, last)
            except BenchError as error:
                fault = str(error)
        if not any(faults := group.gather(fault)):
            return content
        fault = next(filter(None, faults))
        if group.first:
            aside = last.with_suffix(".damaged")
            last.replace(aside)
            self._around.watcher.say(f"{fault}\nIt was set aside as {aside.name}; training begins anew.")
        group.wait()
        return None

    def _agree_with_best(self) -> None:
        """What the file of the best weights says of itself holds.

        A kill between that file and the state leaves it ahead of the state, and on a GPU the steps in between do not
        come again to the bit.
        """
        best, state = self._around.best, self._state
        try:
            found = load_checkpoint(best, torch.device("cpu"))["progress"] if best.exists() else {}
        except Unreadable:
            raise
        except BenchError as error:
            self._around.watcher.say(f"{error} The next validation replaces it.")
            found = {}
        state.best_dice, state.best_step = found.get("best_dice"), found.get("best_step")

    def _execution(self, content: dict[str, Any] | None) -> Execution:
        """As it was before an interruption, so that the rounding is the same; else as a trial shows."""
        around, mine = self._around, len(self._samples)
        most = min(around.most or mine, mine)
        earlier = content["progress"]["execution"] if content is not None else None
        if earlier is not None and earlier["micro_batch"] <= most:
            execution = Execution(**{**earlier, "notes": tuple(earlier["notes"])})
            if execution.recomputed_blocks:
                batch = self._sampler.batch(0, around.device, self._samples[:1])
                apply_recompute(self._model, batch, self._fields, around.device)
            return execution
        batch = self._sampler.batch(0, around.device, self._samples)
        beside = 0
        if self._fields.memory_gib is not None:
            beside = Feed.device_bytes(self._sampler, self._samples, around.device, around.workers)
        return fit(self._model, batch, self._fields, around.device, around.group, most, beside, self._regions)

    def _spent(self, state: TrainingState) -> float:
        """Share of the budget that is spent."""
        total = self._fields.total_steps
        if total is not None:
            return state.step / total
        return state.device_seconds / (self._fields.gpu_seconds or 1.0)

    def _go_on(self, step: Step) -> None:
        around, state = self._around, self._state
        total, unit = self._fields.total_steps, 1
        if total is None:
            total, done = round(self._fields.gpu_seconds or 0), round(state.device_seconds)
        else:
            done = state.step
        title = "training" if self._fields.total_steps else "training, seconds"
        self._saved = time.monotonic()
        with (
            Logbook(around.events, around.write_history, state.step) as log,
            Feed(
                self._sampler, state.step, indices=self._samples, device=around.device, workers=around.workers
            ) as feed,
            around.watcher.bar(title, total, done) as bar,
        ):
            while (spent := self._spent(state)) < 1:
                rate = learning_rate(self._fields, state.step, spent)
                stop = self._one(step, feed, rate)
                if self._fields.total_steps is None:
                    now = min(round(state.device_seconds), total)
                    unit, done = now - done, now
                bar.advance(self._note(), unit)
                if around.group.size == 1:  # several stop together, at what they agreed on in their last sum
                    stop = around.stop.due
                finished = self._spent(state) >= 1
                if state.step % self._fields.steps_per_epoch == 0 or finished:
                    self._close_epoch(step, rate, finished, bar, log)
                self._save_if_due(step, finished, stop)
                if stop and not finished:
                    asked = around.stop.requested or around.stop.lost or around.stop.deadline is None
                    raise Interrupted if asked else TimedOut

    def _one(self, step: Step, feed: Feed, rate: float) -> bool:
        """One step; returns whether it is time to stop."""
        around, state = self._around, self._state
        asked = time.monotonic()
        batch = next(feed)
        begun = time.monotonic()
        loss = step(batch, rate)
        ended = time.monotonic()
        # The clocks of several processes differ, and a checkpoint needs all of them.
        late = float(ended - self._saved > around.checkpoint_interval_s)
        loss, step_s, wait_s, stop, overdue = around.group.mean(
            [loss, ended - begun, begun - asked, float(around.stop.due), late], around.device
        )
        self._overdue = overdue > 0
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} at step {state.step}, learning rate {rate:.3g}, precision "
                f"{self._fields.precision}. A lower train.learning_rate, train.clip_norm or precision fp32 may help"
            )
        state.step += 1
        state.seconds += step_s + wait_s
        state.device_seconds += (step_s + wait_s) * around.group.size
        state.pending.append((loss, step_s, wait_s))
        return stop > 0

    def _note(self) -> str:
        loss, step_s, wait_s = self._state.pending[-1]
        waits = sum(wait for _, _, wait in self._state.pending)
        share = waits / (sum(took for _, took, _ in self._state.pending) + waits)
        text = f"loss {loss:.4f}, {step_s + wait_s:.2f} s a step, {share:.0%} of it waiting for data"
        dice = next((row["dice"] for row in reversed(self._state.history) if row.get("dice") is not None), None)
        return text if dice is None else f"{text}, validation Dice {dice:.3f}"

    def _close_epoch(self, step: Step, rate: float, finished: bool, bar: Bar, log: Logbook) -> None:
        around, state = self._around, self._state
        loss, step_s, wait_s = (sum(values) / len(values) for values in zip(*state.pending, strict=True))
        row: dict[str, float | None] = {
            "step": state.step,
            "learning_rate": rate,
            "loss": loss,
            "step_s": step_s,
            "data_wait_s": wait_s,
        }
        epoch = -(-state.step // self._fields.steps_per_epoch)
        if self._validate is not None:
            row["dice"] = None
            if finished or epoch % self._validate_every == 0:
                self._check_weights(rate)
                row |= self._validated(step, InnerWatcher(bar))
        state.history.append(row)
        if around.group.first:
            log.add(state.history)
        # Only then: a row that could not be written is not lost.
        state.pending.clear()

    def _validated(self, step: Step, watcher: Watcher) -> dict[str, float | None]:
        assert self._validate is not None
        around, state = self._around, self._state
        around.group.take_buffers_of_first(self._model)
        # train.memory_gib is what a training step may take; whole volumes are another matter.
        with (
            torch.random.fork_rng([around.device] if around.device.type == "cuda" else []),
            limit_memory(around.device, None),
        ):
            scores = self._validate(watcher)
        self._model.train()
        if state.best_dice is None or scores["dice"] > state.best_dice:
            state.best_dice, state.best_step = scores["dice"], state.step
            self._save(around.best, step)
        self._overdue = True  # what took long is not done twice
        return dict(scores)

    def _save_if_due(self, step: Step, finished: bool, stop: bool) -> None:
        if self._around.stop.lost:  # what lies there is another process's now
            raise Interrupted
        if finished or stop or self._overdue:
            self._check_weights(None)
            self._save(self._around.last, step)
            self._saved = time.monotonic()

    def _save(self, path: Path, step: Step) -> None:
        randoms = self._around.group.gather(random_state())
        if self._around.group.first:
            save_checkpoint(path, self._model, step.optimiser, step.scaler, self._state, randoms)
        self._around.group.wait()

    def _check_weights(self, rate: float | None) -> None:
        if not all(torch.isfinite(p).all() for p in self._model.parameters()):
            told = "" if rate is None else f", learning rate {rate:.3g}"
            raise Diverged(f"weights are not finite after step {self._state.step}{told}")
