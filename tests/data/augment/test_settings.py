"""The settings of augmentation are the fields of a protocol's section of that name."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace

import pytest

from bench.fields import AugmentFields
from bench.protocol import PRESETS
from data.augment import Augmentation
from data.augment.draw import Drawn, draw


def test_settings_have_the_names_of_the_fields_in_their_order() -> None:
    assert [field.name for field in fields(Augmentation)] == list(AugmentFields.model_fields)


@pytest.mark.parametrize("name", ["paper", "release", "demo"])
def test_settings_are_made_of_every_preset(name: str) -> None:
    text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    section = AugmentFields(**tomllib.loads(text)["augment"])
    assert vars(Augmentation(**section.model_dump())) == dict(section)


def test_without_augmentation_nothing_is_drawn() -> None:
    none = Augmentation.none()
    assert all(draw(none, 4, (0, step, 0)) == Drawn() for step in range(50))
    mirrored = replace(none, mirror_axes=(1,))
    assert {draw(mirrored, 4, (0, step, 0)).flips for step in range(50)} == {(), (1,)}
