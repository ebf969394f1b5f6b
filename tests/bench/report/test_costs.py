"""Costs that profiles among the records bring to a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import models
from bench.key import key_of
from bench.report.costs import costs
from bench.report.frame import group_records
from bench.report.table import Table, make_table, table_sheet
from bench.store import SCHEMA, Record, Store

Make = Callable[..., Record]
NARROW = {"feat_size": [16, 32, 64, 128]}


def _profile(
    root: Path, model: str, options: Mapping[str, Any], gpu: str, status: str = "complete", **found: float
) -> None:
    """A profile as a record; of ``options`` those that are not the defaults."""
    job = {"model": model, "model_options": models.resolve_options(model, options), "gpu": gpu, "size": [128] * 3}
    content = {
        "schema": SCHEMA,
        "key": key_of(job),
        "kind": "profile",
        "status": status,
        "job": job,
        "files": {},
        "hardware": gpu,
        "setting": "1×4×128³, fp16",
        "measured": found,
    }
    folder = root / content["key"]
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(content))


def _table(root: Path) -> Table:
    records = Store(root).records()
    assert all(not record.faults for record in records)
    (group,) = group_records(records)
    return make_table(group, costs=costs(records))


def _column(table: Table, label: str) -> dict[str, str]:
    sheet = table_sheet(table)
    at = [column.label for column in sheet.columns].index(label)
    return {str(row[0].value): row[at].text for row in sheet.rows}


def test_figures_join_by_network_and_options(tmp_path: Path, complete_record: Make) -> None:
    complete_record(tmp_path)
    complete_record(tmp_path, changes=("model_options.segmamba.d_state=8",))
    complete_record(tmp_path, model="unetr")
    _profile(
        tmp_path,
        *("segmamba", NARROW, "H100"),
        parameters=12_345_678,
        gmacs=1234.56,
        latency_s=0.0123,
        peak_memory_bytes=3 * 2**30,
    )
    _profile(tmp_path, "segmamba", {}, "H100", parameters=67_000_000)  # not narrowed: another network
    table = _table(tmp_path)
    narrow, other = "segmamba (d_state=16)", "segmamba (d_state=8)"
    printed = {
        "parameters M": "12.3",
        "operations GMAC": "1,234.6",
        "inference time ms": "12.3",
        "peak memory GiB": "3.00",
    }
    for label, text in printed.items():
        assert _column(table, label) == {narrow: text, other: "–", "unetr": "–"}
    assert [cost.name for cost in table.shown_costs] == ["parameters", "gmacs", "latency_s", "peak_memory_bytes"]
    assert "Costs: profiles on H100, 1×4×128³, fp16." in table.footer
    assert {row.label for row in table.rows} == {narrow, other, "unetr"}


def test_two_kinds_of_hardware_never_share_columns(tmp_path: Path, complete_record: Make) -> None:
    changed = {"unetr": {"hidden_size": 192, "mlp_dim": 768, "num_heads": 6}, "segmamba": NARROW}
    for model in changed:
        complete_record(tmp_path, model=model)
    _profile(tmp_path, "segmamba", changed["segmamba"], "A100", latency_s=0.010)
    _profile(tmp_path, "segmamba", changed["segmamba"], "H100", latency_s=0.005)
    _profile(tmp_path, "unetr", changed["unetr"], "H100", "oom", latency_s=0.007)
    _profile(tmp_path, "unetr", changed["unetr"], "A100", latency_s=0.020)
    table = _table(tmp_path)
    assert _column(table, "inference time ms") == {"segmamba": "10.0", "unetr": "20.0"}
    assert any(line.startswith("Costs: profiles on A100,") for line in table.footer)
    found = costs([record for record in Store(tmp_path).records() if record.content.get("hardware") == "H100"])
    assert found is not None
    assert [list(figures.values()) for figures in found.figures.values()] == [[0.005]]  # unfinished ones do not count


def test_without_a_fitting_profile_nothing_is_said_of_costs(tmp_path: Path, complete_record: Make) -> None:
    complete_record(tmp_path)
    assert costs(Store(tmp_path).records()) is None
    _profile(tmp_path, "unetr", {}, "H100", parameters=1e6)
    table = _table(tmp_path)
    assert table.shown_costs == ()
    assert not any("Costs" in line for line in table.footer)
