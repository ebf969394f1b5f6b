"""Tables of scores, written down as one array per model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

MakeScores = Callable[..., pd.DataFrame]


# Of the session, because property tests refuse a fixture that could differ between their examples.
@pytest.fixture(scope="session")
def make_scores() -> MakeScores:
    """``make_scores({"model": values}, region="WT", metric="dice")``; values are (cases,) or (cases, seeds)."""

    def make(models: Mapping[str, Any], region: str = "WT", metric: str = "dice") -> pd.DataFrame:
        rows = [
            {"case": f"case-{case:03d}", "model": model, "seed": seed, "region": region, "metric": metric, "value": one}
            for model, values in models.items()
            for case, of_case in enumerate(values)
            for seed, one in enumerate(np.atleast_1d(of_case))
        ]
        return pd.DataFrame(rows)

    return make


@pytest.fixture
def study(make_scores: MakeScores) -> pd.DataFrame:
    """Four models, 30 cases, three seeds, two regions, Dice and HD95 with penalties; some scores tie."""
    random = np.random.default_rng(0)
    frames = []
    for region in ("WT", "ET"):
        difficulty = random.beta(8, 2, (30, 1))
        dice = {
            model: np.round(np.clip(difficulty + gain + random.normal(0, 0.04, (30, 3)), 0, 1), 2)
            for model, gain in {"segmamba": 0.02, "unetr": -0.03, "segresnet": 0.01, "swinunetr": 0.0}.items()
        }
        hd95 = {model: np.where(random.random((30, 3)) < 0.05, 373.13, 30 * (1 - dice[model])) for model in dice}
        frames += [make_scores(dice, region, "dice"), make_scores(hd95, region, "hd95")]
    return pd.concat(frames, ignore_index=True)
