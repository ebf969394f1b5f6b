"""A sweep on a cluster whose machines and processes die, with real Ray."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from sweeping import FakeCluster, Sweeps, process_of, trainings

from bench.store import WEIGHTS, Record, Store

pytestmark = pytest.mark.alone
WHOLE = range(6)
# As the network of these tests has it.
FAILING = {9: "oom", 10: "failed", 11: "nan"}
SEEDS = ",".join(str(seed) for seed in (*WHOLE, *FAILING))


def _weights(record: Record) -> dict[str, torch.Tensor]:
    return torch.load(record.folder / WEIGHTS, weights_only=True)["model"]


def test_whatever_dies_everything_that_can_ends_as_if_undisturbed(
    cluster: FakeCluster, sweeps: Sweeps, tmp_path: Path
) -> None:
    run = sweeps.start("--seed", SEEDS, "--ray-address", cluster.address, "--device", "cpu", "--cpus-per-job", "1")
    killed = sweeps.wait(lambda: sweeps.killable(2))[0]
    first = process_of(killed)
    os.kill(first, signal.SIGKILL)
    sweeps.wait(lambda: process_of(killed) != first)
    sweeps.wait(lambda: len(sweeps.running()) >= 2)
    cluster.crash(0)
    out, _ = run.communicate(timeout=240)
    records = sweeps.records()
    assert {seed: record.status for seed, record in records.items()} == {
        **dict.fromkeys(WHOLE, "complete"),
        **FAILING,
    }, out
    assert run.returncode == 1
    assert "Tried to allocate" in records[9].content["message"]
    assert records[10].content["message"] == "RuntimeError: a bug in the network"
    for seed, record in records.items():
        ends = (record.folder / "log.txt").read_text().count(" complete")
        assert ends == (seed not in FAILING), f"seed {seed} came {ends} times to completion"
    assert "was killed by SIGKILL" in out
    assert "goes on from its last checkpoint" in out
    assert "going on from step" in (killed.folder / "output.txt").read_text()
    assert not trainings()

    # The machines claim GPUs that they do not have.
    there = sweeps.start("--seed", "0", "--ray-address", cluster.address, results=tmp_path / "gpus")
    out, _ = there.communicate(timeout=120)
    assert there.returncode == 1
    assert "each takes 1 CPU core, 1 GPU" in out
    assert "this machine has 0 CUDA devices" in out

    undisturbed = tmp_path / "undisturbed"
    alone = sweeps.start("--seed", "0,1,2", "--scheduler", "inline", results=undisturbed, pause_s=0)
    alone.communicate(timeout=240)
    assert alone.returncode == 0
    for other in Store(undisturbed).records():
        ours, theirs = _weights(sweeps.records()[other.content["job"]["seed"]]), _weights(other)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        here = sweeps.results / other.key / "cases.csv"
        assert here.read_bytes() == (other.folder / "cases.csv").read_bytes()
