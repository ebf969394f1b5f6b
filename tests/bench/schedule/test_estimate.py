"""How long jobs will take, as far as earlier records tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.job import Job
from bench.schedule.estimate import Estimate, expected, longest_first
from bench.store import Record, Store

STEPS = ("train.steps=100",)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Record]:
    """Writes the record of a job: its last epoch, its status, more facts."""

    def write(job: Job, status: str = "complete", epoch: Mapping[str, float] | None = None, **facts: Any) -> Record:
        record = Store(tmp_path).open_run(job)
        record.write_cases({})
        if epoch is not None:
            record.write_history([epoch])
        return record.finish(status, **facts)

    return write


@pytest.fixture
def expect(tmp_path: Path) -> Callable[[Job], float | None]:
    """Seconds, from the records of the folder."""

    def seconds(job: Job) -> float | None:
        found = expected(job, Store(tmp_path).records())
        return None if found is None else found.seconds

    return seconds


def test_nothing_is_known_without_records(expect: Callable, make_job: Callable[..., Job]) -> None:
    assert expect(make_job()) is None


def test_a_run_of_the_same_network_and_protocol_tells_training_and_test(
    run: Callable, expect: Callable, make_job: Callable[..., Job]
) -> None:
    run(make_job(seed=1), times={"train_s": 50.0, "last_test_s": 8.0}, epoch={"step": 300, "step_s": 9.0})
    assert expect(make_job(seed=2)) == 58
    assert expect(make_job(model="unetr")) is None
    assert expect(make_job(changes=("model_options.segmamba.d_state=8",))) is None


def test_of_a_job_that_goes_on_only_what_is_left_counts(
    run: Callable, expect: Callable, make_job: Callable[..., Job]
) -> None:
    run(make_job(seed=1), times={"train_s": 50.0, "last_test_s": 8.0})
    run(make_job(seed=2), "interrupted", {"step": 225, "step_s": 7.0})
    assert expect(make_job(seed=2)) == pytest.approx(50 / 4 + 8)
    run(make_job(seed=2), "interrupted", {"step": 300})
    assert expect(make_job(seed=2)) == 8


def test_a_run_on_other_data_tells_the_time_of_a_step_alone(
    run: Callable, expect: Callable, make_job: Callable[..., Job]
) -> None:
    run(
        make_job(fingerprint="e" * 64),
        times={"train_s": 50.0, "last_test_s": 800.0},
        epoch={"step": 300, "step_s": 0.5, "data_wait_s": 0.25},
    )
    assert expect(make_job()) == pytest.approx(300 * 0.75)


def test_a_job_that_was_stopped_tells_its_own_pace_first(
    run: Callable, expect: Callable, make_job: Callable[..., Job]
) -> None:
    run(make_job(seed=1, fingerprint="e" * 64), epoch={"step": 300, "step_s": 5.0})
    run(make_job(seed=2), "interrupted", {"step": 200, "step_s": 2.0})
    assert expect(make_job(seed=2)) == pytest.approx(100 * 2)
    assert expect(make_job(seed=3)) in (300 * 5, 300 * 2)


@pytest.mark.parametrize(
    "change", ["train.precision=bf16", "data.patch_size=64", "train.batch_size=4", "model_options.segmamba.d_state=8"]
)
def test_steps_of_another_size_or_precision_tell_nothing(
    run: Callable, expect: Callable, make_job: Callable[..., Job], change: str
) -> None:
    run(make_job(), epoch={"step": 300, "step_s": 5.0})
    assert expect(make_job(changes=(change, *STEPS))) is None
    assert expect(make_job(changes=STEPS)) == 500


def test_a_budget_in_seconds_is_its_own_estimate(expect: Callable, make_job: Callable[..., Job]) -> None:
    assert expect(make_job(changes=("train.steps=none", "train.gpu_seconds=1234"))) == 1234


def _profile(root: Path, job: Job, measured: Mapping[str, object], status: str = "complete", **unlike: object) -> None:
    """The record of a training step such as the job's, but for what is ``unlike`` in it."""
    protocol = job.protocol
    profiled = {
        "what": "network",
        "mode": "train",
        "model": job.model,
        "model_options": dict(job.model_options),
        "image_size": list(protocol.data.patch_size),
        "batch": protocol.train.batch_size,
        "precision": protocol.train.precision,
        "hardware": "H100",
    }
    Store(root).open_profile({**profiled, **unlike}, measured=measured).finish(status)


def test_a_profile_tells_the_time_of_a_step_where_no_run_does(
    tmp_path: Path, run: Callable, expect: Callable, make_job: Callable[..., Job]
) -> None:
    _profile(tmp_path, make_job(), {"train_step_s": 0.5})
    assert Store(tmp_path).records()[0].status == "complete"
    assert expect(make_job()) == 150
    assert expect(make_job(model="unetr")) is None
    assert expect(make_job(changes=("model_options.segmamba.d_state=8",))) is None
    run(make_job(seed=1, fingerprint="e" * 64), epoch={"step": 300, "step_s": 2.0})
    assert expect(make_job()) == 600


@pytest.mark.parametrize(
    "unlike",
    [
        {"mode": "infer"}, {"what": "volume"}, {"image_size": [64, 64, 64]}, {"batch": 7}, {"precision": "fp16"},
        {"status": "timeout"},
    ],
)  # fmt: skip
def test_a_profile_of_anything_but_the_jobs_own_step_tells_nothing(
    tmp_path: Path, expect: Callable, make_job: Callable[..., Job], unlike: Mapping[str, Any]
) -> None:
    _profile(tmp_path, make_job(), {"train_step_s": 0.5}, **unlike)
    assert expect(make_job()) is None
    _profile(tmp_path, make_job(), {"train_step_s": 0.5}, hardware="A100")
    assert expect(make_job()) == 150


def test_of_several_those_with_the_jobs_options_of_speed_tell_and_of_these_the_fastest(
    tmp_path: Path, run: Callable, expect: Callable, make_job: Callable[..., Job]
) -> None:
    """A scan by PyTorch's operations and one by kernels are one network; the default is the faster."""
    graph = make_job(changes=("train.graph=true",))
    _profile(tmp_path, graph, {"train_step_s": 0.9}, backend="torch")
    _profile(tmp_path, graph, {"train_step_s": 0.5}, backend="triton")
    assert expect(graph) == 150
    _profile(tmp_path, graph, {"train_step_s": 0.7}, graph=True, channels_last=False)
    _profile(tmp_path, graph, {"train_step_s": 0.1}, graph=True, channels_last=True, fused=True)
    assert expect(graph) == 210
    assert expect(make_job()) == 150
    run(make_job(seed=1, fingerprint="e" * 64), epoch={"step": 300, "step_s": 2.0})
    run(make_job(seed=1, fingerprint="e" * 64, changes=("train.graph=true",)), epoch={"step": 300, "step_s": 3.0})
    assert (expect(graph), expect(make_job())) == (900, 600)


def test_it_is_told_whose_times_they_are(tmp_path: Path, run: Callable, make_job: Callable[..., Job]) -> None:
    def hardware(job: Job) -> str:
        found = expected(job, Store(tmp_path).records())
        assert found is not None
        return found.hardware

    assert hardware(make_job(changes=("train.steps=none", "train.gpu_seconds=12"))) == ""
    _profile(tmp_path, make_job(), {"train_step_s": 0.5})
    assert hardware(make_job()) == "H100"
    on_cpu, on_gpu = ({"hardware": {"cpu": "EPYC", **more}} for more in ({}, {"gpu": "H200"}))
    run(make_job(seed=1, fingerprint="e" * 64), epoch={"step": 300, "step_s": 2.0}, provenance=on_cpu)
    assert hardware(make_job()) == "EPYC"
    run(make_job(), times={"train_s": 50.0}, provenance=on_gpu)
    assert expected(make_job(seed=2), Store(tmp_path).records()) == Estimate(50, "H200")


def test_a_profile_without_training_tells_nothing(
    tmp_path: Path, expect: Callable, make_job: Callable[..., Job]
) -> None:
    _profile(tmp_path, make_job(), {"latency_s": 0.5})
    assert expect(make_job()) is None


@pytest.mark.parametrize("harm", ["record", "history", "protocol"])
def test_records_that_lack_something_tell_nothing_and_stop_nothing(
    tmp_path: Path, run: Callable, expect: Callable, make_job: Callable[..., Job], harm: str
) -> None:
    folder = run(make_job(), "interrupted", {"step": 30, "step_s": 2.0}).folder
    if harm == "record":
        (folder / "record.json").write_text("[]")
    elif harm == "history":
        (folder / "history.csv").write_text("step,step_s\n30,often\n")
    else:
        content = json.loads((folder / "record.json").read_text())
        for section in ("data", "train"):
            content["job"]["protocol"][section] = {}
        from bench.key import key_of

        content["key"] = key_of(content["job"])
        (folder / "record.json").write_text(json.dumps(content))
        folder.rename(tmp_path / content["key"])
        assert Store(tmp_path).records()[0].status == "interrupted"
    assert expect(make_job(seed=1)) is None
    assert expect(make_job()) is None


def test_the_longest_begin_first_and_those_of_which_nothing_is_known_before_them(
    tmp_path: Path, run: Callable, make_job: Callable[..., Job]
) -> None:
    run(make_job(seed=9), epoch={"step": 300, "step_s": 1.0})
    run(make_job(seed=1), "interrupted", {"step": 290, "step_s": 1.0})
    short, medium, long = make_job(seed=1), make_job(seed=2), make_job(seed=3, changes=("train.steps=900",))
    strange, stranger = make_job(model="unetr"), make_job(model="segresnet")
    found = longest_first([short, strange, medium, long, stranger], Store(tmp_path).records())
    assert [job for job, _ in found] == [strange, stranger, long, medium, short]
    assert [estimate and round(estimate.seconds, 6) for _, estimate in found] == [None, None, 900, 300, 10]
