"""How the code of a network's authors names what the network holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Replacement = str | Callable[[re.Match[str]], str]

# Buffers that a network computes for itself; a file may have them or not, and they are never taken from it.
COMPUTED = re.compile(r"(^|\.)(relative_position_index|num_batches_tracked)$")


@dataclass(frozen=True)
class Published:
    """How the authors' code names what a network here holds.

    Attributes:
        rules: patterns in our names and what takes their place, each applied to the outcome of the one before; what
            comes out are the authors' names.
        aliases: patterns in the authors' names under which a tensor is saved a second time, and what they repeat.
        dropped: patterns of the authors' names that have no counterpart here since they play no part.
        caution: what a file cannot tell and its user must know, said whenever one is loaded.
    """

    rules: tuple[tuple[str, Replacement], ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()
    caution: str = ""

    def name(self, ours: str) -> str:
        """The authors' name of a parameter or buffer of ours."""
        for pattern, replacement in self.rules:
            ours = re.sub(pattern, replacement, ours)
        return ours

    def plain(self, theirs: str) -> str:
        """A name of the authors', or what it repeats."""
        for pattern, replacement in self.aliases:
            theirs = re.sub(pattern, replacement, theirs)
        return theirs

    def plays_no_part(self, theirs: str) -> bool:
        """Whether a name of the authors' has no counterpart here and needs none."""
        return any(re.search(pattern, theirs) for pattern in (*self.dropped, COMPUTED.pattern))
