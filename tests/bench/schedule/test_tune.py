"""Which trials go on, and a search from the command to the table with real Ray on this machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sweeping import COMMAND

from bench.job import Job
from bench.report.frame import group_records
from bench.report.table import Choice, make_table
from bench.schedule.tune import Halving
from bench.search.trials import Ledger, Trial
from bench.store import Record, Store
from bench.tuned import read_tuned
from data.phantom import write_dataset

STOP, CONTINUE = "STOP", "CONTINUE"


@dataclass(frozen=True)
class RayTrial:
    """What `Halving` reads of Ray's trials."""

    config: Mapping[str, Any]


class Contest:
    """A halving of invented trials, fed by hand; rungs after 2, 4 and 8 of 16 steps."""

    def __init__(self, folder: Path, trials: list[Trial]) -> None:
        self.trials, self.told = trials, []
        self.ledger = Ledger(folder)
        self.halving = Halving(trials, self.ledger, [2, 4, 8], 16, 2, self.told.append)

    def report(self, number: int, step: int, dice: float) -> str:
        """A validation of the trial in that place of the list."""
        result = {"step": step, "dice": dice, "training_iteration": step}
        return self.halving.on_trial_result(None, RayTrial({"trial": number}), result)

    def write(self, number: int, scores: list[float], status: str) -> None:
        """A record with validations two steps apart."""
        record = self.ledger.store.open_run(self.trials[number].job)
        rows = [{"step": 2 * place + 2, "loss": 1.0, "dice": dice} for place, dice in enumerate(scores)]
        record.write_history(rows)
        record.write_cases({})
        record.finish(status, **({"mean_dice": scores[-1]} if status == "complete" else {}))


@pytest.fixture
def contest(make_job: Callable[..., Job], tmp_path: Path) -> Callable[..., Contest]:
    """Five settings of each of two networks; again in the same folder if it is called twice."""

    def make() -> Contest:
        trials = []
        for model in ("segresnet", "unetr"):
            for number in range(5):
                job = make_job(model, changes=("train.steps=16", f"train.learning_rate={0.01 * (number + 1)}"))
                trials.append(Trial(model, number, {"train.learning_rate": str(0.01 * (number + 1))}, job))
        return Contest(tmp_path / "search", trials)

    return make


def test_the_worse_half_of_those_that_came_to_a_rung_stops(contest: Callable[..., Contest]) -> None:
    """By hand: who comes first goes on; then whoever is not below the median of those that came before."""
    one = contest()
    assert one.report(1, 2, 0.30) == CONTINUE
    assert one.report(2, 2, 0.20) == STOP
    assert one.report(3, 2, 0.25) == CONTINUE, "the median of 0.30 and 0.20"
    assert one.report(4, 2, 0.24) == STOP, "the median of 0.30, 0.20 and 0.25"
    assert one.report(1, 3, 0.0) == CONTINUE, "between two rungs nothing is decided"
    assert one.report(3, 4, 0.50) == CONTINUE
    assert one.report(1, 4, 0.49) == STOP, "at the next rung there is only 0.50"
    stopped = [json.loads(path.read_text()) for path in (one.ledger.folder / "stopped").iterdir()]
    assert sorted((entry["number"], entry["step"]) for entry in stopped) == [(1, 4), (2, 2), (4, 2)]
    assert len(one.told) == 3


def test_the_own_setting_takes_part_and_is_never_stopped(contest: Callable[..., Contest]) -> None:
    one = contest()
    assert one.report(1, 2, 0.9) == CONTINUE
    assert one.report(0, 2, 0.1) == CONTINUE
    assert one.report(0, 4, 0.1) == CONTINUE
    assert one.report(2, 2, 0.4) == STOP, "the median of 0.9 and 0.1 is 0.5"
    assert one.report(1, 4, 0.05) == STOP, "below the own setting's 0.1"
    assert not one.ledger.outcome(one.trials[0]).settled


def test_networks_do_not_compete(contest: Callable[..., Contest]) -> None:
    one = contest()
    assert one.report(1, 2, 0.9) == CONTINUE
    assert one.trials[6].model == "unetr"
    assert one.report(6, 2, 0.1) == CONTINUE
    assert one.report(7, 2, 0.05) == STOP


def test_records_of_an_earlier_command_count_and_are_not_asked_again(contest: Callable[..., Contest]) -> None:
    first = contest()
    first.write(0, [0.5, 0.5, 0.5, 0.5, 0.5], "complete")
    first.write(1, [0.1, 0.6], "interrupted")
    first.write(2, [], "nan")
    first.write(3, [0.3, 0.9], "interrupted")
    first.ledger.stop(first.trials[3], 2, 0.3)
    again = contest()
    assert again.report(1, 2, 0.1) == CONTINUE, "it had passed that rung before"
    assert again.report(1, 4, 0.6) == CONTINUE
    # At the first rung 0.5, 0.1, 0.3 and the 0 of the diverged one: the median is 0.2. At the second 0.5 and 0.6, not
    # the 0.9 of the one that had been stopped by then.
    assert again.report(4, 2, 0.21) == CONTINUE
    assert again.report(4, 4, 0.56) == CONTINUE
    once_more = contest()
    assert once_more.report(4, 2, 0.19) == STOP


def test_a_failed_trial_comes_to_its_next_rung_as_the_worst(contest: Callable[..., Contest]) -> None:
    one = contest()
    one.write(1, [0.9], "nan")
    one.report(1, 2, 0.9)
    one.halving.on_trial_complete(None, RayTrial({"trial": 1}), {"done": True, "status": "nan", "message": "no number"})
    assert one.told == ["segresnet 1: nan after 2 steps, Dice 0.000: no number"]
    assert one.report(2, 2, 0.9) == CONTINUE
    assert one.report(2, 4, 0.1) == CONTINUE, "only the failed one came there"


@dataclass(frozen=True)
class Searches:
    """Commands on one results folder, in processes of their own that know the network `lever`."""

    phantoms: Path
    results: Path
    environment: Mapping[str, str]

    def run(self, *arguments: object) -> str:
        """What a command printed, which must succeed."""
        done = subprocess.run(
            [*COMMAND, *map(str, arguments), "--results", str(self.results)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def files(self) -> dict[Path, int]:
        """Every file of the trials, with the time of its last change."""
        return {path: path.stat().st_mtime_ns for path in (self.results / "tune").rglob("*") if "trials" in path.parts}


@pytest.fixture
def searches(environment: dict[str, str], tmp_path: Path) -> Searches:
    """On ten cases of 32³ voxels: seven train, one validates, two test."""
    write_dataset(tmp_path / "ten", cases=10, size=32, seed=1)
    plugin = tmp_path / "plugin"
    info = plugin / "lever-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "support" / "lever.py", plugin / "lever.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lever\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[segmamba_bench.models]\nlever = lever:lever\n")
    paths = f"{plugin}:{environment['PYTHONPATH']}"
    return Searches(
        tmp_path / "ten",
        tmp_path / "results",
        {**environment, "PYTHONPATH": paths, "SHAKY_PAUSE_S": "0", "BENCH_CACHE_DIR": str(tmp_path / "cache")},
    )


def test_a_search_from_the_command_to_the_table(searches: Searches) -> None:
    """`lever` learns nothing at the protocol's own rate, all it can at 0.5, and diverges at 1e30."""
    data = ("--dataset", "phantom", "--data-dir", searches.phantoms)
    command = (
        *("tune", "--model", "lever,shaky", "--trials", "3", "--cpus-per-job", "1", "--device", "cpu", *data),
        *("--set", "train.steps=16", "--set", "train.steps_per_epoch=2", "--set", "data.patch_size=16"),
        *("--set", "train.learning_rate=1e-12", "--search", "train.weight_decay=none"),
        *("--search", "train.learning_rate=choice:0.5,1e30"),
    )
    out = searches.run(*command)
    folder = searches.results / "tune" / "demo"
    trials = _trials(folder)
    assert trials["model"].value_counts().to_dict() == {"lever": 3, "shaky": 3}
    tuned = read_tuned(folder / "phantom.toml")
    for model, mine in trials.groupby("model"):
        complete = mine[mine["status"] == "complete"]
        best = complete.loc[complete["dice"].idxmax()]
        assert tuned.models[model] == {"train.learning_rate": best["train.learning_rate"]}
        facts = tuned.found[model]
        assert facts["validation_dice"] == best["dice"]
        assert facts["steps"] == mine["step"].sum()
        assert facts["complete"] + facts["stopped_early"] + facts["failed"] == 3
    lever = trials[trials["model"] == "lever"].set_index("train.learning_rate")
    assert lever["status"].to_dict() == {1e-12: "complete", 0.5: "complete", 1e30: "nan"}
    assert lever.loc[0.5, "dice"] > lever.loc[1e-12, "dice"] == lever.loc[1e30, "dice"] == 0
    assert tuned.models["lever"] == {"train.learning_rate": 0.5}
    assert (tuned.found["lever"]["own_setting_dice"], tuned.found["lever"]["failed"]) == (0, 1)
    assert re.search(r"lever +2 +0 +1 .* 0\.00 .* train\.learning_rate=0\.5", out), out

    records = Store(folder / "trials").records()
    assert len(records) == 6
    splits = [json.loads((record.folder / "split.json").read_text()) for record in records]
    seen = {case for split in splits for part in ("train", "validation", "test") for case in split[part]}
    assert len(seen) == 8
    assert not Store(searches.results).records(), "trials are no rows of tables"

    before = searches.files()
    again = searches.run(*command)
    assert "nothing is left to run" in again
    assert searches.files() == before
    assert _trials(folder).equals(trials)

    searches.run("run", "--model", "lever", "--protocol", folder / "phantom.toml", *data)
    (record,) = Store(searches.results).records()
    _check_tuned_run(record, tuned.name, tested={case.name for case in searches.phantoms.glob("BraTS*")} - seen)
    (group,) = group_records([record])
    footer = "\n".join(make_table(group, Choice()).footer)
    assert f"Protocol: {tuned.name} (data.patch_size=16,16,16" in footer
    assert "lever: tuned on validation cases: train.learning_rate 0.5" in footer


def _trials(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "phantom.trials.csv", keep_default_na=False)  # nan is a status
    return table.assign(dice=pd.to_numeric(table["dice"]))


def _check_tuned_run(record: Record, name: str, tested: set[str]) -> None:
    assert record.status == "complete"
    protocol = record.content["job"]["protocol"]
    assert (protocol["name"], protocol["author_of"]) == (name, "lever")
    assert (protocol["train"]["learning_rate"], protocol["train"]["steps"]) == (0.5, 16)
    assert record.content["tuned"] == ["train.learning_rate"]
    assert set(record.cases()["case"]) == tested
