"""What is drawn for one sample: every number its augmentation depends on, decided by (seed, step, sample) alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from data.augment.settings import Augmentation, Range

PerChannel = tuple[float, ...]
SomeChannels = tuple[float | None, ...]


class _Stream(IntEnum):
    """Each transform draws from a generator of its own, so that switching one off leaves the others as they were."""

    ROTATION = 0
    SCALING = 1
    ELASTIC = 2
    NOISE = 3
    BLUR = 4
    BRIGHTNESS = 5
    BRIGHTNESS_SHIFT = 6
    CONTRAST = 7
    LOW_RESOLUTION = 8
    INVERTED_GAMMA = 9
    GAMMA = 10
    MIRROR = 11


@dataclass(frozen=True)
class Elastic:
    """Displacements: uniform noise, seeded, smoothed and scaled; both numbers are in voxels."""

    magnitude: float
    sigma: float
    seed: int


@dataclass(frozen=True)
class Noise:
    """Gaussian noise, seeded."""

    std: float
    seed: int


@dataclass(frozen=True)
class Drawn:
    """The parameters of each transform; None where a sample does not undergo it.

    What is drawn for each channel is a tuple of C numbers, with None (in a shift, 0) for a channel that stays as it is.

    Attributes:
        angles_degrees: of the rotation about each axis (D, H, W).
        scale: extent of what the patch shows, as a multiple of the patch.
        elastic, noise: the deformation and the noise.
        blur_sigma: in voxels.
        brightness: factors.
        brightness_shift: summands.
        contrast: factors.
        low_resolution: sizes as a share of the patch's.
        inverted_gamma, gamma: exponents.
        flips: axes (0 = D, 1 = H, 2 = W).
    """

    angles_degrees: tuple[float, float, float] | None = None
    scale: float | None = None
    elastic: Elastic | None = None
    noise: Noise | None = None
    blur_sigma: SomeChannels | None = None
    brightness: PerChannel | None = None
    brightness_shift: PerChannel | None = None
    contrast: PerChannel | None = None
    low_resolution: SomeChannels | None = None
    inverted_gamma: PerChannel | None = None
    gamma: PerChannel | None = None
    flips: tuple[int, ...] = ()

    @property
    def is_spatial(self) -> bool:
        """Whether the patch is resampled."""
        return self.angles_degrees is not None or self.scale is not None or self.elastic is not None


def draw(settings: Augmentation, channels: int, key: tuple[int, int, int]) -> Drawn:
    """Draw the parameters of one sample.

    Args:
        settings: probabilities and ranges.
        channels: of the image.
        key: (seed, step, sample).
    """
    return Drawn(
        angles_degrees=_angles(settings, key),
        scale=_scale(settings, key),
        elastic=_elastic(settings, key),
        noise=_noise(settings, key),
        blur_sigma=_some_channels(
            _happens(key, _Stream.BLUR, settings.blur_probability),
            settings.blur_channel_probability,
            settings.blur_sigma,
            channels,
        ),
        brightness=_brightness(settings, channels, key),
        brightness_shift=_brightness_shift(settings, channels, key),
        contrast=_two_sided_channels(
            _happens(key, _Stream.CONTRAST, settings.contrast_probability), settings.contrast_range, channels
        ),
        low_resolution=_some_channels(
            _happens(key, _Stream.LOW_RESOLUTION, settings.low_resolution_probability),
            settings.low_resolution_channel_probability,
            settings.low_resolution_zoom,
            channels,
        ),
        inverted_gamma=_two_sided_channels(
            _happens(key, _Stream.INVERTED_GAMMA, settings.inverted_gamma_probability), settings.gamma_range, channels
        ),
        gamma=_two_sided_channels(
            _happens(key, _Stream.GAMMA, settings.gamma_probability), settings.gamma_range, channels
        ),
        flips=_flips(settings, key),
    )


def _angles(settings: Augmentation, key: tuple[int, int, int]) -> tuple[float, float, float] | None:
    random = _happens(key, _Stream.ROTATION, settings.rotation_probability)
    if random is None:
        return None
    about_d, about_h, about_w = random.uniform(-settings.rotation_degrees, settings.rotation_degrees, 3)
    return float(about_d), float(about_h), float(about_w)


def _scale(settings: Augmentation, key: tuple[int, int, int]) -> float | None:
    random = _happens(key, _Stream.SCALING, settings.scaling_probability)
    return None if random is None else _two_sided(random, settings.scaling_range)


def _elastic(settings: Augmentation, key: tuple[int, int, int]) -> Elastic | None:
    random = _happens(key, _Stream.ELASTIC, settings.elastic_probability)
    if random is None:
        return None
    magnitude, sigma = random.uniform(*settings.elastic_magnitude), random.uniform(*settings.elastic_sigma)
    return Elastic(magnitude, sigma, seed=int(random.integers(2**63)))


def _noise(settings: Augmentation, key: tuple[int, int, int]) -> Noise | None:
    random = _happens(key, _Stream.NOISE, settings.noise_probability)
    return None if random is None else Noise(random.uniform(*settings.noise_std), seed=int(random.integers(2**63)))


def _brightness(settings: Augmentation, channels: int, key: tuple[int, int, int]) -> PerChannel | None:
    random = _happens(key, _Stream.BRIGHTNESS, settings.brightness_probability)
    return None if random is None else tuple(random.uniform(*settings.brightness_range, channels).tolist())


def _brightness_shift(settings: Augmentation, channels: int, key: tuple[int, int, int]) -> PerChannel | None:
    random = _happens(key, _Stream.BRIGHTNESS_SHIFT, settings.brightness_shift_probability)
    if random is None:
        return None
    chosen = random.random(channels) < settings.brightness_shift_channel_probability
    return tuple(np.where(chosen, random.normal(0.0, settings.brightness_shift_std, channels), 0.0).tolist())


def _flips(settings: Augmentation, key: tuple[int, int, int]) -> tuple[int, ...]:
    if not settings.mirror_axes:
        return ()
    chosen = _generator(key, _Stream.MIRROR).random(3) < 0.5
    return tuple(axis for axis in settings.mirror_axes if chosen[axis])


def _generator(key: tuple[int, int, int], stream: _Stream) -> np.random.Generator:
    # The key alone seeds what decides on case and place; a spawn key is never equal to it.
    return np.random.default_rng(np.random.SeedSequence(key, spawn_key=(stream,)))


def _happens(key: tuple[int, int, int], stream: _Stream, probability: float) -> np.random.Generator | None:
    """The generator of a transform that the sample undergoes."""
    if probability <= 0:
        return None
    random = _generator(key, stream)
    return random if random.random() < probability else None


def _some_channels(
    random: np.random.Generator | None, probability: float, values: Range, channels: int
) -> SomeChannels | None:
    if random is None:
        return None
    chosen, drawn = random.random(channels) < probability, random.uniform(*values, channels)
    return tuple(float(value) if use else None for use, value in zip(chosen, drawn, strict=True))


def _two_sided_channels(random: np.random.Generator | None, values: Range, channels: int) -> PerChannel | None:
    return None if random is None else tuple(_two_sided(random, values) for _ in range(channels))


def _two_sided(random: np.random.Generator, values: Range) -> float:
    """Uniform below 1 or above it, either with probability 1/2 where the range has both sides."""
    low, high = values
    side, position = random.random(2)
    if low < 1 and (side < 0.5 or high <= 1):
        return float(low + position * (min(high, 1) - low))
    return float(max(low, 1) + position * (high - max(low, 1)))
