"""From a prepared case to its label map and class probabilities in the grid of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.engine.infer import OnWindow, SlidingWindow, ignore
from bench.errors import BenchError
from bench.fields import InferFields
from data.prepare import PreparedCase, StoredCase

Regions = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Segmentation:
    """What a network says of one case.

    Everything is computed class by class, so that beside the logits no more than a few volumes are needed.

    Attributes:
        logits: (K, d, h, w) float32 in the prepared grid. Where it differs from the box that was cut from the files,
            because the case was resampled, logits are brought there by trilinear interpolation, voxel centres on voxel
            centres, before anything is made of them.
        case: whose they are.
        painted: regions from the largest to the smallest, each with the label that stands for it; None for the class of
            the largest logit.
    """

    logits: Tensor
    case: PreparedCase | StoredCase
    painted: Mapping[str, int] | None
    regions: Regions

    def label(self) -> NDArray[np.uint8]:
        """(D, H, W) in the grid of the files, background outside the box."""
        label = self._largest() if self.painted is None else self._above_half(self.painted)
        return self.case.uncrop(label.cpu().numpy())

    def each_probability(self) -> Iterator[NDArray[np.float32]]:
        """Softmax probability of one class after the other, (D, H, W) in the grid of the files; outside the box it is
        1 for the background."""
        inside = tuple(slice(start, stop) for start, stop in self.case.box)
        for value, probability in enumerate(self._softmax()):
            full = np.full(self.case.geometry.shape, float(value == 0), dtype=np.float32)
            full[inside] = probability.cpu().numpy()
            yield full

    def probabilities(self) -> NDArray[np.float32]:
        """(K, D, H, W), all of `each_probability`."""
        return np.stack(list(self.each_probability()))

    def _largest(self) -> Tensor:
        highest: Tensor | None = None
        for value, logit in enumerate(self._in_box()):
            if highest is None:
                highest, label = logit.clone(), torch.zeros_like(logit, dtype=torch.uint8)
            else:
                label.masked_fill_(logit > highest, value)  # of equal ones the first, as argmax
                torch.maximum(highest, logit, out=highest)
        return label

    def _above_half(self, painted: Mapping[str, int]) -> Tensor:
        sums: dict[str, Tensor] = {}
        for value, probability in enumerate(self._softmax()):
            for name in painted:
                if value in self.regions[name]:
                    sums[name] = sums[name].add_(probability) if name in sums else probability.clone()
        label = torch.zeros_like(probability, dtype=torch.uint8)
        for name, value in painted.items():
            label.masked_fill_(sums[name] > 0.5, value)
        return label

    def _softmax(self) -> Iterator[Tensor]:
        highest: Tensor | None = None
        for logit in self._in_box():
            if highest is None:
                highest, total = logit, torch.ones_like(logit)
            else:
                higher = torch.maximum(highest, logit)
                total.mul_((highest - higher).exp_()).add_((logit - higher).exp_())
                highest = higher
        assert highest is not None
        for logit in self._in_box():
            yield (logit - highest).exp_().div_(total)

    def _in_box(self) -> Iterator[Tensor]:
        """Each class's logits in the box of the files' grid."""
        extent = self.case.box_shape
        for logit in self.logits:
            if logit.shape == extent:
                yield logit
            else:
                yield F.interpolate(logit[None, None], size=extent, mode="trilinear", align_corners=False)[0, 0]


class Segmenter:
    """Segments prepared cases with one network.

    Args:
        model, patch_size, fields, device, at_once: as `bench.engine.infer.SlidingWindow`.
        regions: of the dataset, name to labels; asked for where ``fields.output`` is ``regions``.

    Raises:
        BenchError: label maps cannot be made from these regions, see `labels_of_regions`.
    """

    def __init__(
        self,
        model: nn.Module,
        patch_size: tuple[int, int, int],
        fields: InferFields,
        regions: Regions,
        device: torch.device,
        at_once: int | None = None,
    ) -> None:
        self._regions = regions
        self._painted = labels_of_regions(regions) if fields.output == "regions" else None
        self._window = SlidingWindow(model, patch_size, fields, device, at_once)

    def segment(self, case: PreparedCase | StoredCase, on_window: OnWindow = ignore) -> Segmentation:
        """Run the network over a case.

        Raises:
            Diverged, BenchError: as `bench.engine.infer.SlidingWindow.logits`.
        """
        return Segmentation(self._window.logits(case.image, on_window), case, self._painted, self._regions)


def labels_of_regions(regions: Regions) -> dict[str, int]:
    """The label that stands for each region in a map painted from the largest region to the smallest.

    It is the lowest that the region has and no smaller one: of WT (1, 2, 3), TC (1, 3) and ET (3) the labels 2, 1 and
    3. A voxel so labelled lies in the region and in those that hold it, and in no other. Labels that are in no region,
    or in the same ones as a lower label, do not occur in such a map.

    Raises:
        BenchError: a region has no label of its own, or two overlap and neither holds the other, so that one label
            cannot say which of them a voxel is in.
    """
    if not regions:
        raise BenchError("infer.output=regions: the dataset's card names no regions. Use infer.output=argmax")
    order = sorted(regions, key=lambda name: -len(set(regions[name])))
    painted: dict[str, int] = {}
    for place, name in enumerate(order):
        own = set(regions[name]) - {0}
        for smaller in order[place + 1 :]:
            common = own & set(regions[smaller])
            if common and common != set(regions[smaller]):
                raise BenchError(
                    f"infer.output=regions: the regions {name} {_told(regions[name])} and {smaller} "
                    f"{_told(regions[smaller])} overlap and neither holds the other, so no label map says which a "
                    "voxel is in. Use infer.output=argmax"
                )
            own -= common
        if not own:
            raise BenchError(
                f"infer.output=regions: every label of the region {name} {_told(regions[name])} is one of another "
                "region too, so that no label stands for it alone. Use infer.output=argmax"
            )
        painted[name] = min(own)
    return painted


def _told(labels: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, labels))})"
