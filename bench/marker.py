"""Whether a network brings together what lies far apart: the rims of a phantom whose kind its marker alone tells.

Dice mixes that with all else that a network does well or badly. Here nothing else counts: in each case with such rims,
how much of them was called enhancing tumour, and whether that follows the marker (see `data.phantom_signs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.progress import Watcher
from data.nifti import read_label
from data.phantom import marked_rims
from data.phantom_tumour import ENHANCING, NECROSIS


@dataclass(frozen=True)
class Sight:
    """How well predictions follow the marker.

    Attributes:
        cases: with rims of which the marker decides.
        enhancing: those of them where it says enhancing tumour.
        right: those where more than half of the rims is what it says.
        auc: how often a case of enhancing rims has more of them called so than one of the other kind (area under the
            ROC curve; ties count half): 0.5 for who does not see the marker, whatever it prefers. None where all
            cases are of one kind.
        p: of the two-sided Mann-Whitney test that it is 0.5, as scipy computes it; None likewise.
    """

    cases: int
    enhancing: int
    right: int
    auc: float | None
    p: float | None


def judge(predictions: Mapping[str, Path], phantoms: Path, watcher: Watcher) -> Sight:
    """Compare label maps with what the markers say.

    Args:
        predictions: files by case id.
        phantoms: folder of the phantom.
        watcher: shows how far it is.

    Raises:
        BenchError: a label map lies on another grid than the phantom.
        DataError: `phantoms` is no phantom, has no such case, or a file cannot be read.
    """
    shares, truths = [], []
    with watcher.bar("rims", len(predictions)) as bar:
        for case, path in predictions.items():
            shape, voxels, enhancing = _rims(phantoms, case)
            if len(voxels):
                label, _ = read_label(path)
                if label.shape != shape:
                    raise BenchError(
                        f"{path}: found {label.shape} voxels (D, H, W); expected {shape}, the grid of {phantoms}. "
                        "Name the phantoms that these are predictions for"
                    )
                shares.append(enhancing_share(label.ravel()[voxels]))
                truths.append(enhancing)
            bar.advance(case)
    return weigh(shares, truths)


@cache
def _rims(phantoms: Path, case: str) -> tuple[tuple[int, ...], NDArray[np.intp], bool]:
    """Shape, and flat indices of the rims' voxels; a case is drawn once for all predictions."""
    rims, enhancing = marked_rims(phantoms, case)
    return rims.shape, np.flatnonzero(rims), enhancing


def enhancing_share(called: NDArray[np.uint8]) -> float:
    """Share that is called enhancing tumour, of some voxels' labels; what is neither that nor core counts half."""
    missed = ~np.isin(called, (ENHANCING, NECROSIS))
    return float((called == ENHANCING).mean() + missed.mean() / 2)


def weigh(shares: Sequence[float], enhancing: Sequence[bool]) -> Sight:
    """From what was called enhancing tumour in each case, and what it is."""
    from scipy.stats import mannwhitneyu

    share, truth = np.array(shares, float), np.array(enhancing, bool)
    auc = p = None
    if 0 < truth.sum() < len(truth):
        found = mannwhitneyu(share[truth], share[~truth])
        auc, p = float(found.statistic) / float(truth.sum() * (~truth).sum()), float(found.pvalue)
    right = int(((share > 0.5) & truth).sum() + ((share < 0.5) & ~truth).sum())
    return Sight(len(truth), int(truth.sum()), right, auc, p)
