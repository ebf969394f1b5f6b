"""The plan of the house: which room may import which, and what starts light."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _loaded(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.split())


def test_imports_go_one_way() -> None:
    """The contracts stand in pyproject.toml."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import bench.cli.app", {"torch", "monai", "numpy", "pandas", "scipy", "nibabel", "ray", "matplotlib"}),
        ("import models", {"torch", "monai"}),
        ("import data", {"torch", "nibabel", "scipy"}),
        ("import bench.report.table, bench.store, bench.metrics", {"torch", "monai", "nibabel", "ray"}),
        ("import bench.engine.run", {"ray", "monai"}),
        ("import bench.schedule.inline", {"torch", "monai", "models.segmamba"}),
    ],
)
def test_importing_does_not_load(statement: str, heavy: set[str]) -> None:
    assert not heavy & _loaded(statement)


@pytest.mark.alone
def test_help_answers_in_half_a_second() -> None:
    command = [str(Path(sys.executable).with_name("bench")), "--help"]
    times = []
    for _ in range(5):
        started = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.monotonic() - started)
    assert statistics.median(times) < 0.5
