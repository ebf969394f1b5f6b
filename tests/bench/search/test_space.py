"""What a search tries: ranges, choices, draws that are the same for every network."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from bench.errors import BenchError
from bench.search.space import Dimension, draws, search_space

OWN = {"train.learning_rate": 0.02, "train.weight_decay": 1e-5}


def _one(text: str) -> Dimension:
    field = text.partition("=")[0]
    return next(dimension for dimension in search_space([text]) if dimension.field == field)


def test_the_default_is_rate_and_decay_and_either_can_be_replaced_or_left_out() -> None:
    assert [str(one) for one in search_space([])] == [
        "train.learning_rate=around:10",
        "train.weight_decay=loguniform:1e-6:1e-2",
    ]
    space = search_space(["train.weight_decay=none", "train.learning_rate=choice:1,2", "train.batch_size=uniform:1:4"])
    assert [one.field for one in space] == ["train.learning_rate", "train.batch_size"]


@pytest.mark.parametrize(
    ("text", "own", "ends"),
    [
        ("train.learning_rate=around:10", 0.02, ("0.002", "0.2")),
        ("train.learning_rate=loguniform:1e-4:1e-1", 0.02, ("0.0001", "0.1")),
        ("train.momentum=uniform:0.5:0.99", 0.9, ("0.5", "0.99")),
        ("train.batch_size=loguniform:1:8", 2, ("1", "8")),
        ("train.batch_size=uniform:1.5:4", 2, ("2", "4")),
        ("train.optimiser=choice:sgd,adamw", "sgd", ("sgd", "adamw")),
        ("model_options.segmamba.feat_size=choice:8,16|16,32", (48, 96), ("8,16", "16,32")),
    ],
)
def test_values_lie_in_their_range_and_are_typed_as_the_field_wants(
    text: str, own: object, ends: tuple[str, str]
) -> None:
    dimension = _one(text)
    assert dimension.bounds(own) == ends
    values = [dimension.at(share, own) for share in np.linspace(0, 1, 50, endpoint=False)]
    assert values[0] == ends[0]
    if dimension.kind == "choice":
        assert set(values) == set(ends)
        return
    numbers = [float(value) for value in values]
    assert numbers == sorted(numbers)
    assert float(ends[0]) <= min(numbers) <= max(numbers) <= float(ends[1])
    if isinstance(own, int):
        assert all("." not in value and "e" not in value for value in values)


def test_half_of_a_logarithmic_range_is_its_geometric_mean() -> None:
    assert float(_one("train.learning_rate=loguniform:1e-4:1e-2").at(0.5, 0.02)) == pytest.approx(1e-3)
    assert float(_one("train.momentum=uniform:0:1").at(0.25, 0.9)) == pytest.approx(0.25)


def test_draws_begin_with_the_own_setting_and_do_not_depend_on_what_else_is_searched() -> None:
    alone = list(islice(draws(search_space([]), OWN, seed=0), 20))
    assert alone[0] == {"train.learning_rate": "0.02", "train.weight_decay": "1e-05"}
    more = search_space(["train.momentum=uniform:0:0.99"])
    beside = list(islice(draws(more, {**OWN, "train.momentum": 0.9}, seed=0), 20))
    assert [{field: setting[field] for field in OWN} for setting in beside] == alone
    assert alone != list(islice(draws(search_space([]), OWN, seed=1), 20))
    # Of another network, whose own rate is ten times as high: the same multiples of it.
    other = list(islice(draws(search_space([]), {**OWN, "train.learning_rate": 0.2}, seed=0), 20))
    for mine, its in zip(alone, other, strict=True):
        assert float(its["train.learning_rate"]) == pytest.approx(10 * float(mine["train.learning_rate"]), rel=1e-3)


def test_draws_fill_the_range_evenly_on_its_scale_each_field_for_itself() -> None:
    settings = list(islice(draws(search_space([]), OWN, seed=3), 1, 2001))
    rates, decays = (np.log10([float(one[field]) for one in settings]) for field in OWN)
    counts, _ = np.histogram(rates - np.log10(0.02), bins=10, range=(-1, 1))
    assert counts.min() > 140
    assert counts.max() < 260
    assert abs(np.corrcoef(rates, decays)[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("train.learning_rate", ["expected FIELD=VALUES"]),
        ("=choice:1", ["expected FIELD=VALUES"]),
        ("train.learning_rate=lognormal:1:2", ["train.learning_rate=lognormal:1:2", "loguniform:LOW:HIGH"]),
        ("train.learning_rate=loguniform:1", ["loguniform:LOW:HIGH"]),
        ("train.learning_rate=loguniform:a:b", ["loguniform:LOW:HIGH"]),
        ("train.learning_rate=uniform:nan:1", ["loguniform:LOW:HIGH"]),
        ("train.learning_rate=loguniform:1e-1:1e-4", ["the lower one first"]),
        ("train.learning_rate=loguniform:0:1", ["above 0"]),
        ("train.learning_rate=around:1", ["a factor above 1"]),
        ("train.learning_rate=around:0", ["a factor above 1"]),
        ("train.optimiser=choice:", ["choice:A,B,C"]),
        ("train.optimiser=choice:sgd,sgd", ["that differ"]),
        ("split.seed=choice:1,2", ["cannot be searched", "which cases train"]),
        ("evaluate.checkpoint=choice:last,best", ["scored alike"]),
        ("train.epochs=choice:1,2", ["the same steps"]),
        ("train.steps_per_epoch=choice:1,2", ["the same steps"]),
        ("infer.overlap=choice:0.5,0.7", ["tested alike"]),
    ],
)
def test_what_cannot_be_searched_is_refused(asked: str, words: list[str]) -> None:
    with pytest.raises(BenchError) as error:
        search_space([asked])
    assert all(word in str(error.value) for word in words), error.value


def test_nothing_left_to_search_is_refused() -> None:
    with pytest.raises(BenchError, match="nothing is left"):
        search_space(["train.weight_decay=none", "train.learning_rate=none"])


@pytest.mark.parametrize("own", [0.0, None, "sgd", True])
def test_around_needs_a_positive_number(own: object) -> None:
    with pytest.raises(BenchError, match="only around a positive number"):
        _one("train.weight_decay=around:10").bounds(own)


def test_no_whole_number_in_a_range_is_told() -> None:
    with pytest.raises(BenchError, match="no whole number"):
        _one("train.batch_size=uniform:2.2:2.8").bounds(2)
