"""The kinds of phantom there are: how their lesions are drawn, and what makes them hard to segment."""

from __future__ import annotations

from dataclasses import dataclass

from data.errors import DataError

Range = tuple[float, float]


@dataclass(frozen=True)
class PhantomKind:
    """A population of cases. Lengths are fractions of the volume's edge, and ranges are drawn from uniformly.

    Attributes:
        name: as it is asked for.
        core: mean radius of what a lesion's rim encloses, rim included.
        oedema: how far the whole lesion reaches beyond its core in white matter.
        rim: mean thickness of the enhancing rim, at most `rim_share` of the core's radius.
        rim_share: see `rim`.
        non_enhancing_share: share of cases none of whose lesions enhance.
        multifocal_share: share of cases with two lesions or more.
        most_foci: lesions of a case at most.
        multifocal_size: how much smaller lesions are that are not alone.
        contrast: how far a lesion differs from the tissue it grows in, drawn per lesion; 1 is a plain phantom's.
        noise: standard deviation of the noise, relative to white matter.
        undecided_share: share of the lesions with a rim whose rim looks the same whether it is enhancing tumour or not;
            which it is, a distant marker says, see `data.phantom_signs`. Every case has a marker where this is above 0.
        marker: radius of the marker.
        spots: number of bright spots in white matter that look like oedema and are no tumour, of at least the first
            and fewer than the second.
    """

    name: str
    core: Range
    oedema: Range
    rim: Range
    rim_share: float
    non_enhancing_share: float
    multifocal_share: float
    most_foci: int
    multifocal_size: float
    contrast: Range
    noise: float
    undecided_share: float
    marker: float
    spots: tuple[int, int]


PLAIN = PhantomKind(
    name="plain",
    core=(0.095, 0.13),
    oedema=(0.045, 0.095),
    rim=(0.040, 0.048),
    rim_share=1.0,
    non_enhancing_share=0.15,
    multifocal_share=0.20,
    most_foci=3,
    multifocal_size=0.9,
    contrast=(1.0, 1.0),
    noise=0.06,
    undecided_share=0.0,
    marker=0.0,
    spots=(0, 1),
)
STRESS = PhantomKind(
    name="stress",
    core=(0.050, 0.120),
    oedema=(0.030, 0.080),
    rim=(0.028, 0.042),
    rim_share=0.45,
    non_enhancing_share=0.05,
    multifocal_share=0.60,
    most_foci=5,
    multifocal_size=0.9,
    contrast=(0.55, 1.0),
    noise=0.09,
    undecided_share=1.0,
    marker=0.10,
    spots=(4, 11),
)
KINDS = {kind.name: kind for kind in (PLAIN, STRESS)}


def kind_named(name: str) -> PhantomKind:
    """The kind of that name.

    Raises:
        DataError: there is none.
    """
    if name not in KINDS:
        raise DataError(f"a phantom of kind '{name}': expected one of {', '.join(KINDS)}.")
    return KINDS[name]
