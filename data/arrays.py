"""Arrays in numpy's own format, read from several threads at once.

A header in that format is Python text, and `numpy.load` has the interpreter parse it. Python 3.11 counts the parser's
depth in one place for all threads, so that now and then two threads that parse together end in a
SystemError (the symptom of github.com/python/cpython/issues/106905). Here each header that differs is parsed once, by
one thread at a time: for a prepared case before its training begins, in which others (Triton's compiler) parse as well.
"""

from __future__ import annotations

import io
import threading
import zipfile
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_PARSER = threading.Lock()


class _Header(NamedTuple):
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]


def map_array(path: Path) -> NDArray[Any]:
    """The array in an ``.npy`` file as a read-only memory map.

    Raises:
        OSError, ValueError: the file is missing, cannot be read, or is damaged.
    """
    with path.open("rb") as file:
        header = _header(file)
        return np.memmap(path, header.dtype, "r", file.tell(), header.shape, header.order)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an ``.npz`` file, by name.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: the file is missing, cannot be read, or is damaged.
    """
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            with archive.open(entry) as file:
                header = _header(file)
                voxels = np.frombuffer(bytearray(file.read()), header.dtype)
            arrays[entry.removesuffix(".npy")] = voxels.reshape(header.shape, order=header.order)
    return arrays


def _header(file: IO[bytes]) -> _Header:
    """What the header says; leaves ``file`` at the first number."""
    if npy.read_magic(file) != (1, 0):  # what numpy writes for every array without named fields
        raise ValueError(f"expected an array in version 1.0 of numpy's format in {file.name}")
    length = file.read(2)
    return _parsed(length + file.read(int.from_bytes(length, "little")))


@cache
def _parsed(text: bytes) -> _Header:
    with _PARSER:
        shape, fortran_order, dtype = npy.read_array_header_1_0(io.BytesIO(text))
    return _Header(shape, "F" if fortran_order else "C", dtype)
