"""Arrays in numpy's format: equal to what numpy reads, and never parsed by two threads at once."""

from __future__ import annotations

import ast
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data import arrays
from data.arrays import map_array, read_arrays

SHAPES = [(), (0,), (3, 0, 2), (7,), (4, 5, 6, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back_as_numpy_reads_it(tmp_path: Path, shape: tuple[int, ...], dtype: str, order: str) -> None:
    values = np.asarray(np.random.default_rng(0).integers(0, 100, shape), dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", **{"1": values, "2": values + 1})
    mapped, read = map_array(tmp_path / "a.npy"), read_arrays(tmp_path / "a.npz")
    assert mapped.dtype == values.dtype
    assert mapped.flags["F_CONTIGUOUS"] == values.flags["F_CONTIGUOUS"]
    np.testing.assert_array_equal(mapped, values)
    assert list(read) == ["1", "2"]
    np.testing.assert_array_equal(read["2"], values + 1)
    if mapped.size:
        with pytest.raises(ValueError, match="read-only"):
            mapped[...] = 0


@pytest.mark.parametrize("kept", [0, 5, 9, 40, 130])
def test_a_truncated_file_is_an_error_that_callers_know(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(100))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError):
        map_array(path)


def test_two_threads_never_parse_headers_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{size}.npy" for size in range(8)]
    for size, path in enumerate(paths):
        np.save(path, np.zeros(size))
    literal_eval, inside, most = ast.literal_eval, [0], [0]
    counting = threading.Lock()

    def slow(text: str) -> object:
        with counting:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        with counting:
            inside[0] -= 1
        return literal_eval(text)

    monkeypatch.setattr(ast, "literal_eval", slow)
    arrays._parsed.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert [len(array) for array in pool.map(map_array, paths)] == list(range(8))
    assert most == [1]


def test_a_header_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.zeros((3, 4)))
    map_array(tmp_path / "a.npy")

    def refuse(text: str) -> object:
        raise AssertionError(f"parsed again: {text}")

    monkeypatch.setattr(ast, "literal_eval", refuse)
    assert map_array(tmp_path / "a.npy").shape == map_array(tmp_path / "b.npy").shape == (3, 4)
