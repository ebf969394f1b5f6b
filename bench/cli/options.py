"""Options that read the same in every verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import BenchError

Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Folder of records.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Root of the dataset; else BENCH_<NAME>_DIR, else bench.toml."),
]
Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="NAME[,NAME…]",
        help="Networks to run; 'all' for the eight of the SegMamba paper. May be repeated.",
    ),
]
Seeds = Annotated[str, typer.Option("--seed", metavar="N[,N…]", help="Seeds of weights and patches.")]
Fold = Annotated[
    str, typer.Option("--fold", metavar="K[,K…]", help="Folds of a cross-validation, numbered from 0; by default all.")
]
Changes = Annotated[
    list[str],
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the protocol. May be repeated."),
]
Values = Annotated[
    list[str],
    typer.Option("--set", metavar="FIELD=VALUE", help="Only runs whose protocol has that value. May be repeated."),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1; by default the GPU if there is one.")]

JOBS, MACHINES = "How jobs run", "Where jobs run"

Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", metavar="HOURS", min=0, help="End each job after that time; 0 for never.", rich_help_panel=JOBS
    ),
]
CheckpointEvery = Annotated[
    float,
    typer.Option(
        "--checkpoint-every", metavar="SECONDS", min=0, help="Time between checkpoints.", rich_help_panel=JOBS
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", min=-1, help="Threads that cut patches; -1 chooses.", rich_help_panel=JOBS)
]
RayAddress = Annotated[
    str,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Cluster to join; auto for the one on this machine.",
        rich_help_panel=MACHINES,
    ),
]
GpusPerJob = Annotated[
    float,
    typer.Option(
        "--gpus-per-job",
        metavar="N",
        min=0.01,
        help="Devices that share each batch of a job; below 1, with ray, a share of one.",
        rich_help_panel=MACHINES,
    ),
]
CpusPerJob = Annotated[
    int,
    typer.Option(
        "--cpus-per-job", metavar="N", min=0, help="CPU cores, with ray; 0 chooses.", rich_help_panel=MACHINES
    ),
]
RamGib = Annotated[
    float,
    typer.Option(
        "--ram-gib",
        metavar="N",
        min=0,
        help="Main memory set aside for a job, with ray; 0 chooses.",
        rich_help_panel=MACHINES,
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        "--retries",
        metavar="N",
        min=0,
        help="How often a job goes on whose process or machine died, with ray.",
        rich_help_panel=MACHINES,
    ),
]


_SEEDS = 2**32  # numpy takes no larger seed


def split_names(values: list[str]) -> list[str]:
    """``["a,b", "c"]`` to ``["a", "b", "c"]``, without repeats."""
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    return list(dict.fromkeys(names))


def parse_seeds(text: str) -> list[int]:
    """``"0,1,2"`` to numbers.

    Raises:
        BenchError: not whole numbers from 0.
    """
    parts = split_names([text])
    if not parts or not all(part.isascii() and part.isdecimal() and int(part) < _SEEDS for part in parts):
        raise BenchError(
            f"--seed {text!r}: expected whole numbers from 0 to {_SEEDS - 1}, separated by commas, e.g. --seed 0,1,2"
        )
    return list(dict.fromkeys(int(part) for part in parts))


def parse_folds(text: str) -> list[int]:
    """``"0,2"`` to numbers; empty for ``all``.

    Whether a protocol has these folds is asked of `bench.plan.choose_folds`.

    Raises:
        BenchError: not whole numbers from 0.
    """
    parts = split_names([text])
    if parts == ["all"]:
        return []
    if not parts or not all(part.isascii() and part.isdecimal() for part in parts):
        raise BenchError(
            f"--fold {text!r}: expected whole numbers from 0, separated by commas, e.g. --fold 0,1,2, or all"
        )
    return list(dict.fromkeys(int(part) for part in parts))
