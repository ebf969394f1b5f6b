"""Tables: means, grouping, footers, formats, speed."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import BenchError
from bench.job import Job
from bench.key import key_of
from bench.metrics import RegionMeasurement
from bench.report.costs import Costs, network_key
from bench.report.frame import AVERAGE, group_records
from bench.report.render import render_sheets
from bench.report.table import Choice, Table, make_table, table_csv, table_sheet
from bench.store import Record, Store

Make = Callable[..., Record]


def _tables(root: Path) -> list:
    return [make_table(group) for group in group_records(Store(root).records())]


def render(tables: list, how: str) -> str:
    return table_csv(tables) if how == "csv" else render_sheets([table_sheet(table) for table in tables], how)


ALL = ("dice", "hd95", "nsd", "sensitivity", "precision", "volume_error")
# Of WT; ET has a tenth of it. Which of the three is the best differs from metric to metric.
SCORES = {
    "segmamba": {"dice": 0.9, "hd95": 5.0, "nsd": 0.7, "sensitivity": 0.6, "precision": 0.9, "volume_error": -0.3},
    "segresnet": {"dice": 0.8, "hd95": 4.0, "nsd": 0.8, "sensitivity": 0.7, "precision": 0.8, "volume_error": 0.01},
    "unetr": {"dice": 0.7, "hd95": 6.0, "nsd": 0.6, "sensitivity": 0.8, "precision": 0.7, "volume_error": 0.2},
}


@pytest.fixture
def scored(tmp_path: Path, make_job: Callable[..., Job]) -> Callable[..., Record]:
    """Writes a record with the same scores in every case; without ``values``, those of `SCORES`."""

    def make(model: str, values: Mapping[str, float] | None = None, **job: object) -> Record:
        made = make_job(model=model, **job)
        values = SCORES[model] if values is None else values
        row = [
            RegionMeasurement(
                region=region,
                prediction_mm3=1.0,
                reference_mm3=1.0,
                empty="neither",
                **{metric: factor * value for metric, value in values.items()},
            )
            for region, factor in (("WT", 1.0), ("ET", 0.1))
        ]
        record = Store(tmp_path).open_run(made, data={"regions": {"WT": [1, 2, 3], "ET": [3]}})
        record.write_cases(dict.fromkeys(made.split.test, row))
        return record.finish("complete")

    return make


@pytest.fixture
def three(tmp_path: Path, scored: Callable[..., Record], make_job: Callable[..., Job]) -> Callable[..., Table]:
    """The table of three networks and of one that failed."""

    def make(choice: Choice | None = None, costs: Costs | None = None) -> Table:
        for model in SCORES:
            scored(model)
        Store(tmp_path).open_run(make_job(model="mednext_s")).finish("nan", message="the loss is NaN")
        (group,) = group_records(Store(tmp_path).records())
        return make_table(group, choice, costs=costs)

    return make


def _column(table: Table, label: str) -> dict[str, str]:
    """Text of each row's cell, in stars where it is in bold."""
    sheet = table_sheet(table)
    at = [column.label for column in sheet.columns].index(label)
    return {str(row[0].value): f"*{row[at].text}*" if row[at].best else row[at].text for row in sheet.rows}


def _order(table: Table) -> list[str]:
    return [row.model for row in table.rows]


def test_every_metric_is_printed_in_its_unit_and_the_best_of_a_column_in_bold(three: Callable[..., Table]) -> None:
    table = three(Choice(ALL))
    expected = {
        "WT Dice %": ("*90.00*", "80.00", "70.00"),
        "WT HD95 mm": ("5.00", "*4.00*", "6.00"),
        "WT NSD(1 mm) %": ("70.00", "*80.00*", "60.00"),
        "WT sensitivity %": ("60.00", "70.00", "*80.00*"),
        "WT precision %": ("*90.00*", "80.00", "70.00"),
        "WT volume error %": ("-30.00", "1.00", "20.00"),
        "ET HD95 mm": ("0.50", "*0.40*", "0.60"),
        "Avg NSD(1 mm) %": ("38.50", "*44.00*", "33.00"),
    }
    for label, texts in expected.items():
        assert _column(table, label) == {**dict(zip(SCORES, texts, strict=True)), "mednext_s": "nan"}
    assert any(line.startswith("Volume error: (prediction − reference) / reference") for line in table.footer)
    assert not any(line.startswith("Volume error") for line in three().footer)


def test_a_row_alone_is_not_in_bold(tmp_path: Path, scored: Callable[..., Record]) -> None:
    scored("segmamba")
    (table,) = _tables(tmp_path)
    assert not any(cell.best for row in table_sheet(table).rows for cell in row)


def test_regions_are_shown_as_asked_and_the_average_stays_that_of_all(three: Callable[..., Table]) -> None:
    table = three(Choice(("dice",), (AVERAGE,)))
    assert [column.label for column in table_sheet(table).columns] == ["model", "Avg Dice %", "cases", "seeds"]
    assert _column(table, "Avg Dice %")["segmamba"] == "*49.50*"
    table = three(Choice(("dice",), ("ET", "WT")))
    assert [column.label for column in table_sheet(table).columns[1:3]] == ["ET Dice %", "WT Dice %"]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("", ["segmamba", "segresnet", "unetr"]),
        ("dice", ["segmamba", "segresnet", "unetr"]),
        ("hd95", ["segresnet", "segmamba", "unetr"]),
        ("ET_sensitivity", ["unetr", "segresnet", "segmamba"]),
        ("WT_dice", ["segmamba", "segresnet", "unetr"]),
        ("model", ["segmamba", "segresnet", "unetr"]),
        ("latency_s", ["unetr", "segmamba", "segresnet"]),
    ],
)
def test_rows_are_sorted_and_failures_stand_last(
    three: Callable[..., Table], scored: Callable[..., Record], sort: str, order: list[str]
) -> None:
    options = scored("unetr").content["job"]["model_options"], scored("segmamba").content["job"]["model_options"]
    figures = {
        network_key("unetr", options[0]): {"latency_s": 0.1},
        network_key("segmamba", options[1]): {"latency_s": 0.2},
    }
    table = three(Choice(ALL, (AVERAGE,), sort), Costs("H100", "", figures))
    assert _order(table) == [*order, "mednext_s"]


def test_without_a_key_the_first_metric_sorts(three: Callable[..., Table]) -> None:
    assert _order(three(Choice(("hd95", "dice")))) == ["segresnet", "segmamba", "unetr", "mednext_s"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(("dise",)), "unknown metric 'dise': did you mean 'dice'"),
        (Choice(regions=("WT", "Et")), "unknown region 'Et': did you mean 'ET'"),
        (Choice(sort="WT_dise"), "unknown order for --sort 'WT_dise': did you mean 'WT_dice'"),
        (Choice(("nsd",), sort="dice"), "unknown order for --sort 'dice'"),
        (Choice(("lesion_dice",)), "lesion-wise Dice % was not measured for "),
    ],
)
def test_what_there_is_not_is_refused_with_the_nearest(
    three: Callable[..., Table], choice: Choice, message: str
) -> None:
    with pytest.raises(BenchError) as refused:
        three(choice)
    assert message in str(refused.value)


def test_a_metric_that_some_records_lack_names_those(tmp_path: Path, scored: Callable[..., Record]) -> None:
    scored("segmamba")
    scored("unetr", {"dice": 0.5, "hd95": 9.0})
    (group,) = group_records(Store(tmp_path).records())
    with pytest.raises(BenchError, match=r"NSD\(1 mm\) % was not measured for unetr: "):
        make_table(group, Choice(("nsd",)))


def test_seeds_are_printed_as_mean_and_deviation(tmp_path: Path, scored: Callable[..., Record]) -> None:
    for seed, dice in enumerate((0.70, 0.80, 0.90)):
        scored("segmamba", {"dice": dice, "hd95": 3.0 + seed}, seed=seed)
    (table,) = _tables(tmp_path)
    assert _column(table, "WT Dice %") == {"segmamba": "80.00 ± 10.00"}
    assert _column(table, "ET HD95 mm") == {"segmamba": "0.40 ± 0.10"}
    assert (_column(table, "seeds"), _column(table, "cases")) == ({"segmamba": "3"}, {"segmamba": "4"})
    frame = pd.read_csv(io.StringIO(table_csv([table])))
    assert frame["WT_dice_std"][0] == pytest.approx(0.1)


def test_one_case_is_one_case_and_different_cases_are_told(
    tmp_path: Path, scored: Callable[..., Record], make_job: Callable[..., Job]
) -> None:
    record = scored("segmamba", cases=1)
    (table,) = _tables(tmp_path)
    assert table.footer[0] == "1 test case; absent from the reference: no region in any."
    store = Store(tmp_path)
    other = store.open_run(make_job(model="unetr", cases=2), data=record.content["data"])
    row = [RegionMeasurement(region, 0.5, 9.0, 1.0, 1.0, "neither") for region in ("WT", "ET")]
    other.write_cases({"BraTS-PHA-00003-000": row})
    other.finish("complete")
    (mixed,) = group_records(store.records(), allow_mixed=True)
    table = make_table(mixed)
    assert {row.cases for row in table.rows} == {1}  # as many, but not the same
    assert any(line.startswith("The rows rest on different test cases") for line in table.footer)


def test_a_group_without_a_complete_record_is_a_table_all_the_same(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    store = Store(tmp_path)
    store.open_run(make_job(), data={"regions": {"WT": [1], "ET": [3]}}).finish("oom", message="CUDA out of memory")
    store.open_run(make_job(model="unetr", changes=("train.steps=3",))).finish("timeout")
    with_regions, without = sorted(group_records(store.records()), key=lambda group: group.protocol)
    for group in (with_regions, without):
        table = make_table(group, Choice(("dice",), ("ET", AVERAGE), "ET_dice" if group is with_regions else ""))
        assert [column.label for column in table_sheet(table).columns[1:3]] == ["ET Dice %", "Avg Dice %"]
        assert _column(table, "ET Dice %") == {table.rows[0].model: table.rows[0].status}
    assert "1 test case" not in render([make_table(without)], "text")


def test_numbers_are_means_over_cases_then_seeds(tmp_path: Path, complete_record: Make) -> None:
    records = [complete_record(tmp_path, seed=seed) for seed in (0, 1, 2)]
    (table,) = _tables(tmp_path)
    (row,) = table.rows
    frames = [record.cases() for record in records]
    per_seed = [frame[frame["region"] == "TC"]["dice"].mean() for frame in frames]
    assert row.mean["TC", "dice"] == pytest.approx(sum(per_seed) / 3)
    assert row.std["TC", "dice"] == pytest.approx(pd.Series(per_seed).std())
    regions = [row.mean[region, "hd95"] for region in ("WT", "TC", "ET")]
    assert row.mean[AVERAGE, "hd95"] == pytest.approx(sum(regions) / 3)
    assert (row.seeds, row.cases) == (3, 4)


def test_the_best_average_dice_stands_first_and_failures_last(
    tmp_path: Path, complete_record: Make, make_job: Callable[..., Job]
) -> None:
    complete_record(tmp_path, dice=0.5, model="unetr")
    complete_record(tmp_path, dice=0.8, model="segresnet")
    Store(tmp_path).open_run(make_job(model="segmamba")).finish("oom", message="CUDA out of memory")
    (table,) = _tables(tmp_path)
    assert [(row.model, row.status) for row in table.rows] == [
        ("segresnet", "complete"),
        ("unetr", "complete"),
        ("segmamba", "oom"),
    ]
    text = render([table], "text")
    assert "segmamba: seed 0: oom: CUDA out of memory" in text


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "e" * 64},
        {"changes": ("train.steps=3",)},
        {"preset": "paper"},
        {"changes": ("evaluate.convention=segmamba",)},
        {"cases": 5},
    ],
)
def test_what_may_not_be_compared_stands_in_two_tables(tmp_path: Path, complete_record: Make, other: dict) -> None:
    complete_record(tmp_path)
    complete_record(tmp_path, model="unetr", **other)
    assert [len(table.rows) for table in _tables(tmp_path)] == [1, 1]


def test_the_footer_says_what_a_reader_must_know(tmp_path: Path, complete_record: Make) -> None:
    complete_record(tmp_path, changes=("train.steps=3",))
    text = render(_tables(tmp_path), "text")
    assert "4 test cases; absent from the reference: ET in 1." in text
    assert "Protocol: demo (train.steps=3): minutes on a laptop" in text
    assert "convention brats" in text
    assert "Synthetic data" in text
    assert "segmamba: not as published: feat_size 16,32,64,128 instead of 48,96,192,384" in text


def test_a_damaged_record_is_a_row_without_numbers(tmp_path: Path, complete_record: Make) -> None:
    complete_record(tmp_path, model="unetr")
    cases = complete_record(tmp_path).folder / "cases.csv"
    cases.write_text(cases.read_text()[:-20])
    (table,) = _tables(tmp_path)
    assert [(row.model, row.status) for row in table.rows] == [("unetr", "complete"), ("segmamba", "damaged")]


def test_every_format_holds_the_same_numbers(tmp_path: Path, complete_record: Make) -> None:
    complete_record(tmp_path)
    tables = _tables(tmp_path)
    frame = pd.read_csv(io.StringIO(render(tables, "csv")))
    dice = f"{100 * frame['WT_dice'][0]:.2f}"
    hd95 = f"{frame['Avg_hd95'][0]:.2f}"
    assert frame["WT_dice"][0] == tables[0].rows[0].mean["WT", "dice"]
    for how in ("text", "markdown", "latex", "html"):
        printed = render(tables, how)
        assert dice in printed
        assert hd95 in printed
    assert "\\toprule" in render(tables, "latex")


def test_latex_compiles(tmp_path: Path, complete_record: Make) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    complete_record(tmp_path)
    body = render(_tables(tmp_path), "latex")
    source = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + body + "\\end{document}"
    (tmp_path / "table.tex").write_text(source)
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "table.tex"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()[-2000:]


@pytest.mark.alone
@pytest.mark.parametrize("what", ["seeds", "networks"])
def test_500_records_of_250_cases_print_in_5_seconds(tmp_path: Path, complete_record: Make, what: str) -> None:
    template, results = complete_record(tmp_path / "template", cases=250), tmp_path / "results"
    for n in range(500):  # as if each had been run, which takes longer than the table
        content = json.loads((template.folder / "record.json").read_text())
        content["job"] |= {"seed": n} if what == "seeds" else {"model_options": {"d_state": n + 1}}
        content["key"] = key_of(content["job"])
        folder = shutil.copytree(template.folder, results / content["key"])
        (folder / "record.json").write_text(json.dumps(content))
    found = Store(results).records()
    assert {(record.status, tuple(record.faults)) for record in found} == {("complete", ())}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", "from bench.cli.app import main; main()", "table", "--results", str(results)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.monotonic() - started < 5
    rows = [line for line in done.stdout.splitlines() if line.startswith("segmamba") and "*" in line.partition("  ")[0]]
    assert len(rows) == (1 if what == "seeds" else 500)
