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
        ("train.compile=True", "train", "compile", True),
        ("augment.mirror_axes=none", "augment", "mirror_axes", ()),
        ("augment.noise_std=0,0.2", "augment", "noise_std", (0.0, 0.2)),
        ("data.spacing_mm=3,1,1", "data", "spacing_mm", (3.0, 1.0, 1.0)),
        ("data.spacing_mm=native", "data", "spacing_mm", "native"),
        ("validation.every_epochs=none", "validation", "every_epochs", None),
        ("data.normalise=brain", "data", "normalise", "brain"),
        ("split.folds=5", "split", "folds", 5),
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
        ("train.loss=focal", ["train.loss=focal", "cross_entropy"]),
        ("data.spacing_mm=fine", ["data.spacing_mm=fine", "native"]),
        ("augment.scaling_range=2,1", ["augment.scaling_range falls", "low,high"]),
        ("augment.low_resolution_zoom=0.5,2", ["low_resolution_zoom", "at most 1"]),
        ("scan=forward", ["unknown protocol field", "model_options.MODEL.scan"]),
        ("data.patch_size=64,64", ["data.patch_size=64,64"]),
        ("data.patch_size=big", ["data.patch_size=big"]),
        ("infer.overlap=1", ["infer.overlap=1", "less than 1"]),
        ("infer.mirror_axes=3", ["infer.mirror_axes=3"]),
        ("infer.mirror_axes=0,0", ["infer.mirror_axes=0,0", "once"]),
        ("train.steps=99999999999999999999999999", ["train.steps", "less than"]),
        ("split.train=0.9", ["sum to 1.2", "expected 1"]),
        ("split.folds=1", ["split.folds=1", "greater than or equal to 2"]),
        ("split.folds=many", ["split.folds=many", "integer"]),
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


@pytest.mark.parametrize(
    ("one", "two"), [("epochs=3", "steps=2"), ("steps=2", "gpu_seconds=9"), ("epochs=none", "steps=none")]
)
def test_budgets_exclude_each_other(one: str, two: str) -> None:
    with pytest.raises(BenchError, match="exactly one of"):
        load_protocol("paper", [f"train.{one}", f"train.{two}"])


def test_a_budget_in_seconds_has_no_number_of_steps() -> None:
    protocol = load_protocol("paper", ["train.gpu_seconds=3600"])
    assert protocol.train.total_steps is None
    assert protocol.title == "paper (train.gpu_seconds=3600.0)"


def test_the_release_preset_is_what_the_code_does() -> None:
    release = load_protocol("release")
    assert (release.train.weight_decay, release.train.clip_norm, release.train.precision) == (3e-5, 12.0, "fp16")
    assert (release.data.normalise, release.data.foreground_fraction) == ("box", 0.5)
    assert (release.data.placement, release.augment.enlarged_cut) == ("centred", False)
    chances = {name: value for name, value in release.augment.model_dump().items() if name.endswith("_probability")}
    assert {name.removesuffix("_probability"): value for name, value in chances.items() if "channel" not in name} == {
        "rotation": 0.2, "scaling": 0.2, "elastic": 0.0, "noise": 0.1, "blur": 0.2, "brightness": 0.15,
        "brightness_shift": 0.0, "contrast": 0.15, "low_resolution": 0.25, "inverted_gamma": 0.1, "gamma": 0.3,
    }  # fmt: skip
    assert (release.infer.overlap, release.infer.blend, release.infer.mirror_axes) == (0.5, "gaussian", (0, 1, 2))
    assert release.evaluate.convention == "segmamba"


def test_paper_and_release_differ_in_what_the_two_texts_differ_in() -> None:
    paper, release = load_protocol("paper").values(), load_protocol("release").values()
    assert {field for field in fields() if paper[field] != release[field]} == {
        "augment.enlarged_cut",
        "augment.elastic_probability",
        "augment.noise_probability",
        "augment.blur_probability",
        "augment.brightness_probability",
        "augment.brightness_shift_probability",
        "augment.contrast_probability",
        "augment.low_resolution_probability",
        "train.weight_decay",
        "train.clip_norm",
        "evaluate.convention",
    }


@pytest.mark.parametrize("name", ["paper", "release"])
def test_every_value_of_a_published_protocol_has_a_source(name: str) -> None:
    protocol = load_protocol(name)
    free = {"train.steps", "train.gpu_seconds", "train.memory_gib", "split.folds"}  # absent in both
    assert {field for field in fields() if field not in free} == protocol.sources.keys()
    assert all(len(source) > 3 for source in protocol.sources.values())


def test_a_changed_field_has_no_source_any_more() -> None:
    assert "train.epochs" not in load_protocol("paper", ["train.epochs=5"]).sources


def test_no_word_about_a_field_is_part_of_a_key() -> None:
    told = load_protocol("paper").canonical()
    assert not {"sources", "description", "changes"} & told.keys()
    assert {"augment", "validation", "infer"} <= told.keys()


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
