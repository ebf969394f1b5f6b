"""Training: the optimiser's rule, the schedule, going on after a stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.engine.checkpoint import load_checkpoint, seed_everything
from bench.engine.diverged import Diverged
from bench.engine.interrupt import Interrupted, StopRequest
from bench.engine.train import train
from bench.errors import BenchError
from bench.fields import TrainFields
from bench.store import OpenRecord
from data.prepare import prepare_volume
from data.sampling import PatchSampler
from data.volume import Geometry, Volume

FIELDS = TrainFields(
    steps=12,
    steps_per_epoch=5,
    batch_size=2,
    loss="cross_entropy",
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=1e-5,
    poly_power=0.9,
)
CPU = torch.device("cpu")


class Watcher:
    """Remembers what it is told; asks to stop after ``stop_after`` units of work."""

    def __init__(self, stop: StopRequest, stop_after: int | None = None) -> None:
        self.said: list[str] = []
        self._stop, self._left = stop, stop_after

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Watcher]:  # noqa: ARG002
        yield self

    def advance(self, note: str = "") -> None:  # noqa: ARG002
        if self._left is not None:
            self._left -= 1
            self._stop.requested = self._left <= 0


def _sampler() -> PatchSampler:
    random = np.random.default_rng(0)
    label = np.zeros((12, 12, 12), np.uint8)
    label[3:8, 3:8, 3:8] = 1
    image = (label + random.normal(0, 0.3, label.shape) + 2).astype(np.float32)[None]
    case = prepare_volume("case", Volume(image, label, Geometry(np.eye(4), label.shape, (1.0, 1.0, 1.0))), "box")
    return PatchSampler([case], patch_size=(8, 8, 8), batch_size=2, foreground_fraction=0.5, mirror=True, seed=0)


def _network() -> nn.Module:
    seed_everything(0)
    # Dropout, so that a resumed run agrees only if the random state is restored too.
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.2), nn.Conv3d(4, 2, 1))


def _train(folder: Path, stop_after: int | None = None, model: nn.Module | None = None) -> tuple[nn.Module, Watcher]:
    model = model or _network()
    stop = StopRequest()
    watcher = Watcher(stop, stop_after)
    folder.mkdir(exist_ok=True)
    train(
        model,
        _sampler(),
        FIELDS,
        record=OpenRecord(folder, {}),
        checkpoint=folder / "checkpoint" / "last.pt",
        device=CPU,
        workers=0,
        watcher=watcher,
        stop=stop,
    )
    return model, watcher


def _same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_the_loss_falls_and_the_history_says_so(tmp_path: Path) -> None:
    _train(tmp_path)
    rows = (tmp_path / "history.csv").read_text().splitlines()
    assert rows[0].split(",") == ["step", "learning_rate", "loss", "step_s", "data_wait_s"]
    steps, rates, losses = zip(*(map(float, row.split(",")[:3]) for row in rows[1:]), strict=True)
    assert steps == (5, 10, 12)
    assert losses[-1] < losses[0]
    assert rates[0] == pytest.approx(0.05 * (1 - 4 / 12) ** 0.9)


def test_the_first_steps_follow_nesterovs_rule(tmp_path: Path) -> None:
    """Two steps by hand: v = m v + g; w = w - rate (g + m v), with the decay inside g."""
    fields = FIELDS.model_copy(update={"steps": 2})
    model, reference = _network(), _network()
    for network in (model, reference):
        network[2].p = 0.0  # type: ignore[union-attr]
    sampler = _sampler()
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    for step in range(2):
        batch = sampler.batch(step)
        logits = reference(torch.from_numpy(batch.image))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(batch.label))
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        rate = fields.learning_rate * (1 - step / 2) ** fields.poly_power
        with torch.no_grad():
            for p, g, v in zip(reference.parameters(), gradients, velocity, strict=True):
                decayed = g + fields.weight_decay * p
                v.mul_(fields.momentum).add_(decayed)
                p.sub_(rate * (decayed + fields.momentum * v))
    stop = StopRequest()
    train(
        model,
        sampler,
        fields,
        record=OpenRecord(tmp_path, {}),
        checkpoint=tmp_path / "last.pt",
        device=CPU,
        workers=0,
        watcher=Watcher(stop),
        stop=stop,
    )
    for ours, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("stop_after", [1, 5, 7, 11])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, stop_after: int) -> None:
    undisturbed, _ = _train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        _train(tmp_path / "parts", stop_after)
    resumed, watcher = _train(tmp_path / "parts")
    assert f"going on from step {stop_after}" in watcher.said[0]
    assert _same(resumed, undisturbed)
    histories = [(tmp_path / name / "history.csv").read_text().splitlines() for name in ("whole", "parts")]
    losses = [[row.split(",")[:3] for row in rows] for rows in histories]
    assert losses[0] == losses[1]


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first, _ = _train(tmp_path)
    written = (tmp_path / "checkpoint" / "last.pt").stat().st_mtime_ns
    again, _ = _train(tmp_path)
    assert _same(first, again)
    assert (tmp_path / "checkpoint" / "last.pt").stat().st_mtime_ns == written


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_checkpoint_is_set_aside_and_said(tmp_path: Path, keep: int) -> None:
    undisturbed, _ = _train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        _train(tmp_path / "parts", 5)
    checkpoint = tmp_path / "parts" / "checkpoint" / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    resumed, watcher = _train(tmp_path / "parts")
    assert "last.pt is damaged" in watcher.said[0]
    assert "training begins anew" in watcher.said[0]
    assert checkpoint.with_suffix(".damaged").exists()
    assert _same(resumed, undisturbed)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"model": Harm()}, tmp_path / "last.pt")
    with pytest.raises(BenchError, match=r"last.pt is damaged"):
        load_checkpoint(tmp_path / "last.pt", CPU)
    assert not (tmp_path / "harmed").exists()


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    class Overflow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x], 1) * self.scale * float("nan")

    with pytest.raises(Diverged, match="loss is nan at step 0"):
        _train(tmp_path, model=Overflow())


def test_weights_that_diverge_in_the_last_step_are_not_saved(tmp_path: Path) -> None:
    class Burst(nn.Module):
        """A finite loss whose gradient is not."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x + self.scale.abs().sqrt()], 1)

    stop = StopRequest()
    with pytest.raises(Diverged, match="weights are not finite after step 1"):
        train(
            Burst(),
            _sampler(),
            FIELDS.model_copy(update={"steps": 1}),
            record=OpenRecord(tmp_path, {}),
            checkpoint=tmp_path / "last.pt",
            device=CPU,
            workers=0,
            watcher=Watcher(stop),
            stop=stop,
        )
    assert not (tmp_path / "last.pt").exists()


def test_a_checkpoint_of_another_network_is_set_aside_and_leaves_no_trace(tmp_path: Path) -> None:
    undisturbed, _ = _train(tmp_path / "whole")
    torch.manual_seed(5)
    other = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.2), nn.Conv3d(4, 2, 3, padding=1))
    with pytest.raises(Interrupted):
        _train(tmp_path / "parts", 5, model=other)
    resumed, watcher = _train(tmp_path / "parts")
    assert "another network" in watcher.said[0]
    assert _same(resumed, undisturbed)
