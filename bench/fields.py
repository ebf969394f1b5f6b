"""The fields of a protocol: what each means, what it may be, and where the method behind it comes from.

``bench protocols NAME`` prints them with their values and, for each value, its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bench.metrics.conventions import convention

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0, lt=2**63)]
Folds = Annotated[int, Field(ge=2, lt=2**31)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Size = tuple[Positive, Positive, Positive]
Spacing = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
Range = tuple[NonNegative, NonNegative]
Axes = tuple[Literal[0, 1, 2], ...]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class Section(BaseModel):
    """A group of fields. It is immutable, and takes no field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SplitFields(Section):
    """How the cases are divided."""

    train: Fraction = Field(description="share of cases that train")
    validation: Fraction = Field(description="share of cases kept for choices during development")
    test: Fraction = Field(description="share of cases that are scored")
    seed: int = Field(ge=0, lt=2**63, description="seed of the draw; the same for every model and every training seed")
    folds: Folds | None = Field(
        default=None,
        description="parts of a cross-validation, each of which one training tests; of the rest the share "
        "validation / (train + validation) validates. none for the one division into train, validation and test",
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitFields:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares train, validation and test sum to {total:g}; expected 1")
        return self

    @property
    def validation_of_rest(self) -> float:
        """Share of the cases outside a fold that validates."""
        rest = self.train + self.validation
        return self.validation / rest if rest else 0.0


class DataFields(Section):
    """What a network is shown."""

    patch_size: Size = Field(description="patch (d, h, w) in voxels, for training and for the sliding window")
    spacing_mm: Literal["native", "median"] | Spacing = Field(
        description="voxel spacing (d, h, w) in mm to which cases are resampled and from which predictions return: "
        "native (each case's own), median (of the training cases, per axis), or three numbers"
    )
    normalise: Literal["brain", "box"] = Field(
        description="z-score of each channel over the non-zero voxels (brain) or the whole cropped box (box); channels "
        "called CT are clipped and scaled by the intensities of the training cases' foreground instead (nnU-Net)"
    )
    storage: Literal["float32", "float16"] = Field(description="type in which prepared images lie on the disk")
    foreground_fraction: Fraction = Field(description="share of training patches centred on a labelled voxel")
    placement: Literal["inside", "centred"] = Field(
        description="where a patch around a labelled voxel would leave the volume: moved inside, or (centred) moved at "
        "the low sides only and padded with zeros at the high ones, as SegMamba's released code does"
    )


class AugmentFields(Section):
    """Random changes of training patches, in this order; probabilities are per patch, a range is drawn uniformly.

    Definitions follow batchgenerators, which nnU-Net and SegMamba's released code use.
    """

    enlarged_cut: bool = Field(
        description="cut more than the patch where it is to be rotated, scaled or deformed, so that no corner is "
        "empty; if false the patch is cut first, and corners are filled with zeros, as in SegMamba's released code"
    )
    interpolation_order: Literal[1, 3] = Field(
        description="of the spline by which rotation, scaling and deformation resample the image; labels are "
        "interpolated linearly per class"
    )
    rotation_probability: Fraction = Field(description="of a rotation about all three axes")
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = Field(
        description="largest angle about each axis, in degrees, either way"
    )
    scaling_probability: Fraction = Field(description="of a zoom, the same along each axis")
    scaling_range: tuple[PositiveFloat, PositiveFloat] = Field(
        description="extent of what the patch shows, as a multiple of the patch; below and above 1 equally often"
    )
    elastic_probability: Fraction = Field(description="of an elastic deformation")
    elastic_magnitude: Range = Field(
        description="factor on the displacements, in voxels: uniform noise in -1..1, smoothed by elastic_sigma"
    )
    elastic_sigma: Range = Field(description="of the Gaussian that smooths the displacements, in voxels")
    noise_probability: Fraction = Field(description="of Gaussian noise")
    noise_std: Range = Field(description="standard deviation of the noise")
    blur_probability: Fraction = Field(description="of a Gaussian blur")
    blur_channel_probability: Fraction = Field(description="that a channel is blurred where the patch is chosen")
    blur_sigma: Range = Field(description="of the blur, in voxels, drawn for each channel")
    brightness_probability: Fraction = Field(description="of multiplicative brightness")
    brightness_range: tuple[PositiveFloat, PositiveFloat] = Field(description="factor, drawn for each channel")
    brightness_shift_probability: Fraction = Field(description="of additive brightness")
    brightness_shift_channel_probability: Fraction = Field(
        description="that a channel is shifted where the patch is chosen"
    )
    brightness_shift_std: NonNegative = Field(
        description="standard deviation of the shift, normal about 0, drawn for each channel"
    )
    contrast_probability: Fraction = Field(description="of a change of contrast about the channel's mean")
    contrast_range: tuple[PositiveFloat, PositiveFloat] = Field(
        description="factor, drawn for each channel, below and above 1 equally often; values stay in the range they had"
    )
    low_resolution_probability: Fraction = Field(
        description="of a simulated low resolution: down by nearest neighbour, up by cubic splines"
    )
    low_resolution_channel_probability: Fraction = Field(
        description="that a channel is reduced where the patch is chosen"
    )
    low_resolution_zoom: tuple[PositiveFloat, PositiveFloat] = Field(
        description="size after the reduction as a share of the patch, drawn for each channel; at most 1"
    )
    inverted_gamma_probability: Fraction = Field(description="of a gamma transform of the negated image, before gamma")
    gamma_probability: Fraction = Field(description="of a gamma transform that keeps each channel's mean and deviation")
    gamma_range: tuple[PositiveFloat, PositiveFloat] = Field(
        description="exponent, drawn for each channel, below and above 1 equally often"
    )
    mirror_axes: Axes = Field(description="flip along each of these axes (0 = D, 1 = H, 2 = W) with probability 1/2")

    @field_validator("mirror_axes")
    @classmethod
    def _each_once(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        return _sorted_axes(axes)

    @model_validator(mode="after")
    def _ranges_rise(self) -> AugmentFields:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name != "mirror_axes" and isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"augment.{name} falls from {value[0]:g} to {value[1]:g}; expected low,high")
        if self.low_resolution_zoom[1] > 1:
            raise ValueError(f"augment.low_resolution_zoom reaches {self.low_resolution_zoom[1]:g}; expected at most 1")
        return self


BUDGETS = ("epochs", "steps", "gpu_seconds")


# What makes a training step faster on a GPU and changes it by rounding alone; the same for every network.
OPTIMISATIONS = ("channels_last", "fused", "graph")


Target = Literal["classes", "regions"]


class TrainFields(Section):
    """How a network is trained. Exactly one of ``epochs``, ``steps`` and ``gpu_seconds`` is the budget."""

    epochs: Positive | None = Field(default=None, description="budget in epochs of steps_per_epoch steps")
    steps: Positive | None = Field(default=None, description="budget in optimiser steps")
    gpu_seconds: PositiveFloat | None = Field(
        default=None,
        description="budget in seconds of training times devices, for a comparison at equal compute; not charged are "
        "validation, checkpoints, and the choice, compilation and recording of kernels at a start; the schedule "
        "follows the share that is spent",
    )
    steps_per_epoch: Positive = Field(description="optimiser steps in an epoch: the interval of history rows")
    batch_size: Positive = Field(description="patches in an optimiser step, over all devices together")
    loss: Literal["cross_entropy", "dice_ce", "dice"] = Field(
        description="training loss over classes or regions: cross entropy, soft Dice per patch and class or region, or "
        "the sum of both"
    )
    target: Target = Field(
        default="classes",
        description="what the network's channels are: classes, which exclude each other, by softmax; or the dataset's "
        "regions, the largest first, each against what is not in it, by a sigmoid",
    )
    dice_background: bool = Field(
        description="whether the Dice term counts the background as a class; among regions there is none"
    )
    dice_squared: bool = Field(
        default=False,
        description="whether the Dice term's denominator sums squares of probabilities (Milletari 2016), or them",
    )
    deep_supervision: bool = Field(
        description="also train the coarser outputs of networks that have them, weighted as in nnU-Net"
    )
    optimiser: Literal["sgd", "adam", "adamw"] = Field(description="SGD in Nesterov's form, Adam or AdamW")
    learning_rate: PositiveFloat = Field(description="initial rate")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(description="momentum of SGD")
    adam_epsilon: PositiveFloat = Field(description="epsilon of Adam and AdamW")
    amsgrad: bool = Field(description="whether Adam and AdamW keep the largest second moment")
    weight_decay: NonNegative = Field(description="L2 penalty on every parameter; with AdamW decoupled")
    schedule: Literal["poly", "cosine", "constant"] = Field(
        description="rate at step t of T: poly learning_rate * (1 - t/T) ** poly_power, cosine half a period to 0"
    )
    poly_power: NonNegative = Field(description="exponent of the polynomial schedule")
    warmup_steps: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        description="steps over which the rate first rises linearly from 0; the schedule follows after them"
    )
    clip_norm: PositiveFloat | None = Field(
        default=None, description="largest norm of the whole gradient; none for no clipping"
    )
    precision: Precision = Field(
        description="fp32, tf32 (tensor cores where the GPU has them), or autocast to bf16 or fp16 (scaled loss)"
    )
    channels_last: bool = Field(description="lay tensors out with channels last; off, and recorded, where it fails")
    compile: bool = Field(description="compile the network with torch.compile; off, and recorded, where it fails")
    fused: bool = Field(
        default=False,
        description="on a GPU, run norms with the activations after them and depth-wise convolutions as fused kernels; "
        "off, and recorded, where it fails",
    )
    graph: bool = Field(
        default=False,
        description="on a GPU, replay a step's forward and backward pass as a CUDA graph, which spares the time of "
        "launching kernels one by one; off, and recorded, where it fails",
    )
    deterministic: bool = Field(
        description="repeatable to the bit on one machine; costs speed on a GPU. On a CPU training always is"
    )
    memory_gib: PositiveFloat | None = Field(
        default=None,
        description="device memory that a training step may take, for a comparison at equal memory: the largest "
        "micro-batch that fits is accumulated to batch_size, with activation checkpointing if nothing else fits",
    )

    @model_validator(mode="after")
    def _one_budget(self) -> TrainFields:
        if sum(getattr(self, budget) is not None for budget in BUDGETS) != 1:
            raise ValueError("exactly one of train.epochs, train.steps and train.gpu_seconds must be set")
        return self

    @property
    def total_steps(self) -> int | None:
        """Optimiser steps of the whole training; None where the budget is in seconds."""
        return self.steps or (self.epochs * self.steps_per_epoch if self.epochs else None)


class ValidationFields(Section):
    """How the cases kept for choices are used while training."""

    every_epochs: Positive | None = Field(
        default=None,
        description="epochs between validations on whole volumes, the last one always; none for no validation",
    )
    cases: Positive | None = Field(
        default=None, description="how many of the validation cases, in order of their ids; none for all"
    )

    def choose(self, cases: Sequence[str]) -> Sequence[str]:
        """Those of the validation cases that are used."""
        return () if self.every_epochs is None else cases[: self.cases]


class InferFields(Section):
    """How a trained network segments a whole volume."""

    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(description="share by which neighbouring windows overlap")
    blend: Literal["gaussian", "constant"] = Field(description="weights of a window's voxels in the average")
    mirror_axes: Axes = Field(
        description="average the logits over all flips of these axes (0 = D, 1 = H, 2 = W); none for no flips"
    )
    output: Literal["argmax", "regions"] = Field(
        description="labels of a network of classes from the largest logit, or from regions: each where its classes' "
        "summed probability is above one half, the smaller region over the larger. Those of a network of regions "
        "(train.target) are painted whatever stands here"
    )
    precision: Precision = Field(description="as train.precision, for the network's passes; sums are in fp32")

    @field_validator("mirror_axes")
    @classmethod
    def _each_once(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        return _sorted_axes(axes)


class EvaluateFields(Section):
    """How predictions are scored."""

    convention: str = Field(description="what an empty mask scores: a name from bench.metrics.CONVENTIONS")
    untrained: bool = Field(description="also score the network before training, as the floor of the comparison")
    checkpoint: Literal["last", "best"] = Field(
        description="weights that are tested: those of the last step, or of the best mean Dice on validation cases"
    )

    @field_validator("convention")
    @classmethod
    def _known(cls, name: str) -> str:
        return convention(name).name


def _sorted_axes(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(axes)) < len(axes):
        raise ValueError("each axis may be named once")
    return tuple(sorted(axes))
