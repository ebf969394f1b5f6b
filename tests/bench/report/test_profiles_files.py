"""Measured costs as files and as a section of the report."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.progress import SilentWatcher
from bench.report.profiles import profiles_csv, profiles_sheets, write_profiles
from bench.report.profiles.drawn import drawn
from bench.report.select import Request, Selection, select
from bench.report.table import Choice
from bench.report.write import write_report
from bench.store import Record, Store

Make = Callable[..., Record]


def _planes() -> bytes:
    content = io.BytesIO()
    planes = {name: np.full((8, 8), -3, dtype=np.float16) for name in ("axial", "coronal", "sagittal")}
    np.savez_compressed(content, radius=np.arange(3), share=np.ones(3), **planes)
    return content.getvalue()


@pytest.fixture
def measurements(profile: Make) -> list[Record]:
    """Three sizes of a network, and receptive fields of two, one of them without its file."""
    field = {
        "radii": {"r50": 1.0, "r90": 2.0, "r99": 3.0},
        "radial": {"radius": [0, 1, 2], "share": [0.1, 0.6, 1.0]},
        "axes": {"D": 0.0, "H": 0.0, "W": 0.0},
        **{"seen": 1.0, "seen_1e6": 1.0, "beyond_half": 0.0, "parameters": 9, "inputs": 8},
    }
    of_field = {"what": "receptive-field", "found": field, "job": {"inputs": 8, "run": ""}}
    return [
        *(profile("unet", size, seconds=size**3 / 1e6) for size in (64, 96, 128)),
        profile("unet", 8, files={"receptive_field.npz": _planes()}, **of_field),
        profile("unetr", 8, **of_field),
    ]


def _select(root: Path, **asked: object) -> Selection:
    nothing = {"models": [], "dataset": "", "protocol": "", "seeds": [], "convention": "", "published": False}
    return select(Request(results=root, choice=Choice(), allow_mixed=False, **{**nothing, **asked}))


def test_tables_and_figures_are_written_and_linked(measurements: list[Record], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "figures").mkdir(parents=True)
    for name in ("profile_growth-99.svg", "cost-1.svg"):  # of an earlier call, and of a report
        (folder / "figures" / name).write_text("<svg/>")
    written = write_profiles(measurements, folder)
    markdown = written[0].read_text()
    assert written[0] == folder / "profiles.md"
    for sheet in profiles_sheets(measurements):
        assert f"**{sheet.title}**" in markdown
    links = re.findall(r"\]\((figures/[^)]*)\)", markdown)
    assert [folder / link for link in links] == written[1:]
    assert [path.name.split("-")[0] for path in written[1:]] == ["profile_growth", "profile_fields", "profile_radial"]
    assert {path.name for path in (folder / "figures").iterdir()} == {"cost-1.svg", *(one.name for one in written[1:])}
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_profiles(measurements, folder)] == before


def test_batches_are_told_in_the_panels_and_a_network_keeps_its_look(profile: Make) -> None:
    records = [
        profile("unet", size, mode=mode, seconds=size / 1e3, job={"batch": batch})
        for size in (64, 96, 128)
        for mode, batch in (("infer", 1), ("train", 2))
    ]
    (one,) = drawn(records)
    assert [axes.get_title("left") for axes in one.figure.axes[::3]] == ["inference, batch 1", "training, batch 2"]
    colours = {line.get_color() for axes in one.figure.axes for line in axes.lines if line.get_gid() == "growth"}
    assert len(colours) == 1


def test_without_its_file_a_receptive_field_has_its_curve_alone(measurements: list[Record], tmp_path: Path) -> None:
    written = write_profiles(measurements[-1:], tmp_path / "out")
    assert [path.name for path in written[1:]] == ["profile_radial-1.svg"]


def test_all_figures_are_in_the_csv_in_full_precision(profile: Make) -> None:
    listed = [{"name": "aten::conv", "calls": 1.0, "seconds": 0.1, "share": 1.0}]
    records = [
        profile("unet", (64, 64, 96), seconds=1 / 3, found={"operators": listed}, asked_size=[64, 64, 100]),
        profile("unetr", status="oom", message="no, thanks", found={"memory": {"peak_process_bytes": 7}}),
    ]
    frame = pd.read_csv(io.StringIO(profiles_csv(records)), float_precision="round_trip").set_index("model")
    unet, unetr = frame.loc["unet"], frame.loc["unetr"]
    assert unet["time.median_s"] == 1 / 3
    assert (unet["image_size"], unet["asked_size"], unet["status"]) == ("64x64x96", "64x64x100", "complete")
    assert (unet["memory.peak_allocated_bytes"], unet["operations.scan"]) == (3 * 2**30, 0)
    assert (unetr["status"], unetr["message"], unetr["memory.peak_process_bytes"]) == ("oom", "no, thanks", 7)
    assert ",67000000," in profiles_csv(records)
    assert not any("operators" in name or "uncounted" in name for name in frame.columns)
    assert profiles_csv([]) == ""


def test_profiles_have_a_section_beside_the_runs_of_a_folder(
    measurements: list[Record], complete_record: Make, tmp_path: Path
) -> None:
    complete_record(tmp_path)
    found = _select(tmp_path)
    assert {record.key for record in found.profiles} == {record.key for record in measurements}
    html, markdown = _written(found, tmp_path)
    titles = re.findall(r"^## (.*)$", markdown, re.MULTILINE)
    assert titles.index("What they cost, measured") == titles.index("Provenance") + 1
    section = markdown[markdown.index("## What they cost, measured") :]
    links = re.findall(r"\]\((figures/[^)]*)\)", section)
    assert len(links) == 3
    assert all((tmp_path / "report" / link).exists() for link in links)
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert "phantom; protocol demo" in markdown


@pytest.mark.usefixtures("measurements")
def test_only_the_networks_that_are_named_are_shown(complete_record: Make, tmp_path: Path) -> None:
    complete_record(tmp_path, model="unetr")
    found = _select(tmp_path, models=["unetr"])
    assert {record.content["job"]["model"] for record in found.profiles} == {"unetr"}


@pytest.mark.usefixtures("measurements")
def test_a_folder_of_profiles_alone_has_a_page_of_them(tmp_path: Path) -> None:
    found = _select(tmp_path, profiles_alone=True)
    assert (found.records, found.tables, found.told) == ([], [], [])
    html, markdown = _written(found, tmp_path)
    assert re.findall(r"^## (.*)$", markdown, re.MULTILINE) == ["What they cost, measured"]
    assert "Measured on NVIDIA H200\n" in markdown
    assert 'id="measured"' in html


def test_without_profiles_there_is_no_such_section(complete_record: Make, tmp_path: Path) -> None:
    complete_record(tmp_path)
    _, markdown = _written(_select(tmp_path), tmp_path)
    assert "measured" not in markdown


@pytest.mark.usefixtures("measurements")
def test_where_scores_are_asked_for_profiles_are_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"no record in .* to show(.|\n)*bench profile --show"):
        _select(tmp_path)


@pytest.mark.usefixtures("measurements")
def test_filters_that_no_run_passes_are_told_though_there_are_profiles(complete_record: Make, tmp_path: Path) -> None:
    complete_record(tmp_path)
    with pytest.raises(BenchError, match="with these filters"):
        _select(tmp_path, dataset="brats2023", profiles_alone=True)
    with pytest.raises(BenchError, match="to show\nMake one") as error:
        _select(tmp_path / "none", profiles_alone=True)
    assert "bench profile" not in str(error.value)


def _written(found: Selection, root: Path) -> tuple[str, str]:
    """Page and Markdown."""
    written = write_report(found.tables, [], root / "report", "Title", 0, SilentWatcher(), found.profiles)
    assert Store(root / "report").records() == []
    html, markdown = (path.read_text() for path in written)
    return html, markdown
