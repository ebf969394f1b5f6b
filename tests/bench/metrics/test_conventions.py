"""Conventions as a view: a table measured under one, scored under another."""

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.metrics import CONVENTIONS, apply_convention, measure_case


def measured(convention):
    """Cases of every empty state."""
    filled, nothing = np.zeros((2, 5, 5, 5), dtype=np.uint8)
    filled[1:4, 1:4, 1:4] = 3
    pairs = {
        "one": (filled, filled),
        "two": (nothing, filled),
        "three": (filled, nothing),
        "four": (nothing, nothing),
        "five": (np.roll(filled, 1), filled),
    }
    rows = [
        {"case": case, **vars(m)}
        for case, pair in pairs.items()
        for m in measure_case(*pair, (1, 1, 1), {"ET": (3,)}, convention)
    ]
    return pd.DataFrame(rows, index=[7, 3, 3, 1, 0])


@pytest.mark.parametrize("before", CONVENTIONS)
@pytest.mark.parametrize("after", CONVENTIONS)
def test_a_table_scored_anew_is_the_table_measured_so(before, after):
    table = measured(before)
    kept = table.copy(deep=True)
    pd.testing.assert_frame_equal(apply_convention(table, after), measured(after))
    pd.testing.assert_frame_equal(table, kept)


def test_whole_numbers_and_tables_without_rows_do():
    table = pd.DataFrame({"dice": [1, 0], "hd95": [0, 50], "empty": ["neither", "both"]})
    assert apply_convention(table, "brats")["hd95"].tolist() == [0.0, 0.0]
    assert apply_convention(table.iloc[:0], "brats").empty


@pytest.mark.parametrize(
    ("harm", "convention", "says"),
    [
        (lambda table: table, "bats", ["'bats'", "'brats'"]),
        (lambda table: table.drop(columns=["empty", "dice"]), "brats", ["['dice', 'empty']", "Record.cases()"]),
        (lambda table: table.assign(empty="none"), "brats", ["['none']", "neither, prediction, reference, both"]),
        (lambda table: table.assign(empty=np.nan), "brats", ["['nan']"]),
    ],
)
def test_what_cannot_be_scored_anew_is_refused_with_a_reason(harm, convention, says):
    with pytest.raises(BenchError) as refused:
        apply_convention(harm(measured("brats")), convention)
    assert all(word in str(refused.value) for word in says), str(refused.value)
