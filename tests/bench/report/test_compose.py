"""Reports of several tables, of failures, and of records without images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench.job import Job
from bench.progress import SilentWatcher
from bench.report.frame import group_records
from bench.report.table import Choice, make_table
from bench.report.write import write_report
from bench.store import Record, Store
from bench.verify import Finding

Make = Callable[..., Record]
CHOICE = Choice(("dice",), ("WT", "Avg"))


def _report(root: Path, findings: list[Finding] | None = None, mixed: bool = False) -> tuple[str, str]:
    """Page and Markdown of the records."""
    tables = [make_table(group, CHOICE) for group in group_records(Store(root).records(), allow_mixed=mixed)]
    written = write_report(tables, findings or [], root / "report", "Title", 2, SilentWatcher())
    assert written == [root / "report" / "report.html", root / "report" / "report.md"]
    return written[0].read_text(), written[1].read_text()


def _sections(markdown: str) -> dict[str, str]:
    """Title to text."""
    titles = re.findall(r"^## (.*)$", markdown, re.MULTILINE)
    return dict(zip(titles, re.split(r"^## .*$", markdown, flags=re.MULTILINE)[1:], strict=True))


def test_two_tables_have_sections_anchors_and_figures_of_their_own(tmp_path: Path, complete_record: Make) -> None:
    for model in ("segmamba", "unetr"):
        complete_record(tmp_path, model=model)
    alone = complete_record(tmp_path, changes=("train.steps=3",))
    html, markdown = _report(tmp_path)
    ids = re.findall(r'<section id="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    parts = ("results", "distribution", "differences", "training", "protocol", "provenance")
    assert set(ids) - {"cases"} == {*(f"{part}-{n}" for part in parts for n in (1, 2)), "no-slices"}
    sections = _sections(markdown)
    told = {
        text.strip().splitlines()[0].partition(": ")[2].partition(", fields")[0].rstrip(".")
        for title, text in sections.items()
        if title.startswith("Results: ")
    }
    assert told == {"protocol demo", "protocol demo (train.steps=3)"}
    (of_alone,) = [text for title, text in sections.items() if "Provenance" in title and alone.key in text]
    assert "unetr" not in of_alone
    links = re.findall(r"\]\((figures/[^)]*)\)", markdown)
    assert len(links) == len(set(links))
    assert {path.name for path in (tmp_path / "report" / "figures").iterdir()} == {
        link.removeprefix("figures/") for link in links
    }
    # A network alone has every case and its training drawn, but nothing to compare.
    assert sum("differences" in link for link in links) == 2
    assert len(links) == 6


def test_why_there_are_no_slices_is_told_once_for_each_network(tmp_path: Path, complete_record: Make) -> None:
    for model in ("segmamba", "unetr"):
        complete_record(tmp_path, model=model)
    _, markdown = _report(tmp_path)
    told = _sections(markdown)["Slices that are missing"]
    for model in ("segmamba", "unetr"):
        assert told.count(f"{model}: the record does not say where its images lie") == 1


def test_findings_stand_with_the_records_they_are_of(tmp_path: Path, complete_record: Make) -> None:
    records = {model: complete_record(tmp_path, model=model).key for model in ("segmamba", "unetr", "segresnet")}
    one, two = records["segmamba"], records["unetr"]
    findings = [
        Finding((one,), "code", "error", "made by <nobody>"),
        Finding((one, two), "protocol", "error", "they disagree"),
        Finding((two,), "data", "warning", "not at hand"),
        Finding(("0" * 16,), "data", "error", "of another folder"),
    ]
    html, markdown = _report(tmp_path, findings)
    told = _sections(markdown)["Provenance"]
    rows = [line.split(" | ") for line in told.splitlines() if line.startswith("| ")]
    checks = {row[1]: row[-1].strip("| ") for row in rows if row[1] in records}
    assert checks == {"segmamba": "2 errors", "unetr": "1 error", "segresnet": "passed"}
    assert f"- {one}, {two}: error: protocol: they disagree" in told
    assert f"- {two}: warning: data: not at hand" in told
    assert f"{one}: error: code: made by &lt;nobody&gt;" in html
    assert "of another folder" not in html + markdown
    _, markdown = _report(tmp_path, findings[2:3])
    assert "1 warning" in _sections(markdown)["Provenance"]


def test_failures_alone_are_reported_without_figures(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    record = Store(tmp_path).open_run(make_job()).finish("oom", message="CUDA out of memory")
    html, markdown = _report(tmp_path)
    assert list(_sections(markdown)) == ["Results", "Protocol", "Provenance"]
    assert "CUDA out of memory" in html
    assert record.key in _sections(markdown)["Provenance"]
    assert not (tmp_path / "report" / "figures").exists()


def test_protocols_of_a_mixture_say_whose_they_are(tmp_path: Path, complete_record: Make) -> None:
    complete_record(tmp_path)
    complete_record(tmp_path, model="unetr", changes=("train.steps=3",))
    _, markdown = _report(tmp_path, mixed=True)
    text = _sections(markdown)["Protocol"]
    for model, steps in (("segmamba", 300), ("unetr", 3)):
        own = text[text.index(f"Of {model}:") :].split("```")[1]
        assert f"train.steps = {steps}\n" in own
    assert "- **protocol**: demo" in _sections(markdown)["Provenance"]


def test_of_networks_with_different_cases_the_report_says_why_nothing_is_compared(
    tmp_path: Path, complete_record: Make
) -> None:
    complete_record(tmp_path)
    complete_record(tmp_path, model="unetr", cases=5)
    _, markdown = _report(tmp_path, mixed=True)
    sections = _sections(markdown)
    told = sections["What the differences are worth"]
    assert "model 'segmamba' lacks case BraTS-PHA-00006-000 that model 'unetr' has" in told
    assert "](figures/differences" not in markdown
    assert "†" not in sections["Results"]
    assert "**" not in told
