"""The one exception that `bench` raises for a mistake that its user can mend."""

import difflib
from collections.abc import Sequence


class BenchError(ValueError):
    """A request that cannot be met, or a record that is not what it should be.

    The message says what was found, where, what was expected and what to do; the command line prints it as it is.
    """


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """The message for a name that is not among the known ones: the nearest first, then all."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}Known: {', '.join(known)}"
