"""``bench report`` on true runs: two networks, two seeds, phantoms."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from bench.cli.app import app
from bench.store import Record, Store
from data.phantom import write_dataset

CHANGES = (
    *("train.steps=2", "train.steps_per_epoch=1", "evaluate.untrained=false"),
    *("split.train=0.34", "split.validation=0.16", "split.test=0.5"),
    *("model_options.segresnet.init_filters=8", "model_options.unetr.hidden_size=24", "model_options.unetr.mlp_dim=48"),
    *("model_options.unetr.num_heads=2", "model_options.unetr.feature_size=4"),
)
SECTIONS = ["results", "distribution", "differences", "training", "protocol", "provenance", "slices", "cases"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with four true runs by a clean commit; the mean Dice of one is forged."""
    root = tmp_path_factory.mktemp("report")
    write_dataset(root / "phantoms", cases=6, size=32, seed=3)
    options = [text for change in CHANGES for text in ("--set", change)]
    arguments = ["run", "--model", "segresnet,unetr", "--seed", "0,1", "--dataset", "phantom", "--device", "cpu"]
    folders = ["--data-dir", str(root / "phantoms"), "--results", str(root / "results")]
    done = CliRunner().invoke(app, [*arguments, *folders, *options])
    assert done.exit_code == 0, done.output
    for record in Store(root / "results").records():
        content = json.loads((record.folder / "record.json").read_text())
        content["provenance"].update(code={"commit": "c" * 40, "dirty": False})
        if _is_forged(content["job"]):
            content["mean_dice"] += 0.25
        (record.folder / "record.json").write_text(json.dumps(content))
    return root


def _is_forged(job: dict) -> bool:
    return (job["model"], job["seed"]) == ("unetr", 1)


def _state(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class _Page(HTMLParser):
    """Ids, links within the page, and the script that holds the cases."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.scripts: list[str] = []
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        self.ids += [str(of["id"])] if of.get("id") else []
        self.links += [str(of["href"])] if tag == "a" else []
        self.loaded += [str(of["src"])] if of.get("src") else []
        self._in_data = tag == "script" and of.get("type") == "application/json"

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_data = self._in_data and tag != "script"

    @property
    def cases(self) -> list[dict]:
        return json.loads("".join(self.scripts))["cases"]


def _without_date(text: str) -> list[str]:
    lines = text.splitlines()
    kept = [line for line in lines if not re.search(r"Made \d{4}-\d\d-\d\dT", line)]
    assert len(kept) == len(lines) - 1
    return kept


def test_the_page_and_its_markdown_hold_all_that_the_records_do(bench: Callable, trained: Path, tmp_path: Path) -> None:
    results = trained / "results"
    before = _state(trained)
    chosen = ("--pictures", "2", "--title", "A & B", "--regions", "WT,Avg")
    answer = bench("report", "--results", results, "--output", tmp_path / "report", *chosen)
    assert answer.status == 0, answer.err
    made = [tmp_path / "report" / name for name in ("report.html", "report.md")]
    assert answer.out.split() == [str(path) for path in made]
    assert _state(trained) == before
    html, markdown = (path.read_text() for path in made)
    records = Store(results).records()

    page = _Page(html)
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    targets = {link[1:] for link in page.links if link.startswith("#")}
    assert set(SECTIONS) <= targets
    assert {page.ids.count(target) for target in targets} == {1}
    assert all(source.startswith("data:") for source in page.loaded)
    assert "<h1>A &amp; B</h1>" in html
    titles = (
        "Results",
        "Every case",
        "What the differences are worth",
        "Training",
        "Protocol",
        "Provenance",
        "Best, median, worst",
    )
    assert re.findall(r"^## (.*)$", markdown, re.MULTILINE) == list(titles)
    for text in (html, markdown):
        assert all(record.key in text for record in records)
        assert "Cases and seeds" in text
        assert "train.learning_rate = 0.02" in text

    rows = [
        line.split(" | ") for line in markdown.splitlines() if line.startswith(tuple(f"| {r.key}" for r in records))
    ]
    assert {row[1] for row in rows} == {"segresnet", "unetr"}
    checks = {row[0].strip("| "): row[-1].strip("| ") for row in rows}
    forged = next(record for record in records if _is_forged(record.content["job"]))
    assert checks == {record.key: "1 error" if record is forged else "passed" for record in records}
    assert f"{forged.key}: error: means: mean Dice: cases.csv yields" in html

    links = [unquote(link) for link in re.findall(r"\]\(([^)]*)\)", markdown)]
    figures = {f"figures/{path.name}" for path in (tmp_path / "report" / "figures").iterdir()}
    assert len(links) == len(set(links)) >= 7
    assert set(links) == figures

    test = {case for record in records for case in record.cases()["case"]}
    assert {case["id"] for case in page.cases} == test
    pictured = [case for case in page.cases if case["pictures"]]
    assert len(pictured) == 2
    for case in pictured:
        assert set(case["pictures"]) == {"segresnet", "unetr"}
        assert all(uri.startswith("data:image/png;base64,iVBOR") for uri in case["pictures"].values())

    again = bench("report", "--results", results, "--output", tmp_path / "again", *chosen)
    assert again.status == 0
    one, two = _state(tmp_path / "report"), _state(tmp_path / "again")
    assert {name: two[name] for name in two if "figures" in name} == {n: one[n] for n in one if "figures" in n}
    for path in made:
        repeated = tmp_path / "again" / path.name
        assert _without_date(repeated.read_text()) == _without_date(path.read_text())


def test_without_pictures_the_cases_stand_with_their_scores_alone(
    bench: Callable, trained: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "report" / "figures"
    figures.mkdir(parents=True)
    for name in ("differences-99.svg", "Mine.svg"):  # of an earlier report, and of somebody else
        (figures / name).write_text("<svg/>")
    chosen = ("--pictures", "0", "--metrics", "dice", "--regions", "Avg", "--seed", "0")
    answer = bench("report", "--results", trained / "results", "--output", tmp_path / "report", *chosen)
    assert answer.status == 0, answer.err
    page = _Page((tmp_path / "report" / "report.html").read_text())
    assert len(page.cases) == 3
    assert not any(case["pictures"] for case in page.cases)
    assert all(set(case["scores"]) == {"segresnet", "unetr"} for case in page.cases)
    there = {path.name for path in figures.iterdir()}
    assert ("Mine.svg" in there, "differences-99.svg" in there) == (True, False)
    assert not {"slices", "no-slices"} & set(page.ids)
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "Cases and seeds" not in markdown
    assert "HD95 mm" not in markdown


def test_images_that_have_gone_are_told(bench: Callable, trained: Path, tmp_path: Path) -> None:
    (record, *_) = Store(trained / "results").records()
    shutil.copytree(record.folder, tmp_path / "results" / record.key)
    content = json.loads((record.folder / "record.json").read_text())
    content["data"]["root"] = str(tmp_path / "gone")
    (tmp_path / "results" / record.key / "record.json").write_text(json.dumps(content))
    chosen = ("--pictures", "2", "--metrics", "dice", "--regions", "Avg")
    answer = bench("report", "--results", tmp_path / "results", "--output", tmp_path / "report", *chosen)
    assert answer.status == 0, answer.err
    page = _Page((tmp_path / "report" / "report.html").read_text())
    assert "no-slices" in page.ids
    assert "slices" not in page.ids
    markdown = (tmp_path / "report" / "report.md").read_text()
    missing = markdown[markdown.index("## Slices that are missing") :]
    assert f"{record.content['job']['model']}: " in missing
    assert str(tmp_path / "gone") in missing
    assert not any(case["pictures"] for case in page.cases)


def test_nothing_to_report_is_a_message(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path
) -> None:
    empty = bench("report", "--results", tmp_path / "none", "--output", tmp_path / "report")
    assert empty.status == 2
    assert empty.err.startswith(f"error: no record in {tmp_path / 'none'} to show")
    record = complete_record(tmp_path / "results")
    filtered = bench("report", "--results", tmp_path / "results", "--model", "unetr", "--output", tmp_path / "report")
    assert filtered.status == 2
    assert record.key in filtered.err
    unknown = bench(
        "report", "--results", tmp_path / "results", "--convention", "lesionwize", "--output", tmp_path / "report"
    )
    assert unknown.status == 2
    assert "did you mean 'lesionwise'" in unknown.err
    assert not (tmp_path / "report").exists()
