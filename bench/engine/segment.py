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
from bench.engine.regions import Regions, channel_regions, check_count, labels_of_regions
from bench.fields import InferFields, Target
from data.prepare import PreparedCase, StoredCase


@dataclass(frozen=True)
class Segmentation:
    """What a network says of one case.

    Everything is computed class by class, so that beside the logits no more than a few volumes are needed.

    Attributes:
        logits: (K, d, h, w) float32 in the prepared grid, of classes or of regions. Where it differs from the box that
            was cut from the files, because the case was resampled, logits are brought there by trilinear interpolation,
            voxel centres on voxel centres, before anything is made of them.
        case: whose they are.
        painted: regions from the largest to the smallest, each with the label that stands for it; None for the class of
            the largest logit.
        regions: of the dataset, name to labels.
        of_regions: whether the logits are of the painted regions, in that order, and not of classes.
    """

    logits: Tensor
    case: PreparedCase | StoredCase
    painted: Mapping[str, int] | None
    regions: Regions
    of_regions: bool = False

    def label(self) -> NDArray[np.uint8]:
        """(D, H, W) in the grid of the files, background outside the box."""
        if self.painted is None:
            label = self._largest()
        else:
            label = self._from_regions(self.painted) if self.of_regions else self._from_sums(self.painted)
        return self.case.uncrop(label.cpu().numpy())

    def each_probability(self) -> Iterator[NDArray[np.float32]]:
        """Probability of one class after the other, by softmax, or of one region after the other, by a sigmoid each.

        (D, H, W) in the grid of the files; outside the box it is 1 for the background, and 0 for all else.
        """
        inside = tuple(slice(start, stop) for start, stop in self.case.box)
        each = map(torch.sigmoid, self._in_box()) if self.of_regions else self._softmax()
        for channel, probability in enumerate(each):
            full = np.full(self.case.geometry.shape, float(channel == 0 and not self.of_regions), dtype=np.float32)
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

    def _from_sums(self, painted: Mapping[str, int]) -> Tensor:
        """Each region where its classes' summed probability is above one half, the smaller over the larger."""
        sums: dict[str, Tensor] = {}
        for value, probability in enumerate(self._softmax()):
            for name in painted:
                if value in self.regions[name]:
                    sums[name] = sums[name].add_(probability) if name in sums else probability.clone()
        label = torch.zeros_like(probability, dtype=torch.uint8)
        for name, value in painted.items():
            label.masked_fill_(sums[name] > 0.5, value)
        return label

    def _from_regions(self, painted: Mapping[str, int]) -> Tensor:
        """Each region where its own probability is above one half, the smaller over the larger.

        Unlike sums over classes, two regions without a common label may both be above it: the likelier is painted.
        """
        rivals = {
            name: frozenset(other for other in painted if other == name or not self._common(name, other))
            for name in painted
        }
        highest: dict[frozenset[str], Tensor] = {}
        for name, logit in zip(painted, self._in_box(), strict=True):
            for group in {group for group in rivals.values() if name in group and len(group) > 1}:
                highest[group] = torch.maximum(highest[group], logit) if group in highest else logit
        label: Tensor | None = None
        for (name, value), logit in zip(painted.items(), self._in_box(), strict=True):
            if label is None:
                label = torch.zeros_like(logit, dtype=torch.uint8)
            mine = logit > 0
            if rivals[name] in highest:
                mine &= logit >= highest[rivals[name]]
            label.masked_fill_(mine, value)
        assert label is not None
        return label

    def _common(self, one: str, other: str) -> set[int]:
        return set(self.regions[one]) & set(self.regions[other])

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
        """Each channel's logits in the box of the files' grid."""
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
        regions: of the dataset, name to labels; asked for where the network was trained on them, or ``fields.output``
            is ``regions``.
        target: what the network was trained on, the protocol's ``train.target``.

    Attributes:
        region_names: of the regions that the network's channels are of, in order; empty where they are of classes.

    Raises:
        BenchError: label maps cannot be made from these regions, see `bench.engine.regions.labels_of_regions`.
    """

    def __init__(
        self,
        model: nn.Module,
        patch_size: tuple[int, int, int],
        fields: InferFields,
        regions: Regions,
        device: torch.device,
        at_once: int | None = None,
        target: Target = "classes",
    ) -> None:
        self._regions = regions
        self.region_names = tuple(channel_regions(target, regions))
        painting = self.region_names or fields.output == "regions"
        self._painted = labels_of_regions(regions) if painting else None
        self._name = getattr(model, "registered_name", type(model).__name__)
        self._window = SlidingWindow(model, patch_size, fields, device, at_once)

    def segment(self, case: PreparedCase | StoredCase, on_window: OnWindow = ignore) -> Segmentation:
        """Run the network over a case.

        Raises:
            Diverged, BenchError: as `bench.engine.infer.SlidingWindow.logits`; or the network, which was trained on
                regions, does not give one channel to each.
        """
        logits = self._window.logits(case.image, on_window)
        if self.region_names:
            check_count(self._name, len(logits), len(self.region_names))
        return Segmentation(logits, case, self._painted, self._regions, bool(self.region_names))
