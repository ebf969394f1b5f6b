"""A training of seconds: one small case, one small network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.engine.checkpoint import TrainingState, seed_everything
from bench.engine.interrupt import StopRequest
from bench.engine.train import Surroundings, train
from bench.fields import TrainFields
from bench.protocol import load_protocol
from bench.store import OpenRecord
from data.augment import Augmentation
from data.prepare import PreparedCase
from data.sampling import PatchSampler
from data.volume import Geometry

CPU = torch.device("cpu")


class Watcher:
    """Remembers what it is told; asks to stop after ``stop_after`` units of work."""

    def __init__(self, stop: StopRequest, stop_after: int | None = None) -> None:
        self.said: list[str] = []
        self.notes: list[str] = []
        self._stop, self._left = stop, stop_after

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Watcher]:  # noqa: ARG002
        yield self

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, note: str = "", units: int = 1) -> None:  # noqa: ARG002
        self.notes.append(note)
        if self._left is not None:
            self._left -= 1
            self._stop.requested = self._left <= 0


@pytest.fixture
def make_fields() -> Callable[..., TrainFields]:
    """Training fields; ``changes`` as behind --set, without ``train.``."""

    def make(*changes: str) -> TrainFields:
        usual = ("steps=12", "steps_per_epoch=5", "learning_rate=0.05", "clip_norm=none")
        return load_protocol("demo", [f"train.{change}" for change in (*usual, *changes)]).train

    return make


@pytest.fixture
def make_sampler() -> Callable[..., PatchSampler]:
    """Patches of 8³ voxels of a noisy cube, in two classes."""
    random = np.random.default_rng(0)
    label = np.zeros((12, 12, 12), np.uint8)
    label[3:8, 3:8, 3:8] = 1
    case = PreparedCase(
        id="case",
        image=(label + random.normal(0, 0.3, label.shape)).astype(np.float32)[None],
        label=label,
        foreground={1: np.argwhere(label == 1).astype(np.int32)},
        box=((0, 12), (0, 12), (0, 12)),
        geometry=Geometry(np.eye(4), (12, 12, 12), (1.0, 1.0, 1.0)),
        spacing_mm=(1.0, 1.0, 1.0),
    )

    def make(batch_size: int = 2) -> PatchSampler:
        fields = load_protocol("paper").augment.model_dump()
        return PatchSampler(
            [case],
            patch_size=(8, 8, 8),
            batch_size=batch_size,
            foreground_fraction=0.5,
            placement="inside",
            augmentation=Augmentation(**{**fields, "elastic_magnitude": (0.0, 100.0), "elastic_sigma": (2.0, 3.0)}),
            classes=2,
            seed=0,
        )

    return make


@pytest.fixture
def make_network() -> Callable[..., nn.Module]:
    """A small network of two classes, with dropout unless told otherwise."""

    def make(dropout: float = 0.2) -> nn.Module:
        seed_everything(0)
        # Dropout, so that a resumed run agrees only if the random state is restored too.
        layers = [nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.ReLU(), nn.Dropout(dropout)]
        return nn.Sequential(*layers, nn.Conv3d(4, 2, 1)).train()

    return make


@pytest.fixture
def run_training(
    make_fields: Callable[..., TrainFields],
    make_sampler: Callable[..., PatchSampler],
    make_network: Callable[..., nn.Module],
) -> Callable[..., tuple[nn.Module, TrainingState, Watcher]]:
    """Trains in a folder, from what is there on."""

    def run(
        folder: Path,
        *changes: str,
        stop_after: int | None = None,
        model: nn.Module | None = None,
        workers: int = 0,
        batch_size: int = 2,
        validate: object = None,
        regions: tuple[tuple[int, ...], ...] = (),
        **around: object,
    ) -> tuple[nn.Module, TrainingState, Watcher]:
        model = model or make_network()
        stop = StopRequest()
        watcher = Watcher(stop, stop_after)
        folder.mkdir(exist_ok=True)
        surroundings = Surroundings(
            last=folder / "checkpoint" / "last.pt",
            best=folder / "checkpoint" / "best.pt",
            events=None,
            write_history=OpenRecord(folder, {}).write_history,
            on_execution=lambda _execution: None,
            device=CPU,
            workers=workers,
            watcher=watcher,
            stop=stop,
        )
        for name, value in around.items():
            object.__setattr__(surroundings, name, value)
        fields = make_fields(f"batch_size={batch_size}", *changes)
        sampler = make_sampler(batch_size)
        state = train(model, sampler, fields, surroundings, regions=regions, validate=validate)  # type: ignore[arg-type]
        return model, state, watcher

    return run


@pytest.fixture
def same() -> Callable[[nn.Module, nn.Module], bool]:
    """Whether two networks agree in every bit."""

    def compare(one: nn.Module, two: nn.Module) -> bool:
        return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))

    return compare
