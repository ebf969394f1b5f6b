"""Which records may stand side by side, what their rows are called, and their scores in long form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import models
from bench.errors import BenchError
from bench.job import Job
from bench.metrics import RegionMeasurement, convention
from bench.plan import protocols_of
from bench.report.frame import AVERAGE, Group, case_scores, differences, group_records, row_labels, tidy
from bench.report.shown import METRICS
from bench.report.table import Choice, make_table
from bench.store import CASE_COLUMNS, Record, Store

Make = Callable[..., Record]
REGIONS = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
STATES = ("neither", "prediction", "reference", "both")
CLEAN = {"code": {"commit": "a" * 40, "dirty": False}}


def _state(record: Record, **facts: object) -> None:
    """Add facts to a record that its key does not rest on."""
    path = record.folder / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def _write(root: Path, job: Job, measured: Mapping[str, Sequence[RegionMeasurement]]) -> Record:
    record = Store(root).open_run(
        job, data={"regions": REGIONS, "synthetic": True}, references={case: case for case in job.split.test}
    )
    record.write_cases(measured)
    return record.finish("complete")


def _groups(root: Path, **how: Any) -> list[Group]:
    return group_records(Store(root).records(), **how)


def _scores(group: Group) -> pd.DataFrame:
    return case_scores(group, row_labels(group)).sort_values(["key", "case", "region"], ignore_index=True)


@pytest.mark.parametrize(
    ("job", "provenance", "facets"),
    [
        ({"fingerprint": "e" * 64}, CLEAN, {"files"}),
        ({"cases": 5}, CLEAN, {"split"}),
        ({"changes": ("train.steps=3",)}, CLEAN, {"protocol"}),
        ({"changes": ("evaluate.convention=segmamba",)}, CLEAN, {"protocol", "convention"}),
        ({}, {"code": {"commit": "b" * 40, "dirty": False}}, {"code"}),
        ({}, {"code": {"commit": "a" * 40, "dirty": True}}, {"code"}),
        ({}, {"packages": {"segmamba-bench": "1.0"}}, {"code"}),
    ],
)
def test_what_differs_stands_apart_is_named_and_mixed_only_on_request(
    tmp_path: Path, complete_record: Make, job: dict, provenance: dict, facets: set[str]
) -> None:
    _state(complete_record(tmp_path), provenance=CLEAN)
    _state(complete_record(tmp_path, model="unetr", **job), provenance=provenance)
    apart = _groups(tmp_path)
    assert [len(group.records) for group in apart] == [1, 1]
    assert {line.split()[1] for line in differences(apart)} == facets
    (mixed,) = _groups(tmp_path, allow_mixed=True)
    assert len(mixed.records) == 2
    assert set(mixed.mixed) == facets
    assert differences([mixed]) == []
    (told,) = [line for line in make_table(mixed).footer if line.startswith("Mixed on request: ")]
    assert {part.split()[0] for part in told.removeprefix("Mixed on request: ").split("; ")} == facets
    for facet in facets:
        assert f"{facet} {' | '.join(mixed.facets[facet])}" in told


def test_a_dataset_that_describes_itself_otherwise_stands_apart_and_is_named(
    tmp_path: Path, make_job: Callable[..., Job], measured: Callable
) -> None:
    for model, card in (("segmamba", "d" * 64), ("unetr", "e" * 64)):
        _write(tmp_path, replace(make_job(model=model), card_sha256=card), measured())
    groups = _groups(tmp_path)
    assert len(groups) == 2
    (line,) = differences(groups)
    assert line.startswith("phantom: files ")


def test_equal_runs_share_a_table_and_two_datasets_never_do(
    tmp_path: Path, complete_record: Make, make_job: Callable[..., Job], measured: Callable
) -> None:
    for model in ("segmamba", "unetr"):
        _state(complete_record(tmp_path, model=model), provenance=CLEAN)
    (group,) = _groups(tmp_path)
    assert group.mixed == ()
    assert not any("Mixed" in line for line in make_table(group).footer)
    _write(tmp_path, replace(make_job(), dataset="brats2023"), measured())
    both = _groups(tmp_path, allow_mixed=True)
    assert {one.dataset: len(one.records) for one in both} == {"phantom": 2, "brats2023": 1}
    assert differences(both) == []


def _under(name: str) -> dict[str, list[RegionMeasurement]]:
    """One set of label maps as a convention scores it; region r of case n is in state n + r."""
    rule = convention(name)
    measured = {}
    for n in range(4):
        rows = []
        for r, region in enumerate(REGIONS):
            state = STATES[(n + r) % 4]
            dice, hd95 = rule.scores(state) or (0.8 + n / 100, 3.0 + r)
            rows.append(RegionMeasurement(region, dice, hd95, 1.0, 1.0, state, nsd=0.5))
        measured[f"BraTS-PHA-{n + 2:05d}-000"] = rows
    return measured


@pytest.mark.parametrize(("own", "asked"), [("brats", "segmamba"), ("segmamba", "brats")])
def test_a_convention_unites_runs_and_changes_empty_masks_alone(
    tmp_path: Path, make_job: Callable[..., Job], own: str, asked: str
) -> None:
    job = make_job(changes=(f"evaluate.convention={own}",))
    first = _write(tmp_path, job, _under(own))
    second = _write(tmp_path, make_job(model="unetr", changes=(f"evaluate.convention={asked}",)), _under(asked))
    assert len(_groups(tmp_path)) == 2
    (group,) = _groups(tmp_path, convention=asked)
    assert (group.convention, group.protocol, group.mixed) == (asked, "demo", ())
    scores = _scores(group)
    changed, native = (scores[scores["key"] == one.key].reset_index(drop=True) for one in (first, second))
    columns = list(CASE_COLUMNS)
    pd.testing.assert_frame_equal(changed[columns], native[columns])
    before = first.cases().sort_values(["case", "region"], ignore_index=True)
    other = (before["dice"] != changed["dice"]) | (before["hd95"] != changed["hd95"])
    assert list(other) == list(before["empty"] != "neither")
    assert f"Empty masks, convention {asked}" in "\n".join(make_table(group).footer)


def test_a_convention_unites_nothing_that_differs_otherwise(tmp_path: Path, complete_record: Make) -> None:
    complete_record(tmp_path)
    complete_record(tmp_path, model="unetr", changes=("evaluate.convention=segmamba", "train.steps=3"))
    assert len(_groups(tmp_path, convention="brats")) == 2


def test_lesionwise_takes_the_lesions_columns_and_refuses_records_without(
    tmp_path: Path, make_job: Callable[..., Job], complete_record: Make
) -> None:
    job = make_job()
    lesions = {"lesion_dice": 0.25, "lesion_hd95": 100.0, "lesion_tp": 1, "lesion_fp": 2, "lesion_fn": 3}
    row = [RegionMeasurement(region, 0.9, 2.0, 1.0, 1.0, "neither", **lesions) for region in REGIONS]
    record = _write(tmp_path, job, dict.fromkeys(job.split.test, row))
    (group,) = _groups(tmp_path, convention="lesionwise")
    scores = _scores(group)
    assert set(scores["dice"]) == {0.25}
    assert set(scores["hd95"]) == {100.0}
    (own,) = _groups(tmp_path)
    assert set(_scores(own)["dice"]) == {0.9}
    assert any(line.startswith("Dice and HD95 lesion-wise") for line in make_table(group).footer)
    without = complete_record(tmp_path, model="unetr")
    (group,) = _groups(tmp_path, convention="lesionwise")
    with pytest.raises(BenchError, match="holds no lesion-wise scores") as refused:
        make_table(group)
    assert str(without.folder) in str(refused.value)
    assert str(record.folder) not in str(refused.value)


def test_rows_of_one_model_are_told_apart_by_options_and_by_protocol(tmp_path: Path, complete_record: Make) -> None:
    made = {
        "segmamba (d_state=8, demo)": [
            complete_record(tmp_path, changes=("model_options.segmamba.d_state=8",), seed=seed) for seed in (0, 1)
        ],
        "segmamba (d_state=16, demo)": [complete_record(tmp_path)],
        "segmamba (d_state=16, demo (train.steps=3))": [complete_record(tmp_path, changes=("train.steps=3",))],
        "unetr": [complete_record(tmp_path, model="unetr")],
    }
    (mixed,) = _groups(tmp_path, allow_mixed=True)
    assert row_labels(mixed) == {record.key: label for label, records in made.items() for record in records}
    demo = next(group for group in _groups(tmp_path) if group.protocol == "demo")
    assert set(row_labels(demo).values()) == {"segmamba (d_state=8)", "segmamba (d_state=16)", "unetr"}
    assert {row.label: row.seeds for row in make_table(demo).rows}["segmamba (d_state=8)"] == 2


def _author(make_job: Callable[..., Job], model: str, *changes: str) -> Job:
    protocol = protocols_of([model], "author", changes)[model]
    options = models.resolve_options(model, protocol.model_options.get(model, {}))
    return replace(make_job(), model=model, model_options=options, protocol=protocol)


def test_recipes_of_authors_share_a_table_however_they_train_but_not_how_they_test(
    tmp_path: Path, make_job: Callable[..., Job], measured: Callable, complete_record: Make
) -> None:
    jobs = [
        _author(make_job, "segmamba"),
        _author(make_job, "unetr"),
        _author(make_job, "segresnet"),
        _author(make_job, "segmamba", "train.epochs=3"),
        _author(make_job, "unetr", "infer.overlap=0.25"),
    ]
    assert jobs[0].protocol.train != jobs[1].protocol.train
    keys = [_write(tmp_path, job, measured()).key for job in jobs]
    complete_record(tmp_path)
    groups = _groups(tmp_path)
    found = {frozenset(record.key for record in group.records) for group in groups if group.protocol == "author"}
    assert found == {frozenset(keys[:4]), frozenset(keys[4:])}
    assert [line.split(":")[0] for line in differences([one for one in groups if one.protocol == "author"])] == [
        "phantom"
    ]
    (shared,) = [group for group in groups if len(group.records) == 4]
    assert set(row_labels(shared).values()) == {
        *("segmamba (author)", "segmamba (author (train.epochs=3))", "unetr", "segresnet")
    }
    remarks = {row.label: " ".join(row.remarks) for row in make_table(shared).rows}
    assert "recipe of its authors: adamw 0.0001, dice ce, 20,000 steps" in remarks["unetr"]
    assert "recipe of its authors: adam 0.0001, dice of regions, 300 epochs" in remarks["segresnet"]
    assert "recipe of its authors changed (train.epochs=3): " in remarks["segmamba (author (train.epochs=3))"]


def _external(root: Path, name: str, measured: Mapping, rule: str = "brats", references: str = "") -> Record:
    facts = {"dataset": "phantom", "convention": rule, "predictions": dict.fromkeys(measured, name)}
    record = Store(root).open_external(name, {**facts, "references": {case: references or case for case in measured}})
    record.write_cases(measured)
    return record.finish("complete", data={"regions": REGIONS, "synthetic": True})


def test_predictions_from_elsewhere_join_the_tables_of_their_references(
    tmp_path: Path, complete_record: Make, measured: Callable
) -> None:
    for model, commit in (("segmamba", "a"), ("unetr", "b")):
        _state(complete_record(tmp_path, model=model), provenance={"code": {"commit": commit * 40}})
    fitting = _external(tmp_path, "theirs", measured())
    _external(tmp_path, "other references", measured(), references="changed")
    _external(tmp_path, "other convention", measured(), rule="segmamba")

    def rows(**how: Any) -> list[list[str]]:
        return sorted(sorted(row.label for row in make_table(group).rows) for group in _groups(tmp_path, **how))

    assert rows() == [["other convention"], ["other references"], ["segmamba", "theirs"], ["theirs", "unetr"]]
    assert rows(convention="brats") == [
        ["other convention", "segmamba", "theirs"],
        ["other convention", "theirs", "unetr"],
        ["other references"],
    ]
    (alone,) = group_records([fitting])
    assert (alone.protocol, alone.facets) == ("none: predictions from elsewhere", {})


def test_profiles_and_what_cannot_be_read_are_no_rows(tmp_path: Path, complete_record: Make) -> None:
    record = complete_record(tmp_path)
    profile = Record(tmp_path / "profile", {**record.content, "kind": "profile"})
    broken = Record(tmp_path / "broken", {}, ("no record",))
    (group,) = group_records([profile, record, broken])
    assert group.records == (record,)
    assert group_records([profile, broken]) == []


def test_long_form_has_the_tables_means_and_leaves_undefined_volume_errors_out_for_all_alike(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    random = np.random.default_rng(0)
    for model in ("segmamba", "unetr"):
        job = make_job(model=model)
        measured = {
            case: [
                RegionMeasurement(
                    region,
                    *(random.uniform(), random.uniform(1, 9), 1.0, 1.0),
                    "reference" if (n, region) == (3, "ET") else "neither",
                    *random.uniform(size=3),
                    np.nan if (n, region) == (3, "ET") else random.normal(),
                )
                for region in REGIONS
            ]
            for n, case in enumerate(job.split.test)
        }
        _write(tmp_path, job, measured)
    (group,) = _groups(tmp_path)
    shown = ("dice", "hd95", "nsd", "sensitivity", "precision", "volume_error")
    table = make_table(group, Choice(shown))
    long = tidy(table.scores, [METRICS[name] for name in shown])
    mean = long.groupby(["model", "region", "metric"])["value"].mean()
    for row in table.rows:
        for (region, metric), value in row.mean.items():
            # Volume errors have no average that the cases agree on: a region is left out of some.
            if (region, metric) != (AVERAGE, "volume_error"):
                assert mean[row.label, region, metric] == pytest.approx(value, abs=1e-12)
    at = long.set_index(["model", "case", "region", "metric"])["value"]
    for (model, case), found in table.scores.groupby(["model", "case"]):
        assert at[model, case, AVERAGE, "dice"] == pytest.approx(found["dice"].mean(), abs=1e-12)
    volumes = long[(long["metric"] == "volume_error") & (long["region"] == "ET")]
    kept = volumes.groupby("model")["case"].agg(set)
    test = set(make_job().split.test)
    assert kept["segmamba"] == kept["unetr"] == test - {max(test)}
    assert set(tidy(table.scores, [METRICS["dice"]], [AVERAGE])["region"]) == {AVERAGE}
