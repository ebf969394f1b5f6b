"""What is drawn: as often, as far and as independently as the settings say."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from data.augment import Augmentation
from data.augment.draw import Drawn, draw

SAMPLES = 2000
CHANNELS = 3


@pytest.fixture(scope="module")
def samples(everything: Augmentation) -> list[Drawn]:
    return [draw(everything, CHANNELS, (7, step, 1)) for step in range(SAMPLES)]


def _is_near(found: float, probability: float, trials: int) -> bool:
    return abs(found - probability) < 4 * np.sqrt(probability * (1 - probability) / trials)


@pytest.mark.parametrize(
    ("drawn", "setting"),
    [
        ("angles_degrees", "rotation"),
        ("scale", "scaling"),
        ("elastic", "elastic"),
        ("noise", "noise"),
        ("blur_sigma", "blur"),
        ("brightness", "brightness"),
        ("brightness_shift", "brightness_shift"),
        ("contrast", "contrast"),
        ("low_resolution", "low_resolution"),
        ("inverted_gamma", "inverted_gamma"),
        ("gamma", "gamma"),
    ],
)
def test_each_transform_happens_as_often_as_asked(
    samples: list[Drawn], everything: Augmentation, drawn: str, setting: str
) -> None:
    share = np.mean([getattr(sample, drawn) is not None for sample in samples])
    assert _is_near(share, getattr(everything, f"{setting}_probability"), SAMPLES)


def test_transforms_happen_independently_of_each_other(samples: list[Drawn]) -> None:
    names = [field.name for field in fields(Drawn) if field.name != "flips"]
    happened = np.array([[getattr(sample, name) is not None for name in names] for sample in samples], float)
    among = np.corrcoef(happened, rowvar=False)[np.triu_indices(len(names), 1)]
    assert np.abs(among).max() < 4 / np.sqrt(SAMPLES)


@pytest.mark.parametrize(
    ("drawn", "setting"),
    [("blur_sigma", "blur"), ("brightness_shift", "brightness_shift"), ("low_resolution", "low_resolution")],
)
def test_each_channel_is_chosen_as_often_as_asked(
    samples: list[Drawn], everything: Augmentation, drawn: str, setting: str
) -> None:
    channels = [value for sample in samples for value in getattr(sample, drawn) or ()]
    share = np.mean([value not in (None, 0.0) for value in channels])
    assert _is_near(share, getattr(everything, f"{setting}_channel_probability"), len(channels))


def test_mirroring_flips_the_axes_asked_for_half_the_time(samples: list[Drawn]) -> None:
    flips = [sample.flips for sample in samples]
    assert set(flips) == {(), (0,), (2,), (0, 2)}
    for axis in (0, 2):
        assert _is_near(np.mean([axis in flipped for flipped in flips]), 0.5, SAMPLES)


def test_values_fill_their_ranges(samples: list[Drawn]) -> None:
    def all_of(name: str) -> np.ndarray:
        values = [getattr(sample, name) for sample in samples]
        return np.array([value for some in values if some is not None for value in some if value is not None])

    angles = all_of("angles_degrees")
    assert -30 <= angles.min() < -29
    assert 29 < angles.max() <= 30
    assert abs(angles.mean()) < 4 * 60 / np.sqrt(12 * len(angles))
    for name, low, high in [
        ("blur_sigma", 0.5, 1.0),
        ("brightness", 0.75, 1.25),
        ("low_resolution", 0.5, 1.0),
    ]:
        values = all_of(name)
        assert low <= values.min() < low + 0.02, name
        assert high - 0.02 < values.max() <= high, name
        assert abs(values.mean() - (low + high) / 2) < 4 * (high - low) / np.sqrt(12 * len(values)), name
    shifts = all_of("brightness_shift")
    assert shifts[shifts != 0].std() == pytest.approx(0.1, rel=0.1)
    for name, at_most in [("magnitude", 900), ("sigma", 13)]:
        drawn = [getattr(sample.elastic, name) for sample in samples if sample.elastic]
        assert at_most * 0.97 < max(drawn) <= at_most
    assert {sample.elastic.sigma >= 9 for sample in samples if sample.elastic} == {True}
    assert 0.09 < max(sample.noise.std for sample in samples if sample.noise) <= 0.1


@pytest.mark.parametrize(("name", "low", "high"), [("scale", 0.7, 1.4), ("contrast", 0.65, 1.5), ("gamma", 0.7, 1.5)])
def test_two_sided_ranges_are_below_and_above_one_equally_often(
    samples: list[Drawn], name: str, low: float, high: float
) -> None:
    drawn = [getattr(sample, name) for sample in samples]
    values = np.concatenate([np.atleast_1d(value) for value in drawn if value is not None])
    assert _is_near((values < 1).mean(), 0.5, len(values))
    for side, middle, width in [
        (values[values < 1], (low + 1) / 2, 1 - low),
        (values[values >= 1], (high + 1) / 2, high - 1),
    ]:
        assert abs(side.mean() - middle) < 4 * width / np.sqrt(12 * len(side))
        assert side.max() - side.min() > 0.95 * width


@pytest.mark.parametrize("values", [(0.5, 0.8), (1.2, 1.4), (1.0, 1.0), (0.6, 1.0)])
def test_a_range_with_one_side_stays_inside(values: tuple[float, float]) -> None:
    settings = replace(Augmentation.none(), scaling_probability=1.0, scaling_range=values)
    scales = [draw(settings, 1, (0, step, 0)).scale for step in range(200)]
    assert values[0] <= min(scales) <= max(scales) <= values[1]  # type: ignore[type-var, operator]


@pytest.mark.parametrize(
    ("setting", "drawn"),
    [
        ("rotation", "angles_degrees"),
        ("scaling", "scale"),
        ("elastic", "elastic"),
        ("noise", "noise"),
        ("blur", "blur_sigma"),
        ("brightness", "brightness"),
        ("brightness_shift", "brightness_shift"),
        ("contrast", "contrast"),
        ("low_resolution", "low_resolution"),
        ("inverted_gamma", "inverted_gamma"),
        ("gamma", "gamma"),
    ],
)
def test_switching_one_transform_off_leaves_the_draws_of_the_others(
    everything: Augmentation, setting: str, drawn: str
) -> None:
    without = replace(everything, **{f"{setting}_probability": 0.0})
    for step in range(30):
        assert draw(without, CHANNELS, (7, step, 1)) == replace(
            draw(everything, CHANNELS, (7, step, 1)), **{drawn: None}
        )


def test_dropping_an_axis_of_mirroring_leaves_the_other(everything: Augmentation, samples: list[Drawn]) -> None:
    one_axis = replace(everything, mirror_axes=(2,))
    for step in range(30):
        kept = tuple(axis for axis in samples[step].flips if axis == 2)
        assert draw(one_axis, CHANNELS, (7, step, 1)) == replace(samples[step], flips=kept)


def test_seed_step_and_sample_each_change_every_draw(everything: Augmentation) -> None:
    settings = replace(
        everything, **{field.name: 1.0 for field in fields(everything) if field.name.endswith("_probability")}
    )
    one = draw(settings, CHANNELS, (1, 2, 3))
    assert one == draw(settings, CHANNELS, (1, 2, 3))
    for key in [(0, 2, 3), (1, 0, 3), (1, 2, 0)]:
        other = draw(settings, CHANNELS, key)
        for field in fields(Drawn):
            if field.name != "flips":
                assert getattr(one, field.name) != getattr(other, field.name), field.name
