"""Invented scores and the statistics of them, for figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest

PENALTY_MM = 373.1286641


@pytest.fixture
def scores() -> Callable[..., pd.DataFrame]:
    """The tidy long frame; ``penalised`` cases of each model's last region have an empty mask."""

    def make(
        models: Sequence[str] = ("alpha", "beta", "gamma"),
        cases: int = 5,
        regions: Sequence[str] = ("WT", "TC", "ET"),
        penalised: int = 0,
    ) -> pd.DataFrame:
        random = np.random.default_rng(0)
        rows = []
        for number, (model, region) in enumerate(itertools.product(models, regions)):
            for case in range(cases):
                missed = region == regions[-1] and case < penalised
                dice = 0.0 if missed else 0.9 - 0.02 * number + random.uniform(-0.05, 0.05)
                hd95 = PENALTY_MM if missed else 2.0 + number + random.uniform(0, 3)
                for metric, value in (("dice", dice), ("hd95", hd95)):
                    rows.append((f"key-{model}", f"case-{case}", model, 0, region, metric, value))
        return pd.DataFrame(rows, columns=["key", "case", "model", "seed", "region", "metric", "value"])

    return make


@pytest.fixture
def comparisons() -> pd.DataFrame:
    """gamma beats alpha beats beta by Dice; only gamma against beta is significant."""
    rows = [
        ("ET", "dice", "alpha", "beta", 5, 0.30, 0.2),
        ("ET", "dice", "alpha", "gamma", 5, 0.20, -0.3),
        ("ET", "dice", "beta", "gamma", 5, 0.004, -0.7),
    ]
    columns = ["region", "metric", "model_a", "model_b", "cases", "p_holm", "rank_biserial"]
    frame = pd.DataFrame(rows, columns=columns)
    return pd.concat([frame, frame.assign(metric="hd95")], ignore_index=True)


@pytest.fixture
def stability() -> pd.DataFrame:
    rows = [("alpha", 2, 0.3, 1, 3), ("beta", 1, 0.7, 1, 2), ("c", 3, 0.0, 2, 3)]
    frame = pd.DataFrame(rows, columns=["model", "rank", "first_share", "rank_low", "rank_high"])
    return frame.assign(region="ET", metric="dice")


@pytest.fixture
def taus() -> pd.DataFrame:
    rows = [("ET", "dice", 0.81, 0.33, 1.0)]
    return pd.DataFrame(rows, columns=["region", "metric", "tau_mean", "tau_low", "tau_high"])


@pytest.fixture
def friedman() -> pd.DataFrame:
    rows = [("ET", "dice", 30, 5, 20.0, 0.0004, 1.1), ("WT", "dice", 30, 5, 3.0, 0.21, 1.1)]
    return pd.DataFrame(rows, columns=["region", "metric", "cases", "models", "statistic", "p", "critical_difference"])


@pytest.fixture
def ranks() -> pd.DataFrame:
    rows = [(r, "dice", m, v) for r in ("ET", "WT") for m, v in zip("edcba", (1.4, 2.3, 3.1, 3.9, 4.3), strict=True)]
    return pd.DataFrame(rows, columns=["region", "metric", "model", "average_rank"])


@pytest.fixture
def histories() -> pd.DataFrame:
    def run(model: str, seed: int, points: int) -> pd.DataFrame:
        step = np.arange(1, points + 1) * 10
        dice = np.where(np.arange(points) % 10 == 9, 0.5 + 0.4 * step / step[-1], np.nan)
        return pd.DataFrame(
            {"model": model, "seed": seed, "step": step, "loss": 1 / step, "learning_rate": 0.01, "dice": dice}
        )

    return pd.concat([run("alpha", 0, 50), run("alpha", 1, 50), run("beta", 0, 150)], ignore_index=True)
