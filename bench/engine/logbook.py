"""What a training leaves to be looked at: ``history.csv`` and TensorBoard's events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

Row = Mapping[str, float | None]
_GROUPS = {"dice": "validation"}


class Logbook:
    """Takes the history of a training, row by row. A context manager.

    Args:
        folder: where the events go; None keeps no events.
        write_history: takes all rows so far, at each new one.
        step: steps done before this attempt: later events of an earlier attempt are void.
    """

    def __init__(self, folder: Path | None, write_history: Callable[[Sequence[Row]], None], step: int) -> None:
        self._write_history = write_history
        self._events = None
        if folder is not None:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(folder), purge_step=step + 1)

    def __enter__(self) -> Logbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()

    def add(self, rows: Sequence[Row]) -> None:
        """Write all rows; the last one is new."""
        self._write_history(rows)
        if self._events is None:
            return
        row = dict(rows[-1])
        step = int(row.pop("step") or 0)
        try:
            for name, value in row.items():
                if value is not None:
                    part = next((group for prefix, group in _GROUPS.items() if name.startswith(prefix)), "training")
                    self._events.add_scalar(f"{part}/{name}", value, step)
            self._events.flush()
        except OSError:  # they are for looking on; what must not be lost is told by the store
            self._events = None
