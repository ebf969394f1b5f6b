"""Every command in README and docs is carried out, or is in the list of those only read; help and docs agree.

A command runs in a sandbox where the names that documents use stand for something: BraTS2023, path/to/Dataset042, RUN,
INPUT. Trainings of patients are planned and not made, searches and profiles made with stand-ins for their measurements;
what trains on phantoms trains, with a small network for two steps.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import typer

from bench.cli.app import app, main
from bench.metrics.conventions import CONVENTIONS
from bench.profiling.setting import Machine, Setting
from bench.protocol import load_protocol
from bench.search.trials import Ledger, Trial
from bench.store import Record, Store
from data.phantom import write_dataset
from models import registry

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = [
    "--set",
    "train.steps=2",
    "--set",
    "train.steps_per_epoch=2",
    "--set",
    "data.patch_size=32",
    "--set",
    "infer.overlap=0",
    "--set",
    "evaluate.untrained=false",
    "--set",
    "model_options.segresnet.init_filters=8",
    "--device",
    "cpu",
]
# Read by the command line's parser alone, with the reason.
ONLY_READ = {
    "bench predict --model segmamba_release --weights final_model.pt": "its file is the authors' to give, 270 MB",
    "bench run --model all --dataset brats2023 --seed 0,1,2 --results /shared/results": "a cluster's file system",
}
PAPER = load_protocol("paper", ())
TRAINED = (
    "bench run --model segresnet --dataset phantom",
    "bench run --model mynet,segresnet --dataset phantom --set model_options.mynet.width=16",
)


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each block of code."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", document.read_text(), re.M | re.S):
        yield match[1], match[2]


def commands(document: Path) -> list[list[str]]:
    """What stands in blocks of shell, from the word ``bench`` on, without comments."""
    found = []
    for language, text in blocks(document):
        for line in text.replace("\\\n", " ").splitlines() if language in ("", "bash", "sh") else ():
            words = shlex.split(line, comments=True) if re.search(r"(^|\s)bench ", line) else []
            if "bench" in words:
                found.append(words[words.index("bench") :])
    return found


def written(document: Path, language: str, containing: str) -> str:
    """The one block in that language that contains a text."""
    (block,) = [text for kind, text in blocks(document) if kind == language and containing in text]
    return block


def parse(words: Sequence[str]) -> None:
    """Let the command line's own parser read a command.

    Raises:
        Exception: it does not know a verb or option, or lacks an argument.
    """
    command, rest = typer.main.get_command(app), list(words[1:])
    while rest and rest[0] in getattr(command, "commands", ()):
        command, rest = command.commands[rest[0]], rest[1:]
    with suppress(typer.Exit):  # as --help does
        command.make_context("bench", rest)


def _environment(root: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(root),
        "XDG_CONFIG_HOME": str(root / "config"),
        "BENCH_CACHE_DIR": str(root / "cache"),
        "BENCH_BRATS2023_DIR": str(root / "BraTS2023"),
        "BENCH_PHANTOM_DIR": str(root / "phantom"),
    }


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, make_nnunet: Callable[..., Path]) -> Path:
    """What sandboxes are copies of: data under the names that documents use, and the record of a small run."""
    root = tmp_path_factory.mktemp("documents")
    write_dataset(root / "phantom", cases=10, size=32, seed=1)
    for name in ("BraTS2023", "gliomas"):
        shutil.copytree(root / "phantom", root / name)
        (root / name / "phantom.json").unlink()  # patients, as far as anybody can tell
    (root / "path" / "to").mkdir(parents=True)
    make_nnunet(root / "path" / "to" / "Dataset042", cases=10)
    cases = sorted(path for path in (root / "phantom").iterdir() if path.is_dir())
    shutil.copytree(cases[0], root / "INPUT" / cases[0].name)
    for name in ("PREDICTIONS", "REFERENCES"):
        (root / name).mkdir()
        for case in cases[:2]:
            shutil.copy(case / f"{case.name}-seg.nii.gz", root / name / f"{case.name}.nii.gz")
    run = ["bench", "run", "--model", "segresnet", "--dataset", "phantom", *SMALL]
    code = "import sys; from bench.cli.app import main; sys.argv = sys.argv[1:]; main()"
    line = [sys.executable, "-P", "-c", code, *run]
    subprocess.run(line, cwd=root, check=True, capture_output=True, env=_environment(root))
    return root


@pytest.fixture
def sandbox(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own to be in, with what documents speak of."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    (tmp_path / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    for name, value in _environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bench(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Sequence[str]], tuple[int, str]]:
    """Carries out a command in the sandbox: exit status, and all that was printed."""

    def call(words: Sequence[str]) -> tuple[int, str]:
        (run,) = [record for record in Store(sandbox / "results").records() if record.kind == "run"][:1]
        home = [re.sub("^~", str(sandbox), word) for word in words]
        monkeypatch.setattr(sys, "argv", [run.folder.name if word == "RUN" else word for word in home])
        status = 0
        try:
            main()
        except SystemExit as leave:
            status = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return call


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials and profiles are complete at once; what plans, keeps and shows them is the real thing."""
    machine = Machine("cpu", "a processor, 2 threads", "2.11", "torch", 2)

    def measure(settings: Sequence[Setting], store: Store, *_: object) -> list[Record]:
        found = {
            "radii": {"r50": 1, "r90": 2, "r99": 3},
            "axes": {"D": 1, "H": 1, "W": 1},
            "radial": {"radius": [0.0, 1.0], "share": [0.5, 1.0]},
            "edge": 96,
            "parameters": 1,
        }
        opened = [store.open_profile(one.job(machine), hardware="none", measured=found, notes=[]) for one in settings]
        return [record.finish("complete") for record in opened]

    def search(trials: list[Trial], ledger: Ledger) -> bool:
        for trial in trials:
            record = ledger.store.open_run(trial.job)
            record.write_history([{"step": 1, "step_s": 1, "data_wait_s": 0, "dice": 0.1}])
            record.write_cases({})
            record.finish("complete", mean_dice=0.1)
        return False

    monkeypatch.setattr("bench.profiling.apart.Apart", lambda: nullcontext())
    monkeypatch.setattr("bench.profiling.suite.ask_machine", lambda *_: machine)
    monkeypatch.setattr("bench.profiling.suite.measure_all", measure)
    monkeypatch.setattr("bench.cli.tuning.carry_out", lambda found, ledger, *_: search(found.trials, ledger))


@pytest.fixture
def examples(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The network and the dataset that docs show how to write, taken from there and installed for this process."""
    site = sandbox / "site"
    for name, document in {"mynet": "models.md", "hospital": "datasets.md"}.items():
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        project = tomllib.loads(written(ROOT / "docs" / document, "toml", "entry-points"))["project"]
        for group, points in project["entry-points"].items():
            lines = [f"{point} = {target}" for point, target in points.items()]
            (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
            (site / f"{name}.py").write_text(written(ROOT / "docs" / document, "python", "import"))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(registry, "_entry_points_loaded", False)
    yield site
    for name in ("mynet", "hospital"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("stand_ins", "examples")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_does_what_it_is_said_to(
    document: Path, bench: Callable[[Sequence[str]], tuple[int, str]]
) -> None:
    for words in commands(document):
        line = " ".join(words)
        parse(words)
        if any(line.startswith(start) for start in ONLY_READ):
            continue
        more = []
        if words[1] == "run":
            more = SMALL if line in TRAINED else ["--dry-run"]
        status, printed = bench([*words, *more])
        if words[1] == "verify":  # in a checkout with changes records say so, and that is all
            errors = [row for row in printed.splitlines() if "error:" in row]
            status = len([row for row in errors if "with changes that nobody else has" not in row])
        assert status == 0, f"{line}: status {status}\n{printed[-2000:]}"


def test_what_is_only_read_is_written_somewhere() -> None:
    lines = [" ".join(words) for document in DOCUMENTS for words in commands(document)]
    for start in (*ONLY_READ, *TRAINED):
        assert any(line.startswith(start) for line in lines), f"no document says {start}"


def test_the_example_of_a_network_keeps_the_contract(examples: Path) -> None:
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/models/test_contract.py",
        "-k",
        "mynet",
    ]
    environment = {**os.environ, "PYTHONPATH": str(examples)}
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d+ passed", done.stdout)


def _verbs(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from _verbs(below, (*name, word))


VERBS = dict(_verbs(typer.main.get_command(app)))
OPTIONS = {option for verb in VERBS.values() for one in verb.params for option in (*one.opts, *one.secondary_opts)} | {
    "--help",
    "--version",
}


def test_documents_name_every_option() -> None:
    told = "\n".join(document.read_text() for document in DOCUMENTS)
    long = {option for option in OPTIONS if option.startswith("--")}
    assert not {option for option in long if not re.search(rf"{option}\b(?!-)", told)} - {"--version"}


def test_conventions_are_told_as_they_score() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/metrics.md").read_text(), re.M)
    told = {name: [re.match(r"([\d.]+), ([\d.]+) mm", cell) for cell in (both, one)] for name, both, one in rows}
    assert told.keys() == CONVENTIONS.keys()
    for name, known in CONVENTIONS.items():
        for cell, scored in zip(told[name], (known.both_empty, known.one_empty), strict=True):
            assert cell, f"{name}: no Dice and HD95"
            assert [float(number) for number in cell.groups()] == pytest.approx(scored, abs=0.005)


def test_readme_shows_every_verb() -> None:
    shown = {tuple(words[1 : 1 + len(verb)]) for words in commands(ROOT / "README.md") for verb in VERBS}
    assert not VERBS.keys() - shown


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_verbs_options_and_fields_that_prose_names_exist(document: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    for span in re.findall(r"`([^`\n]+)`", prose):
        words = span.split()
        if words[0] == "bench" and len(words) > 1:
            assert any(tuple(words[1 : 1 + len(verb)]) == verb for verb in VERBS) or words[1] in ("--help", "…"), span
        if words[0] == "bench" or words[0].startswith("--"):
            unknown = {word.partition("=")[0] for word in words if re.match("--[a-z]", word)} - OPTIONS
            assert not unknown, f"`{span}`: no verb has {unknown}"
        if re.fullmatch(r"(split|data|augment|train|validation|infer|evaluate)\.[a-z_]+", span):
            section, _, name = span.partition(".")
            known = hasattr(PAPER, section) and hasattr(getattr(PAPER, section), name)
            assert known or (ROOT / section / f"{name}.py").is_file(), f"`{span}` is no field"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, f"{target}: {anchors}"
