"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bench.errors import BenchError


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file under another name and give it its own only once every byte is on the disk.

    A kill, a full disk or an exception inside the block leaves what was there before, and no debris of ours
    except, after a kill, a hidden temporary file.

    Raises:
        BenchError: the file system refuses (full, read-only, forbidden).
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise BenchError(
            f"cannot write {path}: {error.strerror or error}. What was there before is unchanged; "
            "free space or give another folder with --results, then run the same command again to go on."
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8.

    Raises:
        BenchError: as `atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(text.encode())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # The new name itself should survive a power cut too; some network file systems refuse this.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
