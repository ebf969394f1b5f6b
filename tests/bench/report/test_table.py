"""Tables: means, grouping, footers, formats, speed."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bench.job import Job
from bench.report.frame import group_records
from bench.report.frame import AVERAGE
from bench.report.render import render_sheets
from bench.report.table import make_table, table_csv, table_sheet
from bench.store import Record, Store

Make = Callable[..., Record]


def _tables(root: Path) -> list:
    return [make_table(group) for group in group_records(Store(root).records())]


def render(tables: list, how: str) -> str:
    return table_csv(tables) if how == "csv" else render_sheets([table_sheet(table) for table in tables], how)


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


@pytest.mark.parametrize("what", ["seeds", "networks"])
def test_500_records_of_250_cases_print_in_5_seconds(tmp_path: Path, complete_record: Make, what: str) -> None:
    for n in range(500):
        if what == "seeds":
            complete_record(tmp_path, cases=250, seed=n)
        else:
            complete_record(tmp_path, cases=250, changes=(f"model_options.segmamba.d_state={n + 1}",))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", "from bench.cli.app import main; main()", "table", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.monotonic() - started < 5
    rows = [line for line in done.stdout.splitlines() if line.startswith(("segmamba*", "segmamba ("))]
    assert len(rows) == (1 if what == "seeds" else 500)
