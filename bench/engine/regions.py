"""A dataset's regions as what a network is trained on, and as what its label maps are painted from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bench.errors import BenchError
from bench.fields import Target
from bench.protocol import Protocol

Regions = Mapping[str, tuple[int, ...]]
RegionLabels = Sequence[Collection[int]]
"""The labels of the region that each channel of a network is of, in order; none where channels are classes."""


def channel_regions(target: Target, regions: Regions) -> Regions:
    """The region that each channel of a network is of, in order, with its labels; none where they are classes.

    The order is that in which label maps are painted, whatever order the dataset's card has: WT, TC, ET.

    Args:
        target: the protocol's ``train.target``.
        regions: of the dataset, name to labels.

    Raises:
        BenchError: ``train.target`` is ``regions``, and label maps cannot be made from these, see `labels_of_regions`.
    """
    if target == "classes":
        return {}
    return {name: regions[name] for name in labels_of_regions(regions, "train.target", "classes")}


def channel_labels(target: Target, regions: Regions) -> RegionLabels:
    """The labels alone of `channel_regions`."""
    return tuple(channel_regions(target, regions).values())


def check_regions(protocol: Protocol, regions: Regions, model: str) -> None:
    """See that label maps can be painted from a dataset's regions, where a protocol asks for that.

    Raises:
        BenchError: they cannot; it says for which network, and whether its authors' recipe asks for it.
    """
    try:
        if protocol.train.target == "regions":
            channel_regions("regions", regions)
        elif protocol.infer.output == "regions":
            labels_of_regions(regions)
    except BenchError as error:
        whose = ", by its authors' recipe" if protocol.by_authors else ""
        raise BenchError(f"{model}{whose}: {error}") from None


def check_count(name: str, found: int, regions: int) -> None:
    """See that a network of regions has a channel for each.

    Raises:
        BenchError: it has not, and how many it has.
    """
    if found != regions:
        raise BenchError(
            f"{name} returned {found} channels for each voxel; expected as many as it was asked for as out_channels, "
            f"{regions}: with train.target=regions one for each region"
        )


def labels_of_regions(regions: Regions, field: str = "infer.output", instead: str = "argmax") -> dict[str, int]:
    """The label that stands for each region in a map painted from the largest region to the smallest.

    It is the lowest that the region has and no smaller one: of WT (1, 2, 3), TC (1, 3) and ET (3) the labels 2, 1 and
    3. A voxel so labelled lies in the region and in those that hold it, and in no other. Labels that are in no region,
    or in the same ones as a lower label, do not occur in such a map.

    Args:
        regions: of the dataset, name to labels.
        field: of the protocol, which asks for regions.
        instead: a value of that field that does not.

    Raises:
        BenchError: a region has no label of its own, or two overlap and neither holds the other, so that one label
            cannot say which of them a voxel is in.
    """
    asked, mend = f"{field}=regions", f"Use {field}={instead}"
    if not regions:
        raise BenchError(f"{asked}: the dataset's card names no regions. {mend}")
    order = sorted(regions, key=lambda name: (-len(set(regions[name])), name))
    painted: dict[str, int] = {}
    for place, name in enumerate(order):
        own = set(regions[name]) - {0}
        for smaller in order[place + 1 :]:
            common = own & set(regions[smaller])
            if common and common != set(regions[smaller]):
                raise BenchError(
                    f"{asked}: the regions {name} {_told(regions[name])} and {smaller} {_told(regions[smaller])} "
                    f"overlap and neither holds the other, so no label map says which a voxel is in. {mend}"
                )
            own -= common
        if not own:
            raise BenchError(
                f"{asked}: every label of the region {name} {_told(regions[name])} is one of another region too, so "
                f"that no label stands for it alone. {mend}"
            )
        painted[name] = min(own)
    return painted


def _told(labels: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, labels))})"
