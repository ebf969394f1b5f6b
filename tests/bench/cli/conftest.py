"""The command as a user types it, in this process, on a small phantom of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.cli.app import main
from data.phantom import write_dataset


@dataclass(frozen=True)
class Answer:
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Answer]:
    """``bench("table", "--results", folder)``; caches and configuration are the test's own."""
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("BENCH_BRATS2023_DIR", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as leave:
            status = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of 32³ voxels."""
    root = tmp_path_factory.mktemp("phantoms")
    write_dataset(root, cases=6, size=32, seed=1)
    return root


TINY = ("--set", "train.steps=2", "--set", "model_options.segresnet.init_filters=8")


@pytest.fixture
def tiny_run(bench: Callable[..., Answer], phantoms: Path, tmp_path: Path) -> Callable[..., Answer]:
    """``bench run`` of a small network for two steps; more options may follow."""

    def call(*more: object) -> Answer:
        common = ("run", "--model", "segresnet", "--dataset", "phantom", "--data-dir", phantoms, *TINY)
        return bench(*common, "--results", tmp_path / "results", *more)

    return call
