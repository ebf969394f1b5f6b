"""From names to protocols and options, one for all or each network's own."""

from __future__ import annotations

import pytest

import models
from bench.errors import BenchError
from bench.plan import check_option_targets, protocols_of, resolved_options

WITH_RECIPE = [name for name in models.names() if models.card(name).recipe_fields is not None]


def test_a_shared_protocol_is_one_for_all() -> None:
    protocols = protocols_of(["unetr", "segresnet"], "paper", ["train.epochs=5"])
    assert protocols["unetr"] is protocols["segresnet"]
    assert protocols["unetr"].author_of == ""


@pytest.mark.parametrize("name", WITH_RECIPE)
def test_every_recipe_on_a_card_is_a_protocol(name: str) -> None:
    protocol = protocols_of([name], "author", [])[name]
    assert protocol.author_of == name
    assert protocol.title == "author"
    values = protocol.values()
    for field, value in (models.card(name).recipe_fields or {}).items():
        if field.startswith("model_options."):
            assert resolved_options(name, protocol)[field.rpartition(".")[2]] == value
        else:
            assert values[field] == value
            assert name in protocol.sources[field]


def test_recipes_differ_and_can_be_changed() -> None:
    protocols = protocols_of(["unetr", "mednext_b"], "author", ["train.steps=9"])
    assert (protocols["unetr"].train.learning_rate, protocols["mednext_b"].train.learning_rate) == (1e-4, 1e-3)
    assert {protocol.title for protocol in protocols.values()} == {"author (train.steps=9)"}
    assert protocols["unetr"].canonical() != protocols["mednext_b"].canonical()


def test_a_card_without_a_recipe_is_named_with_those_that_have_one() -> None:
    with pytest.raises(BenchError, match=r"swinunetr_v2 state no recipe.*nnunet"):
        protocols_of(["unetr", "swinunetr_v2"], "author", [])


@pytest.mark.parametrize(("name", "deep"), [("nnunet", True), ("segresnet", None)])
def test_deep_supervision_is_asked_of_networks_that_have_it(name: str, deep: bool | None) -> None:
    protocol = protocols_of([name], "paper", ["train.deep_supervision=true"])[name]
    assert resolved_options(name, protocol).get("deep_supervision") is deep
    explicit = protocols_of(
        [name], "paper", ["train.deep_supervision=true", f"model_options.{name}.deep_supervision=false"]
    )
    if deep:
        assert resolved_options(name, explicit[name])["deep_supervision"] is False


def test_options_of_a_model_that_is_not_there_are_refused() -> None:
    with pytest.raises(BenchError, match="did you mean 'unetr'"):
        check_option_targets(["model_options.untr.mlp_dim=5"], ["unetr"])
