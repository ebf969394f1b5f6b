"""Sweeps as a user starts them, of a network that goes wrong on request, on clusters of several machines in one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweeping import FakeCluster, Sweeps, environment_with, install_shaky

from data.phantom import write_dataset


@pytest.fixture(scope="session")
def small_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of 32³ voxels."""
    root = tmp_path_factory.mktemp("small-phantoms")
    write_dataset(root, cases=6, size=32, seed=1)
    return root


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `shaky` as an installed distribution."""
    folder = tmp_path_factory.mktemp("plugin")
    install_shaky(folder)
    return folder


@pytest.fixture(scope="session")
def environment(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """In which the network is known, on one core, with a cache of the tests' own."""
    return environment_with(plugin, tmp_path_factory.mktemp("cache"), pause_s=0.1)


@pytest.fixture
def sweeps(small_phantoms: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[Sweeps]:
    """Commands on one results folder; what is left of them is killed in the end."""
    made = Sweeps(small_phantoms, tmp_path / "results", environment)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.communicate()


_CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(2)]
print(json.dumps(cluster.address), flush=True)
for line in sys.stdin:  # each is the number of a machine to crash
    cluster.remove_node(nodes[int(line)], allow_graceful=False)
    print("gone", flush=True)
cluster.shutdown()
"""


@pytest.fixture
def cluster(environment: dict[str, str]) -> Iterator[FakeCluster]:
    """Three fresh machines."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield FakeCluster(process, json.loads(process.stdout.readline()))
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
