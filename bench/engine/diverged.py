"""What a network does that has left the numbers."""

from __future__ import annotations

from bench.errors import BenchError


class Diverged(BenchError):
    """The loss, a weight or a logit became NaN or infinite."""
