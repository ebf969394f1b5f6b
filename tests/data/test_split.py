"""Splits: sizes, seeds, patients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.split import split_cases

FRACTIONS = (0.7, 0.1, 0.2)


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
    patients = {f"p{p:02d}-{t}": f"p{p:02d}" for p, count in enumerate(visits) for t in range(count)}
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
