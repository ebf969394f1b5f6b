"""Costs that profiles among the records bring to a table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import models
from bench.report.costs import Costs, costs, network_key
from bench.report.frame import group_records
from bench.report.select import Request, select
from bench.report.table import Choice, Table, make_table, table_sheet
from bench.store import Record, Store

Make = Callable[..., Record]
NARROW = {"feat_size": [16, 32, 64, 128]}


def _built(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of a network; of ``options`` those that are not the defaults."""
    return {"model_options": models.resolve_options(model, options)}


def _table(root: Path) -> Table:
    records = Store(root).records()
    assert all(not record.faults for record in records)
    (group,) = group_records(records)
    return make_table(group, costs=costs(records))


def _column(table: Table, label: str) -> dict[str, str]:
    sheet = table_sheet(table)
    at = [column.label for column in sheet.columns].index(label)
    return {str(row[0].value): row[at].text for row in sheet.rows}


def _named(found: Costs | None) -> dict[str, dict[str, float]]:
    """Figures by the name of a network without options."""
    assert found is not None
    return {key.split('"')[1]: dict(figures) for key, figures in found.figures.items()}


def test_figures_join_by_network_and_options(tmp_path: Path, complete_record: Make, profile: Make) -> None:
    complete_record(tmp_path)
    complete_record(tmp_path, changes=("model_options.segmamba.d_state=8",))
    complete_record(tmp_path, model="unetr")
    narrow, whole = _built("segmamba", NARROW), _built("segmamba", {})
    counted = {"parameters": 12_345_678, "gmacs": 1234.56}
    profile("segmamba", 128, seconds=0.0123, found=counted, job=narrow)
    profile("segmamba", 128, "train", seconds=0.25, peak=5 * 2**30, found=counted, job=narrow)
    profile("segmamba", 128, seconds=9.0, job=whole)  # not narrowed: another network
    table = _table(tmp_path)
    label, other = "segmamba (d_state=16)", "segmamba (d_state=8)"
    printed = {
        "parameters M": "12.3",
        "operations GMAC": "1,234.6",
        "inference time ms": "12.3",
        "training step ms": "250.0",
        "training memory GiB": "5.00",
    }
    for head, text in printed.items():
        assert _column(table, head) == {label: text, other: "–", "unetr": "–"}
    names = ["parameters", "gmacs", "latency_s", "train_step_s", "peak_memory_bytes"]
    assert [cost.name for cost in table.shown_costs] == names
    assert "Costs: profiles on NVIDIA H200, 128³, bf16, scan by triton, batch 1." in table.footer
    assert {row.label for row in table.rows} == {label, other, "unetr"}


def test_memory_of_an_inference_is_not_that_of_a_training(profile: Make) -> None:
    found = _named(costs([profile("unet", seconds=0.5), profile("unetr", mode="train", seconds=2.0, peak=2**31)]))
    assert {name: set(figures) - {"parameters", "gmacs"} for name, figures in found.items()} == {
        "unet": {"latency_s"},
        "unetr": {"train_step_s", "peak_memory_bytes"},
    }
    assert found["unetr"]["peak_memory_bytes"] == 2**31


def test_two_kinds_of_hardware_never_share_columns(tmp_path: Path, complete_record: Make, profile: Make) -> None:
    changed = {"unetr": {"hidden_size": 192, "mlp_dim": 768, "num_heads": 6}, "segmamba": NARROW}
    for model in changed:
        complete_record(tmp_path, model=model)
    built = {model: _built(model, options) for model, options in changed.items()}
    profile("segmamba", seconds=0.010, hardware="A100", job=built["segmamba"])
    profile("segmamba", seconds=0.005, hardware="H100", job=built["segmamba"])
    profile("unetr", status="oom", hardware="H100", job=built["unetr"], found={"latency_s": 0.007})
    profile("unetr", seconds=0.020, hardware="A100", job=built["unetr"])
    table = _table(tmp_path)
    assert _column(table, "inference time ms") == {"segmamba": "10.0", "unetr": "20.0"}
    assert any(line.startswith("Costs: profiles on A100,") for line in table.footer)
    found = costs([record for record in Store(tmp_path).records() if record.content.get("hardware") == "H100"])
    assert found is not None
    assert [one["latency_s"] for one in found.figures.values()] == [0.005]  # unfinished ones do not count


def test_of_two_backends_of_the_scan_one_is_shown_beside_networks_without_one(profile: Make) -> None:
    scanning, none = ({"operations": {"convolution": 9, "scan": scan, "uncounted": {}}} for scan in (1, 0))
    records = [
        profile("unet", seconds=0.1, job={"backend": "torch"}, found=none),
        profile("unetr", seconds=0.2, job={"backend": "triton"}, found=none),
        profile("segmamba", seconds=9.0, job={"backend": "torch"}, found=scanning),
        profile("segmamba", seconds=0.3, job={"backend": "triton"}, found=scanning),
        profile("umamba", seconds=0.4, job={"backend": "triton"}, found=scanning),
    ]
    for some in (records, records[::-1]):
        found = costs(some)
        assert {name: one["latency_s"] for name, one in _named(found).items()} == {
            "unet": 0.1, "unetr": 0.2, "segmamba": 0.3, "umamba": 0.4,
        }  # fmt: skip
        assert "scan by triton" in found.setting


@pytest.mark.parametrize(
    "unlike",
    [
        {"precision": "fp16"}, {"compile": True}, {"channels_last": True}, {"cudnn_benchmark": False},
        {"fused": True}, {"graph": True},
        {"torch": "2.12.0"}, {"in_channels": 1}, {"classes": 3},
    ],
)  # fmt: skip
def test_what_is_measured_otherwise_never_shares_columns(profile: Make, unlike: dict[str, Any]) -> None:
    alike = [profile("unet", seconds=0.1), profile("unetr", seconds=0.2)]
    other = [profile(model, seconds=9.0, job=unlike) for model in ("segresnet", "unet")]
    for records in ([*alike, *other, profile("swinunetr", seconds=0.3)], [*other, profile("swinunetr"), *alike]):
        assert set(_named(costs(records))) == {"unet", "unetr", "swinunetr"}
        assert _named(costs(records))["unet"]["latency_s"] == 0.1


def _order(records: Sequence[Record]) -> set[str]:
    """What is told of the records in each of their orders."""
    return {found.setting for order in itertools.permutations(records) if (found := costs(order)) is not None}


def test_of_several_sizes_that_of_most_networks_counts_then_the_larger(profile: Make) -> None:
    small = [profile(model, 64) for model in ("unet", "unetr")]
    assert _order([*small, profile("unet", 96)]) == {"64³, bf16, batch 1 in inference"}
    assert _order([*small, profile("unet", 96), profile("unetr", 96)]) == {"96³, bf16, batch 1 in inference"}
    # A network in both modes is one network.
    assert _order([*small, profile("unet", 96), profile("unet", 96, "train")]) == {"64³, bf16, batch 1 in inference"}
    # Of as many networks at both sizes, that where they were trained too.
    larger = [profile(model, 160) for model in ("unet", "unetr")]
    assert _order([*small, *larger]) == {"160³, bf16, batch 1 in inference"}
    assert _order([*small, profile("unet", 64, "train"), *larger]) == {"64³, bf16, batch 1"}
    assert _order([profile("unet", 64, hardware=name) for name in ("B", "A")]) == {"64³, bf16, batch 1 in inference"}
    assert {costs(order).hardware for order in itertools.permutations(
        [profile("unet", 64, hardware=name) for name in ("B", "A", "C")]
    )} == {"A"}  # fmt: skip


def test_of_several_batches_that_of_most_networks_counts_for_each_mode_then_the_larger(profile: Make) -> None:
    records = [
        profile("unet", 96, seconds=0.1),
        profile("unetr", 96, seconds=0.2),
        profile("unet", 96, seconds=9.0, job={"batch": 4}),
        profile("unet", 96, "train", seconds=1.0),
        profile("unet", 96, "train", seconds=2.0, job={"batch": 2}),
        profile("swinunetr", 96, status="oom", job={"batch": 4}),
        profile("segresnet", 96, status="oom", job={"batch": 4}),
    ]
    for order in (records, records[::-1]):
        found = costs(order)
        assert found is not None
        assert found.setting == "96³, bf16, batch 1 in inference and 2 in training"
        assert {name: (one.get("latency_s"), one.get("train_step_s")) for name, one in _named(found).items()} == {
            "unet": (0.1, 2.0),
            "unetr": (0.2, None),
        }


def test_networks_that_are_not_shown_decide_nothing(tmp_path: Path, complete_record: Make, profile: Make) -> None:
    """Neither the size nor the backend of the scan is that of most networks, but that of most that are shown."""
    scanning = {"operations": {"convolution": 9, "scan": 1, "uncounted": {}}}
    complete_record(tmp_path)
    narrow = _built("segmamba", NARROW)
    profile("segmamba", 96, seconds=0.3, job={**narrow, "backend": "triton"}, found=scanning)
    profile("segmamba", 96, seconds=9.0, job={**narrow, "backend": "torch"}, found=scanning)
    for other in ("umamba", "unet", "unetr"):
        profile(other, 64, seconds=0.1)
        profile(other, 96, seconds=0.2, job={"backend": "torch"}, found=scanning)
    records = Store(tmp_path).records()
    assert "scan by torch" in costs(records).setting
    found = costs(records, {network_key("segmamba", narrow["model_options"])})
    assert found.setting == "96³, bf16, scan by triton, batch 1 in inference"
    assert set(_named(found)) == {"segmamba"}
    shown = select(Request(tmp_path, (), "", "", (), "", Choice(), published=False, allow_mixed=False))
    assert [table.costs for table in shown.tables] == [found]


def test_size_and_options_are_told(profile: Make) -> None:
    job = {"compile": True, "channels_last": True, "cudnn_benchmark": False}
    found = costs([profile("unet", (64, 96, 96), mode, job={**job, "batch": 2}) for mode in ("infer", "train")])
    assert found is not None
    assert found.setting == "64×96×96, bf16, compiled, channels last, cudnn.benchmark off, batch 2"
    on_cpu = costs([profile("unet", mode="train", hardware="EPYC, 1 threads", job={"cudnn_benchmark": False})])
    assert on_cpu is not None
    assert on_cpu.setting == "64³, fp32, batch 1 in training"  # where there is no cuDNN


@pytest.mark.parametrize("what", ["mixer", "volume", "ceiling", "receptive-field"])
def test_only_whole_networks_have_costs(profile: Make, what: str) -> None:
    assert costs([profile("unet", what=what)]) is None
    found = costs([profile("unet", what=what), profile("unet", what=what, size=96), profile("unetr", 32)])
    assert set(_named(found)) == {"unetr"}


def test_without_a_fitting_profile_nothing_is_said_of_costs(
    tmp_path: Path, complete_record: Make, profile: Make
) -> None:
    complete_record(tmp_path)
    assert costs(Store(tmp_path).records()) is None
    profile("unetr", job=_built("unetr", {}))
    table = _table(tmp_path)
    assert table.shown_costs == ()
    assert not any("Costs" in line for line in table.footer)


def test_a_network_is_named_with_its_options_in_any_order() -> None:
    assert network_key("unet", {"a": 1, "b": 2}) == network_key("unet", {"b": 2, "a": 1})
    assert network_key("unet", {"a": 1}) != network_key("unet", {"a": 2})
