"""``bench run``: kills, time limits, several devices, memory, authors' recipes, best weights."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from bench.errors import BenchError
from bench.plan import GridCell
from bench.store import Record, Store

Bench = Callable[..., object]

COMMAND = (sys.executable, "-c", "from bench.cli.app import main; main()")
KILLED = (
    *("--model", "segresnet", "--dataset", "phantom", "--checkpoint-every", "0"),
    *("--set", "train.steps=60", "--set", "train.steps_per_epoch=10", "--set", "validation.every_epochs=2"),
    *("--set", "evaluate.untrained=false", "--set", "data.patch_size=16", "--set", "evaluate.checkpoint=best"),
    *("--set", "augment.noise_probability=0.5", "--set", "augment.rotation_probability=0.5"),
    *("--set", "model_options.segresnet.dropout_prob=0.1"),
)
SHARED = (
    *("--model", "segresnet", "--dataset", "phantom", "--gpus-per-job", "2"),
    *("--set", "train.steps=2000", "--set", "train.steps_per_epoch=1", "--set", "validation.every_epochs=none"),
    *("--set", "evaluate.untrained=false", "--set", "data.patch_size=16"),
)


def _only(root: Path) -> Record:
    (record,) = Store(root).records()
    return record


def _weights(record: Record, name: str) -> dict[str, torch.Tensor]:
    return torch.load(record.folder / "checkpoint" / name, weights_only=True)["model"]


def test_a_run_killed_at_any_moment_ends_with_the_same_bits(phantoms: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, as often as it takes; then undisturbed. Both end in the same weights and scores."""

    def start(results: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*COMMAND, "run", *KILLED, "--data-dir", phantoms, "--results", tmp_path / results],
            env={**os.environ, "BENCH_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    whole = start("whole")
    out, _ = whole.communicate(timeout=200)
    assert whole.returncode == 0, out

    draw = random.Random(time.time_ns())
    kills = 0
    last = tmp_path / "killed"
    for _ in range(4):
        run = start("killed")
        # From the first sign of life on, since a kill while Python starts tries nothing.
        while run.poll() is None and not list(last.glob("*/log.txt")):
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 4))
        if run.poll() is None:
            run.kill()
            kills += 1
        run.communicate()
    final = start("killed")
    out, _ = final.communicate(timeout=200)
    assert final.returncode == 0, out
    assert kills, "the run was over before it could be killed"
    one, two = _only(tmp_path / "whole"), _only(tmp_path / "killed")
    assert two.status == "complete"
    for name in ("last.pt", "best.pt"):
        expected, found = _weights(one, name), _weights(two, name)
        assert all(torch.equal(expected[key], found[key]) for key in expected), f"{name} after {kills} kills"
    pd.testing.assert_frame_equal(one.cases(), two.cases())
    told = ["step", "learning_rate", "loss", "dice"]
    histories = [pd.read_csv(record.folder / "history.csv")[told] for record in (one, two)]
    pd.testing.assert_frame_equal(*histories)


def test_the_best_weights_are_tested(tiny_run: Bench, tmp_path: Path) -> None:
    answer = tiny_run(
        "--set", "train.steps_per_epoch=1", "--set", "validation.every_epochs=1", "--set", "evaluate.checkpoint=best"
    )
    assert answer.status == 0, answer.err
    record = _only(tmp_path / "results")
    assert record.weights.name == "best.pt"
    history = pd.read_csv(record.folder / "history.csv")
    best = history.loc[history["dice"].idxmax()]
    assert record.content["validation"] == {"best_dice": pytest.approx(best["dice"]), "best_step": int(best["step"])}
    assert list((record.folder / "tensorboard").glob("events*"))


def test_best_weights_without_validation_are_refused_at_once(tiny_run: Bench, tmp_path: Path) -> None:
    answer = tiny_run("--set", "evaluate.checkpoint=best", "--set", "validation.every_epochs=none")
    assert answer.status == 2
    assert "evaluate.checkpoint=best needs validation" in answer.err
    assert not (tmp_path / "results").exists()


def test_time_over_is_a_status_and_the_same_command_goes_on(tiny_run: Bench, tmp_path: Path) -> None:
    answer = tiny_run("--timeout", "1e-9", "--set", "evaluate.untrained=false")
    assert answer.status == 1
    assert "seconds are over; run the same command again" in answer.out
    assert _only(tmp_path / "results").status == "timeout"
    again = tiny_run("--set", "evaluate.untrained=false")
    assert again.status == 0, again.err
    assert _only(tmp_path / "results").status == "complete"


def test_two_processes_share_a_job(tiny_run: Bench, tmp_path: Path) -> None:
    assert tiny_run("--set", "evaluate.untrained=false").status == 0
    shared = tiny_run("--gpus-per-job", "2", "--set", "evaluate.untrained=false", "--results", tmp_path / "shared")
    assert shared.status == 0, shared.err + shared.out
    one, two = _only(tmp_path / "results"), _only(tmp_path / "shared")
    assert one.key == two.key
    assert two.content["execution"]["devices"] == 2
    for name, tensor in _weights(one, "last.pt").items():
        torch.testing.assert_close(_weights(two, "last.pt")[name], tensor, atol=1e-5, rtol=1e-3)


def test_ctrl_c_stops_every_process_of_a_job_and_it_goes_on(phantoms: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [*COMMAND, "run", *SHARED, "--data-dir", phantoms, "--results", results],
            env={**os.environ, "BENCH_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    done = 0
    for words in ("interrupted", "going on from step"):
        run = start()
        for _ in range(900):
            histories = list(results.glob("*/history.csv"))
            if histories and len(histories[0].read_text().splitlines()) > done + 2:
                break
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does, to all of them
        out, _ = run.communicate(timeout=20)  # the launcher would kill what has not ended after thirty
        assert run.returncode == 130, out
        assert words in out
        assert "Traceback" not in out
        done = len(next(iter(results.glob("*/history.csv"))).read_text().splitlines())
    assert _only(results).status == "interrupted"


def test_folds_are_trained_one_by_one_and_share_a_row(tiny_run: Bench, bench: Bench, tmp_path: Path) -> None:
    folds = ("--folds", "3", "--set", "evaluate.untrained=false")
    results = ("--results", tmp_path / "results")
    assert tiny_run(*folds, "--fold", "0,2").status == 0
    records = Store(tmp_path / "results").records()
    assert sorted(record.content["job"]["fold"] for record in records) == [0, 2]
    assert "segresnet: folds 0, 2 of 3" in bench("table", *results).out
    rest = tiny_run(*folds)
    assert rest.status == 0
    assert sum("already there" in line for line in rest.err.splitlines()) == 2
    assert ", fold 1: complete" in rest.out
    tested = [set(record.cases()["case"]) for record in Store(tmp_path / "results").records()]
    assert [len(cases) for cases in tested] == [2, 2, 2]
    assert len(set.union(*tested)) == 6
    table = bench("table", *results)
    assert "Cross-validation, 3 folds, seed 42" in table.out
    assert re.search(r"^segresnet\*?  .* 6 +1$", table.out, re.MULTILINE), table.out
    assert "folds 0" not in table.out
    assert "6 test cases" in table.out
    assert "4 test cases" in bench("table", *results, "--fold", "0,1").out
    assert bench("table", *results, "--fold", "a").status == 2
    assert "folds" not in bench("verify", *results).out


def test_datasets_and_protocols_make_a_grid(bench: Bench, phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PHANTOM", "BRATS2023"):
        monkeypatch.setenv(f"BENCH_{name}_DIR", str(phantoms))
    planned = []

    def note(grid: list[GridCell], *_: object) -> None:
        planned.extend((cell.dataset.card.name, next(iter(cell.protocols.values())).name) for cell in grid)
        raise BenchError("noted")

    monkeypatch.setattr("bench.plan.make_plan", note)
    common = ("run", "--model", "segresnet", "--dataset", "phantom,brats2023")
    assert bench(*common).status == 2
    assert bench(*common, "--protocol", "paper", "--protocol", "release,paper").status == 2
    assert planned == [
        *(("phantom", "demo"), ("brats2023", "paper")),
        *((dataset, preset) for dataset in ("phantom", "brats2023") for preset in ("paper", "release")),
    ]


def test_optimisations_are_fields_and_what_the_device_lacks_is_noted(tiny_run: Bench, tmp_path: Path) -> None:
    answer = tiny_run("--optimised", "--set", "evaluate.untrained=false", "--device", "cpu")
    assert answer.status == 0, answer.err + answer.out
    content = _only(tmp_path / "results").content
    execution = content["execution"]
    assert execution["channels_last"]
    assert [note for note in execution["notes"] if "needs a GPU" in note] == [
        "fused is off: it needs a GPU",
        "graph is off: it needs a GPU",
    ]
    asked = content["job"]["protocol"]["train"]
    assert asked["channels_last"] is asked["fused"] is asked["graph"] is True


def test_memory_to_train_in_is_part_of_the_experiment(tiny_run: Bench, bench: Bench, tmp_path: Path) -> None:
    answer = tiny_run("--memory-gib", "0.2", "--set", "evaluate.untrained=false")
    assert answer.status == 0, answer.err + answer.out
    execution = _only(tmp_path / "results").content["execution"]
    assert 0 < execution["step_memory_bytes"] <= 0.2 * 2**30
    assert "train.memory_gib=0.2" in bench("table", "--results", tmp_path / "results").out
    small = tiny_run("--memory-gib", "0.001", "--set", "evaluate.untrained=false", "--results", tmp_path / "small")
    assert small.status == 1
    assert _only(tmp_path / "small").status == "oom"
    assert "does not fit in train.memory_gib=0.001" in small.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpus-per-job", "3"), ["train.batch_size=2", "multiple of 3"]),
        (("--protocol", "author", "--model", "swinunetr_v2"), ["swinunetr_v2 state no recipe"]),
        (("--set", "scan=tri"), ["model_options.MODEL.scan"]),
        (("--fold", "0"), ["--fold 0: the protocol demo (train.steps=2) has no folds", "--folds 5"]),
        (("--folds", "3", "--fold", "3"), ["--fold 3: the 3 folds", "from 0 to 2, or all"]),
        (("--folds", "3", "--fold", "-1"), ["--fold '-1': expected whole numbers from 0"]),
        (("--folds", "3", "--fold", "all,0"), ["--fold 'all,0': expected whole numbers from 0"]),
        (("--folds", "1"), ["split.folds=1", "greater than or equal to 2"]),
        (("--folds", "7"), ["found 6 patient(s)", "expected at least 7"]),
        (("--dataset", "brats2023"), ["--data-dir", "2 are named: phantom, brats2023", "BENCH_<NAME>_DIR"]),
        (("--protocol", "demo,papre"), ["unknown protocol 'papre': did you mean 'paper'"]),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(
    tiny_run: Bench, tmp_path: Path, arguments: tuple[str, ...], words: list[str]
) -> None:
    answer = tiny_run(*arguments)
    assert answer.status == 2, answer.err
    for word in words:
        assert word in answer.err
    assert not (tmp_path / "results").exists()


def test_authors_recipes_share_a_table_of_their_own_and_mix_on_request_only(
    bench: Bench, phantoms: Path, tmp_path: Path
) -> None:
    common = ("--dataset", "phantom", "--data-dir", phantoms, "--results", tmp_path / "results")
    small = ("--set", "train.steps=1", "--set", "data.patch_size=32", "--set", "train.batch_size=2")
    small += ("--set", "train.precision=fp32", "--set", "infer.precision=fp32", "--set", "infer.mirror_axes=none")
    options = ("--set", "model_options.segresnet.init_filters=8", "--set", "model_options.uxnet.feat_size=8,16,32,64")
    author = bench("run", "--model", "segresnet,uxnet", "--protocol", "author", *common, *small, *options)
    assert author.status == 0, author.err + author.out
    assert bench("run", "--model", "segresnet", *common, "--set", "train.steps=1", *options[:2]).status == 0
    apart = bench("table", "--results", tmp_path / "results").out
    assert apart.count("absent from the reference") == 2
    assert "segresnet: recipe of its authors changed (" in apart
    assert "uxnet: recipe of its authors changed (" in apart
    assert "adamw 0.0001, dice ce" in apart
    mixed = bench("table", "--allow-mixed", "--results", tmp_path / "results").out
    assert mixed.count("absent from the reference") == 1
    assert "Mixed on request: protocol" in mixed
    assert mixed.splitlines()[0].split()[:2] == ["model", "protocol"]
