"""How far a job is, for whoever looks on."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import live
from bench.live import PROGRESS, RecordWatcher, forget_progress, read_progress


class Inner:
    """A watcher that remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def say(self, text: str) -> None:
        self.told.append(text)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Inner]:
        self.told.append((title, total, done))
        yield self

    def advance(self, note: str = "", units: int = 1) -> None:
        self.told.append((note, units))

    def note(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``now`` is set by hand."""
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: clock.now + 1e9))
    return clock


def test_everything_is_passed_on_and_the_latest_is_kept(tmp_path: Path, clock: SimpleNamespace) -> None:
    inner = Inner()
    watcher = RecordWatcher(tmp_path, inner)
    watcher.say("hello")
    with watcher.bar("training", 100, 20) as bar:
        clock.now += 10
        bar.advance("loss 0.5", 5)
        bar.note("validating")
    assert inner.told == ["hello", ("training", 100, 20), ("loss 0.5", 5), "validating"]
    read = read_progress(tmp_path)
    assert read
    assert (read.title, read.done, read.total, read.note) == ("training", 25, 100, "loss 0.5")
    assert read.left_s == pytest.approx(10 / 5 * 75), "at the pace of this attempt, not counting what was done before"
    assert read.host == platform.node()
    assert read.at == 1e9 + 60


def test_nothing_is_known_of_the_time_left_before_the_first_unit(tmp_path: Path) -> None:
    with RecordWatcher(tmp_path, Inner()).bar("surveying", 7):
        read = read_progress(tmp_path)
        assert read
        assert (read.done, read.left_s) == (0, None)


def test_it_is_written_every_two_seconds_and_at_the_end(tmp_path: Path, clock: SimpleNamespace) -> None:
    seen = []
    with RecordWatcher(tmp_path, Inner()).bar("training", 50) as bar:
        for _ in range(50):
            clock.now += 0.5
            bar.advance()
            read = read_progress(tmp_path)
            assert read
            seen.append(read.done)
    assert sorted(set(seen)) == [0, *range(4, 50, 4), 50]


def test_the_gpus_that_were_handed_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with RecordWatcher(tmp_path, Inner()).bar("training", 1):
        assert read_progress(tmp_path).gpus == "2,3"  # type: ignore[union-attr]


def test_a_disk_that_refuses_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Inner()
    with RecordWatcher(tmp_path / "gone", inner).bar("training", 2) as bar:
        bar.advance()
        (tmp_path / "gone").mkdir()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", full)
        bar.advance()
    assert len(inner.told) == 3
    assert read_progress(tmp_path / "gone") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"title": "training"}', '{"more": 1}'])
def test_what_cannot_be_read_is_no_progress(tmp_path: Path, content: str) -> None:
    (tmp_path / PROGRESS).write_text(content)
    assert read_progress(tmp_path) is None


def test_what_a_killed_attempt_said_is_forgotten_by_the_next(tmp_path: Path) -> None:
    with RecordWatcher(tmp_path, Inner()).bar("training", 9):
        pass
    assert read_progress(tmp_path)
    RecordWatcher(tmp_path, Inner())
    assert read_progress(tmp_path) is None
    forget_progress(tmp_path)
    forget_progress(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    with RecordWatcher(tmp_path, Inner()).bar("testing", 3):
        content = json.loads((tmp_path / PROGRESS).read_text())
    assert set(content) == {"title", "done", "total", "note", "left_s", "host", "gpus", "at"}
    assert [path.name for path in tmp_path.iterdir()] == [PROGRESS]
