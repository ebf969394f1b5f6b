"""What `bench verify` finds in the records of a cross-validation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.job import Job
from bench.key import key_of
from bench.store import Record, Store
from bench.verify import Finding, verify

FOLDED = ("split.folds=3",)
CASES = 9


@pytest.fixture
def folds(complete_record: Callable[..., Record], tmp_path: Path) -> list[Record]:
    """Three folds of two networks, the first network's first."""
    return [
        complete_record(tmp_path, model=model, changes=FOLDED, cases=CASES, fold=fold)
        for model in ("segmamba", "unetr")
        for fold in range(3)
    ]


@pytest.fixture
def write(make_job: Callable[..., Job], measured: Callable, tmp_path: Path) -> Callable[..., Record]:
    """Writes a fold of a third network whose parts ``change`` makes of what they should be."""

    def make(fold: int, change: Callable[[dict[str, tuple[str, ...]]], dict[str, tuple[str, ...]]]) -> Record:
        job = make_job(model="segresnet", changes=FOLDED, cases=CASES, fold=fold)
        parts = {part: getattr(job.split, part) for part in ("train", "validation", "test")}
        job = replace(job, split=replace(job.split, **change(parts)))
        record = Store(tmp_path).open_run(
            job,
            data={"regions": {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}},
            references={case: case for case in job.split.test},
        )
        record.write_split(job.split.to_dict())
        record.write_cases({case: measured(CASES)[next(iter(measured(CASES)))] for case in job.split.test})
        return record.finish("complete")

    return make


def _found(root: Path, check: str = "folds") -> list[Finding]:
    return [finding for finding in verify(Store(root).records()) if finding.check == check]


def _rename(record: Record, change: Callable[[dict], object]) -> str:
    """Change a record's job, and the key with it, as a forger would; returns the new key."""
    path = record.folder / "record.json"
    content = json.loads(path.read_text())
    change(content["job"])
    content["key"] = key_of(content["job"])
    path.write_text(json.dumps(content))
    record.folder.rename(record.folder.with_name(content["key"]))
    return str(content["key"])


def test_sound_folds_have_no_finding_between_them(folds: list[Record], tmp_path: Path) -> None:
    assert len(folds) == 6
    assert not _found(tmp_path)
    assert not _found(tmp_path, "references")
    assert not _found(tmp_path, "split")


def test_two_folds_that_test_one_case_are_found_out(
    folds: list[Record], write: Callable[..., Record], tmp_path: Path
) -> None:
    for record in folds[2::3]:
        (record.folder / "record.json").unlink()
    leaked = min(folds[0].cases()["case"])
    record = write(2, lambda parts: {"train": tuple({*parts["train"]} - {leaked}), "test": (*parts["test"], leaked)})
    (found,) = _found(tmp_path)
    assert found.severity == "error"
    assert f"folds 0 and 2 both test {leaked}; expected folds without a case in common" in found.message
    assert set(found.records) == {folds[0].key, folds[3].key, record.key}


def test_one_fold_divided_in_two_ways_is_found_out(
    folds: list[Record], write: Callable[..., Record], tmp_path: Path
) -> None:
    moved = min(folds[0].cases()["case"])
    record = write(
        0,
        lambda parts: {"train": (*parts["train"], moved), "test": tuple(sorted({*parts["test"]} - {moved}))},
    )
    (found,) = _found(tmp_path)
    assert "divide the cases in 2 ways for the one fold 0" in found.message
    assert set(found.records) == {folds[0].key, folds[3].key, record.key}


def test_a_fold_of_other_cases_is_found_out(folds: list[Record], write: Callable[..., Record], tmp_path: Path) -> None:
    for record in folds[1::3]:
        (record.folder / "record.json").unlink()
    record = write(1, lambda parts: {"train": (*parts["train"], "BraTS-PHA-99999-000")})
    (found, *_) = _found(tmp_path)
    assert found.records == (record.key,)
    assert "fold 1 is of other cases than the folds before it: BraTS-PHA-99999-000" in found.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda job: job.update(fold=3), "the job is of fold 3; expected one of 0 to 2"),
        (lambda job: job.pop("fold"), "the job is of fold None; expected one of 0 to 2"),
        (lambda job: job.update(fold="1"), "the job is of fold 1; expected one of 0 to 2"),
        (lambda job: job["protocol"]["split"].pop("folds"), "the job is of fold 0; expected none"),
    ],
)
def test_a_fold_that_the_protocol_does_not_have_is_found_out(
    folds: list[Record], tmp_path: Path, change: Callable[[dict], object], words: str
) -> None:
    key = _rename(folds[0], change)
    (found,) = [finding for finding in _found(tmp_path) if finding.records == (key,)]
    assert words in found.message
