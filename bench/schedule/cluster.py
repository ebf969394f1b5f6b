"""The machines there are: what they have, and whether a job fits on one of them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError

GIB = 2**30
# Jobs pass paths, not arrays.
_OBJECT_STORE_BYTES = 100 * 2**20
# Sockets have at most 107 bytes in their path; Ray adds about 65.
_LONGEST_FOLDER = 40
_KNOCK_S = 10.0
_ADDRESS = "RAY_ADDRESS"
# Workers look for packages where the driver stood first, and there a folder called data or models may lie.
_PACKAGES = Path(__file__).parents[2]


@dataclass(frozen=True)
class Needs:
    """What one job takes of a machine.

    Attributes:
        cpus: cores.
        gpus: GPUs; below 1 a share of one.
        memory_bytes: main memory that is set aside for it; 0 for none.
    """

    cpus: int
    gpus: float = 0.0
    memory_bytes: int = 0

    def __str__(self) -> str:
        parts = [f"{self.cpus} CPU cores"] if self.cpus != 1 else ["1 CPU core"]
        if self.gpus:
            parts.append(f"{self.gpus:g} GPU" + ("s" if self.gpus > 1 else ""))
        if self.memory_bytes:
            parts.append(f"{self.memory_bytes / GIB:.1f} GiB of memory")
        return ", ".join(parts)


@dataclass(frozen=True)
class Machine:
    """One machine.

    Attributes:
        name: its address or host name.
        cpus, gpus, memory_bytes: all that it has for jobs.
        gpu_kind: of its GPUs, where Ray knows it.
    """

    name: str
    cpus: float
    gpus: float
    memory_bytes: float
    gpu_kind: str = ""

    def fits(self, needs: Needs) -> bool:
        """Whether a job could run on it were it idle."""
        return self.cpus >= needs.cpus and self.gpus >= needs.gpus and self.memory_bytes >= needs.memory_bytes

    def __str__(self) -> str:
        gpus = f"{self.gpus:g} GPUs{f' ({self.gpu_kind})' if self.gpu_kind else ''}, " if self.gpus else ""
        return f"{self.name}: {gpus}{self.cpus:g} CPU cores, {self.memory_bytes / GIB:.0f} GiB"


def this_machine(gpus: int) -> Machine:
    """What a Ray that is started here would have; Ray itself keeps some of the memory.

    Args:
        gpus: as torch counts them.
    """
    return Machine("this machine", len(_cores()), gpus, _available_bytes())


def check_fits(machines: Sequence[Machine], needs: Needs) -> None:
    """See that a job fits on some machine; Ray would wait for ever for one that comes.

    Raises:
        BenchError: it fits on none.
    """
    if any(machine.fits(needs) for machine in machines):
        return
    listing = "\n".join(f"  {machine}" for machine in machines) or "  (none)"
    raise BenchError(
        f"each job needs {needs} on one machine, and none has that:\n{listing}\nAsk for less with --gpus-per-job, "
        "--cpus-per-job or --ram-gib, or add a machine; where machines are started on demand, start one first"
    )


def room(machines: Sequence[Machine], needs: Needs) -> int:
    """How many jobs all machines together run at once."""
    total = 0
    for machine in machines:
        parts = [machine.cpus / needs.cpus]
        parts += [machine.gpus / needs.gpus] if needs.gpus else []
        parts += [machine.memory_bytes / needs.memory_bytes] if needs.memory_bytes else []
        total += int(min(parts) + 1e-9)  # three times a third is a whole
    return total


@contextmanager
def connected(address: str = "", *, gpus: int | None = None) -> Iterator[list[Machine]]:
    """Join a cluster, or start a Ray of this machine's own that ends with the block.

    Args:
        address: of the cluster's head, ``auto`` for the one that runs on this machine; else RAY_ADDRESS, else none.
        gpus: of a Ray that is started here; None lets Ray count.

    Yields:
        The machines.

    Raises:
        BenchError: there is no cluster under that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # else a job without GPUs sees them all
    os.environ.setdefault("RAY_task_oom_retries", "0")  # how often is ours to say
    # A job whose worker dies is to save its state; it notices by itself.
    os.environ.setdefault("RAY_kill_child_processes_on_worker_exit", "false")
    import ray

    mine = not ray.is_initialized()
    if mine:
        with contextlib.chdir(_PACKAGES):
            _init(ray, address or os.environ.get(_ADDRESS, ""), gpus)
    try:
        yield machines()
    finally:
        if mine:
            ray.shutdown()


def machines() -> list[Machine]:
    """The machines of the cluster that this process has joined and that are alive."""
    import ray

    found = []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        resources: dict[str, float] = node["Resources"]
        kind = next((name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")), "")
        found.append(
            Machine(
                f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
                resources.get("CPU", 0.0),
                resources.get("GPU", 0.0),
                resources.get("memory", 0.0),
                kind,
            )
        )
    return found


def _init(ray: Any, address: str, gpus: int | None) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    quiet = io.StringIO()
    if address and address != "local":
        try:
            _knock(address)
            with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
                ray.init(address=address, **settings)
        except (OSError, ValueError, RuntimeError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
            raise BenchError(
                f"no Ray cluster under {address!r}: {reason}. Expected HOST:PORT of its head as `ray start --head` "
                "printed it, or auto on a machine of the cluster; all need the same versions of Python and Ray"
            ) from None
        return
    folder = tempfile.gettempdir()
    if len(folder) > _LONGEST_FOLDER and Path("/tmp").is_dir():
        settings["_temp_dir"] = "/tmp/ray"
    try:
        ray.init(
            address="local",
            num_cpus=len(_cores()),
            num_gpus=gpus,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            **settings,
        )
    except (ConnectionError, ValueError, RuntimeError, OSError, TimeoutError) as error:
        raise BenchError(
            f"Ray does not start on this machine: {error}. --scheduler inline runs the jobs without it"
        ) from error


def _available_bytes() -> int:
    """Memory that is free, or holds copies of files and can be had; where the system does not tell, all; else 0."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _knock(address: str) -> None:
    """See whether anybody answers under HOST:PORT; Ray would try for minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _cores() -> Sequence[int]:
    """Those that this process may use, which in a container or under Slurm are not all."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:
        return range(os.cpu_count() or 1)
