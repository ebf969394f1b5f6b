"""The phantom that needs no folder: generated once into the cache, then found there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from data.errors import DataError
from data.locate import cache_root

PHANTOM_CASES = 24
PHANTOM_SIZE = 64
PHANTOM_SEED = 0


def default_phantom(on_case: Callable[[str], None] | None = None) -> Path:
    """Folder of the default phantom, made on the first call; ``on_case`` hears each case's id as it is made.

    Raises:
        DataError: the cache cannot be written; nothing half-made stays.
    """
    from data.phantom import PHANTOM_VERSION, write_dataset

    name = f"v{PHANTOM_VERSION}-n{PHANTOM_CASES}-s{PHANTOM_SIZE}-k{PHANTOM_SEED}"
    folder = cache_root() / "phantom" / name
    if folder.is_dir():
        return folder
    scratch = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own for each process: several may find the cache empty at the same time.
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        made = scratch / name
        write_dataset(made, cases=PHANTOM_CASES, size=PHANTOM_SIZE, seed=PHANTOM_SEED, on_case=on_case)
        made.replace(folder)
    except (OSError, DataError) as error:
        if not folder.is_dir():  # else another process was faster
            raise DataError(
                f"cannot make the phantom in {folder.parent}: {error}. Free some space there, or set BENCH_CACHE_DIR "
                "to a folder on another disk."
            ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder
