"""Overlap of two masks: voxel counts, and the measures that follow from them."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.metrics.conventions import EmptyState


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of a predicted mask, a reference mask and their intersection."""

    prediction: int
    reference: int
    intersection: int

    @classmethod
    def of(cls, prediction: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> "Overlap":
        """Count two boolean masks of one shape."""
        return cls(
            prediction=int(np.count_nonzero(prediction)),
            reference=int(np.count_nonzero(reference)),
            intersection=int(np.count_nonzero(prediction & reference)),
        )

    @property
    def empty(self) -> EmptyState:
        """Which of the two masks hold no voxel."""
        if self.prediction and self.reference:
            return "neither"
        if self.prediction:
            return "reference"
        return "prediction" if self.reference else "both"

    @property
    def dice(self) -> float:
        """2|A∩B| / (|A| + |B|) (Dice, Ecology 26(3), 1945); undefined when both masks are empty."""
        return 2.0 * self.intersection / (self.prediction + self.reference)

    @property
    def sensitivity(self) -> float:
        """|A∩B| / |B|, the share of the reference that was found, also called recall; undefined when B is empty."""
        return self.intersection / self.reference

    @property
    def precision(self) -> float:
        """|A∩B| / |A|, the share of the prediction that is right; undefined when A is empty."""
        return self.intersection / self.prediction

    @property
    def volume_error(self) -> float:
        """(|A| − |B|) / |B|, signed; 0 when both masks are empty, NaN when B alone is."""
        if not self.reference:
            return math.nan if self.prediction else 0.0
        return (self.prediction - self.reference) / self.reference
