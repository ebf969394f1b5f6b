"""From names to protocols and options, one for all or each network's own; grids of jobs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import data
import models
from bench import plan as plan_module
from bench.errors import BenchError
from bench.job import Job
from bench.plan import (
    GridCell,
    check_option_targets,
    choose_datasets,
    choose_folds,
    default_protocol,
    draw_splits,
    make_plan,
    protocols_of,
    resolved_options,
)
from bench.protocol import load_protocol
from bench.store import Store
from data.card import DatasetCard
from data.errors import DataError
from data.volume import CaseFiles

NETWORKS = ["unetr", "segresnet"]
WITH_RECIPE = [name for name in models.names() if models.card(name).recipe_fields is not None]


def test_a_shared_protocol_is_one_for_all() -> None:
    protocols = protocols_of(["unetr", "segresnet"], "paper", ["train.epochs=5"])
    assert protocols["unetr"] is protocols["segresnet"]
    assert protocols["unetr"].author_of == ""


@pytest.mark.parametrize("name", WITH_RECIPE)
def test_every_recipe_on_a_card_is_a_protocol(name: str) -> None:
    protocol = protocols_of([name], "author", [])[name]
    assert protocol.author_of == name
    assert protocol.title == "author"
    values = protocol.values()
    for field, value in (models.card(name).recipe_fields or {}).items():
        if field.startswith("model_options."):
            assert resolved_options(name, protocol)[field.rpartition(".")[2]] == value
        else:
            assert values[field] == value
            assert name in protocol.sources[field]


def test_recipes_differ_and_can_be_changed() -> None:
    protocols = protocols_of(["unetr", "mednext_b"], "author", ["train.steps=9"])
    assert (protocols["unetr"].train.learning_rate, protocols["mednext_b"].train.learning_rate) == (1e-4, 1e-3)
    assert {protocol.title for protocol in protocols.values()} == {"author (train.steps=9)"}
    assert protocols["unetr"].canonical() != protocols["mednext_b"].canonical()


def test_a_card_without_a_recipe_is_named_with_those_that_have_one() -> None:
    with pytest.raises(BenchError, match=r"swinunetr_v2 state no recipe.*nnunet"):
        protocols_of(["unetr", "swinunetr_v2"], "author", [])


@pytest.mark.parametrize(("name", "deep"), [("nnunet", True), ("segresnet", None)])
def test_deep_supervision_is_asked_of_networks_that_have_it(name: str, deep: bool | None) -> None:
    protocol = protocols_of([name], "paper", ["train.deep_supervision=true"])[name]
    assert resolved_options(name, protocol).get("deep_supervision") is deep
    explicit = protocols_of(
        [name], "paper", ["train.deep_supervision=true", f"model_options.{name}.deep_supervision=false"]
    )
    if deep:
        assert resolved_options(name, explicit[name])["deep_supervision"] is False


def test_options_of_a_model_that_is_not_there_are_refused() -> None:
    with pytest.raises(BenchError, match="did you mean 'unetr'"):
        check_option_targets(["model_options.untr.mlp_dim=5"], ["unetr"])


@dataclass
class Listed:
    """A dataset of which nothing but its files is ever asked."""

    card: DatasetCard
    root: Path
    asked: int = 0

    def cases(self, labelled: bool = True) -> list[CaseFiles]:
        assert labelled
        self.asked += 1
        return [
            CaseFiles(path.stem, path.stem.partition("-")[0], (path,), path) for path in sorted(self.root.glob("*.txt"))
        ]


def _dataset(root: Path, name: str, patients: int = 10) -> Listed:
    root.mkdir(parents=True, exist_ok=True)
    for patient in range(patients):
        for visit in range(1 + patient % 2):
            (root / f"p{patient:02d}-{visit}.txt").write_text(f"{name} {patient} {visit}")
    return Listed(replace(data.card("phantom"), name=name), root)


def _cell(dataset: Listed, preset: str = "demo", *changes: str) -> GridCell:
    return GridCell(dataset, protocols_of(NETWORKS, preset, changes))


def _told(job: Job) -> tuple[object, ...]:
    return job.dataset, job.protocol.name, job.seed, job.fold, job.model


def test_a_grid_is_every_dataset_protocol_seed_fold_and_model_in_this_order(tmp_path: Path) -> None:
    one, two = _dataset(tmp_path / "a", "one"), _dataset(tmp_path / "b", "two")
    cells = [_cell(dataset, preset, "split.folds=5") for dataset in (one, two) for preset in ("paper", "release")]
    plan = make_plan(cells, [3, 0], Store(tmp_path / "results"), folds=[1, 0])
    assert [_told(job) for job in plan.jobs] == [
        (dataset, preset, seed, fold, model)
        for dataset in ("one", "two")
        for preset in ("paper", "release")
        for seed in (3, 0)
        for fold in (1, 0)
        for model in NETWORKS
    ]
    assert plan.datasets == {"one": one, "two": two}
    assert len({job.data_fingerprint for job in plan.jobs}) == 2
    assert (one.asked, two.asked) == (1, 1), "each dataset is listed once"
    whole = make_plan(cells, [0], Store(tmp_path / "results"))
    assert len(whole.jobs) == 2 * 2 * 1 * 5 * 2
    for job in whole.jobs:
        assert job.split == draw_splits(plan.datasets[job.dataset].cases(), job.protocol)[job.fold]


def test_files_are_hashed_once_for_each_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    monkeypatch.setattr(plan_module, "fingerprint", lambda cases: hashed.append(len(cases)) or str(len(hashed)))
    one, two = _dataset(tmp_path / "a", "one"), _dataset(tmp_path / "b", "two", patients=4)
    make_plan([_cell(one), _cell(one, "paper"), _cell(two)], [0, 1], Store(tmp_path / "results"))
    assert hashed == [15, 6]


def test_without_folds_a_grid_has_no_fold_and_equal_jobs_are_planned_once(tmp_path: Path) -> None:
    one, again = _dataset(tmp_path / "a", "one"), _dataset(tmp_path / "a", "one")
    plan = make_plan([_cell(one), _cell(again), _cell(one, "demo", "train.steps=3")], [0], Store(tmp_path / "results"))
    assert [(job.protocol.title, job.fold, job.model) for job in plan.jobs] == [
        (title, None, model) for title in ("demo", "demo (train.steps=3)") for model in NETWORKS
    ]


def test_each_protocol_of_a_grid_has_its_own_split(tmp_path: Path) -> None:
    one = _dataset(tmp_path / "a", "one")
    cells = [_cell(one), _cell(one, "demo", "split.seed=1"), _cell(one, "demo", "split.folds=2")]
    plan = make_plan(cells, [0], Store(tmp_path / "results"))
    for job in plan.jobs:
        assert job.split == draw_splits(one.cases(), job.protocol)[job.fold]
    assert len({job.split.sha256 for job in plan.jobs}) == 4


def test_folds_that_are_complete_are_not_run_again(tmp_path: Path) -> None:
    cell, store = _cell(_dataset(tmp_path / "a", "one"), "demo", "split.folds=3"), Store(tmp_path / "results")
    first = make_plan([cell], [0], store).jobs[2]
    record = store.open_run(first)
    record.write_cases({})
    record.finish("complete")
    plan = make_plan([cell], [0], store)
    assert [record.key for record in plan.done] == [first.key]
    assert [(job.fold, job.model) for job in plan.jobs] == [
        *((0, "unetr"), (0, "segresnet"), (1, "segresnet"), (2, "unetr"), (2, "segresnet"))
    ]


def test_two_datasets_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    one, two = _dataset(tmp_path / "a", "one"), _dataset(tmp_path / "b", "one")
    with pytest.raises(BenchError, match=rf"two datasets are called 'one': {one.root} and {two.root}.*Rename"):
        make_plan([_cell(one), _cell(two)], [0], Store(tmp_path / "results"))


def test_best_weights_without_validation_are_refused_in_every_fold(tmp_path: Path) -> None:
    changes = ("split.folds=3", "evaluate.checkpoint=best", "validation.every_epochs=none")
    with pytest.raises(BenchError, match=r"evaluate\.checkpoint=best needs validation"):
        make_plan([_cell(_dataset(tmp_path / "a", "one"), "demo", *changes)], [0], Store(tmp_path / "results"))


def test_too_few_patients_for_the_folds_are_told(tmp_path: Path) -> None:
    cell = _cell(_dataset(tmp_path / "a", "one", patients=4), "demo", "split.folds=5")
    with pytest.raises(DataError, match="found 4 patient"):
        make_plan([cell], [0], Store(tmp_path / "results"))


def test_of_what_a_fold_leaves_the_protocols_shares_train_and_validate(tmp_path: Path) -> None:
    cases = _dataset(tmp_path / "a", "one", patients=40).cases()
    shares = ("split.train=0.5", "split.validation=0.25", "split.test=0.25")
    (whole,) = draw_splits(cases, load_protocol("demo", shares)).values()
    assert (len(whole.train), len(whole.validation), len(whole.test)) == (30, 15, 15)
    folded = draw_splits(cases, load_protocol("demo", [*shares, "split.folds=4"]))
    assert list(folded) == [0, 1, 2, 3]
    for split in folded.values():
        assert (len(split.train), len(split.validation), len(split.test)) == (30, 15, 15)
    tests_alone = load_protocol("demo", ["split.train=0", "split.validation=0", "split.test=1", "split.folds=4"])
    assert not any(split.validation for split in draw_splits(cases, tests_alone).values())


@pytest.mark.parametrize(("asked", "chosen"), [([], [0, 1, 2]), ([2, 0], [2, 0])])
def test_all_folds_are_run_or_those_asked_for(asked: list[int], chosen: list[int]) -> None:
    assert choose_folds(load_protocol("demo", ["split.folds=3"]), asked) == chosen
    assert choose_folds(load_protocol("demo"), []) == [None]


def test_folds_that_are_not_there_are_refused() -> None:
    with pytest.raises(BenchError, match=r"--fold 3,7: the 3 folds of .* from 0; expected numbers from 0 to 2, or all"):
        choose_folds(load_protocol("demo", ["split.folds=3"]), [3, 1, 7])
    with pytest.raises(BenchError, match=r"--fold 0,1: the protocol demo has no folds.*--folds 5"):
        choose_folds(load_protocol("demo"), [0, 1])


def test_datasets_are_named_and_have_a_default_protocol() -> None:
    cards = choose_datasets(["phantom", "brats2023"])
    assert {name: default_protocol(card) for name, card in cards.items()} == {"phantom": "demo", "brats2023": "paper"}
    known = "brats2023, phantom, phantom_stress, or a folder"
    with pytest.raises(BenchError, match=f"--dataset names no dataset; known: {known}"):
        choose_datasets([])
