"""Opening a dataset from the command line."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.progress import Bar, Watcher
    from data.dataset import Dataset


def open_dataset(name: str, root: Path | None, watcher: Watcher) -> Dataset:
    """Open a dataset, with a bar for phantoms that must be made first."""
    import data
    from data.phantom_cache import POPULATIONS

    with ExitStack() as stack:
        bars: list[Bar] = []

        def on_case(case: str) -> None:
            if not bars:
                bars.append(stack.enter_context(watcher.bar("making phantoms", POPULATIONS[name].cases)))
            bars[0].advance(case)

        return data.open_dataset(name, root, on_case)


def open_datasets(names: Sequence[str], root: Path | None, watcher: Watcher) -> dict[str, Dataset]:
    """Open several datasets, by the names or folders they were asked for with.

    Raises:
        BenchError: one root is given for several.
        DataError: one cannot be opened.
    """
    from bench.errors import BenchError

    if root is not None and len(names) > 1:
        raise BenchError(
            f"--data-dir {root}: it is the root of one dataset, and {len(names)} are named: {', '.join(names)}. Say "
            "where each lies with BENCH_<NAME>_DIR or in bench.toml"
        )
    return {name: open_dataset(name, root, watcher) for name in names}
