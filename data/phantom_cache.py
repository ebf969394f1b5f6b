"""The phantoms that need no folder: generated once into the cache, then found there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError
from data.locate import cache_root
from data.phantom_kind import PLAIN, STRESS, PhantomKind

_MOST_WORKERS = 16


@dataclass(frozen=True)
class Population:
    """The cases that a dataset of phantoms consists of where no folder is named."""

    kind: PhantomKind
    cases: int
    size: int
    seed: int = 0


POPULATIONS = {
    "phantom": Population(PLAIN, cases=24, size=64),
    "phantom_stress": Population(STRESS, cases=200, size=96),
}
"""By the dataset's name."""


def cached_phantom(name: str, on_case: Callable[[str], None] | None = None) -> Path:
    """Folder of a dataset's phantoms, made on the first call; ``on_case`` hears each case's id as it is made.

    Raises:
        DataError: the cache cannot be written; nothing half-made stays.
    """
    from data.phantom import PHANTOM_VERSION, write_dataset

    made_of = POPULATIONS[name]
    label = f"v{PHANTOM_VERSION}-n{made_of.cases}-s{made_of.size}-k{made_of.seed}"
    folder = cache_root() / name / label
    if folder.is_dir():
        return folder
    scratch = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own for each process: several may find the cache empty at the same time.
        scratch = Path(tempfile.mkdtemp(prefix=f".{label}-", dir=folder.parent))
        made = scratch / label
        write_dataset(
            made,
            cases=made_of.cases,
            size=made_of.size,
            seed=made_of.seed,
            kind=made_of.kind.name,
            on_case=on_case,
            workers=min(os.cpu_count() or 1, _MOST_WORKERS),
        )
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
