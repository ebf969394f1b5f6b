"""``bench run``: from files to a record, again, interrupted, refused, failed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from bench.metrics import score_case
from bench.store import Record, Store

Bench = Callable[..., object]


def _record(root: Path) -> Record:
    (record,) = Store(root / "results").records()
    return record


def test_a_run_ends_in_a_complete_record_that_a_table_prints(tiny_run: Bench, bench: Bench, tmp_path: Path) -> None:
    answer = tiny_run()
    assert answer.status == 0, answer.err
    assert "untrained network" in answer.err
    record = _record(tmp_path)
    assert record.status == "complete"
    assert record.key in answer.out
    names = {path.name for path in record.folder.iterdir()}
    assert {"record.json", "split.json", "cases.csv", "history.csv", "checkpoint", "predictions", "log.txt"} <= names
    provenance = record.content["provenance"]
    assert provenance["packages"]["torch"] == torch.__version__
    assert provenance["settings"]["cudnn_benchmark"] is True
    assert set(provenance["code"]) == {"commit", "dirty"}
    table = bench("table", "--results", tmp_path / "results")
    assert table.status == 0
    assert f"{100 * record.content['mean_dice']:.2f}" in table.out
    assert "segresnet" in table.out


def test_scores_are_those_of_the_written_predictions(tiny_run: Bench, phantoms: Path, tmp_path: Path) -> None:
    tiny_run()
    record = _record(tmp_path)
    cases = record.cases()
    assert sorted(cases["case"].unique()) == sorted(record.content["references"])
    for case, rows in cases.groupby("case"):
        prediction = nib.load(record.folder / "predictions" / f"{case}.nii.gz")
        reference = nib.load(phantoms / str(case) / f"{case}-seg.nii.gz")
        np.testing.assert_array_equal(prediction.affine, reference.affine)
        assert prediction.shape == reference.shape
        assert prediction.get_data_dtype() == reference.get_data_dtype()
        scores = score_case(np.asarray(prediction.dataobj), np.asarray(reference.dataobj), (1.0, 1.0, 1.0))
        for _, row in rows.iterrows():
            assert row["dice"] == pytest.approx(scores[row["region"]]["dice"])
            assert row["hd95"] == pytest.approx(scores[row["region"]]["hd95"])


def test_the_split_is_written_beside_the_record_and_keeps_parts_apart(tiny_run: Bench, tmp_path: Path) -> None:
    tiny_run()
    record = _record(tmp_path)
    split = json.loads((record.folder / "split.json").read_text())
    assert split["sha256"] == record.content["job"]["split_sha256"]
    assert set(split["test"]) == set(record.cases()["case"])
    assert not set(split["train"]) & set(split["test"])


def test_what_is_complete_is_not_run_again(tiny_run: Bench, tmp_path: Path) -> None:
    tiny_run()
    folder = _record(tmp_path).folder
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = tiny_run()
    assert again.status == 0
    assert "already there" in again.err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written


def test_phantoms_stay_synthetic_under_another_name(bench: Bench, phantoms: Path, tmp_path: Path) -> None:
    place = ("--dataset", "brats2023", "--data-dir", phantoms, "--results", tmp_path / "results")
    tiny = ("--protocol", "demo", "--set", "train.steps=2", "--set", "model_options.segresnet.init_filters=8")
    assert bench("run", "--model", "segresnet", *place, *tiny).status == 0
    assert "Synthetic data" in bench("table", "--results", tmp_path / "results").out


def test_phantoms_that_are_not_all_there_are_refused(bench: Bench, phantoms: Path, tmp_path: Path) -> None:
    root = tmp_path / "half"
    shutil.copytree(phantoms, root)
    manifest = json.loads((root / "phantom.json").read_text())
    (root / "phantom.json").write_text(json.dumps({**manifest, "sha256": None}))
    for command in (("run", "--model", "segresnet", "--dataset", "phantom"), ("data", "check", "phantom")):
        answer = bench(*command, "--data-dir", root)
        assert answer.status == 2
        assert "interrupted" in answer.err


def test_a_grid_makes_one_record_per_seed(tiny_run: Bench, tmp_path: Path) -> None:
    assert tiny_run("--seed", "0,1").status == 0
    records = Store(tmp_path / "results").records()
    assert sorted(record.content["job"]["seed"] for record in records) == [0, 1]
    assert records[0].cases()["dice"].tolist() != records[1].cases()["dice"].tolist()


def test_the_same_job_gives_the_same_numbers(tiny_run: Bench, tmp_path: Path) -> None:
    tiny_run()
    tiny_run("--results", tmp_path / "again")
    one, two = _record(tmp_path), Store(tmp_path / "again").records()[0]
    pd.testing.assert_frame_equal(one.cases(), two.cases())


def test_the_number_of_workers_changes_nothing(tiny_run: Bench, tmp_path: Path) -> None:
    tiny_run()
    tiny_run("--workers", "2", "--results", tmp_path / "again")
    one, two = _record(tmp_path), Store(tmp_path / "again").records()[0]
    assert one.key == two.key
    pd.testing.assert_frame_equal(one.cases(), two.cases())


def test_a_full_disk_ends_in_a_message_and_no_complete_record(
    tiny_run: Bench, small_disk: Path, tmp_path: Path
) -> None:
    answer = tiny_run("--results", small_disk)
    assert answer.status == 1
    assert "No space left" in answer.out
    assert "--results" in answer.out
    assert "Traceback" not in answer.err
    assert [record.status for record in Store(small_disk).records()] == ["failed"]
    again = tiny_run()
    assert again.status == 0
    assert _record(tmp_path).status == "complete"


def test_a_truncated_checkpoint_is_trained_anew(tiny_run: Bench, tmp_path: Path) -> None:
    tiny_run()
    before = _record(tmp_path)
    cases = before.cases()
    before.weights.write_bytes(before.weights.read_bytes()[:1000])
    assert _record(tmp_path).status == "damaged"
    again = tiny_run()
    assert again.status == 0
    assert "is damaged" in again.err
    assert _record(tmp_path).status == "complete"
    pd.testing.assert_frame_equal(_record(tmp_path).cases(), cases)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "train.step=5"), ["did you mean 'train.steps'"]),
        (("--model", "segrestnet"), ["segrestnet", "Did you mean 'segresnet'"]),
        (("--dataset", "brats2024"), ["brats2024", "brats2023"]),
        (("--dataset", "brats2023", "--data-dir", "nowhere"), ["nowhere", "--data-dir"]),
        (("--protocol", "papre"), ["did you mean 'paper'"]),
        (("--seed", "one"), ["--seed 'one'", "whole numbers"]),
        (("--seed", "99999999999999999999"), ["--seed", "4294967295"]),
        (("--set", "model_options.segresnet.image_size=64"), ["image_size", "init_filters"]),
        (("--set", "data.patch_size=36"), ["36", "multiple of 8"]),
        (("--set", "model_options.segresnet.filters=8"), ["init_filters"]),
        (("--set", "model_options.segrestnet.init_filters=8"), ["did you mean 'segresnet'"]),
        (("--set", "model_options.uxnet.depths=1,1,1,1"), ["would change nothing", "asked for are segresnet"]),
        (("--device", "cuda:77"), ["cuda:77"]),
        (("--device", "tpu9"), ["tpu9", "cpu"]),
        (("--device", "mps"), ["mps", "cpu"]),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(
    tiny_run: Bench, tmp_path: Path, arguments: tuple[str, ...], words: list[str]
) -> None:
    answer = tiny_run(*arguments)
    assert answer.status == 2, answer.err
    for word in words:
        assert word in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "results").exists()


def test_brats_without_a_folder_names_every_way_and_the_phantom(bench: Bench) -> None:
    answer = bench("run", "--model", "segmamba", "--dataset", "brats2023")
    assert answer.status == 2
    for word in ("--data-dir", "BENCH_BRATS2023_DIR", "config.toml", "--dataset phantom", "Synapse"):
        assert word in answer.err


def test_a_damaged_file_fails_the_job_with_its_name(bench: Bench, phantoms: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    subprocess.run(["cp", "-r", phantoms, root], check=True)
    for file in root.glob("*/*-t1c.nii.gz"):
        file.write_bytes(file.read_bytes()[:-100])
    answer = bench(
        "run", "--model", "segresnet", "--dataset", "phantom", "--data-dir", root, "--results", tmp_path / "results"
    )
    assert answer.status == 1
    assert "t1c" in answer.out
    assert "gzip" in answer.out
    record = _record(tmp_path)
    assert record.status == "failed"
    assert "t1c" in record.content["message"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), "oom"),
        (RuntimeError("a bug"), "failed"),
    ],
)
def test_a_failure_is_a_record_with_a_status_and_does_not_stop_the_others(
    tiny_run: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    from bench.engine import run as engine

    usual = engine.train_job
    calls = []

    def fail_once(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return usual(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "train_job", fail_once)
    answer = tiny_run("--seed", "0,1")
    assert answer.status == 1
    statuses = {r.content["job"]["seed"]: r.status for r in Store(tmp_path / "results").records()}
    assert statuses == {0: status, 1: "complete"}
    failed = next(r for r in Store(tmp_path / "results").records() if r.status == status)
    assert str(error) in failed.content["message"]
    assert "Traceback" in (failed.folder / "log.txt").read_text()
    monkeypatch.undo()


def _start(root: Path, results: Path, cache: Path) -> subprocess.Popen:
    arguments = [
        *("run", "--model", "segresnet", "--dataset", "phantom", "--data-dir", str(root), "--results", str(results)),
        *("--set", "train.steps=400", "--set", "train.steps_per_epoch=1", "--set", "evaluate.untrained=false"),
    ]
    return subprocess.Popen(
        [sys.executable, "-c", "from bench.cli.app import main; main()", *arguments],
        env={**os.environ, "BENCH_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_for_steps(results: Path, count: int) -> None:
    for _ in range(600):
        for history in results.glob("*/history.csv"):
            if len(history.read_text().splitlines()) > count:
                return
        time.sleep(0.1)
    raise AssertionError("the training did not start")


def test_ctrl_c_saves_and_says_how_to_go_on(phantoms: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    run = _start(phantoms, results, tmp_path / "cache")
    _wait_for_steps(results, 3)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 130, out
    assert "interrupted" in out
    assert "run the same command again" in out
    assert "Traceback" not in out
    record = _record(tmp_path)
    assert record.status == "interrupted"
    assert record.weights.exists()

    done = len((record.folder / "history.csv").read_text().splitlines())
    again = _start(phantoms, results, tmp_path / "cache")
    _wait_for_steps(results, done + 2)
    again.send_signal(signal.SIGINT)
    out, _ = again.communicate(timeout=60)
    assert "going on from step" in out
    steps = pd.read_csv(record.folder / "history.csv")["step"].tolist()
    assert steps == list(range(1, len(steps) + 1))


def test_a_kill_leaves_no_record_that_claims_to_be_complete(phantoms: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    run = _start(phantoms, results, tmp_path / "cache")
    _wait_for_steps(results, 2)
    run.kill()
    run.communicate()
    assert _record(tmp_path).status == "interrupted"


def test_all_stands_for_the_table_of_the_paper(tiny_run: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import models
    from bench.schedule import inline

    asked: list[str] = []
    monkeypatch.setattr(inline, "run_inline", lambda jobs, _run, **_: asked.extend(job.model for job in jobs) or [])
    answer = tiny_run("--model", "all,nnunet", "--protocol", "demo", "--set", "data.patch_size=64")
    assert answer.status == 1, "none of them has come to an end"
    assert asked == ["segresnet", *(name for name in models.SEGMAMBA_TABLE_1 if name != "segresnet"), "nnunet"]


def test_a_patch_that_a_network_does_not_take_is_answered_with_one_that_fits(tiny_run: Bench) -> None:
    answer = tiny_run("--model", "swinunetr", "--set", "data.patch_size=40,64,64")
    assert answer.status == 2
    assert "Nearest: 64×64×64 above" in answer.err
    assert "--set data.patch_size=64,64,64" in answer.err


def test_deep_supervision_trains(tiny_run: Bench, tmp_path: Path) -> None:
    answer = tiny_run(
        *("--model", "mednext_s", "--set", "model_options.mednext_s.deep_supervision=true"),
        *("--set", "model_options.mednext_s.n_channels=4", "--set", "evaluate.untrained=false"),
        *("--results", tmp_path / "deep"),
    )
    assert answer.status == 0, answer.err
    record = next(r for r in Store(tmp_path / "deep").records() if r.content["job"]["model"] == "mednext_s")
    assert record.content["job"]["model_options"]["deep_supervision"] is True
    assert pd.read_csv(record.folder / "history.csv")["loss"].notna().all()


def test_a_sweep_that_stopped_early_is_forgotten_once_nothing_is_left_of_it(
    tiny_run: Bench, bench: Bench, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    assert tiny_run().status == 0
    left = results / "sweeps" / "20260101T000000-abcdef"
    left.mkdir(parents=True)
    job = {"key": _record(tmp_path).key, "model": "segresnet", "dataset": "phantom", "protocol": "demo", "seed": 0}
    (left / "sweep.json").write_text(json.dumps({"command": "bench run", "jobs": [job]}))
    assert "stopped early" in bench("status", "--results", results).out
    assert tiny_run().status == 0
    assert "stopped early" not in bench("status", "--results", results).out
