"""Tables of selective scans: ratios, and what may stand beside what."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from bench.report.costs import costs
from bench.report.profiles import measurement_sheets, profiles_csv, profiles_sheets, scaling_sheets
from bench.report.profiles.drawn import drawn
from bench.report.render import render_sheets
from bench.report.sheet import Sheet
from bench.store import Record

Make = Callable[..., Record]
BACKENDS = {
    "triton": ("Triton", "triton", "channels_last"),
    "triton_channels_first": ("Triton, channels first", "triton", "channels_first"),
    "mamba_ssm": ("mamba-ssm", "mamba_ssm", "channels_first"),
    "torch": ("PyTorch", "torch", "channels_last"),
}


@pytest.fixture
def scan(profile: Make) -> Make:
    """Writes the record of a scan that moves a byte for each token and channel, at 2 GB/s."""

    def make(
        name: str = "triton",
        size: int = 64,
        mode: str = "infer",
        seconds: float = 0.1,
        width: int = 96,
        repeats: int = 20,
        status: str = "complete",
        **more: Any,
    ) -> Record:
        title, backend, layout = BACKENDS[name]
        job = {"in_channels": width, "classes": width, "backend": backend, "layout": layout, "states": 16}
        low = None if repeats < 6 else seconds
        time = {"median_s": seconds, "median_low_s": low, "repeats": repeats, "rule": "often", "parts": {}}
        found = {
            "time": time,
            "memory": {"peak_allocated_bytes": 5 * 2**20},
            "peak_memory_bytes": 5 * size**3,
            **{"tokens": size**3, "bytes": width * size**3, "copy_bytes_per_s": 2e9, "floor_s": width * size**3 / 2e9},
        }
        found = found if status == "complete" else {"memory": {"peak_allocated_bytes": 7 * 2**20}}
        job |= more.pop("job", {})
        return profile(name, size, mode, what="scan", job=job, found=found, status=status, title=title, **more)

    return make


def _rows(sheet: Sheet) -> list[dict[str, str]]:
    heads = [column.label for column in sheet.columns]
    assert len(set(heads)) == len(heads)
    return [{head: cell.text + cell.mark for head, cell in zip(heads, row, strict=True)} for row in sheet.rows]


def _one(records: list[Record]) -> Sheet:
    (sheet,) = measurement_sheets(records)
    return sheet


def test_forward_and_backward_stand_beside_each_other_with_their_ratios(scan: Make) -> None:
    records = [
        scan("triton", seconds=0.025),
        scan("triton", mode="train", seconds=0.2),
        scan("mamba_ssm", seconds=0.05),
        scan("mamba_ssm", mode="train", seconds=0.5),
        scan("torch", seconds=2.0),
    ]
    sheet = _one(records)
    assert sheet.title == "Selective scans on NVIDIA H200: bf16, 16 states"
    # 96 · 262,144 bytes at 2 GB/s are 12.58 ms.
    of_triton, of_mamba_ssm, of_torch = _rows(sheet)
    assert of_triton == {
        "backend": "triton",
        "layout": "channels last",
        "channels": "96",
        "tokens": "262,144",
        "batch": "1",
        "forward ms": "25.0",
        "inference floor ms": "12.6",
        "inference ÷ floor": "1.99",
        "inference speed-up": "2.00",
        "inference peak MiB": "5.00",
        "forward + backward ms": "200",
        "training floor ms": "12.6",
        "training ÷ floor": "15.9",
        "training speed-up": "2.50",
        "training peak MiB": "5.00",
    }
    assert (of_mamba_ssm["backend"], of_mamba_ssm["layout"]) == ("mamba_ssm", "channels first")
    assert (of_mamba_ssm["inference speed-up"], of_mamba_ssm["training speed-up"]) == ("–", "–")
    assert (of_torch["inference speed-up"], of_torch["forward + backward ms"]) == ("0.0250", "–")
    assert any(note.startswith("Speed-up: the time of the published kernel, mamba_ssm") for note in sheet.notes)


def test_the_published_kernel_is_compared_at_the_same_size_width_batch_and_mode_alone(scan: Make) -> None:
    others = [
        scan("mamba_ssm", 32),
        scan("mamba_ssm", width=48),
        scan("mamba_ssm", job={"batch": 2}),
        scan("mamba_ssm", mode="train"),
    ]
    rows = _rows(_one([scan("triton"), *others]))
    assert all(row.get("inference speed-up", "–") == "–" for row in rows)
    assert "inference speed-up" not in rows[0]
    beside = _rows(_one([scan("triton", mode="train", seconds=0.05), *others]))
    assert [row["training speed-up"] for row in beside if row["backend"] == "triton"] == ["2.00"]
    elsewhere = measurement_sheets([scan("triton"), scan("mamba_ssm", job={"precision": "fp32"})])
    assert not any("speed-up" in column.label for sheet in elsewhere for column in sheet.columns)


def test_rows_stand_by_width_and_tokens_then_the_fastest_first(scan: Make) -> None:
    records = [
        scan(name, size, seconds=seconds, width=width)
        for width, size in ((96, 32), (48, 64), (96, 64), (48, 32))
        for name, seconds in (("torch", 0.3), ("triton_channels_first", 0.2), ("triton", 0.1))
    ]
    expected = [
        (width, tokens, backend, layout)
        for width in ("48", "96")
        for tokens in ("32,768", "262,144")
        for backend, layout in (
            ("triton", "channels last"),
            ("triton", "channels first"),
            ("torch", "channels last"),
        )
    ]
    found = [(row["channels"], row["tokens"], row["backend"], row["layout"]) for row in _rows(_one(records))]
    assert found == expected
    for order in itertools.islice(itertools.permutations(records), 0, 5000, 999):
        assert _one(list(order)) == _one(records)


def test_backends_share_a_table_and_hardware_precision_and_states_do_not(scan: Make) -> None:
    records = [scan(name) for name in BACKENDS]
    records += [scan(hardware="NVIDIA H100"), scan(job={"precision": "fp32"}), scan(job={"states": 8})]
    sheets = measurement_sheets(records)
    assert sorted(len(sheet.rows) for sheet in sheets) == [1, 1, 1, 4]
    assert {sheet.title for sheet in sheets} == {
        "Selective scans on NVIDIA H200: bf16, 16 states",
        "Selective scans on NVIDIA H100: bf16, 16 states",
        "Selective scans on NVIDIA H200: fp32, 16 states",
        "Selective scans on NVIDIA H200: bf16, 8 states",
    }


def test_what_came_to_no_end_says_why_and_how_far_it_was(scan: Make) -> None:
    oom = scan("torch", status="oom", message="no room")
    sheet = _one([oom, scan("torch", mode="train", seconds=0.3, repeats=3)])
    (row,) = _rows(sheet)
    assert (row["forward ms"], row["inference peak MiB"]) == ("oom", "≥ 7.00")
    assert (row["forward + backward ms"], row["training ÷ floor"]) == ("300†", "23.8")
    assert "PyTorch 96 channels 64³: oom: no room" in sheet.notes
    assert any(note.startswith("†") for note in sheet.notes)
    assert not any(column.label.startswith("inference ÷") for column in sheet.columns)


def test_notes_say_what_the_floor_is_and_name_no_backend_or_cudnn_for_all(scan: Make) -> None:
    records = [scan("triton"), scan("mamba_ssm")]
    records[1].content["provenance"]["packages"] = {"mamba-ssm": "2.3.0", "triton": "3.6.0"}
    notes = _one(records).notes
    (floor,) = [note for note in notes if note.startswith("Floor")]
    assert "each process measured for itself (2.00 GB/s)" in floor
    assert "Kernels by mamba-ssm 2.3.0." in notes
    assert notes[-1] == "NVIDIA H200, PyTorch 2.11.0+cu130, code abcdef012345."


def test_scans_grow_with_their_tokens(scan: Make) -> None:
    records = [
        scan(name, n, seconds=1e-9 * n**3 * factor)
        for n in (16, 32, 64)
        for name, factor in (("triton", 1), ("torch", 9))
    ]
    (sheet,) = scaling_sheets(records)
    assert sheet.title == "Growth with the number of tokens on NVIDIA H200: bf16, 16 states"
    assert [(row["scan"], row["channels"], row["tokens"], row["time exponent"]) for row in _rows(sheet)] == [
        ("PyTorch", "96", "16³, 32³, 64³", "1.00"),
        ("Triton", "96", "16³, 32³, 64³", "1.00"),
    ]
    assert [one.name for one in drawn(records)] == ["scans-infer-1"]


def test_networks_look_the_same_whether_scans_stand_beside_them(scan: Make, profile: Make) -> None:
    def colours(records: list[Record]) -> set[str]:
        figure = next(one.figure for one in drawn(records) if one.name.startswith("growth"))
        return {line.get_color() for axes in figure.axes for line in axes.lines if line.get_gid() == "growth"}

    networks = [profile("unet", n, seconds=n / 1e3) for n in (64, 96, 128)]
    assert colours([*networks, *(scan(name) for name in BACKENDS)]) == colours(networks)


def test_they_are_in_every_export_and_no_cost_of_a_network(scan: Make) -> None:
    records = [scan("triton"), scan("mamba_ssm", mode="train")]
    for how in ("text", "markdown", "latex", "html"):
        assert "Selective scans" in render_sheets(profiles_sheets(records), how)
    head, *lines = profiles_csv(records).splitlines()
    assert {"floor_s", "bytes", "copy_bytes_per_s", "tokens", "layout", "states", "backend"} <= set(head.split(","))
    assert len(lines) == 2
    assert costs(records) is None
