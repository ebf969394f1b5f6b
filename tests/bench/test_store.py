"""Records: what says complete is complete."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.job import Job
from bench.key import key_of
from bench.metrics import RegionMeasurement, measure_case
from bench.report.frame import group_records
from bench.report.table import make_table
from bench.store import CASE_COLUMNS, WEIGHTS, Record, Store

Make = Callable[..., Record]


def test_what_was_written_is_read_back_exactly(tmp_path: Path, complete_record: Make, measured: Callable) -> None:
    written = complete_record(tmp_path)
    read = Store(tmp_path).get(written.key)
    assert read is not None
    assert read.status == "complete"
    cases = read.cases()
    assert tuple(cases.columns) == CASE_COLUMNS
    expected = [m for case in measured(4, 0.8).values() for m in case]
    assert cases["dice"].tolist() == [m.dice for m in expected]
    assert cases["hd95"].tolist() == [m.hd95 for m in expected]
    assert cases["empty"].tolist() == [m.empty for m in expected]


def test_columns_are_what_is_measured() -> None:
    assert ("case", *(field.name for field in fields(RegionMeasurement))) == CASE_COLUMNS


def test_what_no_challenge_scores_is_left_empty_and_read_as_missing(tmp_path: Path, make_job: Callable) -> None:
    record = Store(tmp_path).open_run(make_job())
    filled = np.zeros((6, 6, 6), dtype=np.uint8)
    filled[1:5, 1:5, 1:5] = 3
    parts = {"with": "GLI", "without": None}
    scored = {case: measure_case(filled, filled, (1, 1, 1), {"ET": (3,)}, challenge=parts[case]) for case in parts}
    record.write_cases(scored)
    assert (record.folder / "cases.csv").read_text().splitlines()[2].endswith(",neither,1.0,1.0,1.0,0.0,,,,,")
    cases = record.finish("complete").cases()
    assert cases["lesion_tp"].tolist()[0] == 1
    assert cases["lesion_dice"].isna().tolist() == [False, True]
    assert cases[["sensitivity", "precision", "nsd", "volume_error"]].values.tolist() == [[1, 1, 1, 0]] * 2


def test_a_table_from_before_a_column_was_measured_reads_with_it_missing(tmp_path: Path, complete_record: Make) -> None:
    record = complete_record(tmp_path)
    path = record.folder / "cases.csv"
    first = [line.split(",")[:7] for line in path.read_text().splitlines()]
    path.write_text("".join(",".join(row) + "\n" for row in first))
    cases = Record(record.folder, record.content).cases()
    assert tuple(cases.columns) == CASE_COLUMNS
    assert cases["dice"].notna().all()
    assert cases[list(CASE_COLUMNS[7:])].isna().all(axis=None)


def test_the_key_is_of_everything_that_matters_and_nothing_else(make_job: Callable[..., Job]) -> None:
    key = make_job().key
    assert len(key) == 16
    assert make_job().key == key
    others = [
        make_job(model="unetr"),
        make_job(seed=1),
        make_job(fingerprint="e" * 64),
        make_job(cases=5),
        make_job(changes=("train.steps=3",)),
        make_job(changes=("model_options.segmamba.d_state=8",)),
        make_job(preset="paper"),
    ]
    assert len({key, *(job.key for job in others)}) == len(others) + 1
    assert make_job(changes=("model_options.unetr.num_heads=3",)).key == key, "another model's option"
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}), "the order of names"
    assert make_job(changes=("data.patch_size=32",)).key == key, "a change to the value that was there"
    assert make_job(changes=("model_options.segmamba.d_state=16",)).key == key, "a default, spelt out"


@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "oom", "nan"])
def test_an_unfinished_record_never_says_complete(tmp_path: Path, make_job: Callable[..., Job], status: str) -> None:
    record = Store(tmp_path).open_run(make_job())
    if status != "running":
        record.finish(status, message="why")
    read = Store(tmp_path).get(make_job().key)
    assert read is not None
    assert read.status == ("interrupted" if status == "running" else status), "nobody runs it"


@pytest.mark.parametrize("name", ["cases.csv", "split.json", "history.csv"])
@pytest.mark.parametrize("harm", ["truncate", "remove", "alter"])
def test_a_file_that_does_not_agree_makes_a_record_damaged(
    tmp_path: Path, complete_record: Make, name: str, harm: str
) -> None:
    record = complete_record(tmp_path)
    path = record.folder / name
    content = path.read_bytes()
    if harm == "truncate":
        path.write_bytes(content[:-5])
    elif harm == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-2] + b"7\n")
    read = Store(tmp_path).get(record.key)
    assert read is not None
    assert read.status == "damaged"
    assert str(path) in read.faults[0]


def test_weights_may_be_left_out_but_not_truncated(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    store = Store(tmp_path)
    record = store.open_run(make_job())
    record.write_cases({})
    weights = record.folder / WEIGHTS
    weights.parent.mkdir()
    weights.write_bytes(b"weights" * 100)
    key = record.finish("complete").key

    def status() -> str:
        read = store.get(key)
        assert read is not None
        return read.status

    assert status() == "complete"
    weights.write_bytes(b"weights" * 99)
    assert status() == "damaged"
    weights.unlink()
    assert status() == "complete"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema": 99}', '{"status": "complete"}'])
def test_a_record_that_cannot_be_read_is_damaged_and_hides_no_other(
    tmp_path: Path, complete_record: Make, content: str
) -> None:
    sound = complete_record(tmp_path)
    broken = tmp_path / ("0" * 16)
    broken.mkdir()
    (broken / "record.json").write_text(content)
    assert {record.key: record.status for record in Store(tmp_path).records()} == {
        sound.key: "complete",
        broken.name: "damaged",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "1"),
        ("kind", None),
        ("job", None),
        ("files", []),
        ("files", {"cases.csv": {}}),
        ("protocol_title", None),
        ("untrained", None),
        ("untrained", {}),
        ("default_options", None),
    ],
)
def test_a_field_of_another_kind_stops_no_table(
    tmp_path: Path, complete_record: Make, field: str, value: object
) -> None:
    path = complete_record(tmp_path).folder / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    sound = complete_record(tmp_path, model="unetr")
    groups = group_records(Store(tmp_path).records())
    rows = [row for group in groups for row in make_table(group).rows]
    assert ("unetr", "complete") in [(row.model, row.status) for row in rows]
    assert Store(tmp_path).find(sound.key).status == "complete"


def test_a_newer_schema_is_told_apart_from_damage_and_left_alone(
    tmp_path: Path, complete_record: Make, make_job: Callable[..., Job]
) -> None:
    path = complete_record(tmp_path).folder / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    assert "newer segmamba-bench" in Store(tmp_path).records()[0].faults[0]
    with pytest.raises(BenchError, match="newer segmamba-bench"):
        Store(tmp_path).open_run(make_job())
    assert json.loads(path.read_text())["schema"] == 99


def test_a_copied_record_is_not_another_seed(tmp_path: Path, complete_record: Make) -> None:
    record = complete_record(tmp_path)
    shutil.copytree(record.folder, tmp_path / f"{record.key}.bak")
    statuses = {record.key: record.status for record in Store(tmp_path).records()}
    assert statuses == {record.key: "complete", f"{record.key}.bak": "damaged"}


def test_a_record_whose_job_was_changed_by_hand_is_damaged(tmp_path: Path, complete_record: Make) -> None:
    path = complete_record(tmp_path).folder / "record.json"
    content = json.loads(path.read_text())
    content["job"]["seed"] = 7
    path.write_text(json.dumps(content))
    assert Store(tmp_path).records()[0].status == "damaged"


def test_opening_a_job_again_keeps_what_the_first_attempt_found(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    store = Store(tmp_path)
    first = store.open_run(make_job(), untrained={"mean_dice": 0.1}, provenance={"hardware": "one"})
    first.finish("interrupted", message="stopped")
    again = store.open_run(make_job(), provenance={"hardware": "two"})
    assert again.content["untrained"] == {"mean_dice": 0.1}
    assert again.content["started"] == first.content["started"]
    assert "message" not in again.content
    assert again.content["earlier_attempts"] == [{"hardware": "one"}]
    assert again.content["provenance"] == {"hardware": "two"}
    assert again.content["status"] == "running"


def test_a_run_is_found_by_key_beginning_or_folder(tmp_path: Path, complete_record: Make) -> None:
    store = Store(tmp_path)
    keys = [complete_record(tmp_path, seed=seed).key for seed in range(17)]
    # Of 17 keys two begin with the same of 16 digits.
    one, two = next(pair for pair in itertools.combinations(keys, 2) if pair[0][0] == pair[1][0])
    assert store.find(one).key == one
    assert store.find(str(tmp_path / two)).key == two
    assert store.find(one[:12]).key == one
    with pytest.raises(BenchError, match="runs begin with"):
        store.find(one[0])
    shutil.copytree(tmp_path / one, tmp_path / f"{one}.bak")
    assert store.find(one).key == one, "a whole key is no beginning"
    with pytest.raises(BenchError, match="no run ''"):
        store.find("")
    with pytest.raises(BenchError, match=r"no run 'zzz'(.|\n)*segmamba on phantom, seed 0: complete"):
        store.find("zzz")


def test_a_full_disk_never_leaves_a_record_that_says_complete(
    small_disk: Path, make_job: Callable[..., Job], measured: Callable
) -> None:
    store = Store(small_disk)
    record = store.open_run(make_job())
    with pytest.raises(BenchError, match="No space left"):
        record.write_cases(measured(cases=4000))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
        deque(iter(lambda: file.write(b"0" * 4096), None), maxlen=0)
    with pytest.raises(BenchError, match="No space left"):
        record.finish("complete")
    read = store.get(record.folder.name)
    assert read is not None
    assert read.content["status"] == "running"
    filler.unlink()
    assert store.open_run(make_job()).finish("failed", message="disk was full").status == "failed"
    assert not list(record.folder.glob(".*")), "temporary files are gone"
