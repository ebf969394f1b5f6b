"""Training patches: which case, which place, decided by (seed, step, sample) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.prepare import PreparedCase, StoredCase


@dataclass(frozen=True)
class Batch:
    """Patches of one training step.

    Attributes:
        image: (B, C, D, H, W) float32.
        label: (B, D, H, W) int64.
    """

    image: NDArray[np.float32]
    label: NDArray[np.int64]


class PatchSampler:
    """Draws the patches of any step, independent of the steps before it.

    Each sample has a random generator of its own, seeded by (seed, step, sample), so an interrupted run goes on
    with the stream it would have seen, whatever the number of workers.

    Cases are drawn with replacement. A share ``foreground_fraction`` of the samples, spread evenly over the
    stream, is centred on a voxel of a label class drawn uniformly among those the case holds; the others lie
    anywhere (nnU-Net's scheme, Isensee et al., 2021, which SegMamba's released training uses: at batch 2 one
    random patch and one on the foreground). Patches stay inside the volume where it is large enough and are padded
    with zeros behind it where it is not.

    Args:
        cases: prepared cases with labels.
        patch_size: (d, h, w) in voxels.
        batch_size: patches a step.
        foreground_fraction: in [0, 1].
        mirror: flip each patch along each axis with probability one half.
        seed: of the stream.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase | StoredCase],
        *,
        patch_size: tuple[int, int, int],
        batch_size: int,
        foreground_fraction: float,
        mirror: bool,
        seed: int,
    ) -> None:
        self._cases = cases
        self._patch_size = patch_size
        self._batch_size = batch_size
        self._foreground_fraction = foreground_fraction
        self._mirror = mirror
        self._seed = seed

    def batch(self, step: int) -> Batch:
        """The patches of one step, counted from 0."""
        samples = [self._sample(step, index) for index in range(self._batch_size)]
        return Batch(
            image=np.stack([image for image, _ in samples]),
            label=np.stack([label for _, label in samples]).astype(np.int64),
        )

    def _sample(self, step: int, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        random = np.random.default_rng([self._seed, step, index])
        case = self._cases[int(random.integers(len(self._cases)))]
        image, label = case.image, case.label
        assert label is not None
        shape = label.shape
        foreground = case.foreground if self._on_foreground(step, index) else {}
        if foreground:
            voxels = foreground[random.choice(sorted(foreground))]
            centre = voxels[random.integers(len(voxels))]
            wanted = centre - np.array(self._patch_size) // 2
        else:
            wanted = np.array(
                [random.integers(max(n - p, 0) + 1) for n, p in zip(shape, self._patch_size, strict=True)]
            )
        room = np.maximum(np.array(shape) - self._patch_size, 0)
        window = tuple(
            slice(start, start + p) for start, p in zip(np.clip(wanted, 0, room), self._patch_size, strict=True)
        )
        image_patch = _pad(image[(slice(None), *window)], (image.shape[0], *self._patch_size))
        label_patch = _pad(label[window], self._patch_size)
        if self._mirror:
            axes = tuple(axis for axis in (-3, -2, -1) if random.random() < 0.5)
            image_patch, label_patch = np.flip(image_patch, axes), np.flip(label_patch, axes)
        return image_patch, label_patch

    def _on_foreground(self, step: int, index: int) -> bool:
        drawn = step * self._batch_size + index
        return int((drawn + 1) * self._foreground_fraction) > int(drawn * self._foreground_fraction)


def _pad(array: NDArray, shape: tuple[int, ...]) -> NDArray:
    return np.pad(array, [(0, wanted - found) for found, wanted in zip(array.shape, shape, strict=True)])
