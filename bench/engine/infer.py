"""Logits of a whole volume from a network that sees patches: a sliding window, over the volume's mirror images too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.engine.diverged import Diverged
from bench.engine.memory import is_out_of_memory
from bench.engine.precision import arithmetic
from bench.engine.windows import Window, WindowPlan
from bench.errors import BenchError
from bench.fields import InferFields

OnWindow = Callable[[int, int], None]

# On the CPU more than one is needed: torch convolves single samples with a kernel several times slower.
_AT_ONCE_ON_CPU = 2
# On a GPU norms and small layers fill the device only with several; more than eight come near 2³¹ numbers in a tensor,
# beyond which cuDNN splits batches.
_AT_ONCE_ON_GPU = 8
# A generous guess of what a network's activations take; where it is too low the device says so, and fewer are taken.
_BYTES_PER_VOXEL = 2048
# Of the free memory, what the logits may take; the rest is for the network and for what is made of the logits.
_SHARE_FOR_LOGITS = 0.5


def ignore(_done: int, _total: int) -> None:
    """Nobody is watching."""


class SlidingWindow:
    """Segments whole volumes with one network; what it learns of the device's memory holds for the next volume.

    Args:
        model: on ``device``; maps (B, C, d, h, w) to logits (B, K, d, h, w) in evaluation.
        patch_size: (d, h, w) of a window.
        fields: overlap, blending, flips and precision.
        device: where the network is.
        at_once: windows that pass through the network together; None for what suits the device. It is halved where
            memory runs out.
    """

    def __init__(
        self,
        model: nn.Module,
        patch_size: tuple[int, int, int],
        fields: InferFields,
        device: torch.device,
        at_once: int | None = None,
    ) -> None:
        self.at_once = at_once or _at_once(patch_size, device)
        self._model, self._patch, self._fields, self._device = model, patch_size, fields, device

    @torch.no_grad()
    def logits(self, image: NDArray[np.floating[Any]] | Tensor, on_window: OnWindow = ignore) -> Tensor:
        """Logits of one volume, averaged over windows and mirror images of the whole volume.

        They are those of MONAI's sliding window with its Gaussian of 0.125, applied to each mirror image. They lie on
        the device, or on the CPU where they are too many for it; the device is not waited for between windows.

        Args:
            image: (C, D, H, W).
            on_window: told between batches how many windows are done and how many there are; what it raises ends the
                work.

        Returns:
            (K, D, H, W) float32.

        Raises:
            Diverged: a logit is NaN or infinite, so that no class is the largest.
            BenchError: the network returns something else than logits.
        """
        self._model.eval()
        plan = WindowPlan(image.shape[1:], self._patch, self._fields, self._device)
        volume = _Mirrored(plan.pad(self._on_device(image)))
        total: _Mirrored | None = None
        done = 0
        with arithmetic(self._fields.precision, self._device):
            while done < len(plan.windows):
                on_window(done, len(plan.windows))
                windows = plan.windows[done : done + self.at_once]
                try:
                    found = self._pass(volume, windows, plan)
                    if total is None:
                        total = _Mirrored(self._empty(found.shape[1], volume.values.shape[1:]))
                    for window, logits in zip(windows, found, strict=True):
                        place, shares = total.along(window.axes)[plan.where(window.corner)], plan.shares(window.corner)
                        # Weighted and added in one go, in fp32 whatever the logits are.
                        place.addcmul_(logits.to(place.device), shares.to(place.device))
                        done += 1
                    continue
                except Exception as error:
                    if not is_out_of_memory(error) or not self._can_make_room(total):
                        raise
                self._make_room(total)  # out here, where what the failed pass held is free
        assert total is not None
        logits = plan.unpad(total.along(()))
        low, high = logits.aminmax()
        if not (math.isfinite(low) and math.isfinite(high)):
            hint = (
                "; or fp16 is too narrow for it: try infer.precision=bf16" if self._fields.precision == "fp16" else ""
            )
            raise Diverged(
                f"the network's logits are not finite: its weights are too large or its training diverged{hint}"
            )
        return logits

    def _pass(self, volume: _Mirrored, windows: Sequence[Window], plan: WindowPlan) -> Tensor:
        """Logits (B, K, d, h, w) of some windows."""
        views = [volume.along(window.axes)[plan.where(window.corner)] for window in windows]
        batch = torch.stack(views).to(self._device)
        return _checked(self._model(batch), len(windows), self._patch)

    def _on_device(self, image: NDArray[np.floating[Any]] | Tensor) -> Tensor:
        # A copy: prepared arrays are read-only maps of files.
        volume = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
        try:
            return volume.to(self._device).float()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return volume.float()

    def _empty(self, classes: int, shape: Sequence[int]) -> Tensor:
        """Zeros (K, D, H, W) on the device, or on the CPU where they would take too much of it."""
        size = 4 * classes * math.prod(shape)
        if self._device.type == "cuda" and size > _SHARE_FOR_LOGITS * _free_bytes(self._device):
            return torch.zeros((classes, *shape))
        try:
            return torch.zeros((classes, *shape), device=self._device)
        except torch.OutOfMemoryError:
            return torch.zeros((classes, *shape))

    def _can_make_room(self, total: _Mirrored | None) -> bool:
        return self.at_once > 1 or (total is not None and total.values.device.type != "cpu")

    def _make_room(self, total: _Mirrored | None) -> None:
        if self.at_once > 1:
            self.at_once //= 2
        elif total is not None:
            total.values = total.values.cpu()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class _Mirrored:
    """A volume (C, D, H, W) that is turned from one of its mirror images into another."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self._axes: frozenset[int] = frozenset()

    def along(self, axes: Iterable[int]) -> Tensor:
        """The volume mirrored along these axes; what is written into it stays."""
        wanted = frozenset(axes)
        if wanted != self._axes:
            self.values = self.values.flip(sorted(wanted ^ self._axes))
            self._axes = wanted
        return self.values


def _at_once(patch_size: Sequence[int], device: torch.device) -> int:
    if device.type != "cuda":
        return _AT_ONCE_ON_CPU
    count, free = _AT_ONCE_ON_GPU, _free_bytes(device)
    while count > 1 and count * math.prod(patch_size) * _BYTES_PER_VOXEL > free:
        count //= 2
    return count


def _free_bytes(device: torch.device) -> int:
    """What the driver has left and what this process holds unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _checked(found: object, count: int, patch_size: tuple[int, int, int]) -> Tensor:
    """What a network returned, if it is logits.

    Raises:
        BenchError: it is something else.
    """
    if isinstance(found, Tensor):
        fits = found.ndim == 5 and (found.shape[0], *found.shape[2:]) == (count, *patch_size)
        if fits and found.is_floating_point():
            return found
        told = f"a tensor of shape {tuple(found.shape)} and type {str(found.dtype).removeprefix('torch.')}"
    else:
        told = f"a {type(found).__name__}" + (f" of {len(found)}" if isinstance(found, (list, tuple, dict)) else "")
    wanted = ", ".join(map(str, patch_size))
    raise BenchError(
        f"the network returned {told}; expected, in evaluation, one tensor of logits (B, K, d, h, w) = "
        f"({count}, K, {wanted}). Let its forward return that when it is not in training mode"
    )
