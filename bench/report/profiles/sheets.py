"""What has been measured of networks, as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.report.profiles.groups import Group, group
from bench.report.profiles.limits import ceiling_sheets, field_sheets, operator_sheets
from bench.report.profiles.passes import pass_sheets, volume_sheets
from bench.report.profiles.scans import scan_sheets
from bench.report.sheet import Sheet
from bench.store import Record

_SHEETS: Mapping[str, Callable[[Group], list[Sheet]]] = {
    "network": pass_sheets,
    "mixer": pass_sheets,
    "scan": scan_sheets,
    "volume": volume_sheets,
    "receptive-field": field_sheets,
    "ceiling": ceiling_sheets,
}


def measurement_sheets(records: Sequence[Record]) -> list[Sheet]:
    """Tables of all measurements among the records; the others are left out.

    Only what agrees in hardware, version of PyTorch, precision and way of measuring shares a table. A measurement that
    came to no end is a row that says why, with the memory that it had reached. Times are in ms or s, memory in GiB (of
    mixers and scans in MiB), energy in J, operations in 10⁹ multiply-accumulates.

    Args:
        records: in any order; rows stand by size, then the fastest first.
    """
    return [sheet for one in group(records) for sheet in (*_SHEETS[one.what](one), *operator_sheets(one))]
