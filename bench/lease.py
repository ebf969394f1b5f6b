"""Who may write into a folder: one process at a time, also where several machines share the folder over NFS.

A lease is a file ``lease/<generation>.json``. The newest generation holds. Taking one over creates the next
generation, which a file system grants to one process alone (a hard link, or exclusive creation where there are no
links), and nothing is ever taken by deleting a file, so two that find the same dead holder cannot both succeed it.
The holder touches its file every few seconds. Whoever waits judges by its own clock whether that goes on, so no two
clocks need agree; on the holder's own machine it looks for the process. No lock of the file system is used.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import BenchError

BEAT_S = 10.0
PATIENCE_S = 60.0
# Of the time between two looks no more than this part of the patience counts: whoever was kept from looking, as where
# the file system was away, cannot know whether the holder was kept from touching its file as well.
_COUNTED = 0.25
# For a look that cannot wait; it compares two machines' clocks.
_LOOKS_DEAD_S = 300.0
_FOLDER = "lease"
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EXDEV)


class Held(Exception):
    """Another process holds the folder."""


class LeaseLost(Held):
    """Another process took the folder over, since this one gave no sign of life; nothing more may be written."""


@dataclass(frozen=True)
class Holder:
    """Who holds a folder, as its newest lease says.

    Attributes:
        generation: of the lease.
        facts: host, process and when it began.
        released: whether it was given back.
        beat: when the holder touched it last, by the file system's clock, in nanoseconds.
    """

    generation: int
    facts: dict[str, Any]
    released: bool
    beat: int

    @property
    def here(self) -> bool:
        """Whether it is a process of this machine, whose life can be looked up."""
        return self.facts.get("machine") == _machine() and not _hidden(self.facts.get("pid"))

    @property
    def runs(self) -> bool:
        """Whether the process of that number, begun at that moment, is there. Ask only where it is `here`."""
        pid = self.facts.get("pid")
        return isinstance(pid, int) and _begun(pid) is not None and _begun(pid) == self.facts.get("begun")

    def __str__(self) -> str:
        return f"process {self.facts.get('pid', '?')} on {self.facts.get('host', 'an unknown machine')}"


class Watch:
    """Judges, over time and by its own clock, whether holders are alive."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        # What was seen of each folder's holder, for how long by now, and when last.
        self._seen: dict[Path, tuple[tuple[int, int], float, float]] = {}

    def holder(self, folder: Path) -> Holder | None:
        """Who holds the folder and may be alive; None where it can be taken."""
        found = newest(folder)
        return found if found is not None and self.may_live(folder, found) else None

    def may_live(self, folder: Path, found: Holder) -> bool:
        """Whether the holder of a folder, just read, may be alive.

        One on another machine is given up once it has been looked at for ``patience_s`` without a beat.
        """
        if found.released:
            return False
        if found.here:
            return found.runs
        mark, now = (found.generation, found.beat), time.monotonic()
        known, watched, last = self._seen.get(folder, (mark, 0.0, now))
        watched = watched + min(now - last, _COUNTED * self._patience_s) if known == mark else 0.0
        self._seen[folder] = (mark, watched, now)
        return watched < self._patience_s


class Lease:
    """A folder held by this process. A context manager that gives it back; `take` makes one.

    Attributes:
        lost: whether another process took it over.
    """

    def __init__(self, folder: Path, generation: int, facts: dict[str, Any], beat_s: float) -> None:
        self.lost = False
        self.on_lost: Callable[[], None] = lambda: None
        self._folder, self._generation, self._facts = folder, generation, facts
        self._path = _path(folder, generation)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(beat_s,), name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def check(self) -> None:
        """Raise `LeaseLost` if the folder is another's by now."""
        with suppress(OSError):  # of a file system that is away, whoever wants to write hears soon enough
            self._look()
        if self.lost:
            raise LeaseLost(f"another process took over {self._folder}, since this one seemed dead")

    def release(self) -> None:
        """Give the folder back. What cannot be written is left to others' patience."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            self._look()
            if not self.lost:
                _give_back(self._path, self._facts)

    def _look(self) -> None:
        generations = _generations(self._folder)
        self.lost = self.lost or not generations or generations[-1] != self._generation

    def _beat(self, beat_s: float) -> None:
        while not self._ended.wait(beat_s):
            try:
                os.utime(self._path)
                self._look()
            except FileNotFoundError:
                self.lost = True
            except OSError:  # a file system may be away for a while; whether the folder is still ours shows later
                continue
            if self.lost:
                self.on_lost()
                return


def take(folder: Path, watch: Watch | None = None, beat_s: float = BEAT_S) -> Lease | None:
    """Hold a folder for this process; None while another does.

    Args:
        folder: it is made if need be.
        watch: one that has looked before, which a takeover from another machine needs.

    Raises:
        BenchError: the file system refuses.
    """
    watch = watch or Watch()
    facts = {"host": platform.node(), "pid": os.getpid(), "begun": _begun(os.getpid()), "machine": _machine()}
    try:
        (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
        while True:
            found = newest(folder)
            if found is not None and watch.may_live(folder, found):
                return None
            # The one after that which was judged: after one that came in the meantime, two would succeed.
            generation = 1 if found is None else found.generation + 1
            path = _path(folder, generation)
            if not _create(path, facts):
                continue  # somebody was quicker; whether it is alive is seen above
            known = _generations(folder)
            if known and known[-1] == generation:
                break
            path.unlink(missing_ok=True)  # ours lies below one that was made, and kept, in the meantime
        for old in known[:-1]:
            with suppress(OSError):  # of another user, say; it decides nothing any more
                _path(folder, old).unlink()
    except OSError as error:
        raise BenchError(
            f"cannot write {folder / _FOLDER}: {error.strerror or error}. Give another folder, or the right to write "
            "there; free space if the disk is full."
        ) from error
    return Lease(folder, generation, facts, beat_s)


def newest(folder: Path) -> Holder | None:
    """What the newest lease of a folder says; None where there is none."""
    for _ in range(5):  # one that vanishes while it is read was succeeded
        generation = max(_generations(folder), default=None)
        if generation is None:
            return None
        facts: Any = {}
        try:
            # Opening makes NFS ask the server, where stat alone may answer from its cache.
            with _path(folder, generation).open() as file:
                beat = os.fstat(file.fileno()).st_mtime_ns
                facts = json.load(file)
        except FileNotFoundError:
            continue
        except OSError:
            beat = 0
        except ValueError:  # about to be written, or damaged: somebody's until it was watched for long enough
            pass
        facts = facts if isinstance(facts, dict) else {}
        return Holder(generation, facts, bool(facts.get("released")), beat)
    return None


def looks_alive(folder: Path) -> bool:
    """Whether somebody seems to hold the folder, at one look; good enough to be shown, not to act upon."""
    try:
        found = newest(folder)
    except OSError:
        return False
    if found is None or found.released:
        return False
    return found.runs if found.here else time.time() - found.beat / 1e9 < _LOOKS_DEAD_S


def _path(folder: Path, generation: int) -> Path:
    return folder / _FOLDER / f"{generation:06d}.json"


def _generations(folder: Path) -> list[int]:
    try:
        names = [path.name for path in (folder / _FOLDER).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdecimal())


def _create(path: Path, facts: dict[str, Any]) -> bool:
    """Make the file with all it holds, unless it is there already."""
    draft = path.with_name(f".{path.stem}.{uuid.uuid4().hex}")
    try:
        draft.write_text(json.dumps(facts))
        linked = _link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return _create_exclusively(path, facts) if linked is None else linked


def _link(draft: Path, path: Path) -> bool | None:
    """Give a file a second name, unless there is one of that name; None where a file has one name only."""
    try:
        os.link(draft, path)
    except FileExistsError:
        # Over NFS the answer to a link that was made may be lost, and the repeated request finds it there. Opening
        # makes it ask the server, where stat alone may answer from its cache.
        with draft.open() as file:
            return os.fstat(file.fileno()).st_nlink == 2
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return None
    return True


def _create_exclusively(path: Path, facts: dict[str, Any]) -> bool:
    try:
        file = path.open("x")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(json.dumps(facts))
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _give_back(path: Path, facts: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.stem}.{uuid.uuid4().hex}")
    released = json.dumps({**facts, "released": True})
    try:
        draft.write_text(released)
        draft.replace(path)
    except OSError:  # a full disk takes no more files, but may take what is no longer than the file that is there
        path.write_text(released)
    finally:
        draft.unlink(missing_ok=True)


def _machine() -> str:
    """What tells this machine, since its last start, from every other; containers see only their own processes."""
    parts = [platform.node()]
    for read in (_boot, _processes):
        with suppress(OSError):
            parts.append(read())
    return " ".join(parts)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _processes() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _hidden(pid: object) -> bool:
    """Whether there is a process of that number of which the system tells nothing: another user's, with hidepid."""
    if not isinstance(pid, int) or not Path("/proc/self/stat").exists() or Path(f"/proc/{pid}/stat").exists():
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


def _begun(pid: int) -> str | None:
    """When a process began, in the system's own units; None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except OSError:
        return None
    else:
        # A killed process may be a zombie while a thread of it still ends what it had begun to write.
        return None if fields[0] in ("Z", "X") and int(fields[17]) <= 1 else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
