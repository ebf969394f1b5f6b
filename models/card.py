"""What a network is: the facts that every other room needs, as one frozen object."""

from __future__ import annotations

from dataclasses import dataclass


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
        parameters_4to4: number of parameters with 4 input and 4 output channels at 128³ voxels and
            default options.
        gmacs_128: 10⁹ multiply-accumulates of convolutions, matrix products and attention in one inference of
            such a network at 128³ voxels; None where nobody counted.
        scan_gmacs_128: 10⁹ multiply-accumulates of its selective scans, on top.
        volume_multiple: with default options D·H·W must be a multiple of this, in voxels.
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
    volume_multiple: int = 1
    unused: tuple[str, ...] = ()

    @property
    def size_rule(self) -> str:
        """Which image sizes the network takes, in words."""
        multiples = self.size_multiples
        multiple = str(multiples[0]) if len(set(multiples)) == 1 else "×".join(map(str, multiples))
        rule = f"multiples of {multiple}, from {self.minimum_size}"
        if self.volume_multiple > 1:
            rule += f", D·H·W of {self.volume_multiple}"
        return f"{rule}; fixed" if self.fixed_size else rule

    @property
    def size_multiples(self) -> tuple[int, int, int]:
        """The multiples of D, H and W in voxels, one for each axis."""
        if isinstance(self.size_multiple, int):
            return (self.size_multiple, self.size_multiple, self.size_multiple)
        return self.size_multiple
