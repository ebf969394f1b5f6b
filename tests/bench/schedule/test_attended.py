"""A job that is followed while it trains: validations in order, the end, deaths, and a request to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import data
from bench.engine.order import Order
from bench.job import Job
from bench.schedule import attended
from bench.schedule.attended import Attended, Ended, Validation
from bench.schedule.process import Ending
from bench.store import Store

Part = Callable[["Scene"], Ending]


class Scene:
    """Plays the processes of a job: each call of `carry_out` is the next part."""

    def __init__(self, order: Order, parts: Sequence[Part]) -> None:
        self.store, self.job, self.parts = Store(order.results), order.job, list(parts)
        self.asked: Callable[[], bool] = lambda: False
        self.calls = 0

    def carry_out(self, _order: bytes, _output: Path, _limit: float | None, asked: Callable[[], bool]) -> Ending:
        self.asked = asked
        self.calls += 1
        return self.parts.pop(0)(self)

    def validated(self, *scores: float) -> None:
        """The history has one validation every two steps, and a row without one before each."""
        rows: list[dict[str, float | None]] = []
        for place, dice in enumerate(scores):
            rows += [{"step": 2 * place + 1, "loss": 1.0, "dice": None}, {"step": 2 * place + 2, "dice": dice}]
        self.store.open_run(self.job).write_history(rows)

    def ends(self, status: str, message: str = "") -> Ending:
        """The record closes itself."""
        record = self.store.open_run(self.job)
        record.write_cases({})
        record.finish(status, **({"message": message} if message else {}))
        return Ending("done")


@pytest.fixture
def play(make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """``play(part, part, retries=1)``: the scene and the job that is followed."""
    monkeypatch.setattr(attended, "_HELD_POLL_S", 0.02)

    def begin(*parts: Part, retries: int = 1) -> tuple[Scene, Attended]:
        job = make_job(changes=("train.steps=8",))
        order = Order("run", job, data.card("phantom"), tmp_path, tmp_path / "results", "cpu")
        scene = Scene(order, parts)
        monkeypatch.setattr(attended, "carry_out", scene.carry_out)
        return scene, Attended(order, retries)

    return begin


def _news(followed: Attended) -> list[Validation | Ended]:
    found: list[Validation | Ended] = []
    while not found or not isinstance(found[-1], Ended):
        if (one := followed.next(5)) is None:
            raise AssertionError(f"nothing came after {found}")
        found.append(one)
    return found


def test_validations_come_in_order_and_the_last_one_is_the_end(play: Callable[..., tuple[Scene, Attended]]) -> None:
    def whole(scene: Scene) -> Ending:
        scene.validated(0.1, 0.2, 0.3, 0.9)
        return scene.ends("complete")

    _, followed = play(whole)
    assert _news(followed) == [Validation(2, 0.1), Validation(4, 0.2), Validation(6, 0.3), Ended("complete")]


def test_nothing_new_in_time_is_none(play: Callable[..., tuple[Scene, Attended]]) -> None:
    gate = threading.Event()

    def slow(scene: Scene) -> Ending:
        scene.validated(0.1)
        gate.wait(10)
        return scene.ends("complete")

    _, followed = play(slow)
    assert followed.next(5) == Validation(2, 0.1)
    assert followed.next(0.05) is None
    gate.set()
    assert followed.next(5) == Ended("complete")


@pytest.mark.parametrize("status", ["nan", "oom", "failed", "timeout"])
def test_a_failure_is_an_end_with_its_reason(play: Callable[..., tuple[Scene, Attended]], status: str) -> None:
    scene, followed = play(lambda scene: scene.ends(status, "the loss is nan"))
    assert _news(followed) == [Ended(status, "the loss is nan")]
    assert scene.calls == 1


def test_a_process_that_dies_goes_on_as_often_as_it_may(play: Callable[..., tuple[Scene, Attended]]) -> None:
    def dies(scene: Scene) -> Ending:
        scene.validated(0.1)
        return Ending("died", "its process was killed by SIGKILL")

    def ends(scene: Scene) -> Ending:
        scene.validated(0.1, 0.2)
        return scene.ends("complete")

    scene, followed = play(dies, ends)
    assert _news(followed) == [Validation(2, 0.1), Validation(4, 0.2), Ended("complete")], "each is told once"
    scene, followed = play(dies, dies, ends)
    (*_, end) = _news(followed)
    assert end == Ended("failed", "its process was killed by SIGKILL. It was tried 2 times")
    assert scene.calls == 2


@pytest.mark.parametrize(("kind", "status"), [("refused", "failed"), ("overdue", "timeout")])
def test_what_cannot_record_itself_is_recorded(
    play: Callable[..., tuple[Scene, Attended]], kind: str, status: str
) -> None:
    _, followed = play(lambda _scene: Ending(kind, "why"))
    assert _news(followed) == [Ended(status, "why")]


def test_a_job_that_another_process_runs_is_waited_for(play: Callable[..., tuple[Scene, Attended]]) -> None:
    def held(scene: Scene) -> Ending:
        lease = scene.store.take(scene.job.key)
        assert lease is not None
        threading.Timer(0.3, lease.release).start()
        return Ending("held", "process 1 on elsewhere runs it")

    scene, followed = play(held, lambda scene: scene.ends("complete"), retries=0)
    assert _news(followed) == [Ended("complete")]
    assert scene.calls == 2


def test_a_request_to_stop_reaches_the_process_and_is_waited_for(
    play: Callable[..., tuple[Scene, Attended]],
) -> None:
    stopped = threading.Event()

    def trains(scene: Scene) -> Ending:
        scene.validated(0.1)
        while not scene.asked():
            stopped.wait(0.01)
        stopped.set()
        return scene.ends("interrupted")

    scene, followed = play(trains)
    assert followed.next(5) == Validation(2, 0.1)
    followed.stop()
    assert stopped.is_set()
    assert followed.next(5) == Ended("interrupted")
    assert scene.calls == 1, "it is not begun again"
