"""``bench verify``"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.job import Job
from bench.store import Record, Store

REGIONS = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}


@pytest.fixture
def sound(tmp_path: Path, make_job: Callable[..., Job], measured: Callable) -> Callable[..., Record]:
    """Writes a record in which nothing is wrong but that its dataset is not at hand, which is a warning."""

    def make(**job: Any) -> Record:
        made = make_job(**job)
        record = Store(tmp_path / "results").open_run(
            made,
            data={"regions": REGIONS, "root": str(tmp_path / "gone")},
            references={case: case for case in made.split.test},
            provenance={"packages": {"torch": "2"}, "hardware": {"cpu": "a"}, "code": {"commit": "c" * 40}},
        )
        record.write_split(made.split.to_dict())
        record.write_cases(measured())
        record.write_history([{"step": made.protocol.train.steps, "loss": 0.5}])
        cases = Record(record.folder, record.content).cases()
        means = cases.groupby("region")[["dice", "hd95"]].mean().to_dict("index")
        mean_dice = float(cases["dice"].mean())
        return record.finish("complete", results=means, mean_dice=mean_dice, steps=made.protocol.train.steps)

    return make


def _edit(record: Record, **facts: Any) -> None:
    path = record.folder / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_every_record_is_listed_and_warnings_fail_only_when_asked(bench: Callable, sound: Callable) -> None:
    one, two = sound(), sound(model="unetr", seed=3)
    answer = bench("verify", "--results", one.folder.parent)
    assert answer.status == 0
    lines = answer.out.splitlines()
    at = {key: lines.index(next(line for line in lines if key in line)) for key in (one.key, two.key)}
    assert lines[at[two.key]] == f"ok    {two.key}  unetr on phantom, seed 3: complete"
    for place in at.values():
        assert lines[place].startswith("ok    ")
        assert lines[place + 1].startswith("      warning: data: the dataset is not in ")
    assert lines[-1] == "2 records, 0 errors, 2 warnings"
    assert len(lines) == 5
    strict = bench("verify", "--strict", "--results", one.folder.parent)
    assert (strict.status, strict.out) == (1, answer.out)


def test_a_claim_that_does_not_hold_fails_and_stands_under_its_record(bench: Callable, sound: Callable) -> None:
    good, bad = sound(), sound(model="unetr")
    _edit(bad, mean_dice=0.99)
    answer = bench("verify", "--results", good.folder.parent)
    assert answer.status == 1
    lines = answer.out.splitlines()
    listed = [line.split()[:2] for line in lines if line[0] != " "]
    assert sorted(listed[:-1]) == sorted([["ok", good.key], ["FAIL", bad.key]])
    below = lines[lines.index(next(line for line in lines if line.startswith("FAIL"))) + 1]
    assert below.startswith("      error: means: mean Dice: cases.csv yields")
    assert lines[-1] == "2 records, 1 errors, 2 warnings"
    assert "Traceback" not in answer.err


def test_runs_are_chosen_by_key_its_beginning_or_folder(bench: Callable, sound: Callable) -> None:
    good, bad = sound(), sound(model="unetr")
    _edit(bad, mean_dice=0.99)
    results = good.folder.parent
    for name in (good.key, good.key[:8], good.folder):
        answer = bench("verify", name, "--results", results)
        assert (answer.status, bad.key in answer.out, good.key in answer.out) == (0, False, True)
        assert answer.out.endswith("1 records, 0 errors, 1 warnings\n")
    assert bench("verify", bad.folder, good.key, "--results", results).status == 1
    assert bench("verify", results.parent, "--results", results / "nowhere").out.endswith(
        "2 records, 1 errors, 2 warnings\n"
    )
    nobody = bench("verify", "nobody", "--results", results)
    assert nobody.status == 2
    assert "no run 'nobody'" in nobody.err
    assert good.key in nobody.err


def test_records_that_contradict_each_other_are_named_together(bench: Callable, sound: Callable) -> None:
    one, two = sound(), sound(model="unetr")
    references = json.loads((two.folder / "record.json").read_text())["references"]
    _edit(two, references=dict.fromkeys(references, "changed"))
    answer = bench("verify", "--results", one.folder.parent)
    assert answer.status == 1
    lines = answer.out.splitlines()
    (place,) = [n for n, line in enumerate(lines) if line.startswith("FAIL") and "," in line and "on" not in line]
    assert {key.strip() for key in lines[place].removeprefix("FAIL").split(",")} == {one.key, two.key}
    assert lines[place + 1].startswith("      error: references: on the one split phantom, split ")


def test_a_damaged_record_fails(bench: Callable, sound: Callable) -> None:
    record = sound()
    (record.folder / "cases.csv").write_text("")
    answer = bench("verify", "--results", record.folder.parent)
    assert answer.status == 1
    assert answer.out.startswith(f"FAIL  {record.key}  segmamba on phantom, seed 0: damaged\n      error: schema and")
    (record.folder / "record.json").write_text("{")
    unreadable = bench("verify", "--results", record.folder.parent)
    assert unreadable.status == 1
    assert unreadable.out.startswith(f"FAIL  {record.key}  damaged\n      error: schema and hashes: ")
    assert "is no record" in unreadable.out


def test_a_folder_without_records_is_a_message(bench: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "nowhere", tmp_path / "file", tmp_path):
        answer = bench("verify", "--results", folder)
        assert answer.status == 2
        assert answer.err == f"error: no record in {folder}; expected some. Name another folder with --results\n"
        assert answer.out == ""


def test_verifying_changes_no_file(bench: Callable, sound: Callable) -> None:
    results = sound().folder.parent

    def state() -> dict[str, str]:
        files = sorted(path for path in results.rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = state()
    bench("verify", "--results", results)
    assert state() == before
