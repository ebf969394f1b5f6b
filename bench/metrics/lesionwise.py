"""Lesion-wise Dice and HD95, by which the BraTS challenges of 2023 ranked.

Each lesion of the reference is scored by itself, and each predicted component that belongs to none counts as a failure.
The definition is that of the challenges' own program, github.com/rachitsaluja/BraTS-2023-Metrics, as of its code:

1. Lesions: the reference is dilated with the 18 neighbours; its voxels whose dilations hang together (26 neighbours)
   are one lesion.
2. Matches: predicted components (26 neighbours) that touch a lesion's dilation, each taken whole, and counted for every
   lesion that it touches.
3. A matched lesion, undilated, scores Dice and the area-weighted robust Hausdorff distance
   (`bench.metrics.surface_elements`) against the union of its matches; a missed one scores 0 and `PENALTY_MM`.
4. Small lesions, by their undilated volume, are left out; what matches them is still no false positive.
5. Each component that matches nothing, however small, scores 0 and `PENALTY_MM`.
6. The mean over lesions and such components; 1 and 0 mm where there are none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects, label

from bench.errors import BenchError, unknown
from bench.metrics.boxes import foreground_box, grown, hull
from bench.metrics.neighbours import Floats, Indices, Mask
from bench.metrics.overlap import Overlap
from bench.metrics.surface_elements import Surfaces

PENALTY_MM = 374.0
"""HD95 of a missed lesion and of an invented one: the diagonal of a BraTS volume, 240×240×155 mm, rounded up."""

_FAILURE = (0.0, PENALTY_MM)

_NEIGHBOURS_26 = np.ones((3, 3, 3), dtype=bool)

_Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Challenge:
    """The settings of one challenge of BraTS 2023."""

    name: str
    title: str
    dilations: int
    """How often the reference is dilated: lesions with gaps of up to twice as many voxels may be one."""
    largest_ignored_mm3: float
    """Lesions up to this volume, inclusive, are left out."""


CHALLENGES: Mapping[str, Challenge] = MappingProxyType(
    {
        known.name: known
        for known in (
            Challenge("GLI", "adult glioma", 3, 50.0),
            Challenge("SSA", "adult glioma, Sub-Saharan Africa", 3, 50.0),
            Challenge("MEN", "meningioma", 1, 50.0),
            Challenge("MET", "brain metastases", 1, 2.0),
            Challenge("PED", "paediatric tumours", 3, 50.0),
        )
    }
)
"""As of the program's last version."""


@dataclass(frozen=True)
class LesionScores:
    """What one region of one case scores lesion by lesion."""

    dice: float
    """Mean over lesions and false positives, in [0, 1]."""
    hd95: float
    """Likewise, in mm."""
    tp: int
    """Lesions that something matches; small ones do not count."""
    fp: int
    """Predicted components that match no lesion, small ones included."""
    fn: int
    """Lesions that nothing matches; small ones do not count."""


def challenge(name: str) -> Challenge:
    """The challenge of that name.

    Raises:
        BenchError: there is none; the message suggests the nearest and lists all.
    """
    if name not in CHALLENGES:
        raise BenchError(unknown("BraTS 2023 challenge", str(name), list(CHALLENGES)))
    return CHALLENGES[name]


def score_lesions(prediction: Mask, reference: Mask, spacing_mm: Floats, rule: Challenge) -> LesionScores:
    """Score one region.

    Args:
        prediction: boolean, three axes. What lies outside the box of both masks changes nothing, so crop them to it.
        reference: boolean, of the same shape.
        spacing_mm: distance between neighbouring voxels along each array axis, in mm, shape (3,).
        rule: the challenge's settings.
    """
    # The program reads the spacing from NIfTI's header, which is in single precision: whether a lesion is larger than
    # the threshold can hang on it.
    spacing_mm = spacing_mm.astype(np.float32).astype(np.float64)
    components, count = label(prediction, _NEIGHBOURS_26)
    if not reference.any():
        return _mean([], tp=0, fp=count, fn=0)
    lesions = _lesions(reference, rule.dilations)
    touched = _numbers(components[lesions > 0], count)
    fp = count - len(touched)
    if fp:
        # What touches no lesion is scored already; where noise was predicted, that is nearly all.
        number_of = np.zeros(count + 1, dtype=np.int32)
        number_of[touched] = np.arange(1, len(touched) + 1)
        components = number_of[components]
    component_boxes = find_objects(components)

    tp = fn = 0
    scores = []
    for number, lesion_box in enumerate(find_objects(lesions), start=1):
        near = lesions[lesion_box] == number
        voxels = np.count_nonzero(reference[lesion_box] & near)
        if voxels * spacing_mm[0] * spacing_mm[1] * spacing_mm[2] <= rule.largest_ignored_mm3:
            continue
        matches = _numbers(components[lesion_box][near], len(touched))
        if not len(matches):
            fn += 1
            scores.append(_FAILURE)
            continue
        tp += 1
        box = hull(lesion_box, *(component_boxes[match - 1] for match in matches))
        lesion = reference[box] & (lesions[box] == number)
        scores.append(_score_pair(np.isin(components[box], matches), lesion, spacing_mm))
    return _mean(scores, tp, fp, fn)


def _mean(scores: list[tuple[float, float]], tp: int, fp: int, fn: int) -> LesionScores:
    scored = len(scores) + fp
    if not scored:
        return LesionScores(dice=1.0, hd95=0.0, tp=tp, fp=fp, fn=fn)
    return LesionScores(
        dice=sum(dice for dice, _ in scores) / scored,
        hd95=(sum(hd95_mm for _, hd95_mm in scores) + fp * PENALTY_MM) / scored,
        tp=tp,
        fp=fp,
        fn=fn,
    )


def _lesions(reference: Mask, dilations: int) -> _Numbers:
    """The number of the lesion that each voxel of the dilated reference belongs to, from 1; 0 elsewhere.

    What one lesion's voxels dilate to is just what carries its number: all of it hangs together.
    """
    lesions = np.zeros(reference.shape, dtype=np.int32)
    zone = grown(foreground_box(reference), dilations, reference.shape)
    lesions[zone], _ = label(_dilated(reference[zone], dilations), _NEIGHBOURS_26)
    return lesions


def _numbers(found: _Numbers, most: int) -> Indices:
    """The numbers from 1 to ``most`` that occur, in ascending order."""
    occurs = np.zeros(most + 1, dtype=bool)
    occurs[found] = True
    occurs[0] = False
    return np.flatnonzero(occurs)


def _score_pair(prediction: Mask, lesion: Mask, spacing_mm: Floats) -> tuple[float, float]:
    """Dice and robust Hausdorff distance in mm of two masks, neither of them empty."""
    box = foreground_box(prediction | lesion)
    prediction, lesion = prediction[box], lesion[box]
    return Overlap.of(prediction, lesion).dice, Surfaces(prediction, lesion, spacing_mm).robust_hausdorff()


def _dilated(mask: Mask, times: int) -> Mask:
    """The mask dilated with the 18 neighbours, those that share a face or an edge, within its array."""
    padded = np.pad(mask, times)
    inner = tuple(slice(times, -times) for _ in range(3))
    first, second, third = padded.strides  # bytes, which for booleans are steps of the flat index
    flat = padded.ravel()
    for _ in range(times):
        # The 18 neighbours are those of three squares, one across each axis.
        along_first, along_second = _spread(flat, first), _spread(flat, second)
        flat = _spread(along_first, second) | _spread(along_first | along_second, third)
    return flat.reshape(padded.shape)[inner]


def _spread(flat: Mask, stride: int) -> Mask:
    """The mask and its neighbours to both sides along one axis; the mask must not reach the array's edge."""
    wider = flat.copy()
    wider[stride:] |= flat[:-stride]
    wider[:-stride] |= flat[stride:]
    return wider
