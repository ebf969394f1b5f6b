"""An invented report with everything that a page can hold, and a browser to look at it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from bench.report.page import CaseBrowser, CaseEntry, Code, Drawing, Facts, Page, Section, Table, Text, render_page
from bench.report.sheet import Cell, Column, Sheet

MODELS = (
    "segmamba",
    "segmamba_2024_01",
    "segresnet",
    "unetr",
    "swinunetr_v2",
    "nnformer",
    "mednext_b",
    "</script><b>x & 'y'",
)
REGIONS = ("WT", "TC", "ET", "Avg")
METRICS = ("Dice %", "HD95 mm")
NO_PICTURE = ("BraTS-PHA-00003-000", "unetr")


def results() -> Sheet:
    """Invented means; the last model failed, and nnformer has no HD95 of ET."""
    random = np.random.default_rng(0)
    columns = (
        Column("model", numeric=False),
        *(Column(f"{region} {metric}", rule=n == 0) for region in REGIONS for n, metric in enumerate(METRICS)),
        Column("parameters", rule=True),
    )
    rows = []
    for number, model in enumerate(MODELS):
        dice, hd95 = random.uniform(78, 94, 4), random.uniform(3, 12, 4)
        scores = [value for pair in zip(dice, hd95, strict=True) for value in pair]
        cells = [Cell(f"{value:.2f} ± {value / 100:.2f}", float(value), best=number == 2) for value in scores]
        if model == "nnformer":
            cells[5] = Cell("–")
        if number == len(MODELS) - 1:
            cells = [Cell("oom")] * 8
        size = int(random.integers(4e6, 9e7))
        mark = "a" if model == "segmamba_2024_01" else ""
        rows.append((Cell(model, model, mark=mark), *cells, Cell(f"{size:,}", size)))
    return Sheet(
        "Mean over 20 test cases, then over 3 seeds (± standard deviation over seeds)",
        columns,
        tuple(rows),
        ("a: not as published: feat_size 16,32,64,128 instead of 48,96,192,384.", "Empty masks, convention brats."),
        {0: "State space and convolution", 3: "Transformers and others"},
    )


def small() -> Sheet:
    """Rows whose order under each key is easy to say."""
    rows = [("b10", 2.0), ("b9", None), ("a", 10.0), ("c", 2.0), ("d", -1.5)]
    cells = tuple((Cell(name, name), Cell("–" if value is None else f"{value:g}", value)) for name, value in rows)
    return Sheet("Small", (Column("name", numeric=False), Column("value")), cells)


def png(number: int, width: int = 180, height: int = 140) -> bytes:
    """A disc on grey noise."""
    random = np.random.default_rng(number)
    figure = Figure((width / 100, height / 100), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    z, y = np.mgrid[-1:1:70j, -1:1:90j]
    axes.imshow(random.normal(0.4, 0.1, z.shape) * (z**2 + y**2 < 0.9), cmap="gray", vmin=0, vmax=1)
    inside = (z - 0.1) ** 2 + (y + random.uniform(-0.4, 0.4)) ** 2 < 0.1
    axes.contour(inside, [0.5], colors="orange")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def drawing(title: str, wide: bool) -> str:
    """A plot with clipping paths and markers, whose ids another plot has as well."""
    figure = Figure((10 if wide else 5, 3), layout="constrained")
    axes = figure.subplots(1, 4 if wide else 1, squeeze=False)[0]
    for panel, axis in enumerate(axes):
        random = np.random.default_rng(panel)
        for _ in range(8):
            axis.plot(np.arange(30), random.normal(0, 1, 30).cumsum(), marker="o", markersize=2)
        axis.set_title(f"{title} {panel + 1}")
        axis.set_xlabel("step")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "the same for all"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def browser() -> CaseBrowser:
    """Twenty cases; one picture is missing, one is SVG, one score is missing and one infinite."""
    random = np.random.default_rng(1)
    entries = []
    for number in range(20):
        case = f"BraTS-PHA-{number:05d}-000"
        scores = {
            model: {
                region: {"Dice": float(random.uniform(0.4, 0.97)), "HD95 mm": float(random.uniform(1, 40))}
                for region in REGIONS
            }
            for model in MODELS
        }
        scores["segmamba"]["ET"] = {"Dice": None if number == 2 else 0.5 + number / 100, "HD95 mm": 3.0 + number}
        if number == 4:
            scores["segmamba"]["ET"]["HD95 mm"] = float("inf")
        pictures: dict[str, bytes | str] = {model: png(number) for model in MODELS[:4] if (case, model) != NO_PICTURE}
        if number == 0:
            pictures["nnformer"] = (
                '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60"><rect width="50" height="50"/></svg>'
            )
        entries.append(CaseEntry(case, scores, pictures))
    return CaseBrowser(MODELS, ("Dice", "HD95 mm"), tuple(entries))


def example() -> Page:
    """The whole report, made anew at each call."""
    words = "Networks were trained under one protocol and scored on the same held-out cases. "
    return Page(
        title="Which architecture segments brain tumours best?",
        subtitle="Eight networks, one protocol, 20 synthetic test cases",
        sections=(
            Section(
                "summary", "Summary", (Text((words * 4, words * 3 + "A region < 5 mm & more counts as any other.")),)
            ),
            Section("results", "Results", (Text((words * 2,)), Table(results()), Table(small()))),
            Section(
                "figures",
                "Figures",
                (
                    Drawing("Dice of every case, by region.", drawing("region", True), "Lines of eight models"),
                    Drawing("Loss over training.", drawing("loss", False), "Loss falls in all models"),
                ),
            ),
            Section(
                "provenance",
                "Provenance",
                (
                    Facts(
                        (
                            ("Data", "phantom, files 3f9ab2c41d77"),
                            ("Commit", "0ae216e8f0c3d1f2a4b5968778695a4b3c2d1e0f" * 2),
                            ("Devices", "NVIDIA H100 80GB HBM3, driver 570.86, CUDA 13.2"),
                        )
                    ),
                    Code("bench run --model segmamba,segresnet,unetr --dataset phantom --seeds 0,1,2,3,4"),
                ),
            ),
        ),
        browser=browser(),
        made="Made on 2026-10-20 by segmamba-bench 0.1.0",
    )


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as a file."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(example()), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """One headless browser for all tests."""
    binary, service = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or service is None:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(service))
    yield driver
    driver.quit()
