"""The file of a search: what it holds comes back, what is wrong with it is told with the line, tables show it apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.job import Job
from bench.metrics import RegionMeasurement
from bench.plan import protocols_of, resolved_options
from bench.report.frame import group_records
from bench.report.table import Choice, make_table
from bench.store import Record, Store
from bench.tuned import Tuned, own_fields, read_tuned, tuned_name, write_tuned

NAME = "demo-tuned-0123ab"


@pytest.fixture
def tuned(tmp_path: Path) -> Tuned:
    """Written; of two networks."""
    made = Tuned(
        path=tmp_path / "found.toml",
        name=NAME,
        base="demo",
        changes=("train.steps=40", "train.learning_rate=0.3", "model_options.unetr.num_heads=3"),
        search={
            **{"dataset": "phantom", "data_fingerprint": "f" * 64, "split_sha256": "5" * 64, "trials": 16, "steps": 40},
            "space": {"train.learning_rate": "around:10", "train.optimiser": "choice:sgd,adamw"},
        },
        models={
            "segresnet": own_fields({"train.learning_rate": "0.0123", "train.optimiser": "adamw"}),
            "unetr": own_fields(
                {
                    **{"train.learning_rate": "1e-05", "train.clip_norm": "none", "augment.mirror_axes": "0,1"},
                    "train.target": "classes",
                    **{"model_options.unetr.hidden_size": "96", "train.amsgrad": "true"},
                }
            ),
        },
        found={"segresnet": {"validation_dice": 0.5, "code": ["abc, changed"]}},
    )
    write_tuned(made)
    return made


def test_what_was_written_is_read(tuned: Tuned) -> None:
    found = read_tuned(tuned.path)
    assert replace(found, found={}) == replace(tuned, found={})
    assert found.found == {"segresnet": {"validation_dice": 0.5, "code": ["abc, changed"]}, "unetr": {}}
    assert found.models["unetr"]["train.clip_norm"] == "none"
    write_tuned(found)
    assert read_tuned(tuned.path) == found


def test_quoted_keys_read_as_dotted_ones(tuned: Tuned) -> None:
    text = tuned.path.read_text()
    tuned.path.write_text(text.replace("train.learning_rate =", '"train.learning_rate" ='))
    assert read_tuned(tuned.path).models == tuned.models


def test_each_network_has_the_preset_with_its_own_fields(tuned: Tuned) -> None:
    protocols = protocols_of(["unetr", "segresnet"], str(tuned.path), [])
    one, other = protocols["segresnet"], protocols["unetr"]
    assert one.name == other.name == NAME
    assert one.title == other.title == f"{NAME} (train.steps=40)", "what is searched is no change"
    assert (
        one.description
        == other.description
        == (
            "demo with each network's own train.learning_rate and train.optimiser, the best of 16 settings of at most "
            "40 steps on validation cases of phantom"
        )
    )
    assert (one.author_of, other.author_of) == ("segresnet", "unetr")
    assert (one.train.learning_rate, one.train.optimiser, one.train.steps) == (0.0123, "adamw", 40)
    assert (other.train.learning_rate, other.train.optimiser, other.train.clip_norm) == (1e-5, "sgd", None)
    assert (other.augment.mirror_axes, other.train.amsgrad) == ((0, 1), True)
    assert other.model_options["unetr"] == {"hidden_size": 96, "mlp_dim": 768, "num_heads": 3}
    assert one.tuned == ("train.learning_rate", "train.optimiser")
    assert one.sources["train.learning_rate"] == f"tuned, see {tuned.path}"
    assert not {"tuned", "description"} & set(one.canonical())
    assert not one.by_authors


def test_further_changes_replace_those_of_the_file(tuned: Tuned) -> None:
    changes = ["train.epochs=3", "train.optimiser=sgd"]
    protocol = protocols_of(["segresnet"], str(tuned.path), changes)["segresnet"]
    assert (protocol.train.epochs, protocol.train.steps) == (3, None)
    assert protocol.title == f"{NAME} (train.epochs=3, train.optimiser=sgd)"
    assert protocol.tuned == ("train.learning_rate",)
    with pytest.raises(BenchError, match=r"^protocol 'demo', train.loss=focal"):
        protocols_of(["segresnet"], str(tuned.path), ["train.loss=focal"])


def test_authors_recipes_can_be_what_was_tuned(tuned: Tuned) -> None:
    write_tuned(replace(tuned, name="author-tuned-0123ab", base="author", changes=()))
    plain = protocols_of(["segresnet"], "author", [])["segresnet"]
    found = protocols_of(["segresnet"], str(tuned.path), [])["segresnet"]
    assert found.by_authors
    assert found.train == plain.train.model_copy(update={"learning_rate": 0.0123, "optimiser": "adamw"})
    assert found.data == plain.data
    assert found.sources["train.epochs"].startswith("recipe of segresnet's authors")
    with pytest.raises(BenchError, match="uxnet"):
        protocols_of(["uxnet"], str(tuned.path), [])


def test_a_network_that_it_lacks_is_told(tuned: Tuned) -> None:
    with pytest.raises(BenchError, match=r"no setting of uxnet; it has those of segresnet, unetr"):
        protocols_of(["segresnet", "uxnet"], str(tuned.path), [])


def _line(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ('kind = "author"', 'kind = "paper"', ["its kind is paper instead of author"]),
        ('kind = "author"', "", ["line 1", "it states no kind"]),
        ('protocol = "demo"', 'protocol = "dmeo"', ["no protocol 'dmeo'"]),
        ('name = "demo-tuned-0123ab"', 'name = "my demo, tuned"', ["is no word"]),
        ("trials = 16", 'trials = "many"', ["'trials' in [search]", "whole number"]),
        ("[search]", "[hunt]", ["'hunt' is nothing that it may hold"]),
        ('"train.steps=40"', "40", ["'set' holds something else"]),
        ("[models.segresnet]", "[models.segresnet", ["is damaged", "line"]),
        ("[models.unetr]", "[[models.unetr]]", ["models.unetr is no table"]),
    ],
)
def test_a_damaged_or_foreign_file_is_told_with_the_line(
    tuned: Tuned, was: str, becomes: str, words: list[str]
) -> None:
    text = tuned.path.read_text()
    assert was in text
    tuned.path.write_text(text.replace(was, becomes, 1))
    with pytest.raises(BenchError) as error:
        read_tuned(tuned.path)
    told = str(error.value)
    assert all(word in told for word in (str(tuned.path), *words)), told
    if becomes and "damaged" not in told:
        assert f"line {_line(tuned.path, becomes)}:" in told
    assert "bench tune" in told


@pytest.mark.parametrize(
    ("was", "becomes", "model", "words"),
    [
        ("train.learning_rate = 0.0123", "train.learning_rate = -1", "segresnet", ["greater than 0"]),
        ("train.learning_rate = 0.0123", 'train.learning_rate = "fast"', "segresnet", ["valid number"]),
        ('train.optimiser = "adamw"', 'train.optimizer = "adamw"', "segresnet", ["did you mean 'train.optimiser'"]),
        ("train.amsgrad = true", "train.amsgrad = 7", "unetr", ["train.amsgrad"]),
        ('"train.steps=40"', '"train.steps=0"', "unetr", ["train.steps=0"]),
    ],
)
def test_a_value_that_the_preset_does_not_take_is_told_with_the_line(
    tuned: Tuned, was: str, becomes: str, model: str, words: list[str]
) -> None:
    tuned.path.write_text(tuned.path.read_text().replace(was, becomes, 1))
    with pytest.raises(BenchError) as error:
        protocols_of([model], str(tuned.path), [])
    told = str(error.value)
    assert f"{tuned.path}, line {_line(tuned.path, becomes)}: " in told
    assert all(word in told for word in words), told


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"[project]\nname = 'x'\n", b"model,trial\n"])
def test_what_is_no_such_file_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BenchError, match=r"other\.toml.*bench tune"):
        protocols_of(["unetr"], str(path), [])


def test_cases_by_which_a_setting_was_chosen_are_not_tested(tuned: Tuned, make_job: Callable[..., Job]) -> None:
    protocol = tuned.protocol("segresnet")
    job = replace(make_job("segresnet"), protocol=protocol)
    same = replace(tuned, search={**tuned.search, "split_sha256": job.split.sha256})
    same.check_cases([job])
    with pytest.raises(BenchError, match=r"its split .* its setting was chosen"):
        tuned.check_cases([job])
    with pytest.raises(BenchError, match=r"its files 00000"):
        same.check_cases([replace(job, data_fingerprint="0" * 64)])
    tuned.check_cases([replace(job, dataset="brats2023")])
    tuned.check_cases([make_job("segresnet")])


def _record(root: Path, job: Job, measured: Callable[..., dict[str, list[RegionMeasurement]]], dice: float) -> Record:
    record = Store(root).open_run(job, data={"regions": {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}})
    record.write_split(job.split.to_dict())
    record.write_cases({case: rows for case, rows in measured(4, dice).items() if case in job.split.test})
    return record.finish("complete")


def test_tables_show_the_networks_of_one_search_together_and_apart_from_others(
    tuned: Tuned,
    tmp_path: Path,
    make_job: Callable[..., Job],
    measured: Callable[..., dict[str, list[RegionMeasurement]]],
) -> None:
    results = tmp_path / "results"
    other = replace(tuned, name=tuned_name("demo", "99ff00aa"))
    protocols = [
        ("segresnet", tuned.protocol("segresnet")),
        ("unetr", tuned.protocol("unetr")),
        ("segresnet", tuned.protocol("segresnet", ["train.steps=50"])),
        ("segresnet", other.protocol("segresnet")),
        ("segresnet", protocols_of(["segresnet"], "author", [])["segresnet"]),
        ("segresnet", protocols_of(["segresnet"], "demo", [])["segresnet"]),
    ]
    for number, (model, protocol) in enumerate(protocols):
        job = replace(make_job(model), protocol=protocol, model_options=resolved_options(model, protocol))
        _record(results, job, measured, 0.5 + 0.05 * number)
    groups = {group.protocol: group for group in group_records(Store(results).records())}
    assert sorted(groups) == [
        "author",
        "demo",
        "demo-tuned-0123ab (train.steps=40)",
        "demo-tuned-0123ab (train.steps=50)",
        "demo-tuned-99ff00 (train.steps=40)",
    ]
    group = groups["demo-tuned-0123ab (train.steps=40)"]
    assert sorted(record.content["job"]["model"] for record in group.records) == ["segresnet", "unetr"]
    table = make_table(group, Choice(metrics=("dice",)))
    told = "\n".join(table.footer)
    assert "Protocol: demo-tuned-0123ab (train.steps=40): demo with each network's own train.learning_rate" in told
    assert (
        "segresnet: tuned on validation cases: train.learning_rate 0.0123, train.optimiser adamw; adamw 0.0123" in told
    )
    assert "train.clip_norm none" in told
    assert "train.target classes" in told, "a record leaves that out"
    assert "model_options.unetr.hidden_size 96" in told
    assert "recipe of its authors" not in told
