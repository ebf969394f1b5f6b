"""The paper's figures beside ours."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench.job import Job
from bench.metrics import RegionMeasurement
from bench.report.frame import group_records
from bench.report.published import segmamba_table1
from bench.report.render import render_sheet
from bench.report.sheet import Sheet
from bench.report.table import Choice, Table, make_table, table_csv, table_sheet
from bench.store import Store

SCORES = {"WT": (0.93, 3.0), "TC": (0.80, 5.0), "ET": (0.70, 4.0)}
# Table 1 of arXiv:2401.13560: Dice in %, HD95 in mm of WT, TC and ET.
PAPER = {
    "SegresNet": ((92.02, 4.07), (89.10, 4.08), (83.66, 3.88)),
    "UX-Net": ((93.13, 4.56), (90.03, 5.68), (85.91, 4.19)),
    "MedNeXt": ((92.41, 4.98), (87.75, 4.67), (83.96, 4.51)),
    "UNETR": ((92.19, 6.17), (86.39, 5.29), (84.48, 5.03)),
    "SwinUNETR": ((92.71, 5.22), (87.79, 4.42), (84.21, 4.48)),
    "SwinUNETR-V2": ((93.35, 5.01), (89.65, 4.41), (85.17, 4.41)),
    "SegMamba": ((93.61, 3.37), (92.65, 3.85), (87.71, 3.48)),
}


@pytest.fixture
def beside(make_job: Callable[..., Job], tmp_path: Path) -> Callable[..., Table]:
    """The table of two networks on a dataset, the paper's beside them."""

    def make(dataset: str, choice: Choice | None = None, names: tuple[str, ...] = tuple(SCORES)) -> Table:
        for model, worse in (("segresnet", 0.0), ("unetr", 0.2)):
            job = replace(make_job(model=model), dataset=dataset)
            measured = {
                case: [
                    RegionMeasurement(name, dice - worse, hd95 + worse, 1.0, 1.0, "neither")
                    for name, (dice, hd95) in zip(names, SCORES.values(), strict=True)
                ]
                for case in job.split.test
            }
            record = Store(tmp_path).open_run(
                job, data={"regions": {name: [1] for name in names}}, default_options=dict(job.model_options)
            )
            record.write_cases(measured)
            record.finish("complete")
        (group,) = group_records(Store(tmp_path).records())
        return make_table(group, choice, published=segmamba_table1())

    return make


def _block(sheet: Sheet) -> list[tuple[str, ...]]:
    (start,) = [row for row, title in (sheet.break_before or {}).items() if title.startswith("published: ")]
    return [tuple(cell.text for cell in row) for row in sheet.rows[start:]]


def test_the_paper_stands_in_a_block_after_ours_with_the_difference_of_ours(beside: Callable[..., Table]) -> None:
    table = beside("brats2023")
    sheet = table_sheet(table)
    assert sheet.break_before == {0: "here", 2: f"published: {segmamba_table1().title}"}
    rows = {row[0]: row[1:9] for row in _block(sheet)}
    assert list(rows) == list(PAPER)
    assert rows["SegresNet"] == (
        *("92.02 (+0.98)", "4.07 (−1.07)", "89.10 (−9.10)", "4.08 (+0.92)"),
        *("83.66 (−13.66)", "3.88 (+0.12)", "88.26 (−7.26)", "4.01 (−0.01)"),
    )
    assert rows["UNETR"][0] == "92.19 (−19.19)"
    assert rows["SegMamba"] == ("93.61", "3.37", "92.65", "3.85", "87.71", "3.48", "91.32", "3.57")
    # Bold marks the best of ours, although the paper's are better.
    bold = [[cell.text for cell in row if cell.best] for row in sheet.rows]
    assert [len(row) for row in bold] == [8, 0] + [0] * len(PAPER)
    assert bold[0][2:4] == ["80.00", "5.00"]
    lines = render_sheet(sheet, "text").splitlines()
    titles = [next(n for n, line in enumerate(lines) if line.startswith(what)) for what in ("here", "published: ")]
    assert titles[0] < next(n for n, line in enumerate(lines) if line.startswith("unetr")) < titles[1]
    (told,) = [line for line in table.footer if line.startswith("Published figures: ")]
    assert "arXiv:2401.13560" in told
    assert "in brackets what the one row of that network, as published, has more" in told


def test_the_average_is_the_mean_of_the_three_regions(beside: Callable[..., Table]) -> None:
    rows = _block(table_sheet(beside("phantom")))
    for row, (name, regions) in zip(rows, PAPER.items(), strict=True):
        assert row[0] == name
        assert list(map(float, row[1:7])) == [value for region in regions for value in region]
        for text, values in zip(row[7:9], zip(*regions, strict=True), strict=True):
            assert float(text) == pytest.approx(sum(values) / 3, abs=0.00501)
    alone = _block(table_sheet(beside("phantom", Choice(("dice",), ("Avg",)))))
    assert alone[0][:2] == ("SegresNet", "88.26")


def test_of_another_dataset_nothing_is_compared(beside: Callable[..., Table]) -> None:
    table = beside("phantom")
    assert not any("(" in text for row in _block(table_sheet(table)) for text in row)
    (told,) = [line for line in table.footer if line.startswith("Published figures: ")]
    assert "they are of brats2023, this table of phantom, so nothing is compared" in told


def test_only_the_one_row_of_the_network_as_published_is_compared(beside: Callable[..., Table], tmp_path: Path) -> None:
    beside("brats2023")
    store = Store(tmp_path)
    for record in store.records():
        job = record.content["job"]
        path = record.folder / "record.json"
        if job["model"] == "unetr":  # a narrowed one
            stated = {**json.loads(path.read_text()), "default_options": {**job["model_options"], "hidden_size": 768}}
            path.write_text(json.dumps(stated))
    (group,) = group_records(store.records())
    rows = {row[0]: row[1] for row in _block(table_sheet(make_table(group, published=segmamba_table1())))}
    assert (rows["SegresNet"], rows["UNETR"]) == ("92.02 (+0.98)", "92.19")


def test_other_regions_get_a_note_instead(beside: Callable[..., Table]) -> None:
    table = beside("colon", names=("tumour", "organ", "vessel"))
    sheet = table_sheet(table)
    assert not sheet.break_before
    assert len(sheet.rows) == 2
    (told,) = [line for line in table.footer if line.startswith("Published")]
    assert "has other regions than colon, so it is not shown" in told


def test_the_csv_calls_the_papers_rows_published(beside: Callable[..., Table]) -> None:
    frame = pd.read_csv(io.StringIO(table_csv([beside("brats2023")])))
    assert list(frame["status"]) == ["complete"] * 2 + ["published"] * len(PAPER)
    stated = frame[frame["status"] == "published"].set_index("model")
    assert set(stated["dataset"]) == {"brats2023"}
    assert stated["remarks"].str.contains("2401.13560").all()
    for name, regions in PAPER.items():
        for region, (dice, hd95) in zip(SCORES, regions, strict=True):
            assert stated.loc[name, f"{region}_dice"] == pytest.approx(dice / 100, abs=1e-12)
            assert stated.loc[name, f"{region}_hd95"] == hd95
    assert stated["cases"].isna().all()
