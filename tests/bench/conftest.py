"""Jobs and records made without training, for tests of what surrounds it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import models
from bench.job import Job
from bench.metrics import RegionMeasurement
from bench.protocol import load_protocol
from bench.store import Record, Store
from data.split import Split, fold_cases

REGIONS = ("WT", "TC", "ET")


@pytest.fixture
def make_job() -> Callable[..., Job]:
    """A job on invented data; ``changes`` are --set options. With ``fold`` the cases are dealt into the protocol's."""

    def make(
        model: str = "segmamba",
        seed: int = 0,
        preset: str = "demo",
        changes: tuple[str, ...] = (),
        fingerprint: str = "f" * 64,
        cases: int = 4,
        fold: int | None = None,
    ) -> Job:
        ids = [f"BraTS-PHA-{n:05d}-000" for n in range(cases + 2)]
        protocol = load_protocol(preset, changes)
        if fold is None:
            split = Split(train=tuple(ids[:2]), validation=(), test=tuple(ids[2:]), seed=42)
        else:
            patients, fields = {case: case for case in ids[2:]}, protocol.split
            split = fold_cases(patients, folds=fields.folds or 0, validation=0, seed=fields.seed)[fold]
        options = models.resolve_options(model, protocol.model_options.get(model, {}))
        return Job(model, options, "phantom", fingerprint, protocol, split, seed, fold=fold)

    return make


@pytest.fixture
def measured() -> Callable[..., dict[str, list[RegionMeasurement]]]:
    """Measurements of invented cases, Dice near ``dice``; the last case has no enhancing tumour."""

    def make(cases: int = 4, dice: float = 0.8, seed: int = 0) -> dict[str, list[RegionMeasurement]]:
        random = np.random.default_rng(seed)
        return {
            f"BraTS-PHA-{n + 2:05d}-000": [
                RegionMeasurement(region, 1.0, 0.0, 0.0, 0.0, "both")
                if (region, n) == ("ET", cases - 1)
                else RegionMeasurement(
                    region, dice + random.uniform(-0.1, 0.1), random.uniform(1, 9), 50.0, 60.0, "neither"
                )
                for region in REGIONS
            ]
            for n in range(cases)
        }

    return make


@pytest.fixture
def complete_record(
    make_job: Callable[..., Job], measured: Callable[..., dict[str, list[RegionMeasurement]]]
) -> Callable[..., Record]:
    """Writes a complete record with invented scores."""

    def make(root: Path, dice: float = 0.8, cases: int = 4, **job: object) -> Record:
        made = make_job(cases=cases, **job)
        record = Store(root).open_run(
            made,
            data={"regions": {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}, "synthetic": True},
            default_options={"feat_size": [48, 96, 192, 384]},
            references={case: case for case in made.split.test},
        )
        record.write_split(made.split.to_dict())
        found = measured(cases, dice, seed=made.seed)
        record.write_cases({case: found[case] for case in made.split.test})
        record.write_history([{"step": 1, "loss": 0.5}])
        return record.finish("complete")

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if not done or done.returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
