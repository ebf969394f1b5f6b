"""One process at a time: races, dead and paused holders, file systems that do less than others."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import lease as module
from bench.errors import BenchError
from bench.lease import Lease, LeaseLost, Watch, looks_alive, newest, take
from bench.store import OpenRecord, Store

# Each attempt is a process of its own. The holder locks a file, which the system unlocks as it dies: who takes the
# lease and finds the file locked has found a second holder. One in three is killed while it holds.
_RACER = """
import fcntl, os, random, signal, sys
from pathlib import Path
from bench import lease
from bench.lease import Watch, take

folder, seed, attempts, links = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "links"
if not links:
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")
    os.link = refuse

def attempt(choice):
    held = take(folder, Watch(), beat_s=0.01)
    if held is None:
        return 0
    with held, (folder / "marker").open("w") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 2
        for _ in range(choice.randrange(20)):
            os.sched_yield()
        held.check()
        if choice.random() < 1 / 3:
            os.kill(os.getpid(), signal.SIGKILL)
        fcntl.flock(marker, fcntl.LOCK_UN)
    return 1

counts = {"held": 0, "killed": 0, "not": 0, "wrong": 0}
for number in range(attempts):
    child = os.fork()
    if not child:
        code = 3
        try:
            code = attempt(random.Random(seed * 1000 + number))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    name = {0: "not", 1: "held"}.get(os.WEXITSTATUS(status), "wrong")
    counts["killed" if os.WIFSIGNALED(status) else name] += 1
print(counts["held"], counts["killed"], counts["not"], counts["wrong"])
"""

_HOLDER = """
import sys, threading, time
from pathlib import Path
from bench.lease import take
from bench.store import OpenRecord

folder, lost = Path(sys.argv[1]), threading.Event()
lease = take(folder, beat_s=float(sys.argv[2]))
lease.on_lost = lost.set
record = OpenRecord(folder, {}, lease)
print("ready", flush=True)
if not lost.wait(30):
    sys.exit("nothing was lost")
try:
    record.update(status="complete")
except Exception as error:
    print(lease.lost, type(error).__name__)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Another process that holds a folder."""
    started = []

    def start(folder: Path = tmp_path, beat_s: float = 0.05) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(folder), str(beat_s)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock by which this process judges others; ``now`` is set by hand."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time))
    return clock


def _file(folder: Path) -> Path:
    """The newest lease."""
    return max((folder / "lease").glob("*.json"))


def _alter(folder: Path, **facts: Any) -> None:
    """Change what the newest lease says, as if it had been written so, and leave its time."""
    path = _file(folder)
    before = path.stat()
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _beat(folder: Path, seconds: float) -> None:
    """Touch the newest lease as its holder does; time is that of the file system, of which no clock here knows."""
    os.utime(_file(folder), (seconds, seconds))


def _taken(lease: Lease | None) -> bool:
    """Whether a lease was given; it is given back."""
    if lease is not None:
        lease.release()
    return lease is not None


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "lease").iterdir())


@pytest.mark.parametrize("links", ["links", "no links"])
def test_of_many_that_race_one_holds_at_any_time_though_holders_are_killed(tmp_path: Path, links: str) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(tmp_path), str(seed), "150", links], stdout=subprocess.PIPE, text=True
        )
        for seed in range(4)
    ]
    counts = [[int(number) for number in racer.communicate(timeout=60)[0].split()] for racer in racers]
    held, killed, refused, wrong = (sum(column) for column in zip(*counts, strict=True))
    assert wrong == 0, f"{wrong} times a second one held"
    assert held + killed + refused == 600
    assert held > 10
    assert killed > 5
    last = take(tmp_path)
    assert last, "all are gone"
    assert len([name for name in _names(tmp_path) if name.endswith(".json")]) == 1, "older ones are cleaned away"
    last.release()


def test_a_killed_holder_of_this_machine_is_succeeded_at_once(
    tmp_path: Path, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    process = holder()
    assert take(tmp_path) is None
    assert looks_alive(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not looks_alive(tmp_path), "a zombie runs no more"
    assert _taken(take(tmp_path))


# The first thread ends alone, by the system's own call, and a second goes on until the input ends.
_HALF_DEAD = """
import ctypes, os, platform, sys, threading
from pathlib import Path
from bench.lease import take

take(Path(sys.argv[1]))
print("ready", flush=True)
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0))).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_zombie_of_which_a_thread_still_runs_may_still_write(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _HALF_DEAD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    stat, until = Path(f"/proc/{process.pid}/stat"), time.monotonic() + 10
    while ") Z " not in stat.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert take(tmp_path) is None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert _taken(take(tmp_path))
    process.wait()
    process.stdout.close()


def test_a_process_of_this_machine_needs_no_beat(tmp_path: Path, clock: SimpleNamespace) -> None:
    with take(tmp_path, beat_s=1000) as _:  # type: ignore[union-attr]
        watch = Watch()
        for _ in range(100):
            clock.now += 10
            assert watch.holder(tmp_path) is not None
        _beat(tmp_path, 0)
        assert looks_alive(tmp_path)


def test_a_number_that_another_process_has_by_now_is_no_life(tmp_path: Path) -> None:
    lease = take(tmp_path, beat_s=1000)
    assert lease
    assert take(tmp_path) is None
    _alter(tmp_path, begun="1")
    assert not looks_alive(tmp_path)
    assert _taken(take(tmp_path))
    lease.release()


def test_a_holder_elsewhere_is_given_up_after_patience_by_the_observers_own_clock(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    lease = take(tmp_path, beat_s=1000)
    _alter(tmp_path, machine="elsewhere")
    _beat(tmp_path, 1e9)  # decades ago, by this machine's clock
    watch = Watch(patience_s=60)
    for _ in range(30):
        assert take(tmp_path, watch) is None
        clock.now += 2
    assert take(tmp_path, Watch(patience_s=60)) is None, "somebody who has only begun to look"
    assert _taken(take(tmp_path, watch))
    assert lease
    lease.release()


def test_a_holder_elsewhere_is_never_given_up_while_it_beats(tmp_path: Path, clock: SimpleNamespace) -> None:
    lease = take(tmp_path, beat_s=1000)
    _alter(tmp_path, machine="elsewhere")
    watch = Watch(patience_s=60)
    for number in range(100):
        assert take(tmp_path, watch) is None
        clock.now += 10
        if number % 5 == 0:
            _beat(tmp_path, 2e9 - number)  # a clock that runs backwards beats as well
    assert lease
    lease.release()


def test_time_in_which_nobody_looked_does_not_count(tmp_path: Path, clock: SimpleNamespace) -> None:
    """A file system that was away for two minutes kept its holders from beating too."""
    lease = take(tmp_path, beat_s=1000)
    _alter(tmp_path, machine="elsewhere")
    watch = Watch(patience_s=60)
    assert watch.holder(tmp_path)
    clock.now += 120
    assert watch.holder(tmp_path)
    _beat(tmp_path, 5)
    assert watch.holder(tmp_path)
    for _ in range(59):
        clock.now += 1
        assert watch.holder(tmp_path)
    clock.now += 1
    assert watch.holder(tmp_path) is None
    assert lease
    lease.release()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": "one"}', "\x00\xff"])
def test_a_file_that_says_nothing_is_somebodys_until_it_was_watched(
    tmp_path: Path, clock: SimpleNamespace, content: str
) -> None:
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "000007.json").write_bytes(content.encode("latin-1"))
    found = newest(tmp_path)
    assert found is not None
    assert "an unknown machine" in str(found)
    watch = Watch(patience_s=60)
    for _ in range(6):
        assert take(tmp_path, watch) is None
        clock.now += 10
    assert _taken(take(tmp_path, watch))
    assert _names(tmp_path) == ["000008.json"]


def _kill_a_holder(folder: Path, holder: Callable[..., subprocess.Popen[str]]) -> None:
    process = holder(folder)
    process.kill()
    process.wait()


@pytest.mark.parametrize("when", ["after the look", "before the creation"])
def test_of_two_that_find_the_same_dead_holder_one_succeeds(
    tmp_path: Path, holder: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    _kill_a_holder(tmp_path, holder)
    others: list[Lease | None] = []
    name = "newest" if when == "after the look" else "_create"
    usual = getattr(module, name)

    def slow(*arguments: Any) -> Any:
        result = usual(*arguments) if name == "newest" else None
        monkeypatch.setattr(module, name, usual)
        others.append(take(tmp_path))
        return result if name == "newest" else usual(*arguments)

    monkeypatch.setattr(module, name, slow)
    assert take(tmp_path) is None
    (other,) = others
    assert other
    other.check()
    other.release()


def test_one_that_slept_since_it_looked_takes_nothing_from_the_successors(
    tmp_path: Path, holder: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number that it would take was given, and cleaned away, in the meantime."""
    _kill_a_holder(tmp_path, holder)
    others: list[Lease] = []
    usual = module._create

    def slow(*arguments: Any) -> bool:
        monkeypatch.setattr(module, "_create", usual)
        for _ in range(2):
            other = take(tmp_path)
            assert other
            others.append(other)
            if len(others) == 1:
                other.release()
        return usual(*arguments)

    monkeypatch.setattr(module, "_create", slow)
    assert take(tmp_path) is None
    others[-1].check()
    assert _names(tmp_path) == ["000003.json"]
    others[-1].release()


def test_a_paused_holder_that_wakes_knows_that_it_lost_and_writes_no_more(
    tmp_path: Path, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    process = holder()
    _alter(tmp_path, machine="elsewhere")
    os.kill(process.pid, signal.SIGSTOP)
    watch, until = Watch(patience_s=0.3), time.monotonic() + 10
    while (lease := take(tmp_path, watch)) is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    with lease:
        os.kill(process.pid, signal.SIGCONT)
        out, _ = process.communicate(timeout=10)
        assert out.split() == ["True", "LeaseLost"]
        assert not (tmp_path / "record.json").exists()
        lease.check()
    assert _names(tmp_path) == ["000002.json"]


def test_who_lost_a_folder_since_its_last_beat_writes_nothing_either(tmp_path: Path) -> None:
    lease = take(tmp_path, beat_s=1000)
    assert lease
    record = OpenRecord(tmp_path, {}, lease)
    record.update(status="running")
    _alter(tmp_path, begun="1")
    successor = take(tmp_path)
    assert successor
    before = (tmp_path / "record.json").read_bytes()
    with pytest.raises(LeaseLost, match="took over"):
        record.update(status="complete")
    assert (tmp_path / "record.json").read_bytes() == before
    lease.release()
    successor.check()
    successor.release()


def test_giving_back_what_is_lost_writes_nothing(tmp_path: Path) -> None:
    lease = take(tmp_path, beat_s=1000)
    _alter(tmp_path, begun="1")
    with take(tmp_path) as successor:  # type: ignore[union-attr]
        assert lease
        lease.release()
        assert _names(tmp_path) == ["000002.json"]
        successor.check()


def test_a_beat_tells_of_the_loss_once(tmp_path: Path) -> None:
    told: list[int] = []
    lease = take(tmp_path, beat_s=0.02)
    assert lease
    lease.on_lost = lambda: told.append(1)
    time.sleep(0.1)
    assert not lease.lost
    (tmp_path / "lease" / "000002.json").write_text("{}")
    time.sleep(0.2)
    assert lease.lost
    assert told == [1]
    lease.release()


def test_the_holder_beats(tmp_path: Path) -> None:
    with take(tmp_path, beat_s=0.02) as _:  # type: ignore[union-attr]
        _beat(tmp_path, 1)
        time.sleep(0.2)
        found = newest(tmp_path)
        assert found
        assert found.beat > 1e18


def test_a_folder_that_was_removed_is_lost(tmp_path: Path) -> None:
    lease = take(tmp_path, beat_s=1000)
    assert lease
    _file(tmp_path).unlink()
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()
    assert _names(tmp_path) == []


def test_a_file_system_that_is_away_for_a_while_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with take(tmp_path, beat_s=0.02) as lease:  # type: ignore[union-attr]
        with monkeypatch.context() as patch:
            patch.setattr(os, "utime", away)
            patch.setattr(module, "_generations", away)
            time.sleep(0.1)
            lease.check()
            assert not looks_alive(tmp_path), "nobody can tell"
        time.sleep(0.1)
        assert not lease.lost
        _beat(tmp_path, 1)
        time.sleep(0.1)
        assert newest(tmp_path).beat > 1e18  # type: ignore[union-attr]


def test_what_is_given_back_can_be_taken_at_once_and_only_then(tmp_path: Path) -> None:
    with take(tmp_path) as lease:  # type: ignore[union-attr]
        assert take(tmp_path) is None
        lease.check()
    assert not looks_alive(tmp_path)
    found = newest(tmp_path)
    assert found
    assert found.released
    lease.release()
    _alter(tmp_path, machine="elsewhere")
    with take(tmp_path) as again:  # type: ignore[union-attr]
        again.check()
    assert _names(tmp_path) == ["000002.json"], "nothing else is left"


def test_a_full_disk_does_not_keep_what_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = take(tmp_path)
    assert lease

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        lease.release()
    assert _names(tmp_path) == ["000001.json"]
    assert _taken(take(tmp_path))


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_grants_a_name_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with take(tmp_path) as lease:  # type: ignore[union-attr]
        assert take(tmp_path) is None
        assert not module._create_exclusively(_file(tmp_path), {})
        lease.check()
    assert _taken(take(tmp_path))
    assert _names(tmp_path) == ["000002.json"]


def test_a_link_whose_answer_was_lost_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.link

    def forgetful(source: Path, target: Path) -> None:
        usual(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", forgetful)
    with take(tmp_path) as lease:  # type: ignore[union-attr]
        lease.check()
    assert _names(tmp_path) == ["000001.json"]


@pytest.mark.parametrize("where", ["draft", "link", "no links"])
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    usual = Path.write_text

    def half(path: Path, text: str) -> None:
        usual(path, text[:3])
        full()

    with monkeypatch.context() as patch:
        if where == "draft":
            patch.setattr(Path, "write_text", half)
        else:
            patch.setattr(os, "link", full if where == "link" else refuse)
        if where == "no links":
            # The first is the draft's, the second that of the file itself.
            dumps = iter([json.dumps, full])
            patch.setattr(module, "json", SimpleNamespace(dumps=lambda facts: next(dumps)(facts), load=json.load))
        with pytest.raises(BenchError, match=r"cannot write .*lease: No space left.*free space"):
            take(tmp_path)
    assert _names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(BenchError, match=r"cannot write .*results/key/lease: Not a directory\. Give another folder"):
        take(tmp_path / "results" / "key")


def test_a_read_only_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results"
    (folder / "lease").mkdir(parents=True)
    (folder / "lease").chmod(0o500)
    if os.access(folder / "lease", os.W_OK):  # nothing keeps root out

        def refuse(path: Path, *_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(BenchError, match=r"cannot write .*results/lease: Permission denied.*right to write there"):
        take(folder)
    (folder / "lease").chmod(0o700)


def test_a_process_that_the_system_hides_is_watched_as_if_elsewhere(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounted with hidepid, /proc shows no process of another user."""
    lease = take(tmp_path, beat_s=1000)
    assert lease
    _alter(tmp_path, pid=1, begun="77")
    usual, hidden = Path.exists, Path("/proc/1/stat")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "exists", lambda path, **more: path != hidden and usual(path, **more))
    monkeypatch.setattr(os, "kill", refuse)
    watch = Watch(patience_s=60)
    for _ in range(6):
        assert take(tmp_path, watch) is None
        clock.now += 10
    assert _taken(take(tmp_path, watch))
    lease.release()


def test_files_of_others_among_the_leases_disturb_nobody(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    for name in (".nfs0001", "notes.txt", "x.json", "¹.json", ".000009.0123"):
        (tmp_path / "lease" / name).write_text("{}")
    (tmp_path / "lease" / "000001.json").mkdir()  # can neither be read nor taken away
    watch = Watch(patience_s=0)
    assert _taken(take(tmp_path, watch) or take(tmp_path, watch))


def test_a_record_is_taken_once_and_a_failure_noted_for_whoever_cannot(
    tmp_path: Path, make_job: Callable[..., Any]
) -> None:
    store, job = Store(tmp_path), make_job()
    with store.take(job.key) as _:  # type: ignore[union-attr]
        assert store.take(job.key) is None
        assert store.give_up(job, "failed", "its process died") is None
        assert store.get(job.key) is None
    record = store.give_up(job, "timeout", "killed")
    assert record
    assert (record.status, record.content["message"]) == ("timeout", "killed")
    assert not looks_alive(record.folder)


def test_what_is_complete_is_not_given_up(tmp_path: Path, complete_record: Callable[..., Any]) -> None:
    written = complete_record(tmp_path)
    store = Store(tmp_path)
    job = SimpleNamespace(key=written.key)
    assert store.give_up(job, "failed", "late") == store.get(written.key)  # type: ignore[arg-type]
    assert store.get(written.key).status == "complete"  # type: ignore[union-attr]


def test_a_run_says_running_as_long_as_its_process_is_there(
    tmp_path: Path, make_job: Callable[..., Any], holder: Callable[..., subprocess.Popen[str]]
) -> None:
    store, job = Store(tmp_path), make_job()
    store.open_run(job)
    process = holder(store.root / job.key)
    assert store.get(job.key).status == "running"  # type: ignore[union-attr]
    process.kill()
    process.wait()
    assert store.get(job.key).status == "interrupted"  # type: ignore[union-attr]
