"""Several processes in one training: the same stream, the same result; stops and failures told."""

from __future__ import annotations

import gc
import signal
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing import SignalException

import data
import models
from bench.engine.checkpoint import load_checkpoint
from bench.engine.diverged import Diverged
from bench.engine.evaluate import evaluate, mean_dice
from bench.engine.execution import Execution
from bench.engine.fit import DoesNotFit
from bench.engine.group import Group
from bench.engine.interrupt import Interrupted, StopRequest, TimedOut
from bench.engine.ranks import train_in_ranks
from bench.engine.task import TrainingTask
from bench.errors import BenchError
from bench.fields import InferFields
from bench.job import Job
from bench.progress import SilentWatcher
from bench.protocol import load_protocol
from data.phantom import write_dataset
from data.preparation import plan_preparation
from data.prepare import prepare
from data.split import Split

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ranks")
    write_dataset(root / "phantoms", cases=4, size=32, seed=1)
    return root


@pytest.fixture
def make_task(phantoms: Path, tmp_path: Path) -> Callable[..., TrainingTask]:
    def make(name: str, *changes: str, validate: bool = False, model: str = "segresnet") -> TrainingTask:
        usual = ("train.steps=4", "train.steps_per_epoch=2", "train.batch_size=4", "data.patch_size=16")
        options = ("model_options.segresnet.init_filters=8",)
        protocol = load_protocol("demo", [*usual, *options, *changes])
        dataset = data.open_dataset("phantom", phantoms / "phantoms")
        cases = dataset.cases()
        fields = protocol.data
        preparation = plan_preparation(
            dataset, cases[:2], normalise=fields.normalise, storage=fields.storage, spacing_mm=fields.spacing_mm
        )
        prepared = prepare(dataset, cases, phantoms / "prepared", preparation)
        ids = [case.id for case in cases]
        split = Split(tuple(ids[:2]), tuple(ids[2:]), (), 0)
        resolved = models.resolve_options(model, {"init_filters": 8} if model == "segresnet" else {})
        job = Job(model, resolved, "phantom", "0" * 64, protocol, split, 0)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return TrainingTask(
            job=job,
            card=dataset.card,
            prepared=prepared,
            validation=tuple(cases[2:]) if validate else (),
            folder=folder,
            workers=0,
            most=None,
            checkpoint_interval_s=600.0,
        )

    return make


def _weights(task: TrainingTask, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(task.folder / "checkpoint" / name, CPU)["model"]


def _alone(task: TrainingTask) -> None:
    task.run(task.network(CPU), CPU, SilentWatcher(), StopRequest(), lambda _execution: None)


def test_two_processes_come_to_the_weights_of_one(make_task: Callable[..., TrainingTask]) -> None:
    alone, together = make_task("alone", validate=True), make_task("together", validate=True)
    _alone(alone)
    told: list[Execution] = []
    memory = train_in_ranks(together, 2, "cpu", StopRequest(), told.append)
    assert told[0].micro_batch == 2
    assert memory["peak_process_bytes"] > 0
    one, two = _weights(alone), _weights(together)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-3)
    histories = [
        load_checkpoint(t.folder / "checkpoint/last.pt", CPU)["progress"]["history"] for t in (alone, together)
    ]
    for expected, found in zip(*histories, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert found.get("dice") == pytest.approx(expected.get("dice"), abs=0.02)
    assert (together.folder / "history.csv").exists()
    assert list((together.folder / "tensorboard").glob("events*"))


def test_a_stopped_group_goes_on_to_the_weights_of_an_undisturbed_one(
    make_task: Callable[..., TrainingTask],
) -> None:
    whole, parts = make_task("whole"), make_task("parts")
    train_in_ranks(whole, 2, "cpu", StopRequest(), lambda _execution: None)
    with pytest.raises(TimedOut):
        train_in_ranks(parts, 2, "cpu", StopRequest(time.monotonic()), lambda _execution: None)
    assert load_checkpoint(parts.folder / "checkpoint/last.pt", CPU)["progress"]["step"] == 1
    train_in_ranks(parts, 2, "cpu", StopRequest(), lambda _execution: None)
    one, two = _weights(whole), _weights(parts)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_validation_in_ranks_is_of_one_network(make_task: Callable[..., TrainingTask]) -> None:
    """Running statistics are each process's own; all must validate with those that are saved."""
    task = make_task("statistics", "train.steps=2", validate=True, model="transbts")
    train_in_ranks(task, 2, "cpu", StopRequest(), lambda _execution: None)
    stated = load_checkpoint(task.folder / "checkpoint/last.pt", CPU)
    model = task.network(CPU)
    model.load_state_dict(stated["model"])
    protocol = task.job.protocol
    plain = protocol.infer.model_copy(update={"mirror_axes": ()})
    measured = evaluate(
        model, task.card.regions, task.validation, dict(task.prepared), protocol, infer=plain, device=CPU,
        watcher=SilentWatcher(), stop=StopRequest(),
    )  # fmt: skip
    assert stated["progress"]["history"][-1]["dice"] == pytest.approx(mean_dice(measured), abs=1e-4)


def test_a_rank_alone_in_reading_a_checkpoint_begins_anew_with_the_others(
    tmp_path: Path, run_training: Callable, same: Callable, make_network: Callable
) -> None:
    run_training(tmp_path / "one")
    whole, _, _ = run_training(tmp_path / "whole")

    class Other(Group):
        def gather(self, thing: object) -> list[object]:
            return [thing, "the other could not read it"] if thing == "" else [thing, thing]

    group = Other()
    fresh = make_network()
    model, _, watcher = run_training(tmp_path / "one", model=fresh, group=group)
    assert same(model, whole)
    assert any("the other could not read it" in text for text in watcher.said)


def test_validation_takes_the_volumes_as_they_lie(
    make_task: Callable[..., TrainingTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the eight flips of the test."""
    from bench.engine import task as module

    asked = []
    usual = module.evaluate

    def watch(*args: object, infer: InferFields, **named: object) -> object:
        asked.append(infer)
        return usual(*args, infer=infer, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "evaluate", watch)
    _alone(make_task("plain", "infer.mirror_axes=0,1,2", validate=True))
    assert [fields.mirror_axes for fields in asked] == [()]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (("train.learning_rate=1e30", "train.clip_norm=none"), Diverged, "not finite|loss is"),
        (("train.memory_gib=0.0001",), DoesNotFit, "train.memory_gib"),
    ],
)
def test_how_a_process_fails_is_told(
    make_task: Callable[..., TrainingTask], changes: tuple[str, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        train_in_ranks(make_task("failing", *changes), 2, "cpu", StopRequest(), lambda _execution: None)


def test_a_process_that_dies_is_told(make_task: Callable[..., TrainingTask]) -> None:
    task = make_task("dying")
    broken = replace(task, prepared={})  # a KeyError in every process
    with pytest.raises(BenchError, match="KeyError"):
        train_in_ranks(broken, 2, "cpu", StopRequest(), lambda _execution: None)


def test_what_a_stopped_launcher_leaves_running_is_not_pulled_from_under_it(
    make_task: Callable[..., TrainingTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat's thread would else let go of its own timer, and join itself."""
    from bench.engine import ranks as module

    class Timer:
        pass

    alive: list[weakref.ref[Timer]] = []

    def launch(*_launch: object) -> Callable[..., None]:
        def run(*_arguments: object) -> None:
            timer = Timer()
            alive.append(weakref.ref(timer))
            raise SignalException("stopped", signal.SIGINT)

        return run

    monkeypatch.setattr(module, "elastic_launch", launch)
    with pytest.raises(Interrupted):
        train_in_ranks(make_task("stopped"), 2, "cpu", StopRequest(), lambda _execution: None)
    gc.collect()
    assert alive[0]() is not None
