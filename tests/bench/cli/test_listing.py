"""``bench models`` and ``bench datasets``"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import models
from models import registry


def test_models_are_a_table_with_size_cost_and_paper(bench: Callable) -> None:
    answer = bench("models")
    assert answer.status == 0
    lines = answer.out.splitlines()
    assert all(
        word in lines[0] for word in ("name", "family", "parameters", "GMACs at 128³", "size (D, H, W)", "paper")
    )
    rows = {line.split()[0]: line for line in lines[2 : 2 + len(models.names())]}
    assert rows.keys() == set(models.names())
    release = rows["segmamba_release"]
    for fact in ("state space", "67,416,196", "1,468.7 + 14.6 scan", "multiples of 16", "32768", "Xing et al. (2024)"):
        assert fact in release
    assert "multiples of 32, from 32; fixed" in rows["nnformer"]
    assert ", ".join(models.SEGMAMBA_TABLE_1) in answer.out


@pytest.mark.parametrize("name", models.names())
def test_a_card_is_shown_whole(bench: Callable, name: str) -> None:
    answer = bench("models", name)
    assert answer.status == 0
    card = models.card(name)
    for fact in (card.paper, card.repository, card.commit, card.licence, card.recipe, *card.deviations):
        assert fact in answer.out
    for option in models.options(name):
        assert f"{option}=" in answer.out


def test_an_unknown_model_is_answered_with_the_nearest(bench: Callable) -> None:
    answer = bench("models", "mednext")
    assert answer.status == 2
    assert "Did you mean 'mednext_" in answer.err


def test_readme_shows_the_networks_of_this_package_as_they_are(bench: Callable) -> None:
    """Row by row, since a network from elsewhere may widen the columns."""
    readme = (Path(models.__file__).parents[1] / "README.md").read_text()
    _, _, section = readme.partition("## The networks")
    shown = {" ".join(line.split()) for line in section.partition("## ")[0].splitlines()}
    _, _, *rows = bench("models").out.partition("\n\n")[0].splitlines()
    for row in rows:
        name = row.split()[0]
        if registry._entries[name].builder.__module__.startswith("models."):
            assert " ".join(row.split()) in shown
