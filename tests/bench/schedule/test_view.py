"""A sweep as it is watched: plain lines, and a table on a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from bench.schedule import view as module
from bench.schedule.states import JobState
from bench.schedule.view import SweepView, count, table


def _state(key: str = "k0", state: str = "running", **more: object) -> JobState:
    usual = {"model": "segmamba", "dataset": "phantom", "protocol": "demo", "seed": "0", "fold": ""}
    return JobState(key=key, state=state, **{**usual, **more})  # type: ignore[arg-type]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``now`` is set by hand."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Shown:
    """A view of states that are set by hand, and what it printed."""

    def __init__(self, terminal: bool, height: int = 24) -> None:
        self.text, self.states, self.asked = StringIO(), [_state()], []
        self._read = 0
        console = Console(file=self.text, force_terminal=terminal, width=160, height=height, color_system=None)
        self.view = SweepView(self._states, console)

    def _states(self, waiting: Sequence[str]) -> list[JobState]:
        self.asked.append(list(waiting))
        return self.states

    def lines(self) -> list[str]:
        """Of what came since the last look."""
        new = self.text.getvalue()[self._read :]
        self._read += len(new)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", new).splitlines()


def test_states_are_counted_in_the_order_of_a_listing() -> None:
    states = [_state(state=state) for state in ("complete", "running", "queued", "queued", "oom")]
    assert count(states) == "1 running, 2 queued, 1 oom, 1 complete"
    assert count([]) == "no jobs"


def test_plain_lines_tell_of_each_change_once_and_of_all_every_minute(clock: SimpleNamespace) -> None:
    shown = Shown(terminal=False)
    shown.states = [_state("k0", doing="starting"), _state("k1", "queued", seed="1")]
    with shown.view as view:
        view.show(["k1"])
        assert shown.lines() == [
            "k0  segmamba on phantom, seed 0: running, starting",
            "1 running, 1 queued",
            "  k0  segmamba on phantom, seed 0: running, starting",
        ]
        shown.states[0] = _state("k0", doing="training 5/10", where="there GPU 1", dice=0.25, left_s=62.2)
        clock.now += 1.9
        view.show(["k1"])
        assert shown.asked == [["k1"]], "not yet time to look again"
        clock.now += 0.2
        view.show(["k1"], ["preparing cases 3/9 on there"])
        assert shown.lines() == [], "nothing ended or began"
        clock.now += 60
        view.show(["k1"], ["preparing cases 3/9 on there"])
        assert shown.lines() == [
            "preparing cases 3/9 on there",
            "1 running, 1 queued",
            "  k0  segmamba on phantom, seed 0: running on there GPU 1, training 5/10, Dice 0.250, about 0:01:02 left",
        ]
        shown.states = [_state("k0", "oom", message="too large\nTraceback"), _state("k1", seed="1", fold="2")]
        view.show([], now=True)
        assert shown.lines() == [
            "k0  segmamba on phantom, seed 0: oom: too large",
            "k1  segmamba on phantom, seed 1, fold 2: running",
        ]
        view.say("[bold]stopping")
        assert shown.lines() == ["[bold]stopping"]


def test_a_terminal_shows_a_table_that_stays_when_it_is_over(clock: SimpleNamespace) -> None:
    shown = Shown(terminal=True)
    shown.states = [_state("k0", "complete", dice=0.5), _state("k1", seed="1", doing="training 5/10", left_s=5)]
    with shown.view as view:
        view.show([], ["preparing phantom cases 3/9 on there"])
        lines = shown.lines()
        assert lines[0].split() == ["key", "model", "seed", "state", "doing", "Dice", "left", "where", "message"]
        assert lines[1].split() == ["k1", "segmamba", "1", "running", "training", "5/10", "0:00:05"]
        assert lines[2].split() == ["k0", "segmamba", "0", "complete", "0.500"]
        assert [line.strip() for line in lines[3:5]] == [
            "preparing phantom cases 3/9 on there",
            "1 running, 1 complete",
        ]
        view.say("one line that stays")
        assert "one line that stays" in "".join(shown.lines())
    clock.now += 100
    assert "1 running, 1 complete" in "".join(shown.lines())


@pytest.mark.parametrize("height", [12, 30])
def test_what_does_not_fit_a_terminal_is_counted(clock: SimpleNamespace, height: int) -> None:  # noqa: ARG001
    shown = Shown(terminal=True, height=height)
    shown.states = [_state(f"key{number}", "queued" if number else "running") for number in range(100)]
    with shown.view as view:
        view.show([], ["a note"])
        lines = [line.strip() for line in shown.lines()]
    rows = [line for line in lines if line.startswith("key") and "segmamba" in line]
    assert len(rows) == height - 5
    assert rows[0].startswith("key0"), "what runs"
    assert lines[height - 4 : height - 1] == [f"and {100 - len(rows)} more", "a note", "1 running, 99 queued"]
    assert len(lines) <= height


def test_columns_that_tell_nothing_apart_are_left_out() -> None:
    def heads(*states: JobState) -> set[str]:
        return {str(column.header) for column in table(states).columns} & {"dataset", "protocol", "fold"}

    assert heads(_state(), _state()) == set()
    assert heads(_state(), _state(dataset="brats2023")) == {"dataset"}
    assert heads(_state(fold="0"), _state(fold="1", protocol="paper")) == {"protocol", "fold"}


def test_names_in_brackets_are_no_markup() -> None:
    text = StringIO()
    states = [_state(dataset="[red]data[/red]", message="see [bold]this", state="failed"), _state(dataset="other")]
    Console(file=text, width=200).print(table(states))
    assert "[red]data[/red]" in text.getvalue()
    assert "see [bold]this" in text.getvalue()


def test_rows_keep_the_order_given_and_may_be_cut() -> None:
    states = [_state("k0", "complete"), _state("k1")]
    assert table(states).row_count == 2
    assert table(states, 1).row_count == 1
    text = StringIO()
    Console(file=text, width=200).print(table(states))
    assert text.getvalue().index("k0") < text.getvalue().index("k1")


def test_every_status_has_its_place() -> None:
    from bench.schedule.states import ORDER
    from bench.store import STATUSES

    assert set(STATUSES) | {"queued"} == set(ORDER)
