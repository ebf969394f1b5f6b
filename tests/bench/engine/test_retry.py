"""Memory that runs out: once more with half the micro-batch, from where it was, recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bench.engine.interrupt import StopRequest
from bench.engine.options import RunOptions
from bench.engine.retry import train_job
from bench.engine.task import TrainingTask
from bench.progress import SilentWatcher
from bench.store import OpenRecord

CPU = torch.device("cpu")


class Greedy(nn.Module):
    """Runs out of memory with more than ``most`` patches at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.most = nn.Conv3d(1, 2, 3, padding=1), most

    def forward(self, image: Tensor) -> Tensor:
        if len(image) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return self.conv(image)


def _task(folder: Path, run_training: Callable, most: int, monkeypatch: pytest.MonkeyPatch) -> TrainingTask:
    """A task whose training is the small one of these tests."""

    def run(self: TrainingTask, model: nn.Module, *_around: object) -> object:
        on_execution = _around[-1]
        _, state, _ = run_training(folder, model=model, batch_size=8, most=self.most, on_execution=on_execution)
        return state

    monkeypatch.setattr(TrainingTask, "run", run)
    monkeypatch.setattr(TrainingTask, "network", lambda *_: Greedy(most).train())
    train = SimpleNamespace(batch_size=8)
    job = SimpleNamespace(protocol=SimpleNamespace(train=train))
    return TrainingTask(job, None, {}, (), folder, 0, None, 600.0)  # type: ignore[arg-type]


def _train(task: TrainingTask, record: OpenRecord) -> nn.Module:
    return train_job(task, task.network(CPU), record, RunOptions(CPU), SilentWatcher(), StopRequest())[0]


def test_half_the_micro_batch_is_tried_and_gives_the_same_weights(
    tmp_path: Path, run_training: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for most, name in ((8, "roomy"), (4, "tight")):
        folder = tmp_path / name
        folder.mkdir()
        record = OpenRecord(folder, {})
        with monkeypatch.context() as patch:
            model = _train(_task(folder, run_training, most, patch), record)
        weights.append(model.state_dict())
        assert record.content["execution"]["micro_batch"] == most
        assert ("out_of_memory" in record.content) == (most == 4)
    assert record.content["out_of_memory"]["micro_batch"] == 8
    assert "20 GiB" in record.content["out_of_memory"]["message"]
    for one, two in zip(*(state.values() for state in weights), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def test_the_second_time_it_is_over(tmp_path: Path, run_training: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    record = OpenRecord(tmp_path, {})
    with pytest.raises(torch.OutOfMemoryError):
        _train(_task(tmp_path, run_training, 1, monkeypatch), record)
    assert record.content["largest_micro_batch"] == 4
