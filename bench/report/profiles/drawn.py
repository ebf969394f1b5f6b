"""Figures of what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.report import figures
from bench.report.figures.field import PLANES
from bench.report.profiles.groups import MODES, OF_TOKENS, Group, Measurement, group
from bench.report.profiles.scaling import Series, growing
from bench.report.settings import size_text
from bench.store import Record

# In a record of a receptive field, the planes through the central voxel.
FIELD_FILE = "receptive_field.npz"


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Attributes:
        name: for a file, unlike those of the others: lower-case letters, digits and hyphens, a letter first.
        figure: the figure.
        title: what it shows, in a sentence.
    """

    name: str
    figure: Figure
    title: str


def drawn(records: Sequence[Record]) -> list[Drawn]:
    """Growth of time and memory wherever something was measured at several sizes, and receptive fields."""
    groups = group(records)
    # A network looks the same in all of them.
    networks = [member.label for one in groups if one.what not in OF_TOKENS for member in one.members]
    made: list[Drawn] = []
    for number, one in enumerate(groups, 1):
        if one.what == "network":
            made += _networks(one, number, networks)
        elif one.what in OF_TOKENS:
            made += _by_tokens(one, number)
        elif one.what == "receptive-field":
            made += _fields(one, number, networks)
    return made


def _networks(group_: Group, number: int, networks: Sequence[str]) -> Iterator[Drawn]:
    """One figure, inferences above training steps, batches of several sizes apart."""
    series = [one for one in growing(group_) if one.sizes > 1]
    if series:
        frame = pd.concat([_frame(one, _panel(MODES[one.mode], one, series)) for one in series], ignore_index=True)
        title = f"Growth with the size of the image {group_.told}"
        figure = figures.growth(frame, title, "image (D×H×W voxels)", networks)
        yield Drawn(f"growth-{number}", figure, f"{title}.")


def _by_tokens(group_: Group, number: int) -> Iterator[Drawn]:
    """A figure for each mode, with a panel for each number of channels."""
    for mode, name in MODES.items():
        series = [one for one in growing(group_) if one.mode == mode and one.sizes > 1]
        if series:
            frames = [_frame(one, _panel(f"{one.channels} channels", one, series)) for one in series]
            title = f"Growth with the number of tokens, {name} {group_.told}"
            frame = pd.concat(frames, ignore_index=True).sort_values("panel", key=_width, kind="stable")
            yield Drawn(f"{group_.what}s-{mode}-{number}", figures.growth(frame, title, "tokens"), f"{title}.")


def _fields(group_: Group, number: int, networks: Sequence[str]) -> Iterator[Drawn]:
    """Central planes of those whose file is there, and the radial curves of all."""
    complete = [member for member in group_.members if member.complete]
    several = len({tuple(member.job["image_size"]) for member in complete}) > 1
    # The one that looks farthest first.
    complete.sort(key=lambda member: (-member.found["radii"]["r90"], member.label, member.voxels))
    named = [(f"{member.label} {size_text(member.job['image_size'])}" if several else member.label, member)
             for member in complete]  # fmt: skip
    fields = [field for label, member in named if (field := _field(label, member)) is not None]
    if fields:
        title = f"Effective receptive fields {group_.told}"
        told = f"{title}: planes through the central voxel."
        yield Drawn(f"fields-{number}", figures.receptive_fields(fields, title), told)
    if named:
        title = f"Energy of the receptive field by distance {group_.told}"
        curves = [
            pd.DataFrame({"model": label, **{name: member.found["radial"][name] for name in ("radius", "share")}})
            for label, member in named
        ]
        yield Drawn(f"radial-{number}", figures.radial_shares(pd.concat(curves), title, networks), f"{title}.")


def _field(label: str, member: Measurement) -> figures.Field | None:
    path = member.record.folder / FIELD_FILE
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as stored:
        planes = {name: stored[name] for name in PLANES}
    return figures.Field(label, planes, member.found["radii"])


def _panel(name: str, one: Series, series: Sequence[Series]) -> str:
    return f"{name}, batch {one.batch}" if len({other.batch for other in series}) > 1 else name


def _frame(series: Series, panel: str) -> pd.DataFrame:
    rows = [
        {
            "model": series.label,
            "panel": panel,
            "x": member.voxels,
            "size": _size(member),
            "time_s": member.seconds,
            "memory_bytes": member.found.get("peak_memory_bytes") if member.complete else None,
            "status": member.record.status,
        }
        for member in series.members
    ]
    return pd.DataFrame(rows).astype({"time_s": float, "memory_bytes": float})


def _size(member: Measurement) -> str:
    return f"{member.voxels:,}" if member.job["what"] in OF_TOKENS else size_text(member.job["image_size"])


def _width(panels: pd.Series) -> pd.Series:
    return panels.str.partition(" ")[0].astype(int)
