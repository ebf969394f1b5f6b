"""A job as it is handed to a process of its own, on this machine or another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.job import Job
from data.card import DatasetCard

# What they are called in the folder by which they pass.
ORDER = "order.pickle"
ANSWER = "answer.json"


@dataclass(frozen=True)
class Order:
    """What a process is to do, and with what. All paths are absolute, and the same on every machine.

    Attributes:
        kind: ``run`` carries the job out, ``prepare`` only its cases.
        job: what is run.
        card: of its dataset.
        root: folder of the dataset.
        results: folder of records.
        device: ``cpu`` or ``cuda``.
        gpus: devices that share each batch; on the CPU, processes.
        gpu_share: part of one GPU that the job may use, of its memory above all.
        workers: threads that cut patches, for each device.
        prepare_workers: cases prepared at the same time.
        save_predictions: keep the test cases' label maps.
        timeout_s: time after which the job ends, with its state saved; None for never.
        checkpoint_interval_s: seconds between two checkpoints.
        since: see `bench.engine.run.run_job`.
        environment: variables that must be as they are where the order was given.
        command: what the user typed, for the record.
        watched: folder that takes the progress of a preparation; a job's own takes that of a run.
    """

    kind: Literal["run", "prepare"]
    job: Job
    card: DatasetCard
    root: Path
    results: Path
    device: str
    gpus: int = 1
    gpu_share: float = 1.0
    workers: int = 0
    prepare_workers: int = 1
    save_predictions: bool = True
    timeout_s: float | None = None
    checkpoint_interval_s: float = 600.0
    since: tuple[str, str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    watched: Path | None = None


@dataclass(frozen=True)
class Answer:
    """How the process ended.

    Attributes:
        kind: ``done`` where the record says how (or the cases are prepared), ``held`` where another process runs the
            job, ``refused`` where it could not begin.
        message: why, for people.
    """

    kind: Literal["done", "held", "refused"]
    message: str = ""
