"""``bench data marker``"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.key import key_of
from bench.marker import Sight
from data.phantom import write_dataset


@pytest.fixture(scope="module")
def stress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("marker") / "stress"
    write_dataset(root, cases=10, size=32, seed=3, kind="stress")
    return root


def test_runs_on_these_files_are_judged_and_no_others(bench: Callable, stress: Path, tmp_path: Path) -> None:
    answer = bench("data", "marker", "--data-dir", stress)
    assert answer.status == 2
    assert "found no run on these files of phantom_stress that kept its predictions" in answer.err
    small = (
        "--set",
        "train.steps=1",
        "--set",
        "model_options.segresnet.init_filters=8",
        "--set",
        "split.test=0.6",
        "--set",
        "split.train=0.3",
    )
    ran = bench("run", "--model", "segresnet", "--dataset", "phantom_stress", "--data-dir", stress, "--seed", 4, *small)
    assert ran.status == 0, ran.err
    told = bench("data", "marker", "--data-dir", stress).out
    assert re.search(r"^segresnet, seed 4 \(\w{8}\) +[1-9] +\d", told, re.MULTILINE), told
    (written,) = (tmp_path / "results").glob("*/record.json")
    step = ("--protocol", "demo", "--set", "train.steps=1")
    assert bench("data", "marker", "--data-dir", stress, *step).out == told
    for other_value in (("--protocol", "paper"), ("--set", "train.steps=2")):
        answer = bench("data", "marker", "--data-dir", stress, *other_value)
        assert (answer.status, answer.out, "passes --protocol and --set" in answer.err) == (2, "", True)
    for seed in (9, 7, 5):
        content = json.loads(written.read_text())
        content["job"]["seed"] = seed
        content["key"] = key_of(content["job"])
        copy = shutil.copytree(written.parent, tmp_path / "results" / content["key"])
        (copy / "record.json").write_text(json.dumps(content))
    told = bench("data", "marker", "--data-dir", stress).out
    assert re.findall(r"^segresnet, seed (\d)", told, re.MULTILINE) == ["4", "5", "7", "9"]
    for copy in {path.parent for path in (tmp_path / "results").glob("*/record.json")} - {written.parent}:
        shutil.rmtree(copy)
    written.write_text(written.read_text().replace('"status": "complete"', '"status": "failed"'))
    assert "found no run" in bench("data", "marker", "--data-dir", stress).err, "it is not complete"
    written.write_text(written.read_text().replace('"status": "failed"', '"status": "complete"'))
    other = tmp_path / "other"
    write_dataset(other, cases=4, size=32, seed=4, kind="stress")
    assert "found no run" in bench("data", "marker", "--data-dir", other).err


def test_folders_are_judged(bench: Callable, stress: Path, tmp_path: Path) -> None:
    told = bench("data", "marker", stress, stress, "--data-dir", stress).out
    cases, enhancing, right, area = re.search(rf"^{stress} +(\d+) +(\d+) +(\d+) +([\d.]+)", told, re.MULTILINE).groups()
    assert 0 < int(enhancing) < int(cases) == int(right)
    assert float(area) == 1
    assert "expected a folder of label maps" in bench("data", "marker", tmp_path / "none", "--data-dir", stress).err


def test_a_small_p_is_told_as_small(bench: Callable, stress: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for p, told in ((1e-9, "<0.001"), (0.0123, "0.012"), (None, "")):
        monkeypatch.setattr("bench.marker.judge", lambda *_, p=p: Sight(9, 4, 9, 1.0, p))
        row = bench("data", "marker", stress, "--data-dir", stress).out.splitlines()[2]
        assert row.startswith(str(stress))
        assert row.partition("1.000")[2].strip() == told
