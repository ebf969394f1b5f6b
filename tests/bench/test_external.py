"""Scoring files: which belong together, what is refused, and that processes change nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

import data
from bench import external
from bench.cli.app import app
from bench.errors import BenchError
from bench.external import Matches, match_files, record_external, score_files
from bench.metrics import measure_case
from bench.progress import SilentWatcher
from bench.store import Store
from data.card import DatasetCard
from data.errors import DataError

CARD = data.card("brats2023")
SPACING_XYZ = (1.0, 2.0, 3.0)
Write = Callable[..., Path]


def label(seed: int, shape: tuple[int, ...] = (12, 10, 8)) -> np.ndarray:
    """Labels (x, y, z) of a lump and some specks."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[3:9, 2:8, 2:6] = rng.integers(1, 4, (6, 6, 4))
    labels[rng.random(shape) < 0.01] = 3
    return labels


def write(path: Path, labels: np.ndarray, spacing_xyz: tuple[float, ...] = SPACING_XYZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, np.diag([*spacing_xyz, 1.0])), path)
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> dict[str, tuple[Path, Path]]:
    """Five cases, each predicted by another one's reference, not in the order of their names."""
    return {
        case: (
            write(tmp_path / "theirs" / f"{case}.nii.gz", label(place + 1)),
            write(tmp_path / "references" / f"{case}.nii.gz", label(place)),
        )
        for place, case in enumerate("dbcae")
    }


LAYOUTS = ["{}.nii.gz", "{}.nii", "{}-seg.nii.gz", "{}_seg.nii.gz", "{0}/{0}-seg.nii.gz", "{0}/{0}_seg.nii.gz"]


@pytest.mark.parametrize("references", [*LAYOUTS, "labelsTr/{}.nii.gz"])
@pytest.mark.parametrize("predictions", LAYOUTS)
def test_files_are_matched_by_case_in_every_layout(tmp_path: Path, predictions: str, references: str) -> None:
    expected = {}
    for case in ("BraTS-GLI-00002-000", "BraTS-GLI-00001-000"):
        paths = tmp_path / "theirs" / predictions.format(case), tmp_path / "ours" / references.format(case)
        expected[case] = tuple(write(path, label(0)) for path in paths)
    write(tmp_path / "ours" / references.format("left"), label(0))
    (tmp_path / "theirs" / "._hidden.nii.gz").touch()
    (tmp_path / "theirs" / "notes.txt").touch()
    found = match_files(tmp_path / "theirs", tmp_path / "ours")
    assert found.pairs == expected
    assert list(found.pairs) == sorted(expected)
    assert found.missing == ("left",)


def test_missing_predictions_are_named(tmp_path: Path) -> None:
    for place in range(9):
        write(tmp_path / "ours" / f"c{place}.nii.gz", label(0))
    write(tmp_path / "theirs" / "c4.nii.gz", label(0))
    says = match_files(tmp_path / "theirs", tmp_path / "ours").describe()
    assert "8 of 9 references have no prediction" in says
    assert "c0, c1, c2, c3, c5 and 3 more" in says
    assert match_files(tmp_path / "ours", tmp_path / "ours").describe() == "all 9 references have a prediction"


def test_surplus_predictions_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "ours" / "one.nii.gz", label(0))
    for case in ("one", "two", "three"):
        write(tmp_path / "theirs" / f"{case}.nii.gz", label(0))
    with pytest.raises(BenchError, match=r"2 of 3 predictions have no reference in .*: three, two; .* named like one"):
        match_files(tmp_path / "theirs", tmp_path / "ours")


def test_folders_without_label_maps_and_two_maps_of_a_case_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "ours" / "one.nii.gz", label(0))
    (tmp_path / "bare").mkdir()
    with pytest.raises(BenchError, match=r"no label map in .*bare; expected <case>\.nii\.gz"):
        match_files(tmp_path / "bare", tmp_path / "ours")
    with pytest.raises(DataError, match="nowhere is no folder"):
        match_files(tmp_path / "nowhere", tmp_path / "ours")
    write(tmp_path / "ours" / "one" / "one-seg.nii.gz", label(0))
    with pytest.raises(BenchError, match=r"two label maps of one, .*one\.nii\.gz and .*one-seg\.nii\.gz"):
        match_files(tmp_path / "ours", tmp_path / "ours")


@pytest.mark.parametrize("challenge", [None, "MET"])
def test_files_are_scored_as_their_arrays_in_the_order_of_cases(pairs: dict, challenge: str | None) -> None:
    measured = score_files(pairs, CARD, "segmamba", SilentWatcher(), challenge)
    assert list(measured) == list("dbcae")
    for place, case in enumerate(measured):
        arrays = label(place + 1).T, label(place).T
        expected = measure_case(*arrays, SPACING_XYZ[::-1], convention="segmamba", challenge=challenge)
        assert measured[case] == expected


def test_processes_change_nothing(pairs: dict) -> None:
    alone = score_files(pairs, CARD, "brats", SilentWatcher(), "GLI")
    together = score_files(pairs, CARD, "brats", SilentWatcher(), "GLI", workers=2)
    assert list(together) == list(alone)
    assert repr(together) == repr(alone), "to the last bit; NaN is not equal to itself"


@pytest.mark.parametrize(
    ("harm", "workers", "says"),
    [
        ("shape", 1, ["shape (12, 10, 7)", "has (12, 10, 8)", "grid of the original images"]),
        ("affine", 1, ["lies elsewhere", "Copy the affine"]),
        ("label", 2, ["labels [4, 7]", "brats2023 has [0, 1, 2, 3]"]),
        ("reference label", 1, ["references", "labels [9]"]),
        ("text", 1, ["found", "expected", "to mend it"]),
        ("text", 2, ["found", "expected", "to mend it"]),
    ],
)
def test_a_fault_names_its_case(pairs: dict, harm: str, workers: int, says: list[str]) -> None:
    """That of the third in order; the fourth has one too, which is not the one that is told."""
    for case in "ca":
        prediction, reference = pairs[case]
        labels = label(0)
        match harm:
            case "shape":
                write(prediction, labels[:, :, :-1])
            case "affine":
                write(prediction, labels, (1.0, 2.0, 3.5))
            case "label":
                labels[0, 0, :2] = 4, 7
                write(prediction, labels)
            case "reference label":
                labels[0, 0, 0] = 9
                write(reference, labels)
            case _:
                prediction.write_text("no image")
    with pytest.raises(BenchError) as refused:
        score_files(pairs, CARD, "brats", SilentWatcher(), workers=workers)
    assert str(refused.value).startswith("case c: ")
    assert all(word in str(refused.value) for word in says), str(refused.value)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"convention": "bats"}, "did you mean 'brats'"),
        ({"challenge": "GLY"}, "did you mean 'GLI'"),
        ({"workers": 0}, "found 0 workers"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_any_file_is_read(request_: dict, says: str) -> None:
    pairs = {"one": (Path("nowhere"), Path("nowhere"))}
    with pytest.raises(BenchError, match=says):
        score_files(pairs, CARD, **{"convention": "brats", "watcher": SilentWatcher(), **request_})


def end_abruptly(*_: object, **__: object) -> None:
    os._exit(9)


def test_a_process_that_is_killed_is_told(pairs: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "_leave_interrupts", end_abruptly)
    with pytest.raises(BenchError, match=r"ended from outside.*Repeat with fewer workers"):
        score_files(pairs, CARD, "brats", SilentWatcher(), workers=2)


def test_a_card_states_whose_lesion_wise_settings_apply() -> None:
    assert {data.card(name).lesionwise for name in ("brats2023", "phantom")} == {"GLI"}
    assert DatasetCard.from_dict(CARD.to_dict()) == CARD
    earlier = {name: fact for name, fact in CARD.to_dict().items() if name != "lesionwise"}
    assert DatasetCard.from_dict(earlier) == replace(CARD, lesionwise="")


def test_a_record_says_what_was_scored_and_how(pairs: dict, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")

    def entered(challenge: str | None) -> object:
        matches = Matches(pairs, ("left", "out"))
        folders = tmp_path / "theirs", tmp_path / "references"
        return record_external("net", *folders, matches, CARD, "brats", store, SilentWatcher(), challenge)

    record, other = entered("GLI"), entered(None)
    assert record.status == "complete"
    assert record.key != other.key
    content = store.find(record.key).content
    assert content["job"]["lesionwise"] == "GLI"
    assert set(content["job"]["predictions"]) == set("abcde")
    assert content["folder"] == str(tmp_path / "theirs")
    assert content["references_folder"] == str(tmp_path / "references")
    assert content["references_without_prediction"] == ["left", "out"]
    assert content["data"]["card"] == CARD.to_dict()
    assert content["provenance"]["packages"]["numpy"] == np.__version__
    cases = record.cases()
    assert cases["case"].unique().tolist() == list("abcde")
    assert cases["lesion_dice"].notna().all()
    assert other.cases()["lesion_dice"].isna().all()


@pytest.mark.parametrize(
    ("options", "stated"),
    [((), "GLI"), (("--challenge", "MET"), "MET"), (("--challenge", "none", "--workers", "2"), None)],
)
def test_the_command_line_takes_the_datasets_challenge_or_another(
    pairs: dict, tmp_path: Path, options: tuple[str, ...], stated: str | None
) -> None:
    results = tmp_path / "results"
    folders = [str(tmp_path / name) for name in ("theirs", "references")]
    asked = ["evaluate", *folders, "--name", "net", "--results", str(results), *options]
    answer = CliRunner().invoke(app, asked)
    assert answer.exit_code == 0, answer.output
    assert f"all {len(pairs)} references have a prediction" in answer.stderr
    (record,) = Store(results).records()
    assert record.content["job"]["lesionwise"] == stated
