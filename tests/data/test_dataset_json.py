"""What a ``dataset.json`` may say, and the message for each thing that it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.dataset_json import read_description
from data.errors import DataError

V2: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}
LISTED: dict[str, Any] = {
    "modality": {"0": "T2"},
    "labels": {"0": "background", "1": "gland"},
    "numTraining": 1,
    "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
}


def describe(root: Path, base: dict[str, Any], **changes: Any) -> Any:
    """Read the description with some keys changed; None takes a key out."""
    facts = {key: value for key, value in {**base, **changes}.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(facts))
    return read_description(root)


def test_channels_follow_their_numbers_not_their_order(tmp_path):
    names = {"10": "k", **{str(index): f"c{index}" for index in reversed(range(10))}}
    assert describe(tmp_path, V2, channel_names=names).channels == (*(f"c{index}" for index in range(10)), "k")


def test_both_forms_of_labels_say_the_same(tmp_path):
    one = describe(tmp_path, V2, labels={"organ": 1, "background": 0})
    two = describe(tmp_path, V2, labels={"1": "organ", "0": "background"})
    assert one.labels == two.labels == {0: "background", 1: "organ"}
    assert one.regions == two.regions == {"organ": (1,)}


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(V2), encoding="utf-8-sig")
    assert read_description(tmp_path).channels == ("CT",)


@pytest.mark.parametrize(
    ("base", "changes", "found", "mend"),
    [
        (V2, {"channel_names": None}, "neither 'channel_names' nor 'modality'|no key 'training'", "add it"),
        (LISTED, {"modality": None}, "neither 'channel_names' nor 'modality'", "add it"),
        (V2, {"labels": None}, "no key 'labels'", "add it"),
        (V2, {"file_ending": None}, "no key 'file_ending'", "add it"),
        (LISTED, {"training": None}, "no key 'training'", "add it"),
        (V2, {"channel_names": {"1": "CT"}}, 'channel_names: {"1": "CT"}', "correct it"),
        (V2, {"channel_names": ["CT"]}, 'channel_names: ["CT"]', "correct it"),
        (LISTED, {"modality": {}}, "modality: {}", "correct it"),
        (V2, {"labels": ["organ"]}, 'labels: ["organ"]', "correct it"),
        (V2, {"labels": {"background": 0, "organ": "1"}}, "labels: {", "correct it"),
        (V2, {"labels": {"background": 0, "organ": True}}, "labels: {", "correct it"),
        (V2, {"labels": {"background": 0, "organ": [1, 1]}}, "labels: {", "correct it"),
        (V2, {"labels": {"background": 0}}, "no label but the background", "add it"),
        (V2, {"labels": {"organ": 1}}, "the label values 1", 'add "background": 0'),
        (V2, {"labels": {"background": 0, "organ": 1, "tumour": 4}}, "the label values 0, 1, 4", "relabel 4 to 2"),
        (LISTED, {"labels": {"0": "background", "2": "x", "4": "y"}}, "values 0, 2, 4", "relabel 2 to 1, 4 to 2"),
        (V2, {"labels": {"background": 0, "a": 1, "b": 1}}, "the value 1 for both 'a' and 'b'", "remove one"),
        (V2, {"labels": {"background": 0, "other": 0, "a": 1}}, "the value 0 in background", "correct the labels"),
        (V2, {"labels": {"all": [0, 1], "a": [1]}}, "the value 0 in all", "correct the labels"),
        (LISTED, {"labels": {"0": "background", "1": "x", "2": "x"}}, "two labels called 'x'", "rename one"),
        (V2, {"labels": {"background": 0, "a": 1, "ignore": 2}}, "the label 'ignore' (2)", "annotate these voxels"),
        (
            V2,
            {"labels": {"background": 0, "a": [1, 2], "b": [2]}, "regions_class_order": [1]},
            "regions_class_order: [1]",
            "correct it",
        ),
        (
            V2,
            {"labels": {"background": 0, "a": [1, 2], "b": [2]}, "regions_class_order": [1, 3]},
            "regions_class_order: [1, 3]",
            "correct it",
        ),
        (V2, {"file_ending": ".nrrd"}, "files that end in '.nrrd'", 'set "file_ending" to ".nii.gz"'),
        (V2, {"file_ending": ".png"}, "files that end in '.png'", "convert all images and labels to NIfTI"),
        (V2, {"file_ending": ".mha"}, "files that end in '.mha'", "convert all images and labels to NIfTI"),
        (LISTED, {"training": [{"image": "a.mha", "label": "b.mha"}]}, "end in '.mha'", 'names under "training"'),
        (LISTED, {"training": []}, "training: []", "list the training cases"),
        (LISTED, {"training": ["a.nii.gz"]}, "training, entry 0", "correct the entry"),
        (LISTED, {"training": [*LISTED["training"], {"image": "b.nii.gz"}]}, "training, entry 1", "correct the entry"),
        (LISTED, {"training": LISTED["training"] * 2}, "a.nii.gz more than once", "remove the repetition"),
        (V2, {"numTraining": "four"}, 'numTraining: "four"', "correct it"),
    ],
)
def test_each_fault_is_named_with_its_file_and_its_mend(tmp_path, base, changes, found, mend):
    with pytest.raises(DataError) as caught:
        describe(tmp_path, base, **changes)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'dataset.json'}: found ")
    assert any(one in message.partition("; expected ")[0] for one in found.split("|"))
    assert mend in message.partition("; to mend it, ")[2]


@pytest.mark.parametrize(
    ("content", "found"), [("{", "no JSON"), ("[]", "a JSON list"), (b"\xff\xfe\xff", "no JSON"), ("", "no JSON")]
)
def test_what_is_no_json_object_is_refused(tmp_path, content, found):
    (tmp_path / "dataset.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=rf"dataset\.json: found {found}"):
        read_description(tmp_path)
