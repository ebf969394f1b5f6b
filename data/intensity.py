"""Intensities of CT: Hounsfield units mean the same in every scan, so one scale serves all cases.

What is measured and how many voxels each case gives: nnU-Net (Isensee et al., Nature Methods, 2021).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.arrays import map_array
from data.dataset import Dataset
from data.errors import DataError
from data.fingerprint import file_checksum
from data.locate import cache_root
from data.parallel import each_case
from data.volume import CaseFiles

# Raise when what is drawn from a case changes.
_VERSION = 1
_VOXELS_PER_CASE = 25_000


@dataclass(frozen=True)
class Intensity:
    """How a CT channel is scaled: clipped to ``low``..``high``, then ``mean`` subtracted and divided by ``std``.

    Attributes:
        low, high: percentiles 0.5 and 99.5 of the foreground voxels of the training cases, in Hounsfield units.
        mean, std: of the same voxels, in Hounsfield units.
    """

    low: float
    high: float
    mean: float
    std: float

    def normalise(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scaled channel, of any shape."""
        clipped = np.clip(channel, self.low, self.high).astype(np.float64)
        return ((clipped - self.mean) / max(self.std, 1e-8)).astype(np.float32)


def measure_intensities(
    dataset: Dataset,
    training: Sequence[CaseFiles],
    on_case: Callable[[str], None] | None = None,
    workers: int = 1,
) -> tuple[Intensity | None, ...]:
    """Measure the dataset's CT channels on its training cases; None for every other channel.

    Each case with foreground gives the same number of voxels, drawn with a fixed seed, so that large organs in few
    cases do not outweigh the others. What a case gave is kept in the cache under the content of its files: a stopped
    measurement goes on, and a repeated one reads nothing.

    Args:
        on_case: called with each case's id once it is measured.
        workers: cases read at a time.

    Raises:
        DataError: a case cannot be read, or no training case has a voxel of foreground.
    """
    channels = dataset.card.ct_channels
    samples = each_case(lambda case: _samples(dataset, case, channels), training, on_case, workers)
    together = np.concatenate([np.zeros((len(channels), 0), np.float32), *samples], axis=1)
    if not together.size:
        raise DataError(
            f"{dataset.root}: none of the {len(training)} training cases has a labelled voxel; expected some, on which "
            "the intensities of the CT channels are measured. Add cases with labels, or train on more of them"
        )
    intensities: list[Intensity | None] = [None] * len(dataset.card.channels)
    for channel, values in zip(channels, together, strict=True):
        low, high = np.percentile(values, (0.5, 99.5))
        mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        intensities[channel] = Intensity(float(low), float(high), float(mean), float(std))
    return tuple(intensities)


def _samples(dataset: Dataset, case: CaseFiles, channels: tuple[int, ...]) -> NDArray[np.float32]:
    """Foreground voxels of some channels, (channels, N), from the cache or from the case."""
    cached = cache_root() / "intensities" / f"{_content_hash(case, channels)}.npy"
    # A damaged file is made anew; an unreadable folder is told when it is to be written.
    with contextlib.suppress(OSError, ValueError, EOFError):
        stored = map_array(cached)
        if stored.ndim == 2 and len(stored) == len(channels):
            return np.array(stored)
    volume = dataset.read(case)
    voxels = np.flatnonzero(volume.label) if volume.label is not None else np.zeros(0, np.int64)
    if len(voxels):
        # With replacement, so that a small organ gives as many voxels as a large one.
        voxels = np.random.default_rng(1234).choice(voxels, _VOXELS_PER_CASE)
    drawn = np.stack([volume.image[channel].ravel()[voxels] for channel in channels])
    _write(cached, drawn)
    return drawn


def _content_hash(case: CaseFiles, channels: tuple[int, ...]) -> str:
    files = [file_checksum(path) for path in (*case.images, *([case.label] if case.label else []))]
    return hashlib.sha256(json.dumps([_VERSION, _VOXELS_PER_CASE, channels, files]).encode()).hexdigest()[:32]


def _write(path: Path, values: NDArray[np.float32]) -> None:
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("xb") as file:
            np.save(file, values)
        scratch.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({values.nbytes:,} bytes): {error.strerror}. Free some space there, or set "
            "BENCH_CACHE_DIR to a folder on another disk."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()
