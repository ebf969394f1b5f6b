"""Receptive fields, largest cubes, and exponents of growth as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from bench.report.profiles import measurement_sheets, scaling_sheets
from bench.report.sheet import Sheet
from bench.store import Record

Make = Callable[..., Record]
LIMIT = {"limit_bytes": 80 * 2**30}


def _rows(sheet: Sheet) -> list[dict[str, str]]:
    heads = [column.label for column in sheet.columns]
    return [{head: cell.text for head, cell in zip(heads, row, strict=True)} for row in sheet.rows]


def _field(r50: float = 3.0, r90: float = 10.0) -> dict[str, Any]:
    return {
        "radii": {"r50": r50, "r90": r90, "r99": 40.0},
        "radial": {"radius": [0, 1, 2], "share": [0.1, 0.6, 1.0]},
        "seen": 0.5,
        "seen_1e6": 0.125,
        "beyond_half": 0.0625,
        "axes": {"D": -0.5, "H": 0.0, "W": 1.25},
        "parameters": 5_000_000,
        "inputs": 7,
    }


def test_receptive_fields_stand_by_how_far_they_look(profile: Make) -> None:
    job = {"inputs": 8, "run": ""}
    trained = {"inputs": 8, "run": "0123456789"}
    records = [
        profile("unet", 128, what="receptive-field", found=_field(r90=5.0), job=job),
        profile("segmamba", 128, what="receptive-field", found=_field(), job=job),
        profile("segmamba", 128, what="receptive-field", found=_field(r90=20.0), job=trained),
        profile("unetr", 128, what="receptive-field", status="failed", message="no gradient", job=job),
    ]
    (sheet,) = measurement_sheets(records)
    assert sheet.title.endswith("4 classes out, mean of 8 inputs")
    rows = _rows(sheet)
    assert [row["network"] for row in rows] == ["segmamba (trained, 012345)", "segmamba", "unet", "unetr"]
    assert rows[1] == {
        "network": "segmamba",
        "size": "128³",
        "r50 voxels": "3.00",
        "r90 voxels": "10.0",
        "r99 voxels": "40.0",
        "beyond half %": "6.2",
        "seen %": "50.0",
        "above 10⁻⁶ %": "12.5",
        "offset D": "−0.5",
        "offset H": "+0.0",
        "offset W": "+1.2",
        "parameters M": "5.00",
        "inputs": "7",
    }
    assert (rows[3]["r50 voxels"], rows[3]["r90 voxels"], rows[3]["offset D"]) == ("failed", "–", "–")
    assert "unetr 128³: failed: no gradient" in sheet.notes
    assert "/somewhere" not in sheet.title + "".join(sheet.notes)


def _ceiling(edge: int, **more: Any) -> Mapping[str, Any]:
    tried = [{"image_size": [edge + 16] * 3, "fits": False, "peak_memory_bytes": 1, "why": "out of memory"}]
    peak = 70 * 2**30 if edge else None
    return {"edge": edge, "image_size": None, "peak_memory_bytes": peak, "tried": tried, "finished": True, **more}


def test_the_largest_cubes_of_inference_and_training_stand_side_by_side(profile: Make) -> None:
    otherwise = [
        {"image_size": [512] * 3, "fits": False, "peak_memory_bytes": 1, "why": "out of memory"},
        {"image_size": [256] * 3, "fits": False, "peak_memory_bytes": 1, "why": "too many values"},
        {"image_size": [128] * 3, "fits": True, "peak_memory_bytes": 1, "why": ""},
    ]
    found = {
        ("unet", "infer"): _ceiling(320),
        ("unet", "train"): _ceiling(96),
        ("unetr", "infer"): _ceiling(128, tried=otherwise),
        ("unetr", "train"): _ceiling(192, finished=False),
        ("swinunetr", "train"): _ceiling(0),
        ("segresnet", "train"): _ceiling(0, finished=False),
    }
    records = [profile(model, 16, mode, what="ceiling", found=it, job=LIMIT) for (model, mode), it in found.items()]
    records.append(profile("segresnet", 16, "infer", what="ceiling", status="timeout", message="late", job=LIMIT))
    (sheet,) = measurement_sheets(records)
    assert sheet.title.endswith("4 classes out, within 80 GiB")
    rows = {row.pop("network"): row for row in _rows(sheet)}
    assert list(rows) == ["unetr", "unet", "segresnet", "swinunetr"]
    assert rows["unet"] == {
        "batch": "1",
        "largest inference": "320³",
        "inference GiB": "70.0",
        "largest training": "96³",
        "training GiB": "70.0",
    }
    cubes = {name: (row["largest inference"], row["largest training"]) for name, row in rows.items()}
    assert cubes == {
        "unet": ("320³", "96³"),
        "unetr": ("128³", "≥ 192³"),
        "swinunetr": ("–", "none"),
        "segresnet": ("timeout", "–"),
    }
    assert "≥ the time limit came before the search was over: unetr (training), segresnet (training)." in sheet.notes
    told = [note for note in sheet.notes if "not a lack of memory" in note]
    assert told == ["unetr, inference: what 256³ failed with is not a lack of memory: too many values"]
    assert "segresnet 16³: timeout: late" in sheet.notes


def test_each_limit_of_memory_has_a_table_of_its_own(profile: Make) -> None:
    limits = [{"limit_bytes": gib * 2**30} for gib in (24, 80)]
    sheets = measurement_sheets([profile(what="ceiling", found=_ceiling(64), job=limit) for limit in limits])
    assert [sheet.title.rpartition(", ")[2] for sheet in sheets] == ["within 24 GiB", "within 80 GiB"]


def _grown(
    profile: Make, model: str, exponent: float, sizes: Sequence[int] = (64, 96, 128), **more: Any
) -> list[Record]:
    """A network whose time grows as voxels to the power ``exponent``, and its memory with half of that."""
    return [
        profile(model, n, seconds=1e-9 * n ** (3 * exponent), peak=int(2e3 * n ** (1.5 * exponent)), **more)
        for n in sizes
    ]


def test_exponents_of_time_and_memory_are_found_again(profile: Make) -> None:
    records = _grown(profile, "segmamba", 1.0) + _grown(profile, "unetr", 1.5, (64, 96, 128, 160), mode="train")
    (sheet,) = scaling_sheets(records)
    assert sheet.title == "Growth with the size of the image on NVIDIA H200: bf16, 4 channels in, 4 classes out"
    assert _rows(sheet) == [
        {
            "network": "segmamba", "mode": "inference", "batch": "1", "sizes": "64³, 96³, 128³",
            "time exponent": "1.00", "time 95 %": "1.00 to 1.00",
            "time at the end": "1.00",
            "memory exponent": "0.50", "memory 95 %": "0.50 to 0.50", "memory at the end": "0.50",
        },
        {
            "network": "unetr", "mode": "training", "batch": "1", "sizes": "64³, 96³, 128³, 160³",
            "time exponent": "1.50", "time 95 %": "1.50 to 1.50",
            "time at the end": "1.50",
            "memory exponent": "0.75", "memory 95 %": "0.75 to 0.75", "memory at the end": "0.75",
        },
    ]  # fmt: skip


def test_an_exponent_takes_three_sizes_of_the_same_batch_measured_to_their_end(profile: Make) -> None:
    two = _grown(profile, "unet", 1.0, (64, 96))
    assert scaling_sheets([*two, profile("unet", 128, job={"batch": 2}), profile("unet", 128, status="oom")]) == []
    three = [*two, profile("unet", 160, seconds=1e-9 * 160**3)]
    (sheet,) = scaling_sheets([*three, profile("unet", 192, status="oom"), profile("unet", 64, job={"batch": 2})])
    (row,) = _rows(sheet)
    assert (row["sizes"], row["time exponent"]) == ("64³, 96³, 160³", "1.00")
    assert "Without unet 192³ in inference (oom)." in sheet.notes


def test_a_spread_gives_an_interval(profile: Make) -> None:
    records = _grown(profile, "unet", 1.0)
    records[1].content["measured"]["time"]["median_s"] *= 1.1
    (row,) = _rows(scaling_sheets(records)[0])
    low, high = (float(end.replace("−", "-")) for end in row["time 95 %"].split(" to "))
    assert low < 0.7 < 1.3 < high


def test_what_bends_shows_its_slope_at_the_largest_sizes(profile: Make) -> None:
    # What launches kernels for a millisecond and grows with the square of its tokens.
    records = [profile("unet", n, seconds=1e-3 + 1e-12 * n**6) for n in (128, 8, 16, 64, 32)]
    (row,) = _rows(scaling_sheets(records)[0])
    assert 0.8 < float(row["time exponent"]) < 1.2
    assert row["time at the end"] == "1.99"


def test_where_memory_is_not_known_there_is_no_exponent_of_it(profile: Make) -> None:
    records = _grown(profile, "unet", 1.0)
    records[0].content["measured"]["peak_memory_bytes"] = None
    (row,) = _rows(scaling_sheets(records)[0])
    assert row["memory exponent"] == "–"
    assert row["time exponent"] == "1.00"


def test_kinds_of_hardware_have_tables_of_their_own_and_nothing_else_grows(profile: Make) -> None:
    records = _grown(profile, "unet", 1.0) + _grown(profile, "unet", 1.0, hardware="NVIDIA H100")
    volume = {"shape": [9, 9, 9], "overlap": 0.5, "flips": 1}
    records += _grown(profile, "unet", 1.0, what="volume", job=volume)
    assert [sheet.title.partition(":")[0].rpartition(" ")[2] for sheet in scaling_sheets(records)] == ["H100", "H200"]


@pytest.mark.parametrize("width", [48, 96])
def test_mixers_grow_with_their_tokens_at_each_width(profile: Make, width: int) -> None:
    job = {"in_channels": width, "classes": width}
    records = _grown(profile, "attention", 2.0, (8, 16, 32), what="mixer", job=job)
    records += _grown(profile, "attention", 1.0, (8, 16), what="mixer", job={"in_channels": 7, "classes": 7})
    (sheet,) = scaling_sheets(records)
    (row,) = _rows(sheet)
    assert (row["mixer"], row["channels"], row["tokens"]) == ("attention", str(width), "8³, 16³, 32³")
    assert row["time exponent"] == "2.00"
    assert "tokens^p" in sheet.notes[0]
