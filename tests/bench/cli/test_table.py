"""``bench table``"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.store import Record


def test_nothing_to_show_says_how_to_make_something(bench: Callable, tmp_path: Path) -> None:
    answer = bench("table", "--results", tmp_path / "none")
    assert answer.status == 2
    assert "bench run --model" in answer.err


@pytest.mark.parametrize("how", ["text", "markdown", "csv", "latex", "html"])
def test_every_format_prints(bench: Callable, complete_record: Callable[..., Record], tmp_path: Path, how: str) -> None:
    complete_record(tmp_path)
    answer = bench("table", "--results", tmp_path, "--format", how)
    assert answer.status == 0
    assert "segmamba" in answer.out
    assert answer.err == ""


def test_an_unknown_format_suggests_the_nearest(bench: Callable, tmp_path: Path) -> None:
    answer = bench("table", "--results", tmp_path, "--format", "latx")
    assert answer.status == 2
    assert "did you mean 'latex'" in answer.err


def test_filters_choose_rows(bench: Callable, complete_record: Callable[..., Record], tmp_path: Path) -> None:
    complete_record(tmp_path, model="segmamba")
    complete_record(tmp_path, model="unetr", seed=1)
    assert "unetr" not in bench("table", "--results", tmp_path, "--model", "segmamba").out
    assert "segmamba" not in bench("table", "--results", tmp_path, "--seed", "1").out
    assert bench("table", "--results", tmp_path, "--dataset", "brats2023").status == 2


def test_a_damaged_record_is_told_on_standard_error(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path
) -> None:
    record = complete_record(tmp_path)
    (record.folder / "cases.csv").write_text("")
    answer = bench("table", "--results", tmp_path)
    assert "damaged" in answer.err
    assert "cases.csv" in answer.err
    assert "damaged" in answer.out
