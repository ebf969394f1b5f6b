"""Training: the optimiser's rule, budgets, validation, going on after a stop."""

from __future__ import annotations

import csv
import errno
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.engine.checkpoint import TrainingState, load_checkpoint, random_state, restore, save_checkpoint
from bench.engine.diverged import Diverged
from bench.engine.interrupt import Interrupted, StopRequest, TimedOut
from bench.errors import BenchError

CPU = torch.device("cpu")


def _history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_loss_falls_and_the_history_says_so(tmp_path: Path, run_training: Callable) -> None:
    _, state, watcher = run_training(tmp_path)
    rows = _history(tmp_path)
    assert list(rows[0]) == ["step", "learning_rate", "loss", "step_s", "data_wait_s"]
    assert [int(row["step"]) for row in rows] == [5, 10, 12]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[0]["learning_rate"]) == pytest.approx(0.05 * (1 - 4 / 12) ** 0.9)
    assert state.step == 12
    assert "s a step" in watcher.notes[-1]
    assert "waiting for data" in watcher.notes[-1]


@pytest.mark.parametrize("batch_size", [2, 3])
def test_the_first_steps_follow_nesterovs_rule(
    tmp_path: Path, run_training: Callable, make_sampler: Callable, make_network: Callable, batch_size: int
) -> None:
    """Two steps by hand: v = m v + g; w = w - rate (g + m v), with the decay inside g."""
    reference = make_network(dropout=0.0)
    sampler = make_sampler(batch_size)
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    for step in range(2):
        batch = sampler.batch(step)
        loss = nn.functional.cross_entropy(reference(batch.image), batch.label)
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        rate = 0.05 * (1 - step / 2) ** 0.9
        with torch.no_grad():
            for p, g, v in zip(reference.parameters(), gradients, velocity, strict=True):
                decayed = g + 1e-5 * p
                v.mul_(0.9).add_(decayed)
                p.sub_(rate * (decayed + 0.9 * v))
    model, _, _ = run_training(tmp_path, "steps=2", model=make_network(dropout=0.0), batch_size=batch_size)
    for ours, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("changes", [(), ("precision=fp16",), ("optimiser=adamw", "loss=dice_ce", "schedule=cosine")])
@pytest.mark.parametrize("stop_after", [1, 5, 7, 11])
def test_a_stopped_training_goes_on_to_the_same_weights(
    tmp_path: Path, run_training: Callable, same: Callable, stop_after: int, changes: tuple[str, ...]
) -> None:
    undisturbed, whole, _ = run_training(tmp_path / "whole", *changes)
    with pytest.raises(Interrupted):
        run_training(tmp_path / "parts", *changes, stop_after=stop_after)
    resumed, parts, watcher = run_training(tmp_path / "parts", *changes)
    assert f"going on from step {stop_after}" in watcher.said[0]
    assert same(resumed, undisturbed)
    told = [
        [{name: row[name] for name in ("step", "learning_rate", "loss")} for row in state.history]
        for state in (whole, parts)
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_no_bit(
    tmp_path: Path, run_training: Callable, same: Callable, workers: int
) -> None:
    alone, _, _ = run_training(tmp_path / "alone")
    helped, _, _ = run_training(tmp_path / "helped", workers=workers)
    assert same(alone, helped)


def test_a_finished_training_is_not_repeated(tmp_path: Path, run_training: Callable, same: Callable) -> None:
    first, _, _ = run_training(tmp_path)
    written = (tmp_path / "checkpoint" / "last.pt").stat().st_mtime_ns
    again, state, _ = run_training(tmp_path)
    assert same(first, again)
    assert state.step == 12
    assert (tmp_path / "checkpoint" / "last.pt").stat().st_mtime_ns == written


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_checkpoint_is_set_aside_and_said(
    tmp_path: Path, run_training: Callable, same: Callable, keep: int
) -> None:
    undisturbed, _, _ = run_training(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run_training(tmp_path / "parts", stop_after=5)
    checkpoint = tmp_path / "parts" / "checkpoint" / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    resumed, _, watcher = run_training(tmp_path / "parts")
    assert "last.pt is damaged" in watcher.said[0]
    assert "training begins anew" in watcher.said[0]
    assert checkpoint.with_suffix(".damaged").exists()
    assert same(resumed, undisturbed)


def test_a_checkpoint_that_the_system_does_not_give_is_not_set_aside(
    tmp_path: Path, run_training: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        run_training(tmp_path, stop_after=5)
    for error, raised in (
        (PermissionError(errno.EACCES, "Permission denied"), BenchError),
        (OSError(errno.EIO, "Input/output error"), BenchError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "load", _raising(error))
            with pytest.raises(raised, match=str(error.args[-1])):
                run_training(tmp_path)
    assert (tmp_path / "checkpoint" / "last.pt").exists()
    assert not (tmp_path / "checkpoint" / "last.damaged").exists()


def _raising(error: Exception) -> Callable[..., None]:
    def fail(*_arguments: object, **_named: object) -> None:
        raise error

    return fail


def test_a_checkpoint_of_another_network_is_set_aside_and_leaves_no_trace(
    tmp_path: Path, run_training: Callable, same: Callable
) -> None:
    undisturbed, _, _ = run_training(tmp_path / "whole")
    torch.manual_seed(5)
    other = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 3, padding=1))
    with pytest.raises(Interrupted):
        run_training(tmp_path / "parts", stop_after=5, model=other)
    resumed, _, watcher = run_training(tmp_path / "parts")
    assert "another network" in watcher.said[0]
    assert same(resumed, undisturbed)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"model": Harm()}, tmp_path / "last.pt")
    with pytest.raises(BenchError, match=r"last.pt is damaged"):
        load_checkpoint(tmp_path / "last.pt", CPU)
    assert not (tmp_path / "harmed").exists()


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path, run_training: Callable) -> None:
    class Overflow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x], 1) * self.scale * float("nan")

    with pytest.raises(Diverged, match="loss is nan at step 0"):
        run_training(tmp_path, model=Overflow())


def test_weights_that_diverge_in_the_last_step_are_not_saved(tmp_path: Path, run_training: Callable) -> None:
    class Burst(nn.Module):
        """A finite loss whose gradient is not."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, x + self.scale.abs().sqrt()], 1)

    with pytest.raises(Diverged, match="weights are not finite after step 1"):
        run_training(tmp_path, "steps=1", model=Burst())
    assert not (tmp_path / "checkpoint" / "last.pt").exists()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: {"out": x}, ["returned a dict in training", "logits"]),
        (lambda x: [x, "aux"], ["a list of Tensor, str"]),
        (lambda x: x[:, :, ::2], ["of shape (1, 1, 4, 8, 8)", "(1, 1, 8, 8, 8)"]),
        (lambda x: x.mean(1), ["of shape (1, 8, 8, 8)"]),
    ],
)
def test_a_network_that_returns_no_logits_is_named_before_training(
    tmp_path: Path, run_training: Callable, answer: Callable, words: list[str]
) -> None:
    class Strange(nn.Module):
        registered_name = "strange"

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> object:
            return answer(x * self.weight)

    with pytest.raises(BenchError) as error:
        run_training(tmp_path, model=Strange())
    for word in ("strange", *words):
        assert word in str(error.value)


def test_a_network_that_does_not_give_each_region_an_output_is_named_before_training(
    tmp_path: Path, run_training: Callable
) -> None:
    with pytest.raises(BenchError, match=r"Sequential returned 2 channels .*out_channels, 3.*one for each"):
        run_training(tmp_path, regions=((1,), (1, 2), (2,)))
    assert not (tmp_path / "checkpoint" / "last.pt").exists()


def test_time_over_saves_the_state_and_says_so(tmp_path: Path, run_training: Callable, same: Callable) -> None:
    undisturbed, _, _ = run_training(tmp_path / "whole")
    with pytest.raises(TimedOut):
        run_training(tmp_path / "parts", stop=StopRequest(deadline=time.monotonic() - 1))
    resumed, _, watcher = run_training(tmp_path / "parts")
    assert "going on from step 1" in watcher.said[0]
    assert same(resumed, undisturbed)


def test_a_budget_in_seconds_ends_when_it_is_spent(tmp_path: Path, run_training: Callable) -> None:
    begun = time.monotonic()
    _, state, _ = run_training(tmp_path, "steps=none", "gpu_seconds=1")
    assert 1 <= state.seconds < 1.5
    assert time.monotonic() - begun < 20
    assert state.step > 12
    rates = [row["learning_rate"] for row in state.history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01, "the schedule follows what is spent"
    _, again, _ = run_training(tmp_path, "steps=none", "gpu_seconds=1")
    assert again.step == state.step


def test_a_budget_in_seconds_is_shared_by_what_came_before_an_interruption(
    tmp_path: Path, run_training: Callable
) -> None:
    with pytest.raises(Interrupted):
        run_training(tmp_path, "steps=none", "gpu_seconds=0.6", stop_after=3)
    _, state, _ = run_training(tmp_path, "steps=none", "gpu_seconds=0.6")
    assert 0.6 <= state.seconds < 1.0


class SlowAtFirst(nn.Module):
    """Takes its time over the first batch of a size, as a network does whose kernels are to be compiled for it."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.body = nn.Conv3d(1, 2, 3, padding=1)
        self._seconds, self._seen = seconds, set[int]()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) not in self._seen:
            time.sleep(self._seconds)
        self._seen.add(len(x))
        return self.body(x)


def test_a_budget_in_seconds_is_not_charged_for_the_first_pass_of_any_start(
    tmp_path: Path, run_training: Callable
) -> None:
    """Else a network whose kernels take long to compile trains less, and one that was interrupted least."""
    with pytest.raises(Interrupted):
        run_training(tmp_path, "steps=none", "gpu_seconds=0.8", model=SlowAtFirst(1), stop_after=2, batch_size=3)
    begun = time.monotonic()
    _, state, _ = run_training(tmp_path, "steps=none", "gpu_seconds=0.8", model=SlowAtFirst(1), batch_size=3)
    assert time.monotonic() - begun > 1
    assert state.step > 5


def test_a_rehearsal_leaves_no_trace(tmp_path: Path, run_training: Callable) -> None:
    """Steps counted by time are those counted by number, dropout included."""
    _, timed, _ = run_training(tmp_path / "timed", "steps=none", "gpu_seconds=0.3", "schedule=constant")
    steps = f"steps={timed.step}"
    _, counted, _ = run_training(tmp_path / "counted", steps, "schedule=constant")
    assert [row["loss"] for row in timed.history] == [row["loss"] for row in counted.history]


def test_validation_takes_place_on_time_and_keeps_the_best(tmp_path: Path, run_training: Callable) -> None:
    dice = iter([0.5, 0.8, 0.7])
    weights: list[dict[str, Tensor]] = []
    model = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1))

    def validate(_watcher: object) -> dict[str, float]:
        model.eval()
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        value = next(dice)
        return {"dice": value, "dice_WT": value}

    _, state, watcher = run_training(tmp_path, model=model, validate=validate)
    assert [row["dice"] for row in state.history] == [0.5, 0.8, 0.7]
    assert (state.best_dice, state.best_step) == (0.8, 10)
    best = load_checkpoint(tmp_path / "checkpoint" / "best.pt", CPU)["model"]
    assert all(torch.equal(best[name], tensor) for name, tensor in weights[1].items())
    assert model.training, "training goes on in training mode"
    assert any("validation Dice 0.500" in note for note in watcher.notes)
    assert list(_history(tmp_path)[0])[-2:] == ["dice", "dice_WT"]


def test_validation_costs_nothing_of_the_budget_and_disturbs_no_weight(
    tmp_path: Path, run_training: Callable, same: Callable
) -> None:
    def slow(_watcher: object) -> dict[str, float]:
        time.sleep(0.3)
        torch.rand(5)
        return {"dice": 0.5}

    plain, _, _ = run_training(tmp_path / "plain")
    validated, state, _ = run_training(tmp_path / "validated", validate=slow)
    assert state.seconds < 0.8
    assert same(plain, validated)


def test_an_interrupted_training_with_validation_ends_with_the_same_best(
    tmp_path: Path, run_training: Callable, same: Callable, make_network: Callable
) -> None:
    def train_with(folder: Path, stop_after: int | None = None) -> tuple[nn.Module, object]:
        model = make_network()

        def validate(_watcher: object) -> dict[str, float]:
            return {"dice": float(model[0].weight.detach().abs().sum()) % 1}

        _, state, _ = run_training(folder, model=model, validate=validate, stop_after=stop_after)
        return model, state

    whole, expected = train_with(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train_with(tmp_path / "parts", stop_after=7)
    parts, found = train_with(tmp_path / "parts")
    assert same(whole, parts)
    assert (found.best_dice, found.best_step) == (expected.best_dice, expected.best_step)  # type: ignore[attr-defined]
    one, two = (
        load_checkpoint(tmp_path / name / "checkpoint" / "best.pt", CPU)["model"] for name in ("whole", "parts")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("damaged", [False, True])
def test_best_weights_that_are_ahead_of_the_state_say_what_they_are(
    tmp_path: Path, run_training: Callable, damaged: bool
) -> None:
    """As after a kill between the two files, on a device where the steps do not come again to the bit."""
    dice = iter([0.5, 0.9, 0.6, 0.7])

    def validate(_watcher: object) -> dict[str, float]:
        return {"dice": next(dice)}

    checkpoints = tmp_path / "checkpoint"
    with pytest.raises(Interrupted):
        run_training(tmp_path, validate=validate, stop_after=7)
    early = (checkpoints / "last.pt").read_bytes()
    with pytest.raises(Interrupted):
        run_training(tmp_path, validate=validate, stop_after=4)
    (checkpoints / "last.pt").write_bytes(early)
    if damaged:
        (checkpoints / "best.pt").write_bytes(b"PK")
    _, state, watcher = run_training(tmp_path, validate=validate)
    stated = load_checkpoint(checkpoints / "best.pt", CPU)["progress"]
    assert (state.best_dice, state.best_step) == (stated["best_dice"], stated["best_step"])
    assert (state.best_dice, state.best_step) == ((0.7, 12) if damaged else (0.9, 10))
    assert any("next validation replaces it" in text for text in watcher.said) == damaged


def test_the_gradient_is_clipped_to_the_norm_asked_for(
    tmp_path: Path, run_training: Callable, make_network: Callable
) -> None:
    """One step of plain SGD moves the weights by the rate times the clipped norm."""
    moved = []
    for norm in ("0.001", "0.002"):
        before = make_network(dropout=0.0)
        changes = ("steps=1", "momentum=0", "weight_decay=0", "learning_rate=1", f"clip_norm={norm}")
        after, _, _ = run_training(tmp_path / norm, *changes, model=make_network(dropout=0.0))
        steps = [a.detach() - b.detach() for a, b in zip(after.parameters(), before.parameters(), strict=True)]
        moved.append(math.sqrt(sum(float(step.square().sum()) for step in steps)))
    assert moved == pytest.approx([0.001, 0.002], rel=1e-2)


def test_the_loss_scale_is_part_of_a_checkpoint(tmp_path: Path, make_network: Callable) -> None:
    model = make_network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(1))
    scaler.update(128.0)
    save_checkpoint(tmp_path / "last.pt", model, optimiser, scaler, TrainingState(), [random_state()])
    fresh = torch.amp.GradScaler("cpu")
    restore(load_checkpoint(tmp_path / "last.pt", CPU), model, optimiser, fresh, tmp_path / "last.pt")
    assert fresh.get_scale() == 128.0


def test_checkpoints_are_written_as_often_as_asked(tmp_path: Path, run_training: Callable) -> None:
    from bench.engine import train as module

    saved: list[int] = []
    usual = module.save_checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "save_checkpoint", lambda *a: (saved.append(a[4].step), usual(*a)))
        run_training(tmp_path, checkpoint_interval_s=0.0)
        assert saved == list(range(1, 13))
        saved.clear()
        run_training(tmp_path / "seldom", checkpoint_interval_s=math.inf)
        assert saved == [12]
