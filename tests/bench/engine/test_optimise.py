"""Optimisers and schedules as the fields say."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from bench.engine.optimise import learning_rate, make_optimiser


@pytest.mark.parametrize(
    ("changes", "kind", "settings"),
    [
        (("momentum=0.99",), torch.optim.SGD, {"momentum": 0.99, "nesterov": True, "weight_decay": 1e-5}),
        (("momentum=0",), torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
        (("optimiser=adam", "amsgrad=true"), torch.optim.Adam, {"amsgrad": True, "eps": 1e-8, "weight_decay": 1e-5}),
        (("optimiser=adamw", "adam_epsilon=1e-4"), torch.optim.AdamW, {"eps": 1e-4, "weight_decay": 1e-5}),
    ],
)  # fmt: skip
def test_the_optimiser_is_as_the_fields_say(
    make_fields: Callable, changes: tuple[str, ...], kind: type, settings: dict[str, object]
) -> None:
    made = make_optimiser(nn.Linear(2, 2).parameters(), make_fields(*changes))
    assert type(made) is kind
    (group,) = made.param_groups
    assert {name: group[name] for name in settings} == settings


def test_the_polynomial_falls_in_every_step(make_fields: Callable) -> None:
    fields = make_fields("steps=100", "learning_rate=0.01")
    assert [learning_rate(fields, step, step / 100) for step in (0, 50, 99)] == pytest.approx(
        [0.01, 0.01 * 0.5**0.9, 0.01 * 0.01**0.9]
    )


def test_the_cosine_is_half_a_period(make_fields: Callable) -> None:
    fields = make_fields("steps=100", "learning_rate=0.01", "schedule=cosine")
    assert learning_rate(fields, 0, 0.0) == 0.01
    assert learning_rate(fields, 50, 0.5) == pytest.approx(0.005)
    assert learning_rate(fields, 75, 0.75) == pytest.approx(0.005 * (1 + math.cos(0.75 * math.pi)))


def test_a_warm_up_rises_and_the_schedule_follows_it(make_fields: Callable) -> None:
    fields = make_fields("steps=100", "learning_rate=0.01", "schedule=cosine", "warmup_steps=10")
    rates = [learning_rate(fields, step, step / 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.001 * (step + 1) for step in range(10)])
    assert rates[10] == 0.01
    assert rates[55] == pytest.approx(0.005)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_constant_rate_stays(make_fields: Callable) -> None:
    fields = make_fields("schedule=constant", "learning_rate=0.003")
    assert {learning_rate(fields, step, step / 12) for step in range(12)} == {0.003}


def test_a_budget_in_seconds_follows_the_share_that_is_spent(make_fields: Callable) -> None:
    fields = make_fields("steps=none", "gpu_seconds=60", "learning_rate=0.01")
    assert learning_rate(fields, 1000, 0.25) == pytest.approx(0.01 * 0.75**0.9)
