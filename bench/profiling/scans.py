"""Selective scans alone, by each backend: what there is to measure, and the least that each pass has to move.

The scan of Mamba (Gu and Dao 2023, arXiv:2312.00752, section 3.3.2) does little arithmetic for each value that it
reads, so that its time is judged by its traffic with memory. Names and checks are at hand without PyTorch, so that a
request can be checked before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.errors import BenchError, unknown
from bench.profiling.setting import Mode

Layout = Literal["channels_last", "channels_first"]

# States per channel: Mamba's.
STATES = 16
# Of each value of u, delta, z, B and C; by precision.
VALUE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Scan:
    """One way to carry a scan out.

    Attributes:
        title: for tables and figures.
        backend: name of the backend in `models.ops`.
        layout: how tensors (B, D, L) lie in memory: ``channels_last`` are transposed views of (B, L, D), as layers have
            them; ``channels_first`` are contiguous, as the package mamba-ssm takes them.
        by_default: whether it is measured where none is named.
    """

    title: str
    backend: str
    layout: Layout
    by_default: bool = True


SCANS: Mapping[str, Scan] = {
    "triton": Scan("Triton", "triton", "channels_last"),
    "triton_channels_first": Scan("Triton, channels first", "triton", "channels_first"),
    "mamba_ssm": Scan("mamba-ssm", "mamba_ssm", "channels_first"),
    "torch": Scan("PyTorch", "torch", "channels_last"),
    "reference": Scan("Reference", "reference", "channels_last", by_default=False),
}


def check_scan(name: str, precision: str = "") -> None:
    """See that there is such a scan, and that it can be measured in a precision; empty for the device's default.

    Raises:
        BenchError: it is not so.
    """
    if name not in SCANS:
        raise BenchError(unknown("scan", name, tuple(SCANS)))
    if precision and precision not in VALUE_BYTES:
        raise BenchError(
            f"--precision {precision} with --what scan: a scan takes no matrix products, its precision is the type of "
            f"what goes in; expected {', '.join(VALUE_BYTES)}"
        )


def choose_scans(asked: Sequence[str], obstacles: Mapping[str, str]) -> list[str]:
    """The scans to measure: those that are named, else all but the slowest that can run.

    Args:
        asked: names of `SCANS`; empty for the choice.
        obstacles: why a backend cannot run on the device; those that can are not among them.

    Raises:
        BenchError: a name is unknown, or what is named cannot run.
    """
    for name in asked:
        check_scan(name)
        if why := obstacles.get(SCANS[name].backend):
            raise BenchError(f"--model {name}: {why}")
    return list(asked) or [name for name, scan in SCANS.items() if scan.by_default and scan.backend not in obstacles]


def least_bytes(mode: Mode, batch: int, channels: int, length: int, states: int, value_bytes: int) -> int:
    """Bytes that a pass cannot do without: all that goes in is read once, all that comes out is written once.

    Forward that is u, delta, z and y of (batch, channels, length), B and C of (batch, states, length). Training adds
    the gradient of y, which is read, the inputs, which are read once more, and their gradients, which are written. The
    parameters A, D and delta_bias, which do not grow with the length, are left out.
    """
    wide, narrow = batch * channels * length, batch * states * length
    inputs = 3 * wide + 2 * narrow
    forward = inputs + wide
    return value_bytes * (forward if mode == "infer" else forward + wide + 2 * inputs)
