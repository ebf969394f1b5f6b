"""One job from files to a complete record."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import models
from bench.engine.checkpoint import seed_everything
from bench.engine.diverged import Diverged
from bench.engine.evaluate import Measured, evaluate, mean_dice, means
from bench.engine.interrupt import Interrupted, StopRequest
from bench.engine.memory import peak, reset_peak
from bench.engine.network import build_network
from bench.engine.train import train
from bench.errors import BenchError
from bench.job import Job
from bench.progress import Watcher
from bench.provenance import collect
from bench.store import WEIGHTS, OpenRecord, Record, Store
from data.dataset import Dataset
from data.errors import DataError
from data.fingerprint import file_checksum
from data.locate import cache_root
from data.prepare import StoredCase, prepare
from data.sampling import PatchSampler
from data.volume import CaseFiles
from models.errors import ModelError


@dataclass(frozen=True)
class RunOptions:
    """How a job is carried out; nothing here changes its outcome, so nothing here is part of its key.

    Attributes:
        device: where the network runs.
        workers: processes that cut patches; 0 cuts them in the training process.
        save_predictions: keep the test cases' label maps.
    """

    device: torch.device
    workers: int = 0
    save_predictions: bool = True


def run_job(
    job: Job, dataset: Dataset, store: Store, options: RunOptions, watcher: Watcher, stop: StopRequest
) -> Record:
    """Prepare, train, evaluate; whatever happens, the record says so.

    Failures end in the record's status, ``failed``, ``oom`` or ``nan``, with a message; ``interrupted`` keeps the
    checkpoint, and the same job goes on from it.

    Raises:
        BenchError: the record itself cannot be written.
        KeyboardInterrupt: a second Ctrl-C; the last checkpoint stands.
    """
    torch.backends.cudnn.benchmark = True
    record = store.open_run(
        job,
        provenance=collect(options.device),
        data=_describe_data(dataset),
        default_options=models.options(job.model),
        references=_references(job, dataset),
    )
    with _log_to(record.folder / "log.txt") as log:
        log.info("begin %s on %s, seed %s", job.model, job.dataset, job.seed)
        try:
            facts = _carry_out(job, dataset, record, options, watcher, stop)
            status, message = "complete", None
        except Interrupted:
            status, message, facts = (
                "interrupted",
                "stopped on request; run the same command again to go on",
                {},
            )
        except Diverged as error:
            status, message, facts = "nan", str(error), {}
        except (DataError, ModelError, BenchError) as error:
            status, message, facts = "failed", str(error), {}
        except Exception as error:
            status = "oom" if _is_out_of_memory(error) else "failed"
            message, facts = f"{type(error).__name__}: {error}", {}
            log.error("%s", traceback.format_exc())
        log.info("%s %s", status, message or "")
        return record.finish(status, **facts, **({"message": message} if message else {}))


def _carry_out(
    job: Job, dataset: Dataset, record: OpenRecord, options: RunOptions, watcher: Watcher, stop: StopRequest
) -> dict[str, Any]:
    protocol = job.protocol
    reset_peak(options.device)
    record.write_split(job.split.to_dict())
    files = {case.id: case for case in dataset.cases()}
    test = [files[case] for case in job.split.test]
    prepared = _prepare(job, dataset, files, watcher, stop)

    seed_everything(job.seed)
    model = build_network(job.model, job.model_options, dataset.card, protocol.data.patch_size, options.device)
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    score = partial(
        evaluate,
        model,
        dataset.card.regions,
        test,
        prepared,
        protocol,
        device=options.device,
        watcher=watcher,
        stop=stop,
    )
    if protocol.evaluate.untrained:
        facts["untrained"] = _untrained(record, score)

    sampler = PatchSampler(
        [prepared[case] for case in job.split.train],
        patch_size=protocol.data.patch_size,
        batch_size=protocol.train.batch_size,
        foreground_fraction=protocol.data.foreground_fraction,
        mirror=protocol.data.mirror,
        seed=job.seed,
    )
    weights = record.folder / WEIGHTS
    state = train(
        model,
        sampler,
        protocol.train,
        record=record,
        checkpoint=weights,
        device=options.device,
        workers=options.workers,
        watcher=watcher,
        stop=stop,
    )
    record.write_history(state.history)
    record.update(memory=_larger(record.content.get("memory", {}), peak(options.device)))

    started = time.monotonic()
    record.begin_predictions()
    measured = score(record=record if options.save_predictions else None)
    record.write_cases(measured)
    facts |= {
        "results": means(measured),
        "mean_dice": mean_dice(measured),
        "times": {"train_s": state.seconds, "last_test_s": time.monotonic() - started},
        "memory": _larger(record.content["memory"], peak(options.device)),
    }
    _report(facts, watcher)
    return facts


def _prepare(
    job: Job, dataset: Dataset, files: dict[str, CaseFiles], watcher: Watcher, stop: StopRequest
) -> dict[str, StoredCase]:
    needed = [files[case] for case in (*job.split.train, *job.split.test)]
    normalise = job.protocol.data.normalise
    folder = cache_root() / "prepared" / f"{job.dataset}-{job.data_fingerprint[:16]}-{normalise}"
    with watcher.bar("preparing", len(needed)) as bar:

        def on_case(case: str) -> None:
            bar.advance(case)
            stop.check()

        return prepare(dataset, needed, folder, normalise, on_case)


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


def _describe_data(dataset: Dataset) -> dict[str, Any]:
    card = dataset.card
    regions = {region: list(labels) for region, labels in card.regions.items()}
    return {"root": str(dataset.root), "title": card.title, "regions": regions, "synthetic": card.synthetic}


def _larger(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """The larger of each number: a job that was interrupted took the most memory of its attempts."""
    return {name: max(one.get(name, 0), value) for name, value in other.items()}


def _references(job: Job, dataset: Dataset) -> dict[str, str]:
    """Checksum of each test case's reference, by which predictions from elsewhere are known to be of the same."""
    labels = {case.id: case.label for case in dataset.cases()}
    return {case: file_checksum(label) for case in job.split.test if (label := labels[case]) is not None}


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


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
