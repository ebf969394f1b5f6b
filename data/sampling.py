"""Training patches: which case, which place and which changes, decided by (seed, step, sample) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.augment import Augmentation
from data.augment.draw import Drawn, draw
from data.augment.linear import to_device
from data.augment.pipeline import augment, pad
from data.augment.resample import MARGIN_VOXELS
from data.augment.warp import Warp, Window, make_warp
from data.errors import DataError
from data.prepared import PreparedCase, StoredCase

Placement = Literal["inside", "centred"]
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    """Patches of one training step, on the device where they are wanted.

    Attributes:
        image: (B, C, D, H, W) float32.
        label: (B, D, H, W) int64.
    """

    image: Tensor
    label: Tensor


@dataclass(frozen=True)
class Cut:
    """What one sample needs of its case, before augmentation, on the CPU.

    Attributes:
        image: (C, d, h, w) in the type in which the case is stored. It is smaller than the patch where the volume
            ends, and larger where the patch is resampled from more of it.
        label: (d, h, w) uint8.
        drawn: the parameters of the transforms.
        warp: where in the cut the voxels of the patch are read; None where the cut is not resampled.
    """

    image: Tensor
    label: Tensor
    drawn: Drawn
    warp: Warp | None


class PatchSampler:
    """Draws the patches of any step, independent of the steps before it.

    Each sample has random generators of its own, seeded by (seed, step, sample), so an interrupted run goes on
    with the stream it would have seen, whatever the number of workers. Noise and elastic displacements are drawn on
    the device, and differ between kinds of devices.

    Cases are drawn with replacement. A share ``foreground_fraction`` of the samples, spread evenly over the
    stream, is centred on a voxel of a label class drawn uniformly among those the case holds; the others lie
    anywhere (nnU-Net's scheme, Isensee et al., 2021, which SegMamba's released training uses: at batch 2 one
    random patch and one on the foreground). Behind a volume that is smaller than the patch there are zeros.

    Args:
        cases: prepared cases with labels.
        patch_size: (d, h, w) in voxels.
        batch_size: patches a step.
        foreground_fraction: in [0, 1].
        placement: where a patch around a labelled voxel would leave the volume: ``inside`` moves it inside;
            ``centred`` moves it at the low sides only, and puts zeros behind the high ones.
        augmentation: random changes of the patches.
        classes: how many values labels have, background included.
        seed: of the stream.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase | StoredCase],
        *,
        patch_size: tuple[int, int, int],
        batch_size: int,
        foreground_fraction: float,
        placement: Placement,
        augmentation: Augmentation,
        classes: int,
        seed: int,
    ) -> None:
        self.batch_size = batch_size
        self._cases = cases
        self._patch_size = patch_size
        self._foreground_fraction = foreground_fraction
        self._placement = placement
        self._augmentation = augmentation
        self._classes = classes
        self._seed = seed

    def batch(self, step: int, device: torch.device = _CPU, indices: Sequence[int] | None = None) -> Batch:
        """The patches of one step, counted from 0.

        Args:
            step: of the training.
            device: where they are wanted.
            indices: which samples of the step's ``batch_size``, for one of several processes; absent for all.

        Raises:
            DataError: as `cut`.
        """
        chosen = range(self.batch_size) if indices is None else indices
        return self.finish([self.cut(step, index, device.type == "cuda") for index in chosen], device)

    def cut(self, step: int, index: int, pin_memory: bool = False) -> Cut:
        """Read what sample ``index`` of a step needs, and no more of its case; several threads may do so at once.

        Args:
            step: of the training, from 0.
            index: below ``batch_size``.
            pin_memory: read into memory from which a GPU copies without the CPU waiting for it.

        Raises:
            DataError: the case drawn has no labels.
        """
        key = (self._seed, step, index)
        random = np.random.default_rng(key)
        case = self._cases[int(random.integers(len(self._cases)))]
        image, label = case.image, case.label
        if label is None:
            raise DataError(f"case {case.id} has no labels; expected them of every case to train on. Leave it out.")
        shape = (label.shape[0], label.shape[1], label.shape[2])
        start = self._start(random, case.foreground if self._on_foreground(step, index) else {}, shape)
        window: Window = tuple(  # type: ignore[assignment]
            (first, min(first + length, end)) for first, length, end in zip(start, self._patch_size, shape, strict=True)
        )
        drawn = draw(self._augmentation, len(image), key)
        warp = None
        if drawn.is_spatial and self._augmentation.enlarged_cut:
            warp = make_warp(drawn, case.spacing_mm, self._patch_size, start, shape)
            window = warp.window(self._patch_size, MARGIN_VOXELS[self._augmentation.interpolation_order])
            warp = warp.counted_from((window[0][0], window[1][0], window[2][0]))
        elif drawn.is_spatial:
            warp = make_warp(drawn, case.spacing_mm, self._patch_size, (0, 0, 0), self._patch_size)
        box = tuple(slice(first, stop) for first, stop in window)
        return Cut(_read(image[(slice(None), *box)], pin_memory), _read(label[box], pin_memory), drawn, warp)

    @torch.no_grad()
    def finish(self, cuts: Sequence[Cut], device: torch.device) -> Batch:
        """Augment cuts on a device and make a batch of them; the CPU never waits for a GPU."""
        patches = [self._finish_one(cut, device) for cut in cuts]
        return Batch(
            image=torch.stack([image for image, _ in patches]),
            label=torch.stack([label for _, label in patches]).long(),
        )

    def _finish_one(self, cut: Cut, device: torch.device) -> tuple[Tensor, Tensor]:
        image, label = to_device(cut.image, device).float(), to_device(cut.label, device)
        if not self._augmentation.enlarged_cut:  # then what is resampled is the patch, zeros behind the volume included
            image, label = pad(image, self._patch_size), pad(label, self._patch_size)
        return augment(
            image,
            label,
            cut.drawn,
            cut.warp,
            patch_size=self._patch_size,
            order=self._augmentation.interpolation_order,
            classes=self._classes,
        )

    def _start(
        self, random: np.random.Generator, foreground: dict[int, NDArray[np.int32]], shape: tuple[int, int, int]
    ) -> tuple[int, int, int]:
        """The lowest voxel of the patch."""
        room = np.maximum(np.array(shape) - self._patch_size, 0)
        if not foreground:
            start = np.array([random.integers(most + 1) for most in room])
        else:
            voxels = foreground[random.choice(sorted(foreground))]
            around = voxels[random.integers(len(voxels))] - np.array(self._patch_size) // 2
            fits = np.array(shape) >= self._patch_size
            start = np.clip(around, 0, np.where(fits, shape, 0) if self._placement == "centred" else room)
        return int(start[0]), int(start[1]), int(start[2])

    def _on_foreground(self, step: int, index: int) -> bool:
        drawn = step * self.batch_size + index
        return int((drawn + 1) * self._foreground_fraction) > int(drawn * self._foreground_fraction)


def _read(values: NDArray, pin_memory: bool) -> Tensor:
    """Copy an array, which may still lie on the disk, into a tensor of its type."""
    target = torch.empty(values.shape, dtype=torch.from_numpy(np.empty(0, values.dtype)).dtype, pin_memory=pin_memory)
    np.copyto(target.numpy(), values)
    return target
