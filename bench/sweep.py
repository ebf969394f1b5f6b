"""What a ``bench run`` set out to do, beside the records: ``results/sweeps/<id>/sweep.json``.

It is there while that command is at work, and stays where it did not come to its end, so that anybody can see what is
still to be done and which command goes on with it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.atomic import write_text
from bench.errors import BenchError
from bench.job import Job
from bench.lease import Lease, looks_alive, take

SWEEPS = "sweeps"
_FILE = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """A command and its jobs.

    Attributes:
        folder: where it lies.
        command: what the user typed, after a change to the folder it was typed in.
        jobs: key, model, dataset, protocol, seed and fold of each, in the order planned.
    """

    folder: Path
    command: str
    jobs: Sequence[Mapping[str, Any]]

    @property
    def at_work(self) -> bool:
        """Whether the command seems to be running."""
        return looks_alive(self.folder)


class OpenSweep:
    """A sweep under way. A context manager; it takes the file away once `finished` was called.

    Raises:
        BenchError: the results folder cannot be written.
    """

    def __init__(self, results: Path, jobs: Sequence[Job]) -> None:
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"
        self.folder = results / SWEEPS / name
        self._finished = False
        command = f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(['bench', *sys.argv[1:]])}"
        content = {"command": command, "jobs": [summary(job) for job in jobs]}
        write_text(self.folder / _FILE, json.dumps(content, indent=1) + "\n")
        lease = take(self.folder)
        if lease is None:
            raise BenchError(
                f"{self.folder} is held by another process; expected a folder of this one's own. Try again"
            )
        self._lease: Lease = lease

    def __enter__(self) -> OpenSweep:
        return self

    def __exit__(self, *_: object) -> None:
        self._lease.release()
        if self._finished:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):
                self.folder.parent.rmdir()

    def finished(self) -> None:
        """Every job has ended, in whatever way: nothing is left to be seen to."""
        self._finished = True


def sweeps(results: Path) -> list[Sweep]:
    """The sweeps of a results folder, oldest first; one that cannot be read is left out."""
    found = []
    for path in sorted((results / SWEEPS).glob(f"*/{_FILE}")):
        try:
            content = json.loads(path.read_text())
            jobs = [job for job in content["jobs"] if isinstance(job["key"], str)]
            found.append(Sweep(path.parent, str(content["command"]), jobs))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def forget_done(results: Path, done: Sequence[str]) -> None:
    """Take away sweeps that stopped early, and of whose jobs all are done by now."""
    for sweep in sweeps(results):
        if not sweep.at_work and {job["key"] for job in sweep.jobs} <= set(done):
            shutil.rmtree(sweep.folder, ignore_errors=True)


def summary(job: Job) -> dict[str, Any]:
    """What a job is called, for people."""
    told = {"key": job.key, "model": job.model, "dataset": job.dataset, "protocol": job.protocol.title}
    return {**told, "seed": job.seed, "fold": job.fold}
