"""What a network is: the facts that every other room needs, as one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VolumeRule:
    """A rule for the number of voxels in an image.

    Attributes:
        multiple: D·H·W must be a multiple of this.
        options: names and values of options; it holds for networks that have them all.
        way_out: what lifts the rule, in words.
    """

    multiple: int
    options: tuple[tuple[str, object], ...]
    way_out: str

    def __str__(self) -> str:
        told = ", ".join(f"{option}={value!r}" for option, value in self.options)
        return f"D·H·W a multiple of {self.multiple} with {told}; {self.way_out}"


@dataclass(frozen=True)
class ModelCard:
    """The facts about one network.

    Attributes:
        name: the name used on the command line, e.g. ``segmamba``.
        title: one line for people.
        family: ``state space``, ``convolution`` or ``transformer``.
        paper: the reference to cite.
        year: the year of the paper's first version.
        repository: the public code this network is, or is compared with.
        commit: the state of that code.
        licence: the licence of the code that runs here.
        deviations: one sentence for each place where this network departs from its source, or where
            the source is silent and a choice had to be made.
        size_multiple: D, H and W must be multiples of this, or of these three, in voxels.
        minimum_size: the smallest D, H and W, in voxels.
        fixed_size: True where the shapes of the parameters depend on the image size, so that a network
            takes only the size it was built for.
        recipe: one line on what its authors trained it with.
        recipe_fields: the same as fields of a training protocol (``train.learning_rate``) and options of the network
            (``model_options.NAME.OPTION``), with their values; None where the authors published too little for that.
        parameters_4to4: number of parameters with 4 input and 4 output channels at 128³ voxels and
            default options.
        gmacs_128: 10⁹ multiply-accumulates of convolutions, matrix products and attention in one inference of
            such a network at 128³ voxels; None where nobody counted.
        scan_gmacs_128: 10⁹ multiply-accumulates of its selective scans, on top.
        volume_rule: what D·H·W must be besides, for some options; None where the axes alone decide.
        unused: patterns (as of a shell) of parameters that take no part in the result with default options; they
            are kept since the authors' network has them, need no gradient and are counted above.
    """

    name: str
    title: str
    family: str
    paper: str
    year: int
    repository: str
    commit: str
    licence: str
    deviations: tuple[str, ...]
    size_multiple: int | tuple[int, int, int]
    minimum_size: int
    fixed_size: bool
    recipe: str
    parameters_4to4: int
    gmacs_128: float | None = None
    scan_gmacs_128: float = 0.0
    volume_rule: VolumeRule | None = None
    unused: tuple[str, ...] = ()
    recipe_fields: Mapping[str, Any] | None = None

    def volume_multiple(self, options: Mapping[str, object]) -> int:
        """What D·H·W must be a multiple of in a network with these options; 1 where any will do."""
        rule = self.volume_rule
        return rule.multiple if rule and all(options.get(o) == value for o, value in rule.options) else 1

    def size_words(self, options: Mapping[str, object]) -> str:
        """The rule for image sizes of a network with these options, in words."""
        multiples = self.size_multiples
        multiple = str(multiples[0]) if len(set(multiples)) == 1 else ", ".join(map(str, multiples)) + " (D, H, W)"
        words = f"each axis must be at least {self.minimum_size} and a multiple of {multiple}"
        volume = self.volume_multiple(options)
        return f"{words}, and D·H·W a multiple of {volume}" if volume > 1 else words

    @property
    def size_multiples(self) -> tuple[int, int, int]:
        """The multiples of D, H and W in voxels, one for each axis."""
        if isinstance(self.size_multiple, int):
            return (self.size_multiple, self.size_multiple, self.size_multiple)
        return self.size_multiple
