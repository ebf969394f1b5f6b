"""From a request to jobs: the grid, less what is already done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import models
from bench.errors import BenchError, unknown
from bench.job import Job
from bench.protocol import Protocol
from bench.store import Record, Store
from data.dataset import Dataset
from data.fingerprint import fingerprint
from data.split import split_cases


@dataclass(frozen=True)
class Plan:
    """What is to be run and what need not be.

    Attributes:
        jobs: in the order they will run.
        done: records of jobs that are complete already.
    """

    jobs: tuple[Job, ...]
    done: tuple[Record, ...]


def make_plan(
    model_names: Sequence[str], dataset: Dataset, protocol: Protocol, seeds: Sequence[int], store: Store
) -> Plan:
    """Every model with every seed on one dataset under one protocol.

    Raises:
        DataError: the dataset cannot be split.
    """
    cases = dataset.cases()
    fractions = (protocol.split.train, protocol.split.validation, protocol.split.test)
    split = split_cases({case.id: case.patient for case in cases}, fractions=fractions, seed=protocol.split.seed)
    files = fingerprint(cases)
    jobs = [
        Job(
            model=name,
            model_options=models.resolve_options(name, protocol.model_options.get(name, {})),
            dataset=dataset.card.name,
            data_fingerprint=files,
            protocol=protocol,
            split=split,
            seed=seed,
        )
        for seed in seeds
        for name in model_names
    ]
    records = {job.key: store.get(job.key) for job in jobs}
    done = {key: record for key, record in records.items() if record and record.status == "complete"}
    return Plan(jobs=tuple(job for job in jobs if job.key not in done), done=tuple(done.values()))


def check_option_targets(changes: Sequence[str], names: Sequence[str]) -> None:
    """Refuse ``--set model_options.MODEL.OPTION=VALUE`` for a model that is not among those asked for.

    Raises:
        BenchError: naming the change and the models.
    """
    for change in changes:
        section, _, field = change.strip().partition(".")
        if section == "model_options" and field.partition(".")[0] not in names:
            raise BenchError(
                f"--set {change}: it would change nothing, since the models asked for are {', '.join(names)}; expected "
                f"model_options.{names[0]}.OPTION=VALUE"
            )


def choose_models(names: Sequence[str], protocol: Protocol) -> list[str]:
    """Check model names; ``all`` stands for those of Table 1 of the SegMamba paper.

    Raises:
        BenchError: none is named, or the protocol gives options to a model that does not exist.
        ModelError: one is not registered.
    """
    known = models.names()
    if not names:
        raise BenchError(f"--model names no model; known: {', '.join(known)}, or all")
    for name in protocol.model_options:
        if name not in known:
            raise BenchError(unknown("model in model_options", name, known))
    if "all" in names:
        names = [*models.SEGMAMBA_TABLE_1, *(name for name in names if name != "all")]
    for name in names:
        models.card(name)
    return list(dict.fromkeys(names))
