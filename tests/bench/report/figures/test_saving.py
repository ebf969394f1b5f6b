"""Files and inline SVG: the same bytes every time, ids that do not clash, nothing global left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.report import figures

Scores = Callable[..., pd.DataFrame]

_DRAW = """
import sys, pandas as pd
from pathlib import Path
from bench.report import figures
frame = pd.DataFrame({"case": list("abcd"), "model": ["m", "n"] * 2, "value": [.7, .8, .9, 0]})
frame = frame.assign(region="ET", metric="dice")
figure = figures.cases(frame, "dice")
for format in ("svg", "png", "pdf"):
    figures.save(figure, Path(sys.argv[1]) / f"figure.{format}")
Path(sys.argv[1], "inline.svg").write_text(figures.to_svg(figure, "one"))
assert not {"matplotlib.pyplot", "torch", "nibabel"} & sys.modules.keys()
"""


def test_bytes_are_the_same_in_any_process_and_need_neither_pyplot_nor_torch(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": seed * 9}
        subprocess.run([sys.executable, "-c", _DRAW, tmp_path / seed], check=True, env=environment)
    for name in ("figure.svg", "figure.png", "figure.pdf", "inline.svg"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_a_figure_written_twice_has_not_moved(tmp_path: Path, scores: Scores) -> None:
    figure = figures.cases(scores(), "hd95")
    figures.save(figure, tmp_path / "one.svg")
    figures.save(figure, tmp_path / "figure.png")
    figures.save(figure, tmp_path / "two", format="svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two").read_bytes()


def test_text_stays_text_in_a_common_font(scores: Scores) -> None:
    text = figures.to_svg(figures.cases(scores(["a $x_1$ & <b>"]), "dice"), "s")
    words = [element.text for element in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert "a $x_1$ & <b>" in words
    assert "sans-serif" in text


def test_two_figures_of_a_page_share_no_id_and_refer_to_their_own(scores: Scores) -> None:
    figure = figures.cases(scores(), "dice")
    found = []
    for salt in ("one", "two"):
        text = figures.to_svg(figure, salt)
        assert text.startswith(f'<svg id="{salt}" role="img" aria-label="Dice of each test case')
        ids = re.findall(r'\bid="([^"]*)"', text)
        referred = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text)
        assert referred
        assert {a or b for a, b in referred} <= set(ids)
        assert all(name.startswith(salt) for name in ids)
        assert f"#{salt} *{{" in text
        found.append(set(ids))
    assert not found[0] & found[1]


def test_a_salt_must_be_able_to_begin_an_id(scores: Scores) -> None:
    with pytest.raises(BenchError, match="found the salt '1 <'"):
        figures.to_svg(figures.cases(scores(), "dice"), "1 <")


def test_the_callers_defaults_stay_and_do_not_matter(tmp_path: Path, scores: Scores) -> None:
    figures.save(figures.cases(scores(), "dice"), tmp_path / "plain.svg")
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        figures.save(figures.cases(scores(), "dice"), tmp_path / "loud.svg")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "loud.svg").read_bytes()


def test_an_unknown_format_is_refused(tmp_path: Path, scores: Scores) -> None:
    with pytest.raises(BenchError, match="unknown format of a figure 'gif'"):
        figures.save(figures.cases(scores(), "dice"), tmp_path / "figure.gif")
    assert not list(tmp_path.iterdir())
