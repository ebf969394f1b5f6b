"""``bench table``"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bench.store import Record, Store


def test_nothing_to_show_says_how_to_make_something(bench: Callable, tmp_path: Path) -> None:
    answer = bench("table", "--results", tmp_path / "none")
    assert answer.status == 2
    assert "bench run --model" in answer.err


@pytest.mark.parametrize("how", ["text", "markdown", "csv", "latex", "html"])
def test_every_format_prints(bench: Callable, complete_record: Callable[..., Record], tmp_path: Path, how: str) -> None:
    complete_record(tmp_path)
    answer = bench("table", "--results", tmp_path, "--format", how)
    assert answer.status == 0
    assert "segmamba" in answer.out
    assert answer.err == ""


def test_an_unknown_format_suggests_the_nearest(bench: Callable, tmp_path: Path) -> None:
    answer = bench("table", "--results", tmp_path, "--format", "latx")
    assert answer.status == 2
    assert "did you mean 'latex'" in answer.err


def test_filters_choose_rows(bench: Callable, complete_record: Callable[..., Record], tmp_path: Path) -> None:
    complete_record(tmp_path, model="segmamba")
    complete_record(tmp_path, model="unetr", seed=1)
    assert "unetr" not in bench("table", "--results", tmp_path, "--model", "segmamba").out
    assert "segmamba" not in bench("table", "--results", tmp_path, "--seed", "1").out
    assert bench("table", "--results", tmp_path, "--dataset", "brats2023").status == 2


def test_a_value_of_the_protocol_chooses_among_tables(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path
) -> None:
    halves = ("split.train=0.5", "split.test=0.5", "split.validation=0")
    complete_record(tmp_path, model="segmamba", changes=("train.steps=30", "train.fused=true", *halves))
    complete_record(tmp_path, model="unetr", changes=("train.gpu_seconds=30", "data.patch_size=48"))

    def shown(verb: str, *options: str) -> list[str]:
        out = tmp_path / "out"
        answer = bench(verb, "--results", tmp_path, *options, *(("--output", out) if verb == "report" else ()))
        assert answer.status == 0, answer.err
        text = answer.out if verb == "table" else (out / "report.md").read_text()
        return sorted(set(re.findall(r"^\W*(segmamba|unetr)\b.* \d+\.\d", text, re.MULTILINE)))

    for verb in ("table", "report"):
        assert shown(verb, "--set", "train.steps=30") == ["segmamba"]
        assert shown(verb, "--set", "train.gpu_seconds=30") == ["unetr"]
    assert shown("table", "--set", "data.patch_size=48,48,48") == ["unetr"]
    assert shown("table", "--set", "train.gpu_seconds=none") == ["segmamba"]
    assert shown("table", "--set", "split.test=0.5") == ["segmamba"]  # whatever the others must be then
    assert shown("table", "--set", "train.gpu_seconds=3e1") == ["unetr"]
    # Records leave out what is off and came later.
    assert shown("table", "--set", "train.fused=TRUE") == ["segmamba"]
    assert shown("table", "--set", "train.fused=false") == ["unetr"]
    both = ("--set", "train.steps=30", "--set", "data.patch_size=48")
    assert bench("table", "--results", tmp_path, *both).status == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.step=5", ["train.step", "did you mean 'train.steps'"]),
        ("train.steps=many", ["no record", "with these filters; there are:"]),
        ("train.steps", ["expected FIELD=VALUE"]),
        ("model_options.unetr.hidden_size=192", ["an option of a network", "train.steps=1000"]),
        ("train.steps=7", ["no record", "with these filters; there are:", "segmamba on phantom"]),
    ],
)
def test_a_value_that_no_protocol_has_is_a_message(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path, change: str, words: list[str]
) -> None:
    complete_record(tmp_path)
    answer = bench("table", "--results", tmp_path, "--set", change)
    assert (answer.status, answer.out, "Traceback" in answer.err) == (2, "", False)
    assert all(word in answer.err for word in words), answer.err


def test_a_damaged_record_is_told_on_standard_error(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path
) -> None:
    record = complete_record(tmp_path)
    (record.folder / "cases.csv").write_text("")
    answer = bench("table", "--results", tmp_path)
    assert "damaged" in answer.err
    assert "cases.csv" in answer.err
    assert "damaged" in answer.out


def test_options_choose_metrics_regions_and_order(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path
) -> None:
    complete_record(tmp_path, model="unetr", dice=0.5)
    complete_record(tmp_path, model="segmamba", dice=0.8)
    answer = bench("table", "--results", tmp_path, "--metrics", "hd95", "--regions", "WT,Avg", "--sort", "model")
    head, _, *rows = answer.out.splitlines()
    assert [part.strip() for part in head.split("  ") if part.strip()] == [
        *("model", "WT HD95 mm", "Avg HD95 mm", "cases", "seeds")
    ]
    assert [row.split()[0].rstrip("*") for row in rows[:2]] == ["segmamba", "unetr"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--convention", "lesionwize"), "did you mean 'lesionwise'"),
        (("--regions", "WTT"), "unknown region 'WTT': did you mean 'WT'"),
        (("--metrics", "hd96"), "unknown metric 'hd96': did you mean 'hd95'"),
        (("--sort", "latency"), "did you mean 'latency_s'"),
        (("--metrics", "nsd"), "was not measured for segmamba"),
        (("--convention", "lesionwise"), "holds no lesion-wise scores"),
    ],
)
def test_what_there_is_not_is_a_message(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path, options: tuple[str, str], message: str
) -> None:
    complete_record(tmp_path)
    answer = bench("table", "--results", tmp_path, *options)
    assert answer.status == 2
    assert message in answer.err
    assert (answer.out, "Traceback" in answer.err) == ("", False)


def test_why_there_are_several_tables_is_told_and_mixing_them_in_the_footer(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path
) -> None:
    complete_record(tmp_path)
    complete_record(tmp_path, model="unetr", changes=("train.steps=3",))
    apart = bench("table", "--results", tmp_path)
    assert apart.out.count("WT Dice %") == 2
    assert apart.err == (
        "2 tables, since these differ and are not mixed (--allow-mixed mixes them):\n"
        "  phantom: protocol demo | demo (train.steps=3)\n"
    )
    mixed = bench("table", "--results", tmp_path, "--allow-mixed")
    assert mixed.out.count("WT Dice %") == 1
    assert "Mixed on request: protocol demo | demo (train.steps=3)." in mixed.out
    assert mixed.err == ""


def test_a_convention_holds_for_all(bench: Callable, complete_record: Callable[..., Record], tmp_path: Path) -> None:
    record = complete_record(tmp_path)
    complete_record(tmp_path, model="unetr", changes=("evaluate.convention=segmamba",))
    answer = bench("table", "--results", tmp_path, "--convention", "segmamba", "--format", "csv")
    frame = pd.read_csv(io.StringIO(answer.out)).set_index("model")
    assert set(frame["convention"]) == {"segmamba"}
    cases = record.cases()
    scored = cases["dice"].where(cases["empty"] == "neither", 0.0)
    assert frame.loc["segmamba", "ET_dice"] == pytest.approx(scored[cases["region"] == "ET"].mean())


def test_statistics_follow_the_table_and_mark_it(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path
) -> None:
    complete_record(tmp_path, cases=12, dice=0.8)
    complete_record(tmp_path, cases=12, dice=0.5, model="unetr", seed=1)
    chosen = ("table", "--results", tmp_path, "--stats", "--metrics", "dice", "--regions", "WT,Avg")
    text = bench(*chosen).out
    assert text.index("† not distinguishable") < text.index("WT, Dice %, 12 cases") < text.index("Intervals: 95%, BCa")
    assert text.index("Intervals") < text.index("Avg, Dice %, 12 cases")
    best, other = (next(line for line in text.splitlines() if line.startswith(name)) for name in ("segmamba", "unetr"))
    assert (best.count("†"), other.count("†")) == (2, 0)
    frame = pd.read_csv(io.StringIO(bench(*chosen, "--format", "csv").out))
    assert sorted(zip(frame["region"], frame["model"], strict=True)) == [
        *(("Avg", "segmamba"), ("Avg", "unetr"), ("WT", "segmamba"), ("WT", "unetr"))
    ]
    assert (set(frame["dataset"]), set(frame["protocol"]), set(frame["metric"])) == ({"phantom"}, {"demo"}, {"dice"})
    assert frame["p_holm"].notna().sum() == 2


def test_statistics_refuse_networks_with_different_cases_and_name_them(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path
) -> None:
    complete_record(tmp_path, cases=4)
    complete_record(tmp_path, cases=5, model="unetr")
    answer = bench("table", "--results", tmp_path, "--stats", "--allow-mixed")
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert "model 'segmamba' lacks case BraTS-PHA-00006-000 that model 'unetr' has" in answer.err


def test_statistics_of_nothing_complete_are_the_table_alone(
    bench: Callable, make_job: Callable, tmp_path: Path
) -> None:
    Store(tmp_path).open_run(make_job()).finish("oom", message="CUDA out of memory")
    answer = bench("table", "--results", tmp_path, "--stats")
    assert (answer.status, "oom" in answer.out) == (0, True)
    assert bench("table", "--results", tmp_path, "--stats", "--format", "csv").out == ""


def test_the_papers_table_is_shown_on_request(
    bench: Callable, complete_record: Callable[..., Record], tmp_path: Path
) -> None:
    complete_record(tmp_path)
    assert "SegMamba paper" not in bench("table", "--results", tmp_path).out
    lines = bench("table", "--results", tmp_path, "--published").out.splitlines()
    block = next(n for n, line in enumerate(lines) if line.startswith("published: SegMamba paper, Table 1"))
    assert lines.index(next(line for line in lines if line.startswith("segmamba"))) < block
    assert lines[block + 7].startswith("SegMamba ")


def test_a_profile_is_no_row(bench: Callable, complete_record: Callable[..., Record], tmp_path: Path) -> None:
    record = complete_record(tmp_path)
    job = {
        **{name: record.content["job"][name] for name in ("model", "model_options")},
        **{"what": "network", "mode": "infer", "image_size": [64, 64, 64], "batch": 1, "in_channels": 4, "classes": 4},
        **{"precision": "bf16", "compile": False, "channels_last": False, "cudnn_benchmark": True},
        **{"backend": "triton", "hardware": "H100", "torch": "2.11"},
    }
    profile = Store(tmp_path).open_profile(job, measured={"parameters": 12_300_000}).finish("complete")
    answer = bench("table", "--results", tmp_path)
    assert (answer.status, answer.err) == (0, "")
    row = next(line for line in answer.out.splitlines() if line.startswith("segmamba"))
    assert row.split()[-3:] == ["12.3", "4", "1"]
    assert "Costs: profiles on H100, 64³, bf16, batch 1 in inference." in answer.out
    shutil.rmtree(record.folder)
    alone = bench("table", "--results", tmp_path)
    assert (alone.status, alone.out) == (2, "")
    assert f"{profile.key}  profile of segmamba" in alone.err
    assert "bench profile --show" in alone.err
    report = bench("report", "--results", tmp_path, "--output", tmp_path / "report")
    assert report.status == 0
    assert "What they cost, measured" in (tmp_path / "report" / "report.md").read_text()
