"""Which cases train, which validate, which test: seeded, disjoint by patient, hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from data.errors import DataError

PARTS = ("train", "validation", "test")
_TRAIN, _, _TEST = range(3)


@dataclass(frozen=True)
class Split:
    """Case ids of each part, sorted; disjoint by patient.

    Attributes:
        train, validation, test: case ids. ``validation`` may be empty where there are few patients.
        seed: the seed that drew it.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    seed: int

    @property
    def sha256(self) -> str:
        """Hash of the three lists of ids: equal hashes are equal splits, however they were drawn."""
        lists = {part: list(getattr(self, part)) for part in PARTS}
        return hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, object]:
        """JSON form, with the hash beside the lists."""
        return {**asdict(self), "sha256": self.sha256}


def split_cases(patients: Mapping[str, str], *, fractions: Sequence[float], seed: int) -> Split:
    """Draw a split of cases into training, validation and test parts.

    The ids are sorted first, so the result depends on the ids and the seed alone, not on the order in which a
    file system lists them. Target sizes follow ``fractions`` by largest remainder, with at least one test and
    one training case. Patients are drawn at random, and each goes, with all of its cases, to the part that is
    furthest below its target. With one case a patient the targets are met exactly: 1,251 cases at 70/10/20
    (SegMamba, section 3.4) give 876, 125 and 250.

    Args:
        patients: case id to patient id.
        fractions: shares of train, validation and test; they sum to 1.
        seed: seed of the draw.

    Raises:
        DataError: fewer than two patients, since one must train and another must test.
    """
    cases_of: dict[str, list[str]] = {}
    for case in sorted(patients):
        cases_of.setdefault(patients[case], []).append(case)
    if len(cases_of) < 2:
        raise DataError(
            f"found {len(cases_of)} patient(s) with reference segmentations; expected at least 2, one to train on "
            "and another to test on. Add cases to the dataset folder."
        )
    drawn = [sorted(cases_of)[i] for i in np.random.default_rng(seed).permutation(len(cases_of))]
    targets = _target_sizes(len(patients), fractions)
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for position, patient in enumerate(drawn):
        bare = [part for part in (_TRAIN, _TEST) if not parts[part]]
        # The last patients are kept for a part that would otherwise stay empty.
        open_parts = bare if len(drawn) - position <= len(bare) else range(3)
        neediest = max(open_parts, key=lambda part: targets[part] - len(parts[part]))
        parts[neediest].extend(cases_of[patient])
    train, validation, test = (tuple(sorted(part)) for part in parts)
    return Split(train=train, validation=validation, test=test, seed=seed)


def _target_sizes(total: int, fractions: Sequence[float]) -> list[int]:
    quotas = [total * fraction for fraction in fractions]
    sizes = [int(quota) for quota in quotas]
    # One to learn from and one to test on come before every remainder.
    for part in (_TEST, _TRAIN):
        sizes[part] = max(sizes[part], 1)
    while sum(sizes) < total:
        neediest = max(range(3), key=lambda part: quotas[part] - sizes[part])
        sizes[neediest] += 1
    while sum(sizes) > total:
        largest = max(range(3), key=lambda part: sizes[part])
        sizes[largest] -= 1
    return sizes
