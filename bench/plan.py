"""From a request to jobs: the grid, less what is already done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
import models
from bench.errors import BenchError, unknown
from bench.fields import SplitFields
from bench.job import Job
from bench.protocol import AUTHOR, Protocol, load_protocol, show
from bench.store import Record, Store
from bench.tuned import names_file, read_tuned
from data.card import DatasetCard
from data.dataset import Dataset
from data.fingerprint import fingerprint
from data.folder_dataset import LAYOUTS
from data.split import Split, fold_cases, split_cases
from data.volume import CaseFiles


@dataclass(frozen=True)
class GridCell:
    """What of a grid is run with every seed and fold: a dataset under one protocol.

    Attributes:
        dataset: opened.
        protocols: by model, see `protocols_of`.
    """

    dataset: Dataset
    protocols: Mapping[str, Protocol]


@dataclass(frozen=True)
class Plan:
    """What is to be run and what need not be.

    Attributes:
        jobs: in the order they will run.
        done: records of jobs that are complete already.
        datasets: of the whole grid, by the name that jobs have for them.
    """

    jobs: tuple[Job, ...]
    done: tuple[Record, ...]
    datasets: Mapping[str, Dataset]


def make_plan(grid: Sequence[GridCell], seeds: Sequence[int], store: Store, folds: Sequence[int] = ()) -> Plan:
    """Every model of every cell with every seed and fold, in this order: cells, seeds, folds, models.

    Equal jobs, which more than one cell may ask for, are planned once.

    Args:
        grid: one dataset's cells behind one another, where each is to be done with before the next.
        seeds: of training.
        store: of the records.
        folds: which of the protocols' folds, empty for all.

    Raises:
        DataError: a dataset cannot be split.
        BenchError: two datasets have one name; a fold is none of a protocol's; or the best weights on validation cases
            are to be tested, but nothing is validated.
    """
    datasets = _by_name([cell.dataset for cell in grid])
    surveyed = {name: Surveyed(dataset) for name, dataset in datasets.items()}
    jobs: dict[str, Job] = {}
    for cell in grid:
        survey = surveyed[cell.dataset.card.name]
        asked = {name: choose_folds(protocol, folds) for name, protocol in cell.protocols.items()}
        for name, protocol in cell.protocols.items():
            for fold in asked[name]:
                _check_best(protocol, survey.splits(protocol)[fold])
        for seed in seeds:
            for fold in dict.fromkeys(fold for found in asked.values() for fold in found):
                for name, protocol in cell.protocols.items():
                    if fold in asked[name]:
                        job = survey.job(name, protocol, seed, fold)
                        jobs.setdefault(job.key, job)
    records = {key: store.get(key) for key in jobs}
    done = {key: record for key, record in records.items() if record and record.status == "complete"}
    left = tuple(job for key, job in jobs.items() if key not in done)
    return Plan(jobs=left, done=tuple(done.values()), datasets=datasets)


class Surveyed:
    """A dataset with what all of its jobs share, found out once."""

    def __init__(self, dataset: Dataset) -> None:
        self._card = dataset.card
        self._cases = dataset.cases()
        self._files = fingerprint(self._cases)
        self._splits: dict[SplitFields, Mapping[int | None, Split]] = {}

    def splits(self, protocol: Protocol) -> Mapping[int | None, Split]:
        """As `draw_splits`."""
        if protocol.split not in self._splits:
            self._splits[protocol.split] = draw_splits(self._cases, protocol)
        return self._splits[protocol.split]

    def job(self, model: str, protocol: Protocol, seed: int, fold: int | None) -> Job:
        """One job on the dataset."""
        return Job(
            model=model,
            model_options=resolved_options(model, protocol),
            dataset=self._card.name,
            data_fingerprint=self._files,
            protocol=protocol,
            split=self.splits(protocol)[fold],
            seed=seed,
            card_sha256=_card_sha256(self._card),
            fold=fold,
        )


def _by_name(datasets: Sequence[Dataset]) -> dict[str, Dataset]:
    found: dict[str, Dataset] = {}
    for dataset in datasets:
        other = found.setdefault(dataset.card.name, dataset)
        if other.root.resolve() != dataset.root.resolve():
            raise BenchError(
                f"two datasets are called {dataset.card.name!r}: {other.root} and {dataset.root}; expected a name "
                "of its own for each, by which tables know it. Rename one of the folders"
            )
    return found


def draw_splits(cases: Sequence[CaseFiles], protocol: Protocol) -> Mapping[int | None, Split]:
    """The protocol's split of the labelled cases under None, or with ``split.folds`` one for each fold, by its number.

    Raises:
        DataError: there are too few.
    """
    fields, patients = protocol.split, {case.id: case.patient for case in cases}
    if fields.folds is None:
        return {None: split_cases(patients, fractions=(fields.train, fields.validation, fields.test), seed=fields.seed)}
    found = fold_cases(patients, folds=fields.folds, validation=fields.validation_of_rest, seed=fields.seed)
    return dict(enumerate(found))


def choose_folds(protocol: Protocol, asked: Sequence[int]) -> Sequence[int | None]:
    """The folds that are run under a protocol: those asked for, or all; one None where it has none.

    Raises:
        BenchError: a fold is none of the protocol's.
    """
    folds = protocol.split.folds
    if folds is None and asked:
        raise BenchError(
            f"--fold {','.join(map(str, asked))}: the protocol {protocol.title} has no folds. Say in how many the "
            "cases are dealt, e.g. --folds 5, or leave out --fold"
        )
    if strange := [fold for fold in asked if not 0 <= fold < (folds or 0)]:
        raise BenchError(
            f"--fold {','.join(map(str, strange))}: the {folds} folds of the protocol {protocol.title} are numbered "
            f"from 0; expected numbers from 0 to {(folds or 0) - 1}, or all"
        )
    return list(asked) or ([None] if folds is None else list(range(folds)))


def choose_datasets(names: Sequence[str]) -> dict[str, DatasetCard]:
    """The cards of datasets, by the names or folders they are asked for with.

    Raises:
        BenchError: none is named.
        DataError: there is no such dataset.
    """
    if not names:
        raise BenchError(f"--dataset names no dataset; known: {', '.join(data.names())}, or a folder's path")
    return {name: data.card(name) for name in names}


def default_protocol(card: DatasetCard) -> str:
    """The preset that is meant where none is named."""
    return "demo" if card.synthetic else "paper"


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
    """The protocol of each model: one for all, or each model's own.

    Args:
        names: of models.
        protocol: a preset; with ``author`` the recipe that each model's card states; or a file of settings that a
            search has found, see `bench.tuned`.
        changes: as in `bench.protocol.load_protocol`.

    Raises:
        BenchError: an unknown protocol or field, a card that states no recipe, a file that lacks a model or is damaged.
    """
    if names_file(protocol):
        tuned = read_tuned(Path(protocol))
        recipes = _recipes(names, protocol) if tuned.base == AUTHOR else {}
        return {name: tuned.protocol(name, changes, recipes.get(name)) for name in names}
    if protocol != AUTHOR:
        shared = load_protocol(protocol, changes)
        return dict.fromkeys(names, shared)
    recipes = _recipes(names, protocol)
    return {name: load_protocol(protocol, changes, author_of=name, recipe=recipes[name]) for name in names}


def _recipes(names: Sequence[str], protocol: str) -> dict[str, Mapping[str, Any]]:
    stated = {name: models.card(name).recipe_fields for name in names}
    if bare := [name for name, recipe in stated.items() if recipe is None]:
        able = [name for name in models.names() if models.card(name).recipe_fields is not None]
        raise BenchError(
            f"--protocol {protocol}: the cards of {', '.join(bare)} state no recipe as fields; those of "
            f"{', '.join(able)} do. Leave the others out, or use a shared protocol"
        )
    return {name: recipe for name, recipe in stated.items() if recipe is not None}


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
