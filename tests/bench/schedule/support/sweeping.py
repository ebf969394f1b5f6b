"""Sweeps as a user starts them, and a cluster of several machines in one, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.lease import newest
from bench.store import WEIGHTS, Record, Store

_Held = TypeVar("_Held")
COMMAND = [sys.executable, "-c", "import sys; sys.argv[0] = 'bench'; from bench.cli.app import main; main()"]
STEPS = 40
CHANGES = (
    *("--set", f"train.steps={STEPS}", "--set", "train.steps_per_epoch=1", "--set", "validation.every_epochs=none"),
    *("--set", "evaluate.untrained=false", "--set", "evaluate.checkpoint=last", "--set", "data.patch_size=16"),
    *("--set", "infer.mirror_axes=none", "--checkpoint-every", "0.5"),
)


@dataclass
class Sweeps:
    """Starts ``bench run`` on one results folder.

    Attributes:
        phantoms: the data.
        results: the folder.
        environment: of every command.
        started: the commands that run.
    """

    phantoms: Path
    results: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self, *arguments: object, results: Path | None = None, pause_s: float | None = None
    ) -> subprocess.Popen[str]:
        """A command in a session of its own, its output in one pipe; each step takes ``pause_s`` more."""
        shared = ("run", "--model", "shaky", "--dataset", "phantom", "--data-dir", self.phantoms, *CHANGES)
        process = subprocess.Popen(
            [*COMMAND, *map(str, (*shared, "--results", results or self.results, *arguments))],
            env=self.environment if pause_s is None else {**self.environment, "SHAKY_PAUSE_S": str(pause_s)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def records(self) -> dict[int, Record]:
        """By seed."""
        return {record.content["job"]["seed"]: record for record in Store(self.results).records()}

    def steps(self, record: Record) -> int:
        """Of the training so far."""
        return int((record.last_epoch() or {}).get("step", 0))

    def wait(self, condition: Callable[[], _Held], seconds: float = 90) -> _Held:
        """Until something holds; what it was."""
        until = time.monotonic() + seconds
        while not (held := condition()):
            assert time.monotonic() < until, {seed: r.status for seed, r in self.records().items()}
            time.sleep(0.1)
        return held

    def killable(self, count: int) -> list[Record]:
        """While so many train or more, those that have a checkpoint to go on from and are far from their end.

        Not all must be: where processes take longer to start than jobs to end, never are.
        """
        found = self.running()
        ready = [record for record in found if (record.folder / WEIGHTS).exists() and self.steps(record) < STEPS // 2]
        return ready if len(found) >= count else []

    def running(self, steps: int = 1) -> list[Record]:
        """Those that train, and have for so many steps."""
        return [r for r in self.records().values() if r.status == "running" and self.steps(r) >= steps]


def install_shaky(folder: Path) -> None:
    """Lay the network of these tests out as an installed distribution."""
    info = folder / "shaky-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("shaky.py"), folder)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shaky\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[segmamba_bench.models]\nshaky = shaky:shaky\n")


def environment_with(plugin: Path, cache: Path, pause_s: float) -> dict[str, str]:
    """In which the network is known and its steps take so much longer, on one core, with a cache of its own."""
    return {
        **os.environ,
        "PYTHONPATH": str(plugin),
        "BENCH_CACHE_DIR": str(cache),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "SHAKY_PAUSE_S": str(pause_s),
    }


def process_of(record: Record) -> int:
    """The process that holds a record."""
    holder = newest(record.folder)
    assert holder is not None
    return int(holder.facts["pid"])


def trainings() -> list[int]:
    """Every process on this machine that carries out an order."""
    found = subprocess.run(
        ["pgrep", "-f", "--", "-m bench.engine.process"], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]


@dataclass
class FakeCluster:
    """Three machines with a core and a GPU each, in one, from a process of its own."""

    process: subprocess.Popen[str]
    address: str

    def crash(self, number: int) -> None:
        """Kill one of the two machines that are not the head."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "gone"
