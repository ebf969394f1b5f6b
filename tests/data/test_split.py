"""Splits: sizes, seeds, patients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.split import Split, fold_cases, split_cases

FRACTIONS = (0.7, 0.1, 0.2)


def _visits(counts: list[int]) -> dict[str, str]:
    """Patients with so many cases each."""
    return {f"p{p:02d}-{t}": f"p{p:02d}" for p, count in enumerate(counts) for t in range(count)}


def _patients(count: int, per_patient: int = 1) -> dict[str, str]:
    return {f"BraTS-GLI-{p:05d}-{t:03d}": f"BraTS-GLI-{p:05d}" for p in range(count) for t in range(per_patient)}


def test_brats2023_splits_as_the_paper_says() -> None:
    split = split_cases(_patients(1251), fractions=FRACTIONS, seed=42)
    assert (len(split.train), len(split.validation), len(split.test)) == (876, 125, 250)


@pytest.mark.parametrize(("count", "sizes"), [(2, (1, 0, 1)), (3, (2, 0, 1)), (10, (7, 1, 2)), (24, (17, 2, 5))])
def test_small_sets_always_have_something_to_train_and_to_test(count: int, sizes: tuple[int, int, int]) -> None:
    split = split_cases(_patients(count), fractions=FRACTIONS, seed=42)
    assert (len(split.train), len(split.validation), len(split.test)) == sizes


@given(
    visits=st.lists(st.integers(1, 4), min_size=2, max_size=40),
    seed=st.integers(0, 100),
)
def test_parts_cover_all_cases_and_no_patient_stands_in_two(visits: list[int], seed: int) -> None:
    patients = _visits(visits)
    split = split_cases(patients, fractions=FRACTIONS, seed=seed)
    parts = (split.train, split.validation, split.test)
    assert sorted(case for part in parts for case in part) == sorted(patients)
    seen = [{patients[case] for case in part} for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen))
    assert split.train
    assert split.test


def test_the_order_of_the_listing_does_not_matter_but_the_seed_does() -> None:
    patients = _patients(30)
    backwards = dict(reversed(patients.items()))
    assert split_cases(patients, fractions=FRACTIONS, seed=1) == split_cases(backwards, fractions=FRACTIONS, seed=1)
    one, two = (split_cases(patients, fractions=FRACTIONS, seed=seed) for seed in (1, 2))
    assert one.sha256 != two.sha256


def test_the_hash_is_of_the_lists_alone() -> None:
    split = split_cases(_patients(30), fractions=FRACTIONS, seed=1)
    assert split.to_dict()["sha256"] == split.sha256
    moved = type(split)(split.train[1:], split.validation, (*split.test, split.train[0]), split.seed)
    assert moved.sha256 != split.sha256
    assert type(split)(split.train, split.validation, split.test, seed=99).sha256 == split.sha256


def test_one_patient_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"found 1 patient.*at least 2"):
        split_cases({"a-0": "a", "a-1": "a"}, fractions=FRACTIONS, seed=0)


def _parts(split: Split) -> tuple[tuple[str, ...], ...]:
    return split.train, split.validation, split.test


@given(
    visits=st.lists(st.integers(1, 4), min_size=2, max_size=30),
    folds=st.integers(2, 8),
    validation=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_folds_test_every_case_once_and_share_no_patient_between_parts(
    visits: list[int], folds: int, validation: float, seed: int
) -> None:
    patients, folds = _visits(visits), min(folds, len(visits))
    found = fold_cases(patients, folds=folds, validation=validation, seed=seed)
    assert len(found) == folds
    assert sorted(case for split in found for case in split.test) == sorted(patients)
    for split in found:
        assert sorted(case for part in _parts(split) for case in part) == sorted(patients)
        seen = [{patients[case] for case in part} for part in _parts(split)]
        assert sum(map(len, seen)) == len(set.union(*seen))
        assert split.train
        assert split.test
        assert [list(part) for part in _parts(split)] == [sorted(part) for part in _parts(split)]
        assert split.seed == seed
    tested = [{patients[case] for case in split.test} for split in found]
    assert sum(map(len, tested)) == len(set.union(*tested))


@given(visits=st.lists(st.integers(1, 4), min_size=3, max_size=40), folds=st.integers(2, 8), seed=st.integers(0, 100))
def test_folds_differ_by_no_more_than_one_patient(visits: list[int], folds: int, seed: int) -> None:
    patients, folds = _visits(visits), min(folds, len(visits))
    sizes = [len(split.test) for split in fold_cases(patients, folds=folds, validation=0.1, seed=seed)]
    assert max(sizes) - min(sizes) <= max(visits)
    alone = [len(split.test) for split in fold_cases(_visits([1] * 23), folds=folds, validation=0.1, seed=seed)]
    assert max(alone) - min(alone) <= 1


@given(order=st.permutations(range(12)), seed=st.integers(0, 100))
def test_folds_depend_on_ids_and_seed_alone(order: list[int], seed: int) -> None:
    patients = _patients(6, per_patient=2)
    listed = list(patients.items())
    shuffled = dict(listed[n] for n in order)
    expected = fold_cases(patients, folds=3, validation=0.2, seed=seed)
    assert fold_cases(shuffled, folds=3, validation=0.2, seed=seed) == expected
    one, two = (fold_cases(_patients(30), folds=3, validation=0.2, seed=number) for number in (seed, seed + 1))
    assert {split.test for split in one}.isdisjoint(split.test for split in two)


def test_five_folds_of_brats2023_keep_the_papers_share_for_validation() -> None:
    found = fold_cases(_patients(1251), folds=5, validation=0.1 / 0.8, seed=42)
    assert [len(split.test) for split in found] == [251, 250, 250, 250, 250]
    assert {(len(split.train), len(split.validation)) for split in found[1:]} == {(876, 125)}
    assert len({split.validation for split in found}) == 5


def test_the_share_for_validation_is_met_as_nearly_as_patients_allow() -> None:
    for share, sizes in ((0.0, (16, 0)), (0.25, (12, 4)), (0.5, (8, 8)), (1.0, (1, 15))):
        for split in fold_cases(_patients(20), folds=5, validation=share, seed=0):
            assert (len(split.train), len(split.validation)) == sizes
    for split in fold_cases(_patients(10, per_patient=2), folds=5, validation=0.25, seed=0):
        assert len(split.validation) == 4


def test_fewer_patients_than_folds_are_told() -> None:
    with pytest.raises(DataError, match=r"found 4 patient.*at least 5.*fewer folds, or add cases"):
        fold_cases(_patients(4, per_patient=3), folds=5, validation=0.1, seed=0)
