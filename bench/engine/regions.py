"""A dataset's regions as what a network is trained on, and as what its label maps are painted from."""

from __future__ import annotations

from collections.abc import Mapping

from bench.errors import BenchError

Regions = Mapping[str, tuple[int, ...]]


def output_regions(target: str, regions: Regions) -> Regions:
    """The region that each output of a network stands for, in order, with its labels; none where they are classes.

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
