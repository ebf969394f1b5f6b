"""What a command set out to do: there while it is at work, and afterwards where it did not come to its end."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import sweep as module
from bench.errors import BenchError
from bench.job import Job
from bench.sweep import SWEEPS, OpenSweep, forget_done, summary, sweeps

_KILLED = """
import os, signal, sys
from pathlib import Path
from bench.sweep import OpenSweep

OpenSweep(Path(sys.argv[1]), [])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_sweep_names_its_command_and_jobs_while_it_is_at_work(
    tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "a folder"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bench", "run", "--set", "train.steps=5 6"])
    jobs = [make_job(seed=1), make_job(changes=("split.folds=3",), fold=2)]
    with OpenSweep(tmp_path, jobs) as opened:
        (found,) = sweeps(tmp_path)
        assert found.at_work
        assert found.folder == opened.folder
        assert shlex.split(found.command) == ["cd", str(work), "&&", "bench", "run", "--set", "train.steps=5 6"]
        assert found.jobs == [summary(job) for job in jobs]
        assert [(job["key"], job["seed"], job["fold"]) for job in found.jobs] == [
            (jobs[0].key, 1, None),
            (jobs[1].key, 0, 2),
        ]
    assert [one.at_work for one in sweeps(tmp_path)] == [False], "it stopped, with something left to be done"


def test_one_that_came_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    with OpenSweep(tmp_path, []) as opened:
        opened.finished()
        assert sweeps(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_one_leaves_the_others(tmp_path: Path) -> None:
    with OpenSweep(tmp_path, []) as first:
        with OpenSweep(tmp_path, []) as second:
            second.finished()
        assert [one.folder for one in sweeps(tmp_path)] == [first.folder]


def test_an_error_leaves_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), OpenSweep(tmp_path, []):
        raise RuntimeError("a bug")
    assert [one.at_work for one in sweeps(tmp_path)] == [False]


def test_one_that_was_killed_is_not_at_work(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert [one.at_work for one in sweeps(tmp_path)] == [False]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"command": "x", "jobs": [1]}', '{"command": "x"}'])
def test_one_that_cannot_be_read_hides_no_other(tmp_path: Path, content: str) -> None:
    broken = tmp_path / SWEEPS / "20200101T000000-000000"
    broken.mkdir(parents=True)
    (broken / "sweep.json").write_text(content)
    with OpenSweep(tmp_path, []) as opened:
        assert [one.folder for one in sweeps(tmp_path)] == [opened.folder]


def test_they_are_listed_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stamp in ("20300101T000000", "20290101T000000"):
        monkeypatch.setattr(module.time, "strftime", lambda *_, stamp=stamp: stamp)
        with OpenSweep(tmp_path, []):
            pass
    assert [one.folder.name[:4] for one in sweeps(tmp_path)] == ["2029", "2030"]


def test_what_others_have_done_since_is_forgotten(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    one, two = make_job(seed=1), make_job(seed=2)
    for jobs in ([one], [one, two]):
        with OpenSweep(tmp_path, jobs):
            pass
    with OpenSweep(tmp_path, [one]) as at_work:
        forget_done(tmp_path, [one.key])
        left = {found.folder: len(found.jobs) for found in sweeps(tmp_path)}
        assert left.pop(at_work.folder) == 1, "one at work sees to itself"
        assert list(left.values()) == [2]
        forget_done(tmp_path, [two.key, one.key])
        assert [found.folder for found in sweeps(tmp_path)] == [at_work.folder]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(BenchError, match=r"cannot write .*results/sweeps/.*Not a directory"):
        OpenSweep(tmp_path / "results", [])


def test_no_results_are_no_sweeps(tmp_path: Path) -> None:
    assert sweeps(tmp_path / "nowhere") == []
    forget_done(tmp_path / "nowhere", [])


def test_keys_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / SWEEPS / "20200101T000000-000000"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"command": "x", "jobs": [{"key": 1}, {"key": "a"}]}))
    assert [found.jobs for found in sweeps(tmp_path)] == [[{"key": "a"}]]
