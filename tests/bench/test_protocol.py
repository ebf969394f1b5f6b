"""Protocols: presets, changed fields, messages."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.protocol import fields, load_protocol, preset_names


def test_the_paper_preset_says_what_section_3_4_says() -> None:
    paper = load_protocol("paper")
    assert paper.data.patch_size == (128, 128, 128)
    assert (paper.train.batch_size, paper.train.loss) == (2, "cross_entropy")
    assert (paper.train.learning_rate, paper.train.weight_decay) == (1e-2, 1e-5)
    assert paper.train.total_steps == 1000 * 250
    assert (paper.split.train, paper.split.validation, paper.split.test) == (0.7, 0.1, 0.2)
    assert (paper.infer.overlap, paper.infer.mirror_axes) == (0.5, (0, 1, 2))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_bears_its_file_name(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert protocol.title == name


@pytest.mark.parametrize(
    ("change", "section", "field", "value"),
    [
        ("train.steps=5", "train", "steps", 5),
        ("data.patch_size=64", "data", "patch_size", (64, 64, 64)),
        ("data.patch_size=64,48,32", "data", "patch_size", (64, 48, 32)),
        ("data.patch_size=[64, 48, 32]", "data", "patch_size", (64, 48, 32)),
        ("infer.mirror_axes=[]", "infer", "mirror_axes", ()),
        ("infer.mirror_axes=0", "infer", "mirror_axes", (0,)),
        ("train.clip_norm=12", "train", "clip_norm", 12.0),
        ("data.mirror=False", "data", "mirror", False),
        ("data.normalise=brain", "data", "normalise", "brain"),
    ],
)
def test_values_read_as_people_type_them(change: str, section: str, field: str, value: object) -> None:
    assert getattr(getattr(load_protocol("paper", [change]), section), field) == value


def test_none_clears_an_optional_field() -> None:
    assert load_protocol("demo").train.clip_norm is not None
    assert load_protocol("demo", ["train.clip_norm=none"]).train.clip_norm is None


def test_setting_one_budget_replaces_the_presets_other_one() -> None:
    assert load_protocol("paper", ["train.steps=7"]).train.total_steps == 7
    assert load_protocol("demo", ["train.epochs=3", "train.steps_per_epoch=4"]).train.total_steps == 12


def test_options_of_one_model_are_set_by_name() -> None:
    protocol = load_protocol("paper", ["model_options.segmamba.feat_size=8,16,32,64"])
    assert protocol.model_options == {"segmamba": {"feat_size": [8, 16, 32, 64]}}


def test_the_title_lists_real_changes_only() -> None:
    assert load_protocol("paper", ["train.batch_size=2", "train.epochs=50"]).title == "paper (train.epochs=50)"
    assert load_protocol("paper", ["model_options.segmamba.d_state=8"]).title == "paper"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.step=5", ["train.step", "did you mean 'train.steps'"]),
        ("train.steps=0", ["train.steps=0", "greater than 0"]),
        ("train.learning_rate=inf", ["train.learning_rate=inf", "finite"]),
        ("train.loss=dice", ["train.loss=dice", "cross_entropy"]),
        ("data.patch_size=64,64", ["data.patch_size=64,64"]),
        ("data.patch_size=big", ["data.patch_size=big"]),
        ("infer.overlap=1", ["infer.overlap=1", "less than 1"]),
        ("infer.mirror_axes=3", ["infer.mirror_axes=3"]),
        ("infer.mirror_axes=0,0", ["infer.mirror_axes=0,0", "once"]),
        ("train.steps=99999999999999999999999999", ["train.steps", "less than"]),
        ("split.train=0.9", ["sum to 1.2", "expected 1"]),
        ("evaluate.convention=brat", ["evaluate.convention=brat", "'brats'"]),
        ("steps", ["expected FIELD=VALUE"]),
        ("model_options.segmamba=3", ["model_options.MODEL.OPTION"]),
    ],
)
def test_a_bad_change_is_named_with_its_mend(change: str, words: list[str]) -> None:
    with pytest.raises(BenchError) as error:
        load_protocol("paper", [change])
    for word in words:
        assert word in str(error.value)


def test_two_budgets_are_refused() -> None:
    with pytest.raises(BenchError, match="exactly one of"):
        load_protocol("paper", ["train.epochs=3", "train.steps=2"])


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean 'paper'"):
        load_protocol("papr")


def test_every_field_is_described() -> None:
    assert all(len(text) > 10 for text in fields().values())


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize(
    "change",
    [
        "infer.mirror_axes=none",
        "infer.mirror_axes=2,0",
        "train.clip_norm=none",
        "train.clip_norm=3",
        "train.steps=9",
        "train.epochs=9",
        "data.patch_size=64,48,32",
        "evaluate.untrained=true",
        "evaluate.convention=segmamba",
    ],
)
def test_what_the_title_says_can_be_typed_back(preset: str, change: str) -> None:
    changed = load_protocol(preset, [change])
    assert load_protocol(preset, changed.changes) == changed
