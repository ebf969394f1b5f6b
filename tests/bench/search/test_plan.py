"""Trials as jobs: on which cases, how often validated, how many, and what is refused before anything starts."""

from __future__ import annotations

import pytest

import data
from bench.errors import BenchError
from bench.plan import draw_splits
from bench.protocol import load_protocol
from bench.search.plan import Wanted, plan_search
from bench.search.space import search_space
from data.dataset import Dataset
from data.phantom import write_dataset

BASE = ("train.steps=40", "train.steps_per_epoch=5")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ten cases of 32³ voxels: 7 train, 1 validates, 2 test."""
    root = tmp_path_factory.mktemp("ten")
    write_dataset(root, cases=10, size=32, seed=1)
    return data.open_dataset("phantom", root)


def _wanted(*changes: str, models: tuple[str, ...] = ("segresnet", "unetr"), **more: object) -> Wanted:
    search = more.pop("search", ())
    settings = {"protocol": "demo", "trials": 5, "seed": 0, **more}
    return Wanted(models=models, changes=changes or BASE, space=search_space(search), **settings)


def test_no_trial_sees_a_test_case_and_all_are_alike(dataset: Dataset) -> None:
    search = plan_search(dataset, _wanted())
    whole = draw_splits(dataset.cases(), load_protocol("demo"))[None]
    assert search.split == whole
    assert len(whole.test) == 2
    for trial in search.trials:
        split = trial.job.split
        assert split.train == whole.train
        assert split.validation == split.test == whole.validation
        assert not set(whole.test) & {*split.train, *split.validation, *split.test}
        assert not trial.job.protocol.evaluate.untrained
    assert [trial.number for trial in search.of("segresnet")] == list(range(5))
    assert [trial.setting for trial in search.of("segresnet")] == [trial.setting for trial in search.of("unetr")]
    assert len({trial.job.key for trial in search.trials}) == 10
    first = search.trials[0].job.protocol
    assert (first.train.learning_rate, first.train.weight_decay) == (0.02, 1e-5), "the protocol's own"
    values = [float(trial.setting["train.learning_rate"]) for trial in search.of("segresnet")]
    assert [trial.job.protocol.train.learning_rate for trial in search.of("segresnet")] == values


@pytest.mark.parametrize(
    ("changes", "steps", "points", "rungs"),
    [
        (BASE, None, [5, 10, 15, 20, 25, 30, 35, 40], [5, 10, 20]),
        (("train.steps=300", "train.steps_per_epoch=20"), None, [*range(20, 300, 20), 300], [40, 80, 160]),
        (("train.epochs=3", "train.steps_per_epoch=10"), None, [3, 6, 9, 12, 15, 18, 21, 24, 27, 30], [6, 12, 24]),
        (("train.epochs=100", "train.steps_per_epoch=10"), None, [*range(50, 1000, 50), 1000], [150, 300, 600]),
        (("train.epochs=100", "train.steps_per_epoch=10", "validation.every_epochs=30"), None, None, None),
        (("train.epochs=100", "train.steps_per_epoch=10"), 64, [8, 16, 24, 32, 40, 48, 56, 64], [8, 16, 32]),
        (("train.gpu_seconds=60",), 64, [8, 16, 24, 32, 40, 48, 56, 64], [8, 16, 32]),
        (("train.steps=3", "train.steps_per_epoch=20"), None, [1, 2, 3], [1, 2]),
        (("train.steps=1",), None, [1], []),
    ],
)
def test_validations_are_many_enough_to_decide_by(
    dataset: Dataset, changes: tuple[str, ...], steps: int | None, points: list[int] | None, rungs: list[int] | None
) -> None:
    search = plan_search(dataset, _wanted(*changes, models=("segresnet",), trials=2, steps=steps))
    assert points is None or (search.points, search.rungs) == (points, rungs)
    assert len(search.points) >= min(8, search.steps)
    for trial in search.trials:
        train, every = trial.job.protocol.train, trial.job.protocol.validation.every_epochs
        assert train.total_steps == search.steps == search.points[-1]
        assert train.steps_per_epoch * every == search.points[0] or len(search.points) == 1


def test_a_later_seed_or_space_is_another_search_and_more_models_are_the_same(dataset: Dataset) -> None:
    name = plan_search(dataset, _wanted()).name
    assert name.startswith("demo-tuned-")
    assert plan_search(dataset, _wanted(models=("segresnet",))).name == name
    others = [
        _wanted(seed=1),
        _wanted(trials=4),
        _wanted(steps=16),
        _wanted(*BASE, "train.momentum=0.5"),
        _wanted(search=["train.momentum=uniform:0:0.99"]),
        _wanted(protocol="paper", models=("segresnet",)),
    ]
    assert len({name, *(plan_search(dataset, one).name for one in others)}) == 7


def test_more_trials_begin_with_the_same_ones(dataset: Dataset) -> None:
    few = [trial.job.key for trial in plan_search(dataset, _wanted()).of("unetr")]
    many = [trial.job.key for trial in plan_search(dataset, _wanted(trials=9)).of("unetr")]
    assert many[:5] == few


def test_a_choice_is_tried_once_each_however_it_is_spelt(dataset: Dataset) -> None:
    asked = ["train.weight_decay=none", "train.learning_rate=choice:2e-2,0.1,0.2"]
    search = plan_search(dataset, _wanted(models=("segresnet",), trials=3, search=asked))
    rates = [trial.job.protocol.train.learning_rate for trial in search.trials]
    assert rates[0] == 0.02
    assert sorted(rates) == [0.02, 0.1, 0.2]
    with pytest.raises(BenchError, match="only 3 different settings"):
        plan_search(dataset, _wanted(models=("segresnet",), trials=4, search=asked))


def test_an_option_concerns_its_network_only(dataset: Dataset) -> None:
    asked = ["model_options.segresnet.init_filters=choice:4,8,16"]
    search = plan_search(dataset, _wanted(trials=4, search=asked))
    assert "model_options.segresnet.init_filters" not in search.of("unetr")[1].setting
    filters = [trial.job.model_options["init_filters"] for trial in search.of("segresnet")]
    assert filters[0] == 8, "as demo narrows it"
    assert set(filters) <= {4, 8, 16}
    assert len(search.of("segresnet")) == len(search.of("unetr")) == 4


def test_authors_recipes_are_tuned_around_their_own_rates_for_the_same_steps(dataset: Dataset) -> None:
    search = plan_search(dataset, _wanted("train.steps=64", protocol="author", models=("nnunet", "unetr")))
    one, other = (search.of(model)[0].job.protocol for model in ("nnunet", "unetr"))
    assert (one.author_of, other.author_of) == ("nnunet", "unetr")
    assert one.train.learning_rate != other.train.learning_rate
    assert one.train.steps_per_epoch * (one.validation.every_epochs or 0) == 8
    assert other.train.steps_per_epoch * (other.validation.every_epochs or 0) == 8
    with pytest.raises(BenchError, match="trained for different steps: nnunet 250000, unetr 20000"):
        plan_search(dataset, _wanted("train.momentum=0.9", protocol="author", models=("nnunet", "unetr")))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (_wanted("split.folds=3"), ["split.folds=3", "Leave split.folds out"]),
        (_wanted("split.train=0.8", "split.validation=0"), ["no validation cases", "--set split.train="]),
        (_wanted("train.gpu_seconds=10"), ["train.gpu_seconds=10", "--trial-steps N"]),
        (_wanted(protocol="some/file.toml"), ["begins with a preset"]),
        (_wanted(search=["train.rate=choice:1,2"]), ["--search train.rate=choice:1,2", "train.learning_rate"]),
        (_wanted(search=["train.learning_rate=uniform:-1:1"]), ["--search train.learning_rate", "greater than 0"]),
        (_wanted(search=["train.optimiser=choice:sgd,lion"]), ["--search train.optimiser", "train.optimiser=lion"]),
        (_wanted(search=["model_options.unetr.depth=choice:1,2"]), ["unetr has no option 'depth'"]),
        (_wanted(search=["model_options.segresnet.dropout_prob=choice:0.1,much"]), ["dropout_prob", "much"]),
    ],
)
def test_a_wrong_request_is_refused_before_anything_starts(dataset: Dataset, wanted: Wanted, words: list[str]) -> None:
    with pytest.raises(BenchError) as error:
        plan_search(dataset, wanted)
    assert all(word in str(error.value) for word in words), error.value
