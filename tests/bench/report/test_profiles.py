"""Tables of timed passes: what stands in them, what stands under them, and what never shares one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.profiling.operations import UNSEEN
from bench.report.profiles import measurement_sheets, notes
from bench.report.profiles.cells import number
from bench.report.render import render_sheets
from bench.report.sheet import Sheet
from bench.store import Record

Make = Callable[..., Record]
CPU = "AMD EPYC, 2 threads"


def _rows(sheet: Sheet) -> list[dict[str, str]]:
    """Each row, column to text."""
    heads = [column.label for column in sheet.columns]
    return [{head: cell.text + cell.mark for head, cell in zip(heads, row, strict=True)} for row in sheet.rows]


def _one(records: Sequence[Record]) -> Sheet:
    (sheet,) = measurement_sheets(records)
    return sheet


def _note(sheet: Sheet, start: str) -> str:
    (found,) = [note for note in sheet.notes if note.startswith(start)]
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123449, "0.0123"), (1.0, "1.00"), (9.996, "10.0"), (99.96, "100"), (1234.56, "1,235"), (0, "0"),
        (123456.7, "123,457"), (-0.5, "-0.500"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_and_all_before_the_point(value: float, text: str) -> None:
    assert number(value) == text


def test_an_inference_on_a_gpu_is_shown_in_its_units(profile: Make) -> None:
    sheet = _one([profile(seconds=0.0123, size=(64, 64, 128), job={"batch": 2}, asked_size=[64, 64, 100])])
    assert sheet.title == "Networks, inference on NVIDIA H200: bf16, 4 channels in, 4 classes out"
    (row,) = _rows(sheet)
    assert row == {
        "network": "segmamba",
        "size": "64×64×128 (asked 64×64×100)",
        "batch": "2",
        "parameters M": "67.0",
        "operations GMAC": "2.10",
        "time ms": "12.3",
        "p10–p90 ms": "11.1–14.8",
        "first pass s": "0.0615",
        "Mvoxel/s": "85.3",
        # 2 operations × 2 images × 2.097 GMAC in 12.3 ms.
        "TFLOP/s": "0.682",
        "allocated GiB": "3.00",
        "reserved GiB": "3.25",
        "driver GiB": "4.00",
        "energy J": "50.0",
        "repeats": "20",
    }


def test_a_training_step_has_parts_and_no_rate_of_operations(profile: Make) -> None:
    (row,) = _rows(_one([profile(mode="train", seconds=2.0)]))
    assert [row[f"{part} ms"] for part in ("forward", "backward", "optimiser")] == ["600", "1,200", "200"]
    assert "TFLOP/s" not in row


def test_on_a_cpu_memory_is_of_tensors_and_of_the_process(profile: Make) -> None:
    sheet = _one([profile(hardware=CPU)])
    (row,) = _rows(sheet)
    assert {name: text for name, text in row.items() if "GiB" in name or name == "energy J"} == {
        "allocated GiB": "3.00",
        "process GiB": "3.50",
    }
    assert _note(sheet, CPU) == f"{CPU}, PyTorch 2.11.0+cu130, selective scan by torch, code abcdef012345."
    assert "process" in _note(sheet, "Memory")
    assert not any("Energy" in note for note in sheet.notes)


def test_what_came_to_no_end_is_a_row_that_says_why_and_how_far_it_was(profile: Make) -> None:
    reached = {"reached": "repeat 2", "memory": {"peak_allocated_bytes": 7 * 2**30, "peak_process_bytes": 2**30}}
    sheet = _one(
        [
            profile("unetr", seconds=3.0),
            profile("unet", status="oom", message="OutOfMemoryError:\n CUDA out of memory", found=reached),
            profile("swinunetr", status="timeout", message="not done within 600 s", found={"reached": "warming up"}),
            profile("unet", 128, seconds=1.0),
        ]
    )
    rows = _rows(sheet)
    assert [(row["network"], row["size"], row["time ms"]) for row in rows] == [
        ("unetr", "64³", "3,000"), ("swinunetr", "64³", "timeout"), ("unet", "64³", "oom"), ("unet", "128³", "1,000"),
    ]  # fmt: skip
    oom = rows[2]
    assert (oom["allocated GiB"], oom["reserved GiB"], oom["p10–p90 ms"], oom["repeats"]) == ("≥ 7.00", "–", "–", "–")
    assert "unet 64³: oom (repeat 2): OutOfMemoryError: CUDA out of memory" in sheet.notes
    assert "swinunetr 64³: timeout (warming up): not done within 600 s" in sheet.notes
    assert "≥ is what" in _note(sheet, "Memory")


def test_figures_of_a_damaged_record_are_not_shown(profile: Make) -> None:
    record = profile(seconds=0.5)
    damaged = Record(record.folder, record.content, ("its file has changed",))
    sheet = _one([damaged])
    assert _rows(sheet)[0]["time ms"] == "damaged"
    assert "segmamba 64³: damaged: its file has changed" in sheet.notes


def test_nothing_that_is_measured_otherwise_shares_a_table(profile: Make) -> None:
    changes = (
        {}, {"precision": "fp16"}, {"compile": True}, {"channels_last": True}, {"cudnn_benchmark": False},
        {"fused": True}, {"graph": True},
        {"torch": "2.12.0"}, {"in_channels": 1}, {"classes": 3},
    )  # fmt: skip
    records = [profile(job=change) for change in changes]
    records += [profile(hardware="NVIDIA H100"), profile(hardware=CPU, job={"precision": "bf16"})]
    records.append(profile(mode="train"))
    sheets = measurement_sheets(records)
    assert [len(sheet.rows) for sheet in sheets] == [1] * len(records)
    titles = [sheet.title.partition(": ") for sheet in sheets]
    assert len({sheet.title for sheet in sheets}) == len(records)
    told = {after.removesuffix("4 channels in, 4 classes out").strip(", ") for _, _, after in titles}
    assert {"fp16", "bf16, compiled", "bf16, channels last", "bf16, cudnn.benchmark off"} <= told
    assert any(after.endswith("PyTorch 2.12.0") for _, _, after in titles)
    assert any(after.endswith("PyTorch 2.11.0+cu130") for _, _, after in titles)


def test_backends_of_the_scan_tell_rows_apart_where_there_is_a_scan(profile: Make) -> None:
    scanning, none = ({"operations": {"convolution": 9, "scan": scan, "uncounted": {}}} for scan in (1, 0))
    sheet = _one(
        [
            profile("segmamba", seconds=3.0, job={"backend": "torch"}, found=scanning),
            profile("segmamba", seconds=1.0, job={"backend": "triton"}, found=scanning),
            profile("umamba", seconds=2.0, job={"backend": "triton"}, found=scanning),
            profile("unet", seconds=0.5, job={"backend": "torch"}, found=none),
            profile("unet", 96, seconds=0.6, job={"backend": "triton"}, found=none),
        ]
    )
    assert [row["network"] for row in _rows(sheet)] == [
        "unet", "segmamba (scan by triton)", "umamba", "segmamba (scan by torch)", "unet",
    ]  # fmt: skip
    assert "selective scan by torch and triton" in sheet.notes[-1]


def test_the_order_of_the_records_does_not_matter(profile: Make) -> None:
    records = [profile(model, n, seconds=n / 100 + len(model)) for model in ("unet", "unetr") for n in (64, 96)]
    records.append(profile(what="mixer"))
    expected = measurement_sheets(records)
    assert [row["network"] for row in _rows(expected[0])] == ["unet", "unetr", "unet", "unetr"]
    for order in itertools.permutations(records, 5):
        assert measurement_sheets(order) == expected


def test_other_records_and_profiles_that_tell_too_little_are_left_out(
    profile: Make, complete_record: Make, tmp_path: Path
) -> None:
    lacking = Record(tmp_path, {"kind": "profile", "job": {"model": "unet", "model_options": {}}, "status": "complete"})
    unknown = profile(what="horoscope")
    assert measurement_sheets([complete_record(tmp_path), lacking, unknown]) == []


def test_networks_of_one_name_are_told_apart_by_the_options_that_differ(profile: Make) -> None:
    options = {"feat_size": [48, 96], "scan": "tri", "depth": 2}
    records = [
        profile(job={"model_options": options}),
        profile(job={"model_options": {**options, "scan": "forward", "feat_size": [24, 48]}}),
        profile("unet", job={"model_options": {"depth": 3}}),
    ]
    named = {row["network"] for row in _rows(_one(records))}
    assert named == {"segmamba (feat_size=48,96, scan=tri)", "segmamba (feat_size=24,48, scan=forward)", "unet"}


def test_too_few_repeats_are_marked_and_explained(profile: Make) -> None:
    sheet = _one([profile("unet", repeats=3), profile("unetr", repeats=6)])
    assert {row["network"]: row["repeats"] for row in _rows(sheet)} == {"unet": "3†", "unetr": "6"}
    assert "† too few repeats for an interval of the median." in sheet.notes
    assert not any(note.startswith("†") for note in _one([profile("unetr", repeats=6)]).notes)


def test_each_rule_of_repeating_is_told_once(profile: Make) -> None:
    records = [profile("unet"), profile("unetr"), profile("swinunetr")]
    rule = records[0].content["measured"]["time"]["rule"]
    assert _note(_one(records), "Times") == f"Times: medians, repeated {rule}."
    records[2].content["measured"]["time"]["rule"] = "ten times"
    told = [note for note in _one(records).notes if note.startswith("Times")]
    assert told == [
        "Times of swinunetr 64³: medians, repeated ten times.",
        f"Times of unet 64³, unetr 64³: medians, repeated {rule}.",
    ]


def test_operations_that_were_counted_or_not_are_named(profile: Make) -> None:
    whole = {"convolution": 900, "matrix_product": 60, "scan": 40, "uncounted": {"gelu": 5, "add": 50, UNSEEN: 7}}
    sheet = _one(
        [
            profile("segmamba", found={"operations": whole}),
            profile("unet", found={"operations": {**whole, "scan": 0, "uncounted": {"add": 3, "relu": 9}}}),
        ]
    )
    assert _note(sheet, "Of them in selective scans") == "Of them in selective scans: segmamba 4.0 %."
    assert _note(sheet, "Without a formula").endswith("most values first: add, relu, gelu.")
    assert _note(sheet, "segmamba: a part of the work").endswith("operations and TFLOP/s are those of the rest.")
    assert notes.UNSEEN == UNSEEN  # what the profiler calls it, which reports may not import
    plain = _one([profile("unet", found={"operations": {**whole, "scan": 0, "uncounted": {}}})])
    assert not any("scan" in note or "Without" in note or UNSEEN in note for note in plain.notes)


def test_who_else_was_at_work_is_told_beside_whom(profile: Make) -> None:
    busy, held = "0.4 cores were busy with other work", "2 other processes held the GPU"
    records = [profile("unet"), profile("unetr"), profile("swinunetr"), profile("segresnet")]
    for record, note in zip(records, (busy, busy, held), strict=False):
        record.content["notes"].append(note)
    assert _note(_one(records), "Measured") == f"Measured while {held}: swinunetr 64³; {busy}: unet 64³, unetr 64³."
    assert not any(note.startswith("Measured") for note in _one(records[3:]).notes)


def test_software_and_what_cudnn_and_the_scan_were_told(profile: Make) -> None:
    on, off = _one([profile()]), _one([profile("unet", job={"cudnn_benchmark": False})])
    assert on.notes[-1] == (
        "NVIDIA H200, PyTorch 2.11.0+cu130, cudnn.benchmark on, selective scan by triton, code abcdef012345."
    )
    assert "cudnn.benchmark off, code" in off.notes[-1]  # and no scan in it
    failed = _one([profile("unet"), profile("unetr", status="oom")])
    assert "selective scans, if any, by triton" in failed.notes[-1]
    other = profile("unet", 96)
    other.content["provenance"]["code"]["dirty"] = True
    assert "code abcdef012345 and abcdef012345, changed." in _one([profile(), other]).notes[-1]


def test_mixers_stand_in_a_block_for_each_width_by_their_tokens(profile: Make) -> None:
    records = [
        profile(model, size, what="mixer", seconds=seconds, job={"in_channels": width, "classes": width})
        for width in (96, 48)
        for model, seconds in (("attention", 0.2), ("mamba_3", 0.1))
        for size in (16, 8)
    ]
    sheet = _one(records)
    assert sheet.title == "Token mixers, inference on NVIDIA H200: bf16"
    assert sheet.break_before == {0: "48 channels", 4: "96 channels"}
    told = [(row["mixer"], row["size"], row["tokens"]) for row in _rows(sheet)]
    assert told == 2 * [
        ("mamba_3", "8³", "512"), ("attention", "8³", "512"), ("mamba_3", "16³", "4,096"), ("attention", "16³", "4,096")
    ]  # fmt: skip
    assert {row["allocated MiB"] for row in _rows(sheet)} == {"3,072"}
    assert _note(sheet, "Operations").startswith("Operations: multiply-accumulates of one forward pass;")
    job = {"in_channels": 48, "classes": 48}
    failed = profile("attention", 32, what="mixer", status="failed", message="no", job=job)
    assert "attention 48 channels 32³: failed: no" in _one([*records, failed]).notes


def test_volumes_stand_with_their_mirror_images_under_those_without(profile: Make) -> None:
    more = {"shape": [155, 240, 240], "overlap": 0.5}
    records = [
        profile(model, 128, what="volume", seconds=seconds * flips, job={**more, "flips": flips})
        for model, seconds in (("unetr", 0.5), ("unet", 2.0))
        for flips in (8, 1)
    ]
    records.append(profile("segresnet", 128, what="volume", status="oom", job={**more, "flips": 8}))
    sheet = _one(records)
    assert sheet.title.endswith("4 classes out, volumes of 155×240×240, overlap 0.5")
    rows = _rows(sheet)
    assert [(row["network"], row["mirror images"], row["case s"]) for row in rows] == [
        ("segresnet", "all 8", "oom"),
        ("unet", "none", "2.00"), ("unet", "all 8", "16.0"), ("unetr", "none", "0.500"), ("unetr", "all 8", "4.00"),
    ]  # fmt: skip
    assert (rows[1]["patch"], rows[1]["windows"], rows[1]["at once"]) == ("128³", "18", "2")
    assert "segresnet 128³, mirror images: oom" in sheet.notes


def test_operators_have_a_table_for_each_measurement_that_knows_them(profile: Make) -> None:
    listed = [
        {"name": "aten::conv", "calls": 55.0, "seconds": 0.03, "share": 0.75},
        {"name": "3 others", "calls": 7.0, "seconds": 0.01, "share": 0.25},
    ]
    records = [profile("unet"), profile("unetr", mode="train", found={"operators": listed})]
    sheet = measurement_sheets(records)[-1]
    assert sheet.title.startswith("Operators of unetr 64³, training on NVIDIA H200")
    assert _rows(sheet) == [
        {"operator": "aten::conv", "calls": "55", "time ms": "30.0", "share %": "75.0"},
        {"operator": "3 others", "calls": "7", "time ms": "10.0", "share %": "25.0"},
    ]
    assert len(measurement_sheets(records)) == 3


@pytest.mark.parametrize("how", ["text", "markdown", "latex", "html"])
def test_every_format_renders(profile: Make, how: str) -> None:
    records = [profile(), profile("unet", status="oom", message="a | b"), profile(mode="train", repeats=1)]
    assert "segmamba" in render_sheets(measurement_sheets(records), how)
