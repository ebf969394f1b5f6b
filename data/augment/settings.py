"""Which random changes a training patch undergoes, how often and how strongly."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Augmentation:
    """Settings of all transforms, in the order in which they are applied.

    A probability is per patch, a ``channel_probability`` per channel of a chosen patch, a range is drawn uniformly.
    A range is two-sided where it says so: below and above 1 equally often, and uniformly on either side.

    Attributes:
        enlarged_cut: cut as much of the volume as the spatial transforms reach, so that no corner is empty; if false,
            only the patch is cut, and what they reach outside of it is zero (SegMamba's released code).
        interpolation_order: of the spline by which the image is resampled, 1 or 3; labels are resampled linearly.
        rotation_probability: of a rotation about all three axes.
        rotation_degrees: largest angle about each axis, either way.
        scaling_probability: of a zoom, the same along each axis.
        scaling_range: two-sided; extent of what a patch shows, as a multiple of the patch.
        elastic_probability: of an elastic deformation.
        elastic_magnitude: factor on the displacements, in voxels: smoothed uniform noise in (-1, 1).
        elastic_sigma: of the Gaussian that smooths the displacements, in voxels.
        noise_probability: of Gaussian noise.
        noise_std: standard deviation of the noise, one for all channels.
        blur_probability, blur_channel_probability: of a Gaussian blur.
        blur_sigma: of the blur, in voxels, drawn for each channel.
        brightness_probability: of multiplicative brightness.
        brightness_range: factor, drawn for each channel.
        brightness_shift_probability, brightness_shift_channel_probability: of additive brightness.
        brightness_shift_std: standard deviation of the shift, normal about 0, drawn for each channel.
        contrast_probability: of a change of contrast about the channel's mean.
        contrast_range: two-sided factor, drawn for each channel; values stay in the range they had.
        low_resolution_probability, low_resolution_channel_probability: of a simulated low resolution.
        low_resolution_zoom: size after the reduction as a share of the patch, drawn for each channel; at most 1.
        inverted_gamma_probability: of a gamma transform of the negated image, before the plain one.
        gamma_probability: of a gamma transform that keeps each channel's mean and standard deviation.
        gamma_range: two-sided exponent, drawn for each channel.
        mirror_axes: flip along each of these axes (0 = D, 1 = H, 2 = W) with probability 1/2.
    """

    enlarged_cut: bool
    interpolation_order: int
    rotation_probability: float
    rotation_degrees: float
    scaling_probability: float
    scaling_range: Range
    elastic_probability: float
    elastic_magnitude: Range
    elastic_sigma: Range
    noise_probability: float
    noise_std: Range
    blur_probability: float
    blur_channel_probability: float
    blur_sigma: Range
    brightness_probability: float
    brightness_range: Range
    brightness_shift_probability: float
    brightness_shift_channel_probability: float
    brightness_shift_std: float
    contrast_probability: float
    contrast_range: Range
    low_resolution_probability: float
    low_resolution_channel_probability: float
    low_resolution_zoom: Range
    inverted_gamma_probability: float
    gamma_probability: float
    gamma_range: Range
    mirror_axes: tuple[int, ...]

    @classmethod
    def none(cls) -> Augmentation:
        """Settings under which every patch stays as it was cut."""
        return cls(
            enlarged_cut=True,
            interpolation_order=1,
            rotation_probability=0.0,
            rotation_degrees=0.0,
            scaling_probability=0.0,
            scaling_range=(1.0, 1.0),
            elastic_probability=0.0,
            elastic_magnitude=(0.0, 0.0),
            elastic_sigma=(0.0, 0.0),
            noise_probability=0.0,
            noise_std=(0.0, 0.0),
            blur_probability=0.0,
            blur_channel_probability=0.0,
            blur_sigma=(0.0, 0.0),
            brightness_probability=0.0,
            brightness_range=(1.0, 1.0),
            brightness_shift_probability=0.0,
            brightness_shift_channel_probability=0.0,
            brightness_shift_std=0.0,
            contrast_probability=0.0,
            contrast_range=(1.0, 1.0),
            low_resolution_probability=0.0,
            low_resolution_channel_probability=0.0,
            low_resolution_zoom=(1.0, 1.0),
            inverted_gamma_probability=0.0,
            gamma_probability=0.0,
            gamma_range=(1.0, 1.0),
            mirror_axes=(),
        )
