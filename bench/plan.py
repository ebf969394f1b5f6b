"""From a request to jobs: the grid, less what is already done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import models
from bench.errors import BenchError, unknown
from bench.job import Job
from bench.protocol import AUTHOR, Protocol, load_protocol, show
from bench.store import Record, Store
from data.card import DatasetCard
from data.dataset import Dataset
from data.fingerprint import fingerprint
from data.folder_dataset import LAYOUTS
from data.split import Split, split_cases
from data.volume import CaseFiles


@dataclass(frozen=True)
class Plan:
    """What is to be run and what need not be.

    Attributes:
        jobs: in the order they will run.
        done: records of jobs that are complete already.
    """

    jobs: tuple[Job, ...]
    done: tuple[Record, ...]


def make_plan(protocols: Mapping[str, Protocol], dataset: Dataset, seeds: Sequence[int], store: Store) -> Plan:
    """Every model with every seed on one dataset.

    Args:
        protocols: by model, see `protocols_of`.

    Raises:
        DataError: the dataset cannot be split.
        BenchError: the best weights on validation cases are to be tested, but nothing is validated.
    """
    cases = dataset.cases()
    files = fingerprint(cases)
    for protocol in protocols.values():
        _check_best(protocol, draw_split(cases, protocol))
    jobs = [
        Job(
            model=name,
            model_options=resolved_options(name, protocol),
            dataset=dataset.card.name,
            data_fingerprint=files,
            protocol=protocol,
            split=draw_split(cases, protocol),
            seed=seed,
            card_sha256=_card_sha256(dataset.card),
        )
        for seed in seeds
        for name, protocol in protocols.items()
    ]
    records = {job.key: store.get(job.key) for job in jobs}
    done = {key: record for key, record in records.items() if record and record.status == "complete"}
    return Plan(jobs=tuple(job for job in jobs if job.key not in done), done=tuple(done.values()))


def draw_split(cases: Sequence[CaseFiles], protocol: Protocol) -> Split:
    """The protocol's split of the labelled cases.

    Raises:
        DataError: there are too few.
    """
    fractions = (protocol.split.train, protocol.split.validation, protocol.split.test)
    return split_cases({case.id: case.patient for case in cases}, fractions=fractions, seed=protocol.split.seed)


def _card_sha256(card: DatasetCard) -> str:
    """Of a folder that describes itself, what it says; a changed description is another experiment."""
    if card.layout not in LAYOUTS:
        return ""
    told = [card.channels, sorted(card.labels.items()), sorted(card.regions.items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _check_best(protocol: Protocol, split: Split) -> None:
    if protocol.evaluate.checkpoint == "best" and not protocol.validation.choose(split.validation):
        raise BenchError(
            f"evaluate.checkpoint=best needs validation, but there are {len(split.validation)} validation cases and "
            f"validation.every_epochs={show(protocol.validation.every_epochs)}. Set evaluate.checkpoint=last, "
            "split.validation above 0, or validation.every_epochs"
        )


def protocols_of(names: Sequence[str], protocol: str, changes: Sequence[str]) -> dict[str, Protocol]:
    """The protocol of each model: one for all, or with ``author`` the recipe that each model's card states.

    Raises:
        BenchError: an unknown protocol or field, or a card that states no recipe.
    """
    if protocol != AUTHOR:
        shared = load_protocol(protocol, changes)
        return dict.fromkeys(names, shared)
    bare = [name for name in names if models.card(name).recipe_fields is None]
    if bare:
        stated = [name for name in models.names() if models.card(name).recipe_fields is not None]
        raise BenchError(
            f"--protocol {AUTHOR}: the cards of {', '.join(bare)} state no recipe as fields; those of "
            f"{', '.join(stated)} do. Leave the others out, or use a shared protocol"
        )
    return {
        name: load_protocol(protocol, changes, author_of=name, recipe=models.card(name).recipe_fields) for name in names
    }


def resolved_options(name: str, protocol: Protocol) -> dict[str, Any]:
    """Every option with which a model is built under a protocol.

    Raises:
        ModelError: an unknown model or option.
    """
    options = dict(protocol.model_options.get(name, {}))
    if protocol.train.deep_supervision and "deep_supervision" in models.options(name):
        options.setdefault("deep_supervision", True)
    return models.resolve_options(name, options)


def check_option_targets(changes: Sequence[str], names: Sequence[str]) -> None:
    """Refuse ``--set model_options.MODEL.OPTION=VALUE`` for a model that is not among those asked for.

    Raises:
        BenchError: naming the change and the models.
    """
    known = models.names()
    for change in changes:
        section, _, field = change.strip().partition(".")
        target = field.partition(".")[0]
        if section == "model_options" and target not in known:
            raise BenchError(unknown("model in model_options", target, known))
        if section == "model_options" and target not in names:
            raise BenchError(
                f"--set {change}: it would change nothing, since the models asked for are {', '.join(names)}; expected "
                f"model_options.{names[0]}.OPTION=VALUE"
            )


def choose_models(names: Sequence[str]) -> list[str]:
    """Check model names; ``all`` stands for those of Table 1 of the SegMamba paper.

    Raises:
        BenchError: none is named.
        ModelError: one is not registered.
    """
    known = models.names()
    if not names:
        raise BenchError(f"--model names no model; known: {', '.join(known)}, or all")
    if "all" in names:
        names = [*models.SEGMAMBA_TABLE_1, *(name for name in names if name != "all")]
    for name in names:
        models.card(name)
    return list(dict.fromkeys(names))
