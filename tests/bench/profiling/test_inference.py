"""The comparison of sliding windows: that it runs, that both agree, what it writes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.fields import InferFields
from bench.profiling.inference import compare, main, to_table

FIELDS = InferFields(overlap=0.5, blend="gaussian", mirror_axes=(0, 2), output="argmax", precision="fp32")


class Slow(nn.Module):
    """A network that runs out of memory beyond two windows."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.cat([x, x.square()], dim=1)


def test_both_agree_and_what_does_not_fit_says_so() -> None:
    timings = compare(Slow(), torch.randn(1, 9, 12, 8), (8, 8, 8), FIELDS, monai_at_once=(1, 4), repeats=2)
    ours, one, four = timings
    assert (ours.how, one.how, one.at_once) == ("ours", "monai", 1)
    for timing in (ours, one):
        assert 0 < timing.fastest_s <= timing.median_s <= timing.slowest_s
    assert one.largest_difference < 1e-5
    assert (four.note, four.median_s) == ("out of memory", 0)
    assert "out of memory" in to_table(timings)


def test_a_difference_is_seen() -> None:
    class Drifting(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x + self.calls

    timings = compare(Drifting(), torch.zeros(1, 8, 8, 8), (8, 8, 8), FIELDS, monai_at_once=(1,), repeats=1)
    assert timings[1].largest_difference > 1


def test_the_command_prints_a_table_and_writes_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "inference.csv"
    main(
        [
            *("--model", "segresnet", "--shape", "10", "8", "8", "--patch", "8", "8", "8", "--device", "cpu"),
            *("--precision", "fp32", "--no-flips", "--at-once", "1", "2", "--repeats", "1", "--output", str(output)),
        ]
    )
    rows = list(csv.DictReader(output.open()))
    assert [(row["how"], row["at_once"]) for row in rows] == [("ours", "2"), ("monai", "1"), ("monai", "2")]
    assert {(row["model"], row["shape"], row["mirror_images"], row["torch"]) for row in rows} == {
        ("segresnet", "10x8x8", "1", torch.__version__)
    }
    assert all(float(row["median_s"]) > 0 and float(row["largest_difference"]) < 1e-4 for row in rows)
    printed = capsys.readouterr().out
    assert printed.count("monai") == 3, "two rows, and its version"


def test_a_network_that_is_not_there_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--model", "segresnett", "--device", "cpu"])
    assert left.value.code == 2
    assert "segresnet" in capsys.readouterr().err
