"""Machines and what a job takes of them; Ray itself is not started here."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.errors import BenchError
from bench.schedule import cluster
from bench.schedule.cluster import GIB, Machine, Needs, check_fits, machines, this_machine

SMALL = Machine("small", cpus=4, gpus=0, memory_bytes=8 * GIB)
LARGE = Machine("large", cpus=64, gpus=8, memory_bytes=512 * GIB, gpu_kind="H100")


@pytest.mark.parametrize(
    ("needs", "small", "large"),
    [
        (Needs(1), True, True),
        (Needs(4, memory_bytes=8 * GIB), True, True),
        (Needs(5), False, True),
        (Needs(1, gpus=0.5), False, True),
        (Needs(1, gpus=8), False, True),
        (Needs(1, gpus=9), False, False),
        (Needs(1, memory_bytes=9 * GIB), False, True),
        (Needs(64, 8, 512 * GIB), False, True),
        (Needs(64, 8, 512 * GIB + 1), False, False),
    ],
)
def test_a_job_fits_where_everything_that_it_needs_is_on_one_machine(needs: Needs, small: bool, large: bool) -> None:
    assert (SMALL.fits(needs), LARGE.fits(needs)) == (small, large)
    if small or large:
        check_fits([SMALL, LARGE], needs)
    else:
        with pytest.raises(BenchError, match="on one machine"):
            check_fits([SMALL, LARGE], needs)


def test_what_fits_nowhere_is_told_with_what_there_is() -> None:
    with pytest.raises(BenchError) as told:
        check_fits([SMALL, LARGE], Needs(16, 0.5, 600 * GIB))
    for part in (
        "16 CPU cores, 0.5 GPU, 600.0 GiB of memory",
        "small: 4 CPU cores, 8 GiB",
        "large: 8 GPUs (H100), 64 CPU cores, 512 GiB",
        "--gpus-per-job, --cpus-per-job or --ram-gib",
    ):
        assert part in str(told.value)
    with pytest.raises(BenchError, match="\\(none\\)"):
        check_fits([], Needs(1))


def test_needs_are_told_in_words() -> None:
    assert str(Needs(1)) == "1 CPU core"
    assert str(Needs(2, 1)) == "2 CPU cores, 1 GPU"
    assert str(Needs(2, 2, 3 * GIB // 2)) == "2 CPU cores, 2 GPUs, 1.5 GiB of memory"


def test_this_machine_has_the_cores_that_this_process_may_use() -> None:
    found = this_machine(3)
    assert found.cpus == len(os.sched_getaffinity(0))
    assert found.gpus == 3
    assert GIB / 4 < found.memory_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_memory_that_holds_copies_of_files_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "MemTotal: 100 kB\nMemFree:  10 kB\nMemAvailable:  70 kB\n"
    monkeypatch.setattr(cluster.Path, "read_text", lambda _path: text)
    assert this_machine(0).memory_bytes == 70 * 1024


def test_a_system_that_tells_less_has_all_its_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(cluster.Path, "read_text", refuse)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    found = this_machine(0)
    assert found.cpus == 12
    assert found.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_machines_are_those_that_live(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def node(name: str, alive: bool, **resources: float) -> dict[str, object]:
        return {"Alive": alive, "NodeManagerHostname": name, "NodeManagerAddress": "10.0.0.1", "Resources": resources}

    nodes = [
        node("one", True, CPU=4.0, memory=2.0 * GIB),
        node("gone", False, CPU=64.0),
        node("two", True, CPU=8.0, GPU=2.0, memory=8.0 * GIB, **{"accelerator_type:H100": 1.0}),
        node("head", True),
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert machines() == [
        Machine("one (10.0.0.1)", 4, 0, 2 * GIB),
        Machine("two (10.0.0.1)", 8, 2, 8 * GIB, "H100"),
        Machine("head (10.0.0.1)", 0, 0, 0),
    ]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the code sets is taken back."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in (
        *("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"),
        *("RAY_task_oom_retries", "RAY_kill_child_processes_on_worker_exit"),
    ):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.delenv(name)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Ray as far as it is asked here; ``begun`` is what it was started with, ``error`` what it raises."""
    import ray as real

    told = SimpleNamespace(begun=None, ended=0, error=None, there=False, place=None, knocked=[])

    def init(**settings: object) -> None:
        if told.error is not None:
            raise told.error
        told.begun, told.place = settings, Path.cwd()

    def shutdown() -> None:
        told.ended += 1

    monkeypatch.setattr(real, "init", init)
    monkeypatch.setattr(real, "shutdown", shutdown)
    monkeypatch.setattr(real, "is_initialized", lambda: told.there)
    monkeypatch.setattr(real, "nodes", list)
    monkeypatch.setattr(cluster, "_knock", told.knocked.append)
    return told


def test_a_ray_of_ones_own_is_started_and_ended(ray: SimpleNamespace) -> None:
    with cluster.connected(gpus=2) as found:
        assert found == []
        assert ray.begun["address"] == "local"
        assert ray.begun["num_cpus"] == len(os.sched_getaffinity(0))
        assert ray.begun["num_gpus"] == 2
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert ray.ended == 1
    assert ray.knocked == []


def test_workers_find_our_packages_before_what_lies_where_the_command_was_typed(
    ray: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with cluster.connected():
        assert (ray.place / "bench" / "schedule" / "cluster.py").samefile(cluster.__file__)
        assert Path.cwd() == tmp_path


def test_a_cluster_is_joined_by_its_address_or_that_of_the_environment(
    ray: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster.connected("10.0.0.1:6379"):
        assert ray.begun["address"] == "10.0.0.1:6379"
        assert "num_cpus" not in ray.begun
        assert ray.knocked == ["10.0.0.1:6379"]
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with cluster.connected():
        assert ray.begun["address"] == "auto"
    assert ray.ended == 2


def test_a_ray_that_somebody_else_started_is_left_running(ray: SimpleNamespace) -> None:
    ray.there = True
    with cluster.connected():
        pass
    assert (ray.begun, ray.ended) == (None, 0)


@pytest.mark.parametrize("error", [ConnectionError("refused\nmore"), ValueError("bad port"), TimeoutError()])
def test_a_cluster_that_is_not_there_is_told_with_how_to_name_one(ray: SimpleNamespace, error: Exception) -> None:
    ray.error = error
    with (
        pytest.raises(BenchError, match=r"no Ray cluster under 'there:1': .*HOST:PORT") as told,
        cluster.connected("there:1"),
    ):
        pass
    assert "more" not in str(told.value)


def test_a_port_at_which_nobody_listens_is_told_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(BenchError, match=f"no Ray cluster under '{address}'"), cluster.connected(address):
            pass
        assert time.monotonic() - begun < 5


def test_a_ray_that_does_not_start_is_told_with_the_way_without_it(ray: SimpleNamespace) -> None:
    ray.error = RuntimeError("no ports")
    with pytest.raises(BenchError, match=r"no ports.*--scheduler inline"), cluster.connected():
        pass
