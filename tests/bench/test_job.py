"""What names a job: its key, with and without folds."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.job import Job
from bench.key import key_of
from bench.protocol import Protocol, load_protocol, preset_names
from data.split import PARTS, Split

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
RECORDS = sorted(path for path in REFERENCE.glob("*/*/record.json") if (path.parent / "split.json").exists())  # of runs


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_published_records_keep_their_keys(path: Path) -> None:
    stated = json.loads(path.read_text())["job"]
    split = json.loads((path.parent / "split.json").read_text())
    job = Job(
        model=stated["model"],
        model_options=stated["model_options"],
        dataset=stated["dataset"],
        data_fingerprint=stated["data_fingerprint"],
        protocol=Protocol.model_validate({**stated["protocol"], "description": ""}),
        split=Split(*(tuple(split[part]) for part in PARTS), seed=split["seed"]),
        seed=stated["seed"],
        card_sha256=stated.get("card_sha256", ""),
    )
    assert key_of({**job.to_dict(), "preparation": stated["preparation"]}) == path.parent.name


@pytest.mark.parametrize("name", preset_names())
def test_a_protocol_without_folds_says_nothing_of_them_and_one_with_folds_does(name: str) -> None:
    assert "folds" not in load_protocol(name).canonical()["split"]
    assert not {"fused", "graph", "dice_squared", "target"} & load_protocol(name).canonical()["train"].keys()
    assert load_protocol(name, ["split.folds=none"]).canonical() == load_protocol(name).canonical()
    folded = load_protocol(name, ["split.folds=5"])
    assert folded.canonical()["split"]["folds"] == 5
    assert folded.title == f"{name} (split.folds=5)"


@pytest.mark.parametrize("name", preset_names())
def test_a_protocol_is_the_same_in_another_process(name: str) -> None:
    protocol = load_protocol(name)
    assert pickle.loads(pickle.dumps(protocol)).canonical() == protocol.canonical()


def test_each_fold_is_another_job_and_without_folds_none_is_told(make_job: Callable[..., Job]) -> None:
    folds = [make_job(changes=("split.folds=2",), fold=fold) for fold in (0, 1)]
    assert [job.to_dict()["fold"] for job in folds] == [0, 1]
    assert [job.title for job in folds] == [
        "segmamba on phantom, seed 0, fold 0",
        "segmamba on phantom, seed 0, fold 1",
    ]
    assert "fold" not in make_job().to_dict()
    assert make_job().title == "segmamba on phantom, seed 0"
    assert len({job.key for job in (*folds, make_job())}) == 3


@pytest.mark.parametrize(
    ("changes", "fold", "expected"),
    [
        (("split.folds=3",), None, "fold None; expected one of 0 to 2"),
        (("split.folds=3",), 3, "fold 3; expected one of 0 to 2"),
        (("split.folds=3",), -1, "fold -1; expected one of 0 to 2"),
        ((), 0, "fold 0; expected none"),
    ],
)
def test_a_job_is_of_a_fold_that_its_protocol_has(
    make_job: Callable[..., Job], changes: tuple[str, ...], fold: int | None, expected: str
) -> None:
    whole = make_job()
    with pytest.raises(BenchError, match=expected):
        Job(
            **{name: getattr(whole, name) for name in ("model", "model_options", "dataset", "data_fingerprint")},
            protocol=load_protocol("demo", changes),
            split=whole.split,
            seed=0,
            fold=fold,
        )
