"""One job from files to a complete record."""

from __future__ import annotations

import logging
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import models
from bench.engine.checkpoint import load_checkpoint, load_weights
from bench.engine.diverged import Diverged
from bench.engine.evaluate import Measured, evaluate, mean_dice, means
from bench.engine.fit import DoesNotFit
from bench.engine.interrupt import Interrupted, StopRequest, TimedOut
from bench.engine.memory import is_out_of_memory, peak, reset_peak
from bench.engine.options import RunOptions
from bench.engine.preparation import prepare_job
from bench.engine.ranks import RankOutOfMemory
from bench.engine.retry import train_job
from bench.engine.task import TrainingTask
from bench.errors import BenchError
from bench.job import Job
from bench.lease import Held, Lease, Watch
from bench.live import RecordWatcher, forget_progress
from bench.progress import Watcher
from bench.provenance import collect
from bench.store import BEST, WEIGHTS, OpenRecord, Record, Store, describe
from data.dataset import Dataset
from data.errors import DataError
from data.fingerprint import file_checksum
from models.errors import ModelError

_GO_ON = "run the same command again to go on"


def run_job(
    job: Job,
    dataset: Dataset,
    store: Store,
    options: RunOptions,
    watcher: Watcher,
    stop: StopRequest,
    watch: Watch | None = None,
    since: tuple[str, str] | None = None,
) -> Record:
    """Prepare, train, evaluate; whatever happens, the record says so. What another process has completed is not run.

    Failures end in the record's status, ``failed``, ``oom`` or ``nan``, with a message; ``interrupted`` and ``timeout``
    keep the checkpoint, and the same job goes on from it.

    Args:
        watch: one that has looked at the record before, by which a job of a dead machine can be taken over.
        since: how the last attempt had ended when the job was planned (`bench.store.Record.end`): what has ended since,
            in whatever way, is not run either.

    Raises:
        Held: another process runs this job, or has taken it over.
        BenchError: the record itself cannot be written.
        KeyboardInterrupt: a second Ctrl-C; the last checkpoint stands.
    """
    watch = watch or Watch()
    lease = store.take(job.key, watch)
    if lease is None:
        raise Held(f"{watch.holder(store.root / job.key) or 'another process'} runs it")
    with lease:
        earlier = store.get(job.key)
        if earlier is not None and earlier.settled_since(since or earlier.end):
            return earlier
        stop.lost = False
        lease.on_lost = _stopping(stop, options.gpus)
        try:
            return _run(job, dataset, store, options, watcher, stop, lease)
        finally:
            stop.deadline, stop.lost = None, False


def _stopping(stop: StopRequest, devices: int) -> Callable[[], None]:
    def on_lost() -> None:
        stop.lost = True
        if devices > 1:  # the processes that train hear signals only
            os.kill(os.getpid(), signal.SIGTERM)

    return on_lost


def _run(
    job: Job,
    dataset: Dataset,
    store: Store,
    options: RunOptions,
    watcher: Watcher,
    stop: StopRequest,
    lease: Lease,
) -> Record:
    torch.backends.cudnn.benchmark = True
    if options.device.type == "cuda":
        torch.cuda.set_device(options.device)  # random states are those of the current device
    stop.deadline = None if options.timeout_s is None else time.monotonic() + options.timeout_s
    record = store.open_run(
        job,
        lease,
        provenance=_provenance(options),
        data=_describe_data(dataset),
        default_options=models.options(job.model),
        recipe_options=_recipe_options(job),
        references=_references(job, dataset),
    )
    watcher.say(describe(Record(record.folder, record.content)))
    with _log_to(record.folder / "log.txt") as log:
        log.info("begin %s", job.title)
        try:
            facts = _carry_out(job, dataset, record, options, RecordWatcher(record.folder, watcher), stop)
            status, message = "complete", None
        except Held:
            raise
        except Interrupted:
            lease.check()
            status, message, facts = "interrupted", f"stopped on request; {_GO_ON}", {}
        except TimedOut:
            status, message, facts = "timeout", f"its {options.timeout_s or 0:g} seconds are over; {_GO_ON}", {}
        except Diverged as error:
            status, message, facts = "nan", str(error), {}
        except (DoesNotFit, RankOutOfMemory) as error:
            status, message, facts = "oom", str(error), {}
        except (DataError, ModelError, BenchError) as error:
            status, message, facts = "failed", str(error), {}
        except Exception as error:
            status = "oom" if is_out_of_memory(error) else "failed"
            message, facts = f"{type(error).__name__}: {error}", {}
            log.error("%s", traceback.format_exc())
        log.info("%s %s", status, message or "")
        finished = record.finish(status, **facts, **({"message": message} if message else {}))
        forget_progress(record.folder)
        return finished


def _carry_out(
    job: Job, dataset: Dataset, record: OpenRecord, options: RunOptions, watcher: Watcher, stop: StopRequest
) -> dict[str, Any]:
    protocol, card = job.protocol, dataset.card
    record.write_split(job.split.to_dict())
    made = prepare_job(job, dataset, options.prepare_workers, watcher, stop)
    record.update(preparation=made.preparation.to_dict())
    prepared, validation = made.cases, made.validation

    task = TrainingTask(
        job=job,
        card=card,
        prepared={case: prepared[case] for case in (*job.split.train, *(case.id for case in validation))},
        validation=validation,
        folder=record.folder,
        workers=options.workers,
        most=record.content.get("largest_micro_batch"),
        checkpoint_interval_s=options.checkpoint_interval_s,
    )
    model = task.network(options.device)
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    score = partial(
        evaluate, regions=card.regions, cases=made.test, prepared=prepared, protocol=protocol, device=options.device,
        watcher=watcher, stop=stop,
    )  # fmt: skip
    if protocol.evaluate.untrained:
        facts["untrained"] = _untrained(record, partial(score, model))

    model, state = train_job(task, model, record, options, watcher, stop)
    record.write_history(state.history)
    facts["validation"] = {"best_dice": state.best_dice, "best_step": state.best_step}

    started = time.monotonic()
    reset_peak(options.device)
    weights = _weights(record, job, model, options.device)
    record.begin_predictions(weights)
    challenge = card.lesionwise or None  # not of an untrained network: its thousands of specks take seconds a case
    measured = score(model, record=record if options.save_predictions else None, challenge=challenge)
    record.write_cases(measured)
    facts |= {
        "results": means(measured),
        "mean_dice": mean_dice(measured),
        "steps": state.step,
        "times": {"train_s": state.seconds, "last_test_s": time.monotonic() - started},
        "memory": {**record.content["memory"], "test": peak(options.device)},
    }
    _report(facts, watcher)
    return facts


def _weights(record: OpenRecord, job: Job, model: nn.Module, device: torch.device) -> str:
    """Put the weights to be tested into the model; returns their file in the record."""
    if job.protocol.evaluate.checkpoint == "last":
        return WEIGHTS
    best = record.folder / BEST
    load_weights(load_checkpoint(best, device), model, best)
    return BEST


def _untrained(record: OpenRecord, score: Callable[..., Measured]) -> dict[str, Any]:
    """Scores of the network before training; those of an earlier attempt where it came that far."""
    if "untrained" not in record.content:
        measured = score(title="testing untrained")
        record.update(untrained={"results": means(measured), "mean_dice": mean_dice(measured)})
    return dict(record.content["untrained"])


def _report(facts: dict[str, Any], watcher: Watcher) -> None:
    regions = ", ".join(f"{region} {scores['dice']:.3f}" for region, scores in facts["results"].items())
    text = f"mean Dice on held-out cases: {facts['mean_dice']:.3f} ({regions})"
    if "untrained" in facts:
        text += f"; untrained network: {facts['untrained']['mean_dice']:.3f}"
    watcher.say(text)


def _provenance(options: RunOptions) -> dict[str, Any]:
    facts = collect(options.device)
    if options.gpu_share < 1:
        facts["settings"]["gpu_share"] = options.gpu_share
    return facts


def _describe_data(dataset: Dataset) -> dict[str, Any]:
    card = dataset.card
    regions = {region: list(labels) for region, labels in card.regions.items()}
    return {
        "root": str(dataset.root),
        "title": card.title,
        "regions": regions,
        "synthetic": card.synthetic,
        "card": card.to_dict(),
    }


def _recipe_options(job: Job) -> list[str]:
    """Options of the network that the authors' recipe states, where it is followed."""
    recipe = models.card(job.model).recipe_fields if job.protocol.by_authors else None
    return [field.rpartition(".")[2] for field in recipe or {} if field.startswith("model_options.")]


def _references(job: Job, dataset: Dataset) -> dict[str, str]:
    """Checksum of each test case's reference, by which predictions from elsewhere are known to be of the same."""
    labels = {case.id: case.label for case in dataset.cases()}
    return {case: file_checksum(label) for case in job.split.test if (label := labels[case]) is not None}


class _LogFile(logging.FileHandler):
    """A log that keeps quiet where it cannot be written: a full disk is told once, by the store."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def _log_to(path: Path) -> Iterator[logging.Logger]:
    """Append to a log file; the same logger for every job of this process, one file each."""
    logger = logging.getLogger("segmamba_bench.run")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}. Give another folder with --results.") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()
