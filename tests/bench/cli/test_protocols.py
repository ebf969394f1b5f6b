"""``bench protocols``: every field with its value, source and meaning; where presets differ."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.protocol import fields

Bench = Callable[..., object]


def test_presets_are_listed_with_what_differs(bench: Bench) -> None:
    answer = bench("protocols")
    assert answer.status == 0
    for word in ("paper: section 3.4", "release: what SegMamba's released code", "train.weight_decay", "3e-05"):
        assert word in answer.out
    assert "split.train" not in answer.out, "the same in all"


@pytest.mark.parametrize("arguments", [("release",), ("demo",), ("author", "--model", "unetr")])
def test_one_is_shown_field_by_field(bench: Bench, arguments: tuple[str, ...]) -> None:
    answer = bench("protocols", *arguments)
    assert answer.status == 0
    for field, meaning in fields().items():
        assert f"{field} = " in answer.out
        assert meaning in answer.out


def test_sources_and_changes_are_told(bench: Bench) -> None:
    answer = bench("protocols", "paper", "--set", "train.epochs=5")
    assert "train.epochs = 5   [changed with --set]" in answer.out
    assert "train.weight_decay = 1e-05   [paper, section 3.4: decay of 1e-5]" in answer.out
    assert "split.folds = none\n    parts of a cross-validation" in answer.out
    assert "split.folds = 5   [changed with --set]" in bench("protocols", "demo", "--set", "split.folds=5").out
    assert "[recipe of unetr's authors" in bench("protocols", "author", "--model", "unetr").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("author",), ["--model"]),
        (("papre",), ["did you mean 'paper'"]),
        (("author", "--model", "untr"), ["unetr"]),
        (("--set", "train.steps=1"), ["--set: of which protocol"]),
    ],
)
def test_a_wrong_request_is_told(bench: Bench, arguments: tuple[str, ...], words: list[str]) -> None:
    answer = bench("protocols", *arguments)
    assert answer.status == 2
    for word in words:
        assert word in answer.err
