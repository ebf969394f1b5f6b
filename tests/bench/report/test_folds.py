"""Folds of a cross-validation in tables, statistics and reports: pooled within a seed, never compared unequal."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.job import Job
from bench.key import key_of
from bench.metrics import RegionMeasurement
from bench.progress import SilentWatcher
from bench.report.browser import choose_cases, make_browser
from bench.report.cases_shown import choose
from bench.report.folds import folds_text
from bench.report.frame import AVERAGE, Group, differences, group_records
from bench.report.statistics import first_tier, statistics, statistics_sheets
from bench.report.table import Choice, Table, make_table, table_csv, table_sheet
from bench.report.write import write_report
from bench.store import Record, Store
from bench.verify import verify

Make = Callable[..., Record]
FOLDED = ("split.folds=3",)
CASES = 10  # in folds of 4, 3, 3


@pytest.fixture
def folded(complete_record: Make) -> Callable[..., list[Record]]:
    """Writes complete folds of one network and seed: ``folded(root, "unetr", folds=(0, 1), dice=0.7)``."""

    def make(root: Path, model: str, folds: tuple[int, ...] = (0, 1, 2), **facts: object) -> list[Record]:
        facts = {"changes": FOLDED, "cases": CASES, **facts}
        return [complete_record(root, model=model, fold=fold, **facts) for fold in folds]

    return make


@pytest.fixture
def failed(make_job: Callable[..., Job]) -> Make:
    """Writes a fold that ran out of memory."""

    def make(root: Path, model: str, fold: int, seed: int = 0) -> Record:
        job = make_job(model=model, changes=FOLDED, cases=CASES, fold=fold, seed=seed)
        references = {case: case for case in job.split.test}
        return Store(root).open_run(job, references=references).finish("oom", message="CUDA out of memory")

    return make


def _groups(root: Path, **how: bool) -> list[Group]:
    return group_records(Store(root).records(), **how)


def _table(root: Path) -> Table:
    (group,) = _groups(root)
    return make_table(group)


def test_a_row_pools_the_folds_of_a_seed_and_its_deviation_is_over_seeds(
    tmp_path: Path, folded: Callable[..., list[Record]]
) -> None:
    records = {seed: folded(tmp_path, "segmamba", seed=seed, dice=0.6 + 0.1 * seed) for seed in (0, 1, 2)}
    (row,) = _table(tmp_path).rows
    assert (row.label, row.status, row.seeds, row.cases, row.folds) == ("segmamba", "complete", 3, 10, "folds 0-2 of 3")
    assert not any("fold" in remark for remark in row.remarks), "nothing is missing"
    for region in ("WT", "TC", "ET", AVERAGE):
        for metric in ("dice", "hd95"):
            by_seed = []
            for found in records.values():
                values = []
                for record in found:
                    cases = record.cases()
                    chosen = cases if region == AVERAGE else cases[cases["region"] == region]
                    values += list(chosen.groupby("case")[metric].mean())
                assert len(values) == CASES
                by_seed.append(np.mean(values))
            assert row.mean[region, metric] == pytest.approx(np.mean(by_seed), abs=1e-12)
            assert row.std[region, metric] == pytest.approx(np.std(by_seed, ddof=1), abs=1e-12)


def test_folds_score_as_the_same_cases_do_in_one_record(
    tmp_path: Path, folded: Callable[..., list[Record]], complete_record: Make
) -> None:
    """The folds are not of equal size, so a mean of their means would be another number."""
    for model, dice in (("segmamba", 0.8), ("unetr", 0.7)):
        folded(tmp_path / "folds", model, dice=dice)
        complete_record(tmp_path / "whole", model=model, dice=dice, cases=CASES)
    pooled, whole = _table(tmp_path / "folds"), _table(tmp_path / "whole")
    for one, two in zip(pooled.rows, whole.rows, strict=True):
        assert (one.label, one.cases, one.seeds) == (two.label, two.cases, two.seeds)
        assert one.mean == pytest.approx(two.mean, abs=1e-12)
        assert one.std == {}
    frames = [statistics(table).summary for table in (pooled, whole)]  # type: ignore[union-attr]
    pd.testing.assert_frame_equal(*frames)
    told = [[line for line in table.footer if "test cases" in line] for table in (pooled, whole)]
    assert told[0] == told[1] == ["10 test cases; absent from the reference: ET in 1."]


def test_folds_share_a_table_that_says_so_and_other_divisions_stand_apart(
    tmp_path: Path, folded: Callable[..., list[Record]], complete_record: Make
) -> None:
    folded(tmp_path, "segmamba")
    folded(tmp_path, "unetr", (2, 0))
    (group,) = _groups(tmp_path)
    assert group.facets["split"] == ("3 folds, seed 42",)
    assert any(line.startswith("Cross-validation, 3 folds, seed 42: ") for line in make_table(group).footer)
    folded(tmp_path, "unetr", changes=("split.folds=5",), folds=(0, 1, 2, 3, 4))
    folded(tmp_path, "unetr", changes=(*FOLDED, "split.seed=1"))
    whole = complete_record(tmp_path, model="unetr", cases=CASES)
    groups = _groups(tmp_path)
    assert len(groups) == 4
    (line,) = [line for line in differences(groups) if line.startswith("phantom: split ")]
    shown = set(line.removeprefix("phantom: split ").split(" | "))
    alone = whole.content["job"]["split_sha256"][:12]
    assert shown == {"3 folds, seed 42", "5 folds, seed 42", "3 folds, seed 1", alone}
    assert not any("Cross-validation" in line for group in groups for line in make_table(group).footer
                   if group.facets["split"] == (alone,))  # fmt: skip


def test_mixed_on_request_each_division_is_a_row_and_nothing_is_called_one_cross_validation(
    tmp_path: Path, folded: Callable[..., list[Record]], complete_record: Make
) -> None:
    folded(tmp_path, "unetr")
    folded(tmp_path, "unetr", (0,), changes=("split.folds=5",))
    complete_record(tmp_path, model="unetr", cases=CASES)
    (mixed,) = _groups(tmp_path, allow_mixed=True)
    table = make_table(mixed)
    assert {row.folds: row.cases for row in table.rows} == {"folds 0-2 of 3": 10, "fold 0 of 5": 2, "": 10}
    assert not any(row.lacks for row in table.rows)
    assert not any(line.startswith("Cross-validation") for line in table.footer)
    assert any(line.startswith("The rows rest on different test cases, 2 to 10 each") for line in table.footer)


def test_a_row_that_lacks_folds_says_which_stands_last_and_is_not_the_best(
    tmp_path: Path, folded: Callable[..., list[Record]], failed: Make
) -> None:
    folded(tmp_path, "segmamba", dice=0.7)
    folded(tmp_path, "segresnet", dice=0.6)
    folded(tmp_path, "unetr", (0, 1), dice=0.9)
    failed(tmp_path, "unetr", 2)
    failed(tmp_path, "mednext_s", 0)
    table = _table(tmp_path)
    assert [(row.label, row.status, row.cases, row.lacks) for row in table.rows] == [
        ("segmamba", "complete", 10, False),
        ("segresnet", "complete", 10, False),
        ("unetr", "complete", 7, True),
        ("mednext_s", "oom", 0, False),
    ]
    assert {table.best(region, metric) for region in table.regions for metric in table.metrics[:1]} == {"segmamba"}
    for line in (
        "unetr: folds 0-1 of 3",
        "unetr: seed 0, fold 2: oom: CUDA out of memory",
        "mednext_s: seed 0, fold 0: oom: CUDA out of memory",
    ):
        assert line in table.footer
    assert any(
        line.startswith("The rows rest on different test cases, 7 to 10 each")
        and line.endswith("Those that lack folds which others have stand last and are not compared.")
        for line in table.footer
    )
    rows = {str(row[0].value): row for row in table_sheet(table).rows}
    assert rows["unetr"][0].text == "unetr*"
    assert [cell.text for cell in rows["unetr"][-2:]] == ["7", "1"]
    frame = pd.read_csv(io.StringIO(table_csv([table]))).set_index("model")
    assert dict(frame["folds"].dropna()) == {
        "segmamba": "folds 0-2 of 3",
        "segresnet": "folds 0-2 of 3",
        "unetr": "folds 0-1 of 3",
    }
    assert "folds 0-1 of 3" in frame.loc["unetr", "remarks"]


@pytest.mark.parametrize("sort", ["", "WT_hd95", "model"])
def test_however_rows_are_sorted_those_that_lack_folds_come_after_the_others(
    tmp_path: Path, folded: Callable[..., list[Record]], sort: str
) -> None:
    folded(tmp_path, "mednext_s", (0, 1), dice=0.9)
    folded(tmp_path, "segmamba", dice=0.5)
    (group,) = _groups(tmp_path)
    assert [row.label for row in make_table(group, Choice(sort=sort)).rows] == ["segmamba", "mednext_s"]


def test_statistics_are_of_rows_with_all_folds_and_say_what_they_leave_out(
    tmp_path: Path, folded: Callable[..., list[Record]]
) -> None:
    folded(tmp_path, "segmamba", dice=0.7)
    folded(tmp_path, "segresnet", dice=0.6)
    folded(tmp_path, "unetr", (0, 1), dice=0.9)
    table = _table(tmp_path)
    found = statistics(table)
    assert found is not None
    assert set(found.summary["model"]) == {"segmamba", "segresnet"}
    assert set(found.summary["cases"]) == {CASES}
    assert not any("unetr" in alike for alike in first_tier(found).values())
    notes = statistics_sheets(found, table)[0].notes
    assert any(note.startswith("Cross-validation: scores depend on each other") for note in notes)
    (left,) = [note for note in notes if note.startswith("Left out")]
    assert "unetr (folds 0-1 of 3)" in left
    assert "--fold" in left


def test_statistics_refuse_rows_none_of_which_has_what_the_others_have(
    tmp_path: Path, folded: Callable[..., list[Record]]
) -> None:
    folded(tmp_path, "segmamba", (0, 1))
    folded(tmp_path, "unetr", (1, 2))
    table = _table(tmp_path)
    assert [row.lacks for row in table.rows] == [True, True]
    assert not any(cell.best for row in table_sheet(table).rows for cell in row)
    with pytest.raises(BenchError, match=r"no network has all the folds.*--fold") as refused:
        statistics(table)
    assert "segmamba has folds 0-1 of 3" in str(refused.value)
    assert "unetr has folds 1-2 of 3" in str(refused.value)


def test_the_same_few_folds_of_all_are_compared_and_named(tmp_path: Path, folded: Callable[..., list[Record]]) -> None:
    folded(tmp_path, "segmamba", (0, 2), dice=0.8)
    folded(tmp_path, "unetr", (0, 2), dice=0.6)
    table = _table(tmp_path)
    assert [(row.label, row.cases, row.lacks) for row in table.rows] == [("segmamba", 7, False), ("unetr", 7, False)]
    assert table.best("WT", table.metrics[0]) == "segmamba"
    assert {"segmamba: folds 0, 2 of 3", "unetr: folds 0, 2 of 3"} <= set(table.footer)
    found = statistics(table)
    assert found is not None
    assert set(found.summary["cases"]) == {7}


def test_a_seed_that_lacks_folds_waits_until_it_has_them(
    tmp_path: Path, folded: Callable[..., list[Record]], failed: Make
) -> None:
    folded(tmp_path, "segmamba", seed=0, dice=0.8)
    before = _table(tmp_path).rows[0]
    folded(tmp_path, "segmamba", (0, 2), seed=1, dice=0.2)
    failed(tmp_path, "segmamba", 1, seed=1)
    (row,) = (table := _table(tmp_path)).rows
    assert (row.seeds, row.cases, row.mean, row.std) == (1, 10, before.mean, {})
    assert set(table.scores["seed"]) == {0}
    assert "segmamba: seed 1: folds 0, 2 of 3, not counted until it has those of the other seeds" in table.footer
    assert "segmamba: seed 1, fold 1: oom: CUDA out of memory" in table.footer
    assert statistics(table) is not None
    folded(tmp_path, "segmamba", (1,), seed=1, dice=0.2)
    (row,) = _table(tmp_path).rows
    assert (row.seeds, len(row.std)) == (2, len(row.mean))


def test_of_seeds_with_equally_many_folds_those_count_that_most_have(
    tmp_path: Path, folded: Callable[..., list[Record]]
) -> None:
    for seed, folds in enumerate([(0,), (1,), (1,)]):
        folded(tmp_path, "segmamba", folds, seed=seed)
    (row,) = (table := _table(tmp_path)).rows
    assert (row.folds, row.seeds, row.cases) == ("fold 1 of 3", 2, 3)
    assert set(table.scores["seed"]) == {1, 2}


def test_two_folds_with_a_case_in_common_are_refused(
    tmp_path: Path, make_job: Callable[..., Job], measured: Callable, folded: Callable[..., list[Record]]
) -> None:
    first, _ = folded(tmp_path, "segmamba", (0, 1))
    job = make_job(changes=FOLDED, cases=CASES, fold=2)
    split = replace(job.split, test=(*job.split.test, first.cases()["case"].iloc[0]))
    record = Store(tmp_path).open_run(replace(job, split=split), data=first.content["data"])
    record.write_cases({case: measured(CASES)[case] for case in split.test})
    record.finish("complete")
    (group,) = _groups(tmp_path)
    with pytest.raises(BenchError, match=r"tested BraTS-PHA-\d+-000 \(cases like it: 1\).*bench verify"):
        make_table(group)


def test_recipes_of_authors_are_pooled_too_and_a_fold_of_another_share_stands_apart(
    tmp_path: Path, make_job: Callable[..., Job], measured: Callable
) -> None:
    def write(model: str, fold: int, *changes: str) -> None:
        from bench.plan import protocols_of

        protocol = protocols_of([model], "author", (*FOLDED, *changes))[model]
        job = replace(make_job(changes=FOLDED, cases=CASES, fold=fold), model=model, protocol=protocol)
        record = Store(tmp_path).open_run(job, data={"regions": {"WT": [1], "TC": [1], "ET": [3]}})
        record.write_cases({case: measured(CASES)[case] for case in job.split.test})
        record.finish("complete")

    for model in ("segmamba", "unetr"):
        for fold in range(3):
            write(model, fold)
    write("unetr", 0, "split.train=0.6", "split.validation=0.2")
    groups = _groups(tmp_path)
    assert sorted(len(group.records) for group in groups) == [1, 6]
    (line,) = differences(groups)
    assert line.startswith("phantom: fields of the protocol ")
    whole = max(groups, key=lambda group: len(group.records))
    assert {row.label: (row.cases, row.seeds) for row in make_table(whole).rows} == {
        "segmamba": (10, 1),
        "unetr": (10, 1),
    }


def test_predictions_of_all_folds_from_elsewhere_join_the_table(
    tmp_path: Path, measured: Callable[..., dict[str, list[RegionMeasurement]]], folded: Callable[..., list[Record]]
) -> None:
    found = measured(CASES, 0.9)
    facts = {
        "dataset": "phantom",
        "convention": "brats",
        "predictions": {},
        "references": {case: case for case in found},
    }
    record = Store(tmp_path).open_external("theirs", facts)
    record.write_cases(found)
    record.finish("complete", data={"regions": {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}})
    folded(tmp_path, "segmamba", (0, 1))
    assert sorted(len(group.records) for group in _groups(tmp_path)) == [1, 2], "they are of more cases"
    folded(tmp_path, "segmamba", (2,))
    table = _table(tmp_path)
    assert [(row.label, row.cases, row.lacks) for row in table.rows] == [("theirs", 10, False), ("segmamba", 10, False)]
    assert any(line.startswith("Cross-validation") for line in table.footer)
    assert statistics(table) is not None


def test_the_report_of_a_cross_validation(
    tmp_path: Path, folded: Callable[..., list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.report.statistics.RESAMPLES", 199)
    folded(tmp_path, "segmamba", dice=0.7)
    folded(tmp_path, "segresnet", dice=0.6)
    folded(tmp_path, "unetr", (0, 1), dice=0.9)
    (group,) = _groups(tmp_path)
    table = make_table(group, Choice(("dice",), ("WT", AVERAGE)))
    html, markdown = write_report([table], verify(group.records), tmp_path / "report", "Title", 2, SilentWatcher())
    text, page = markdown.read_text(), html.read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    (head,) = [row for row in rows if row[0] == "record"]
    assert head[:4] == ["record", "model", "seed", "fold"]
    told = sorted((row[1], row[3]) for row in rows if len(row) == len(head) and row is not head and row[2] == "0")
    assert told == [(model, fold) for model, folds in (("segmamba", "012"), ("segresnet", "012"), ("unetr", "01"))
                    for fold in folds]  # fmt: skip
    assert "**split**: 3 folds, seed 42" in text
    for words in ("unetr: folds 0-1 of 3", "Cross-validation, 3 folds, seed 42", "Left out, since they lack folds"):
        assert words in text.replace("\\", "")
        assert words in page


def test_a_network_that_is_alone_in_having_all_folds_is_reported_without_comparison(
    tmp_path: Path, folded: Callable[..., list[Record]]
) -> None:
    folded(tmp_path, "segmamba")
    folded(tmp_path, "unetr", (0,))
    (group,) = _groups(tmp_path)
    table = make_table(group, Choice(("dice",), (AVERAGE,)))
    _, markdown = write_report([table], [], tmp_path / "report", "Title", 0, SilentWatcher())
    assert "Left out, since they lack folds" in markdown.read_text()


def test_the_browser_has_every_case_once_and_its_picture_from_its_fold(
    tmp_path: Path, folded: Callable[..., list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = folded(tmp_path, "segmamba") + folded(tmp_path, "segmamba", seed=1)
    table = _table(tmp_path)
    tested = {case: record.key for record in records[:3] for case in record.cases()["case"].unique()}
    drawn: dict[str, str] = {}
    monkeypatch.setattr(
        "bench.report.browser._picture",
        lambda record, case, _title: drawn.update({case: record.key}) or b"",
    )
    first = next(record for record in Store(tmp_path).records() if record.key == table.scores["run"].iloc[0])
    if first.content["job"]["seed"] == 1:
        tested = {case: record.key for record in records[3:] for case in record.cases()["case"].unique()}
    pooled = table.scores[table.scores["run"] == first.key]
    assert choose_cases([table], 3) == list(dict.fromkeys(choice.case for choice in choose(pooled)))
    browser, reasons = make_browser({"": table}, choose_cases([table], CASES), lambda _: None)
    assert browser is not None
    assert reasons == []
    assert [entry.case for entry in browser.cases] == sorted(tested)
    assert drawn == tested


@pytest.mark.parametrize(
    ("folds", "text"),
    [((3,), "fold 3"), ((0, 1, 2, 3), "folds 0-3"), ((4, 0, 2, 3), "folds 0, 2-4"), ((0, 2), "folds 0, 2")],
)
def test_folds_are_told_as_ranges(folds: tuple[int, ...], text: str) -> None:
    assert folds_text(folds) == text


@pytest.mark.parametrize("fold", [None, "1"])
def test_a_record_that_does_not_say_which_fold_it_is_stands_alone(
    tmp_path: Path, folded: Callable[..., list[Record]], fold: str | None
) -> None:
    record = folded(tmp_path, "segmamba")[0]
    content = json.loads((record.folder / "record.json").read_text())
    content["job"]["fold"] = fold
    content["key"] = key_of(content["job"])
    (record.folder / "record.json").write_text(json.dumps(content))
    record.folder.rename(record.folder.with_name(content["key"]))
    assert sorted(make_table(group).rows[0].cases for group in _groups(tmp_path)) == [4, 6]


def test_a_table_without_folds_says_nothing_of_them(tmp_path: Path, complete_record: Make) -> None:
    complete_record(tmp_path)
    table = _table(tmp_path)
    assert "fold" not in json.dumps([table_csv([table]), *table.footer])
