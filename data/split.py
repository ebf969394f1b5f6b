"""Which cases train, which validate, which test: seeded, disjoint by patient, hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
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
    cases_of = _cases_of(patients)
    if len(cases_of) < 2:
        raise DataError(
            f"found {len(cases_of)} patient(s) with reference segmentations; expected at least 2, one to train on "
            "and another to test on. Add cases to the dataset folder."
        )
    drawn = _shuffled(cases_of, np.random.default_rng(seed))
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


def fold_cases(patients: Mapping[str, str], *, folds: int, validation: float, seed: int) -> tuple[Split, ...]:
    """Deal cases into folds, each of which is the test part of one split: a cross-validation.

    The result depends on the ids and the seed alone, as that of `split_cases`. Patients are drawn at random, those with
    the most cases first, and each goes, with all of its cases, to the fold with the fewest so far: with one case a
    patient the sizes differ by one at most, else by no more than the cases of one patient. Of what is not in a fold,
    patients drawn anew go to validation or training, whichever is further below its target; at least one trains.

    Args:
        patients: case id to patient id.
        folds: how many, at least 2.
        validation: share that validates of the cases that do not test; 0..1.
        seed: seed of the draw.

    Returns:
        One split for each fold, in their order. Every case is in the test part of exactly one.

    Raises:
        DataError: fewer patients than folds, since each fold must test one.
    """
    cases_of = _cases_of(patients)
    if len(cases_of) < folds:
        raise DataError(
            f"found {len(cases_of)} patient(s) with reference segmentations; expected at least {folds}, one to test on "
            f"in each of {folds} folds. Ask for fewer folds, or add cases to the dataset folder."
        )
    drawn = _shuffled(cases_of, np.random.default_rng(seed))
    fold_of: dict[str, int] = {}
    sizes = [0] * folds
    for patient in sorted(drawn, key=lambda patient: -len(cases_of[patient])):  # stable: the draw decides among equals
        fold_of[patient] = sizes.index(min(sizes))
        sizes[fold_of[patient]] += len(cases_of[patient])
    splits = []
    for fold in range(folds):
        test = [case for patient in cases_of if fold_of[patient] == fold for case in cases_of[patient]]
        rest = {patient: cases for patient, cases in cases_of.items() if fold_of[patient] != fold}
        train, validate = _hold_out(rest, validation, np.random.default_rng([seed, fold]))
        splits.append(Split(tuple(sorted(train)), tuple(sorted(validate)), tuple(sorted(test)), seed))
    return tuple(splits)


def _hold_out(
    cases_of: Mapping[str, Sequence[str]], share: float, random: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Cases that train and cases that validate, about a ``share`` of them, disjoint by patient."""
    total = sum(map(len, cases_of.values()))
    wanted = round(share * total)
    train: list[str] = []
    validate: list[str] = []
    drawn = _shuffled(cases_of, random)
    for patient in drawn:
        validates = wanted - len(validate) > total - wanted - len(train)
        # The last patient is kept for training where that would otherwise stay empty.
        part = validate if validates and (train or patient != drawn[-1]) else train
        part.extend(cases_of[patient])
    return train, validate


def _cases_of(patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Patient id to the ids of the cases, sorted."""
    cases_of: dict[str, list[str]] = {}
    for case in sorted(patients):
        cases_of.setdefault(patients[case], []).append(case)
    return cases_of


def _shuffled(names: Iterable[str], random: np.random.Generator) -> list[str]:
    ordered = sorted(names)
    return [ordered[i] for i in random.permutation(len(ordered))]


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
