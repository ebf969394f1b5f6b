"""What `bench verify` finds in records that do not hold what they claim."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import data
from bench.key import key_of
from bench.store import Record, Store
from bench.verify import verify


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one true run on phantoms, by a clean commit."""
    from typer.testing import CliRunner

    from bench.cli.app import app
    from data.phantom import write_dataset

    root = tmp_path_factory.mktemp("verify")
    write_dataset(root / "phantoms", cases=6, size=32, seed=3)
    changes = ("train.steps=2", "train.steps_per_epoch=1", "model_options.segresnet.init_filters=8")
    options = [text for change in changes for text in ("--set", change)]
    arguments = ["run", "--model", "segresnet", "--dataset", "phantom", "--data-dir", str(root / "phantoms")]
    done = CliRunner().invoke(app, [*arguments, "--results", str(root / "results"), "--device", "cpu", *options])
    assert done.exit_code == 0, done.output
    _edit(Store(root / "results").records()[0], lambda content: content["provenance"].update(code={"commit": "c" * 40}))
    return root


@pytest.fixture
def record(trained: Path, tmp_path: Path) -> Record:
    """The run in a folder of its own."""
    shutil.copytree(trained / "results", tmp_path / "results")
    return Store(tmp_path / "results").records()[0]


def _edit(record: Record, change: Callable[[dict[str, Any]], object]) -> None:
    path = record.folder / "record.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _rewrite(record: Record, name: str, text: str) -> None:
    """Change a file and the hash that the record states of it, as a forger would."""
    import hashlib

    (record.folder / name).write_text(text)
    facts = {"bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    _edit(record, lambda content: content["files"].update({name: facts}))


def _found(record: Record) -> list[tuple[str, str]]:
    return [(found.check, found.severity) for found in verify(Store(record.folder.parent).records())]


def test_a_sound_record_has_no_finding(record: Record) -> None:
    keys: list[str] = []
    assert verify([record], keys.append) == []
    assert keys == [record.key]


@pytest.mark.parametrize(
    ("change", "check", "severity"),
    [
        (lambda content: content["provenance"]["code"].update(dirty=True), "code", "error"),
        (lambda content: content["provenance"].update(code={"commit": None}), "code", "warning"),
        (lambda content: content["provenance"].pop("packages"), "provenance", "error"),
        (lambda content: content["provenance"].pop("hardware"), "provenance", "error"),
        (lambda content: content["results"]["TC"].update(dice=0.99), "means", "error"),
        (lambda content: content.update(mean_dice=0.99), "means", "error"),
        (lambda content: content.pop("results"), "means", "error"),
        (lambda content: content.update(steps=3), "length", "error"),
        (lambda content: content["references"].popitem(), "references", "error"),
        (lambda content: content["data"].update(root="/nowhere"), "data", "warning"),
        (lambda content: content.update(status="oom", message="CUDA out of memory"), "status", "warning"),
        (lambda content: content["job"].update(seed=9), "schema and hashes", "error"),
        (lambda content: content.pop("job"), "schema and hashes", "error"),
    ],
)
def test_a_changed_record_is_found_out(
    record: Record, change: Callable[[dict[str, Any]], object], check: str, severity: str
) -> None:
    _edit(record, change)
    assert (check, severity) in _found(record)


def test_changed_scores_are_found_out_whatever_the_hash_says(record: Record) -> None:
    cases = record.cases()
    cases.loc[0, "dice"] += 0.01
    _rewrite(record, "cases.csv", cases.to_csv(index=False))
    assert set(_found(record)) == {("means", "error")}


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (lambda cases: cases.iloc[1:], "cases"),
        (lambda cases: pd.concat([cases, cases.iloc[:1]]), "cases"),
        (lambda cases: cases.assign(dice=1.5), "cases"),
        (lambda cases: cases.assign(hd95=float("nan")), "cases"),
        (lambda cases: cases.assign(empty="both"), "convention"),
        (lambda cases: cases.assign(case=cases["case"].replace(cases["case"].iloc[0], "BraTS-PHA-99999-000")), "split"),
    ],
)
def test_tables_of_cases_that_cannot_be_are_found_out(
    record: Record, edit: Callable[[pd.DataFrame], pd.DataFrame], check: str
) -> None:
    _rewrite(record, "cases.csv", edit(record.cases()).to_csv(index=False))
    assert (check, "error") in _found(record)


def test_a_split_that_leaks_or_is_another_is_found_out(record: Record) -> None:
    split = json.loads((record.folder / "split.json").read_text())
    split["train"] = [*split["train"], split["test"][0]]
    _rewrite(record, "split.json", json.dumps(split))
    messages = [found.message for found in verify(Store(record.folder.parent).records())]
    assert any("hashes to" in message for message in messages)
    assert any("stands in train and in test" in message for message in messages)


def test_changed_files_are_found_out(record: Record) -> None:
    weights = record.folder / "checkpoint" / "last.pt"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    prediction = min((record.folder / "predictions").glob("*"))
    prediction.write_bytes(b"")
    messages = [found.message for found in verify([record])]
    assert sum("has changed" in message for message in messages) == 2
    prediction.unlink()
    assert any("label maps are not there" in found.message for found in verify([record]))


def test_a_changed_dataset_is_found_out(record: Record, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "phantoms", tmp_path / "phantoms")
    _edit(record, lambda content: content["data"].update(root=str(tmp_path / "phantoms")))
    assert _found(record) == []
    case = data.open_dataset("phantom", tmp_path / "phantoms").cases()[0]
    shutil.copy(case.images[0], case.images[1])
    assert _found(record) == [("data", "error")]


def test_one_name_for_two_protocols_is_found_out(record: Record) -> None:
    content = json.loads((record.folder / "record.json").read_text())
    content["job"]["protocol"]["train"]["learning_rate"] *= 2
    content["key"] = key_of(content["job"])
    shutil.copytree(record.folder, record.folder.parent / content["key"])
    (record.folder.parent / content["key"] / "record.json").write_text(json.dumps(content))
    (found,) = verify(Store(record.folder.parent).records())
    assert found.check == "protocol"
    assert set(found.records) == {record.key, content["key"]}
