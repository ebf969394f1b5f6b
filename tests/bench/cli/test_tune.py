"""``bench tune`` and what takes its file, as far as they come without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.search.trials import Ledger, Trial
from bench.tuned import read_tuned
from data.phantom import write_dataset

Bench = Callable[..., object]


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten cases of 32³ voxels: seven train, one validates, two test."""
    root = tmp_path_factory.mktemp("ten")
    write_dataset(root, cases=10, size=32, seed=1)
    return root


@pytest.fixture
def tune(bench: Bench, ten: Path, tmp_path: Path) -> Bench:
    """``bench tune`` of a small network; more options may follow."""
    common = ("tune", "--dataset", "phantom", "--data-dir", ten, "--results", tmp_path / "results", "--trials", "3")
    small = ("--set", "train.steps=16", "--set", "train.steps_per_epoch=2", "--set", "data.patch_size=32")

    def call(*more: object, model: str = "segresnet") -> object:
        return bench(*common, "--model", model, *small, *more)

    return call


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of training each trial is complete at once, with a Dice that grows with its number; the second stops."""

    def run(trials: list[Trial], ledger: Ledger, *_: object) -> bool:
        for trial in trials:
            record = ledger.store.open_run(trial.job)
            scores = [0.1 * (trial.number + 1), 0.2 * (trial.number + 1)]
            rows = [{"step": 2 * n + 2, "step_s": 1, "data_wait_s": 0, "dice": dice} for n, dice in enumerate(scores)]
            record.write_history(rows)
            record.write_cases({})
            status = "interrupted" if trial.number == 1 else "complete"
            record.finish(status, mean_dice=scores[-1])
            if trial.number == 1:
                ledger.stop(trial, 2, scores[0])
        return False

    monkeypatch.setattr("bench.cli.tuning.carry_out", lambda search, ledger, *_: run(search.trials, ledger))


def test_a_dry_run_prints_the_plan_and_writes_nothing(tune: Bench, tmp_path: Path) -> None:
    answer = tune("--dry-run", model="segresnet,unetr")
    assert answer.status == 0, answer.err
    for words in (
        "2 networks, 3 settings each, at most 16 steps a setting: at most 96 steps in all",
        "train.learning_rate=around:10, train.weight_decay=loguniform:1e-6:1e-2; seed 0",
        "7 training cases, compared on 1 validation case; the 2 test cases left alone",
        "validated 8 times; the worse half stops after 2, 4, 8 steps",
        "0  waiting  train.learning_rate=0.02, train.weight_decay=1e-05 (the protocol's own)",
    ):
        assert words in answer.out
    assert answer.out.count("waiting") == 6
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("invented")
def test_what_was_found_is_written_and_printed(tune: Bench, bench: Bench, tmp_path: Path) -> None:
    answer = tune()
    assert answer.status == 0, answer.err
    file = tmp_path / "results" / "tune" / "demo" / "phantom.toml"
    tuned = read_tuned(file)
    facts = tuned.found["segresnet"]
    assert facts["validation_dice"] == pytest.approx(0.6)
    assert facts["own_setting_dice"] == pytest.approx(0.2)
    assert (facts["complete"], facts["stopped_early"], facts["failed"], facts["steps"]) == (2, 1, 0, 12)
    assert facts["device_seconds"] == 12
    rows = (file.parent / "phantom.trials.csv").read_text().splitlines()
    assert [row.split(",")[:3] for row in rows[1:]] == [
        ["segresnet", "0", "complete"],
        ["segresnet", "1", "stopped"],
        ["segresnet", "2", "complete"],
    ]
    assert f"bench run --protocol {file}" in answer.out
    shown = bench("protocols", file)
    assert shown.status == 0, shown.err
    assert "0.6" in shown.out
    one = bench("protocols", file, "--model", "segresnet")
    assert f"[tuned, see {file}]" in one.out
    assert bench("protocols", file, "--model", "unetr").status == 2


@pytest.mark.usefixtures("invented")
def test_another_network_joins_the_file_of_the_same_search(tune: Bench, tmp_path: Path) -> None:
    file = tmp_path / "found.toml"
    assert tune("--output", file).status == 0
    alone = read_tuned(file)
    for more in (("--trials", "4"), ("--seed", "1"), ("--set", "train.momentum=0.5"), ("--trial-steps", "8")):
        answer = tune("--output", file, *more, model="unetr")
        assert answer.status == 2
        assert "holds what another search found" in answer.err
        assert read_tuned(file) == alone
    assert tune("--output", file, model="unetr").status == 0
    both = read_tuned(file)
    assert list(both.models) == ["segresnet", "unetr"]
    assert both.found["segresnet"] == alone.found["segresnet"]
    rows = (tmp_path / "found.trials.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["segresnet"] * 3 + ["unetr"] * 3


def test_a_network_without_a_complete_trial_is_told(
    tune: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(trials: list[Trial], ledger: Ledger) -> bool:
        for trial in trials:
            ledger.store.give_up(trial.job, "nan" if trial.number else "oom", "why")
        return False

    monkeypatch.setattr("bench.cli.tuning.carry_out", lambda search, ledger, *_: fail(search.trials, ledger))
    answer = tune()
    assert answer.status == 1
    assert "segresnet: no trial came to its end" in answer.out
    folder = tmp_path / "results" / "tune" / "demo"
    assert not (folder / "phantom.toml").exists()
    assert [row.split(",")[2] for row in (folder / "phantom.trials.csv").read_text().splitlines()[1:]] == [
        *("oom", "nan", "nan")
    ]


def test_a_stopped_search_writes_no_result(tune: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.cli.tuning.carry_out", lambda *_: True)
    answer = tune()
    assert answer.status == 130
    assert "the same command goes on" in answer.out
    assert not list(tmp_path.rglob("phantom.toml"))


@pytest.mark.usefixtures("invented")
def test_a_run_on_other_cases_than_were_left_alone_is_refused(
    tune: Bench, bench: Bench, ten: Path, tmp_path: Path, phantoms: Path
) -> None:
    assert tune().status == 0
    file = tmp_path / "results" / "tune" / "demo" / "phantom.toml"
    run = ("run", "--model", "segresnet", "--dataset", "phantom", "--protocol", file, "--dry-run")
    there = bench(*run, "--data-dir", ten)
    assert there.status == 0, there.err
    assert f"protocol {read_tuned(file).name} (" in there.out
    for more, words in (
        (("--data-dir", ten, "--set", "split.seed=7"), "its split"),
        (("--data-dir", ten, "--folds", "5"), "its split"),
        (("--data-dir", phantoms), "its files"),
    ):
        answer = bench(*run, *more)
        assert answer.status == 2
        assert words in answer.err
        assert "by which its setting was chosen" in answer.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--dataset", "phantom,brats2023"), ["one dataset"]),
        (("--seed", "0,1"), ["--seed 0,1"]),
        (("--model", "segrsenet"), ["segresnet"]),
        (("--search", "train.learning_rate=sometimes"), ["train.learning_rate=sometimes"]),
        (("--search", "model_options.unetr.hidden_size=choice:48,96"), ["it would change nothing"]),
        (("--name", "../up"), ["--name '../up'"]),
        (("--protocol", "papre"), ["did you mean 'paper'"]),
        (("--gpus-per-job", "1.5"), ["whole number"]),
        (("--set", "split.validation=0", "--set", "split.train=0.8"), ["no validation cases"]),
        (("--search", "data.patch_size=choice:20,28"), ["segresnet", "multiple of 8"]),
    ],
)
def test_a_wrong_request_is_told_before_anything_starts(
    tune: Bench, tmp_path: Path, options: tuple[str, ...], words: list[str]
) -> None:
    answer = tune(*options)
    assert answer.status == 2, answer.out + answer.err
    assert all(word in answer.err for word in words), answer.err
    assert not (tmp_path / "results").exists()
