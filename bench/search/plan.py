"""From a request to trials: each setting of each network an ordinary job, on cases that the protocol does not test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.errors import BenchError, unknown
from bench.job import Job
from bench.key import key_of
from bench.plan import Surveyed, protocols_of, resolved_options
from bench.protocol import AUTHOR, Protocol, overridden, preset_names
from bench.search.space import Dimension, draws
from bench.search.trials import Trial
from bench.tuned import names_file, tuned_name
from data.dataset import Dataset
from data.errors import DataError
from data.split import Split
from models.errors import ModelError

# Validations over a training, at least: a decision needs something to decide by.
POINTS = 8
# Of those that reach a rung, one in so many goes on; rungs are at the first validation and its multiples by this.
REDUCTION = 2
_ATTEMPTS = 200


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        models: names of networks.
        protocol: name of the preset that they share, or ``author``.
        changes: of its fields, ``FIELD=VALUE``.
        space: what is searched.
        trials: settings of each network, the protocol's own included.
        seed: of the draws, and of every training.
        steps: of a trial; None for the protocol's own length.
    """

    models: Sequence[str]
    protocol: str
    changes: Sequence[str]
    space: Sequence[Dimension]
    trials: int
    seed: int
    steps: int | None = None


@dataclass(frozen=True)
class Search:
    """A search as planned.

    Attributes:
        wanted: what was asked for.
        name: of the protocol that it makes; it names the search too, as far as two tables must not be confused.
        dataset, data_fingerprint: of the dataset.
        split: the protocol's own, whose test cases are left alone.
        steps: of every trial.
        points: steps after which every trial is validated.
        rungs: steps after which the worse trials may be stopped.
        trials: network by network, the protocol's own setting of each first.
    """

    wanted: Wanted
    name: str
    dataset: str
    data_fingerprint: str
    split: Split
    steps: int
    points: Sequence[int]
    rungs: Sequence[int]
    trials: Sequence[Trial]

    def of(self, model: str) -> list[Trial]:
        """The trials of one network."""
        return [trial for trial in self.trials if trial.model == model]


def plan_search(dataset: Dataset, wanted: Wanted) -> Search:
    """Draw the settings and make a job of each.

    A trial trains on the training part of the protocol's split. It is validated, while it trains, and tested on the
    validation part: its record is whole, and no test case was seen.

    Raises:
        BenchError: no such field or value; a protocol that a search has made; a training whose length is no number of
            steps, or not the same for all networks; a split without validation cases, or folds; fewer different
            settings than trials.
        DataError: the dataset cannot be split.
        ModelError: no such network, or option of one.
    """
    if names_file(wanted.protocol):
        raise BenchError(
            f"--protocol {wanted.protocol}: a search begins with a preset, not with what another one found; expected "
            f"one of {', '.join(preset_names())}"
        )
    surveyed = Surveyed(dataset)
    changes = {model: _trial_changes(wanted, _protocol(model, wanted, ())) for model in wanted.models}
    own = {model: _protocol(model, wanted, changes[model]) for model in wanted.models}
    steps = _common_steps(own)
    some = next(iter(own.values()))
    split = _split(surveyed, some)
    trials: list[Trial] = []
    for model, protocol in own.items():
        space = [dimension for dimension in wanted.space if dimension.concerns(model)]
        values = {dimension.field: _own_value(dimension, model, protocol) for dimension in space}
        for dimension in space:
            for value in dimension.bounds(values[dimension.field]):
                _try(dimension, value, model, wanted, changes[model])
        trials += _trials(model, wanted, changes[model], space, values, surveyed, split)
    first = trials[0].job
    points = _points(some)
    return Search(
        wanted=wanted,
        name=_name(wanted, first, split, steps),
        dataset=dataset.card.name,
        data_fingerprint=first.data_fingerprint,
        split=split,
        steps=steps,
        points=points,
        rungs=_rungs(points),
        trials=trials,
    )


def _protocol(model: str, wanted: Wanted, more: Sequence[str]) -> Protocol:
    return protocols_of([model], wanted.protocol, overridden(wanted.changes, more))[model]


def _trials(
    model: str,
    wanted: Wanted,
    changes: Sequence[str],
    space: Sequence[Dimension],
    own: Mapping[str, Any],
    surveyed: Surveyed,
    split: Split,
) -> list[Trial]:
    """As many as are wanted, each another job."""
    found: dict[str, Trial] = {}
    for attempt, setting in enumerate(draws(space, own, wanted.seed)):
        if len(found) == wanted.trials:
            break
        if attempt > _ATTEMPTS * wanted.trials:
            raise BenchError(
                f"--trials {wanted.trials}: of {model} there are only {len(found)} different settings in "
                f"{'; '.join(map(str, space))}; expected at most as many trials. Ask for fewer, or search more"
            )
        protocol = _protocol(
            model, wanted, overridden(changes, [f"{field}={value}" for field, value in setting.items()])
        )
        job = replace(surveyed.job(model, protocol, wanted.seed, None), split=_on_validation(split))
        found.setdefault(job.key, Trial(model, len(found), setting, job))
    return list(found.values())


def _on_validation(split: Split) -> Split:
    return Split(train=split.train, validation=split.validation, test=split.validation, seed=split.seed)


def _split(surveyed: Surveyed, protocol: Protocol) -> Split:
    if protocol.split.folds is not None:
        raise BenchError(
            f"split.folds={protocol.split.folds}: in a cross-validation every case is tested once, so that none is "
            "left to choose settings by; expected the one division into train, validation and test. Leave split.folds "
            "out"
        )
    split = surveyed.splits(protocol)[None]
    if not split.validation:
        total = sum(map(len, (split.train, split.validation, split.test)))
        raise BenchError(
            f"the split of {total} cases under protocol {protocol.title} has no validation cases "
            f"(split.validation={protocol.split.validation:g}), and settings are chosen by nothing else; expected at "
            "least one. Set other shares, e.g. --set split.train=0.6 --set split.validation=0.2, or add cases"
        )
    return split


def _trial_changes(wanted: Wanted, protocol: Protocol) -> list[str]:
    """What makes a trial of a protocol: its length, validation often enough, nothing that costs and does not count."""
    if wanted.steps is None and protocol.train.total_steps is None:
        raise BenchError(
            f"train.gpu_seconds={protocol.train.gpu_seconds:g}: trials are compared at the same steps, and a network's "
            "seconds are another's steps; expected a length in steps. Give --trial-steps N, or --set train.steps=N"
        )
    total = wanted.steps or protocol.train.total_steps or 0
    changes = ["evaluate.untrained=false"] + ([f"train.steps={total}"] if total != protocol.train.total_steps else [])
    length, every = protocol.train.steps_per_epoch, protocol.validation.every_epochs
    epochs = -(-total // length)
    if epochs < POINTS or wanted.protocol == AUTHOR:  # whose recipes' epochs differ in length
        # A length in epochs would follow theirs.
        return [*changes, f"train.steps={total}", f"train.steps_per_epoch={max(1, total // POINTS)}", _every(1)]
    if every is None or epochs // every < POINTS:
        changes.append(_every(epochs // POINTS))
    return changes


def _every(epochs: int) -> str:
    return f"validation.every_epochs={epochs}"


def _common_steps(protocols: Mapping[str, Protocol]) -> int:
    steps = {model: protocol.train.total_steps or 0 for model, protocol in protocols.items()}
    if len(set(steps.values())) > 1:
        told = ", ".join(f"{model} {count}" for model, count in steps.items())
        raise BenchError(
            f"the networks would be trained for different steps: {told}; expected the same, so that none is tuned on a "
            "larger budget. Give --trial-steps N, or tune them one at a time"
        )
    return next(iter(steps.values()))


def _points(protocol: Protocol) -> list[int]:
    """Steps after which a training is validated, the last one among them."""
    total, every = protocol.train.total_steps or 0, protocol.validation.every_epochs or 1
    interval = protocol.train.steps_per_epoch * every
    return [*range(interval, total, interval), total]


def _rungs(points: Sequence[int]) -> list[int]:
    """The first validation after an eighth of the training, and its multiples by `REDUCTION` before the end."""
    total = points[-1]
    rung = next(point for point in points if POINTS * point >= total)
    rungs = []
    while rung < total:
        rungs.append(rung)
        rung *= REDUCTION
    return rungs


def _own_value(dimension: Dimension, model: str, protocol: Protocol) -> Any:
    section, _, rest = dimension.field.partition(".")
    if section != "model_options":
        values = protocol.values()
        if dimension.field not in values:
            raise BenchError(f"--search {dimension}: " + unknown("protocol field", dimension.field, list(values)))
        return values[dimension.field]
    options = resolved_options(model, protocol)
    option = rest.partition(".")[2]
    if option not in options:
        raise BenchError(
            f"--search {dimension}: {model} has no option {option!r}; it has {', '.join(options)}, set as "
            f"model_options.{model}.OPTION"
        )
    return options[option]


def _try(dimension: Dimension, value: str, model: str, wanted: Wanted, changes: Sequence[str]) -> None:
    """Whether a protocol takes a value."""
    try:
        protocol = _protocol(model, wanted, overridden(changes, [f"{dimension.field}={value}"]))
        resolved_options(model, protocol)
    except (BenchError, ModelError, DataError) as error:
        raise BenchError(f"--search {dimension}: {error}") from None


def _name(wanted: Wanted, job: Job, split: Split, steps: int) -> str:
    """Equal for searches whose results may stand side by side: all of their networks were tuned alike."""
    alike = {
        "protocol": wanted.protocol,
        "changes": sorted(wanted.changes),
        "space": sorted(map(str, wanted.space)),
        "trials": wanted.trials,
        "seed": wanted.seed,
        "steps": steps,
        "dataset": job.dataset,
        "data_fingerprint": job.data_fingerprint,
        "card_sha256": job.card_sha256,
        "split_sha256": split.sha256,
    }
    return tuned_name(wanted.protocol, key_of(alike))
