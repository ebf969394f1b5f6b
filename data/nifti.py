"""NIfTI files in and out: (x, y, z) on disk, (D, H, W) = (z, y, x) in memory.

Nothing here knows of datasets. A file that cannot be used raises `FileFault`, which says what was found, what
was expected and how to mend it, in parts that a report can show as columns.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import uuid
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from data.volume import Geometry

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way to ask for gzip's header
_HEADER_BYTES = 1024  # more than either NIfTI header has
_FETCH_AGAIN = "download or copy the file again"


class FileFault(DataError):
    """One file that cannot be used: where it is, what was found, what was expected, how to mend it."""

    def __init__(self, path: Path, found: str, expected: str, mend: str) -> None:
        super().__init__(path, found, expected, mend)  # as arguments, so that it can be pickled between processes
        self.path, self.found, self.expected, self.mend = path, found, expected, mend

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; expected {self.expected}; to mend it, {self.mend}"


def read_image(path: Path) -> tuple[NDArray[np.float32], Geometry]:
    """Read one image as (D, H, W) float32, with the file's intensity scaling applied.

    Raises:
        FileFault: the file is missing, damaged, not NIfTI, or not one 3-D volume of real numbers.
    """
    image = _load(path)
    values = np.asarray(image.dataobj, dtype=np.float32)
    return np.ascontiguousarray(values.T), _geometry(path, image.affine, image.shape)


def read_channels(path: Path, count: int) -> tuple[NDArray[np.float32], Geometry]:
    """Read one file that holds ``count`` channels along its fourth axis, as (C, D, H, W) float32.

    Raises:
        FileFault: as `read_image`, or the fourth axis is missing or of another length.
    """
    image = _load(path, channels=count)
    values = np.asarray(image.dataobj, dtype=np.float32)
    return np.ascontiguousarray(values.T), _geometry(path, image.affine, image.shape)


def read_geometry(path: Path) -> Geometry:
    """The grid of an image or label map, from its header alone; a fourth axis is passed over.

    Raises:
        FileFault: the file is missing, not NIfTI, has a damaged header or fewer than three axes.
    """
    from nibabel.spatialimages import HeaderDataError

    content = _content(path, _HEADER_BYTES)
    kind = _demand_kind(path, content)
    try:
        header = kind.header_class(content[: kind.header_class.sizeof_hdr])
        affine, shape = header.get_best_affine(), header.get_data_shape()
    except (HeaderDataError, ValueError) as error:
        raise _damaged_header(path, error) from error
    if len(shape) < 3 or min(shape) < 1:
        raise FileFault(path, f"a {len(shape)}-D array of shape {shape}", "a volume (x, y, z)", _FETCH_AGAIN)
    return _geometry(path, affine, shape)


def read_label(path: Path) -> tuple[NDArray[np.uint8], Geometry]:
    """Read one label map as (D, H, W) uint8; the geometry's ``label_dtype`` is the type on disk.

    Raises:
        FileFault: as `read_image`, or a value is not an integer or lies outside 0..255.
    """
    image = _load(path)
    values = np.asarray(image.dataobj).T
    if values.dtype.kind == "f":
        _demand_integers(path, values)
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        raise FileFault(path, f"label values from {low:g} to {high:g}", "values in 0..255", "relabel the file")
    geometry = replace(_geometry(path, image.affine, image.shape), label_dtype=image.get_data_dtype().name)
    return np.ascontiguousarray(values.astype(np.uint8)), geometry


def write_image(path: Path, image: NDArray[np.floating[Any]], geometry: Geometry) -> None:
    """Write (D, H, W) values, e.g. the probability of one class, as float32. Otherwise as `write_label`."""
    _write(path, image.astype(np.float32), geometry)


def write_label(path: Path, label: NDArray[np.integer[Any]], geometry: Geometry) -> None:
    """Write a (D, H, W) label map in the type ``geometry.label_dtype``, or uint8 where that cannot hold it.

    The file carries ``geometry.affine`` as sform and qform (codes 1, millimetres). It appears whole or not at
    all, and the same label map gives the same bytes. A name ending in ``.gz`` is compressed.

    Raises:
        DataError: the file cannot be written.
        ValueError: the array does not have the shape of the geometry.
    """
    dtype = np.dtype(geometry.label_dtype)
    if dtype.kind not in "iu" or label.max() > np.iinfo(dtype).max:
        dtype = np.dtype(np.uint8)
    _write(path, label.astype(dtype), geometry)


def first_voxel_xyz(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Index (x, y, z), as viewers show it, of the first true voxel of a (D, H, W) mask that has one."""
    z, y, x = np.unravel_index(int(mask.argmax()), mask.shape)
    return int(x), int(y), int(z)


def _demand_integers(path: Path, values: NDArray[np.floating[Any]]) -> None:
    fractional = values != np.rint(values)  # true for NaN as well
    if not fractional.any():
        return
    voxel = first_voxel_xyz(fractional)
    raise FileFault(
        path,
        f"{np.count_nonzero(fractional)} voxels whose value is not an integer, the first "
        f"{values[voxel[::-1]]:g} at voxel (x, y, z) = {voxel}",
        "integer label values",
        "obtain the original label map, or resample it with nearest-neighbour interpolation",
    )


def _load(path: Path, channels: int | None = None) -> Nifti1Image:
    """Parse a file into a nibabel image whose voxels are known to be there and real.

    It is three-dimensional, or with ``channels`` has that many along a fourth axis.
    """
    content = _content(path)
    image = _parse(path, content)
    shape, dtype = image.shape, image.get_data_dtype()
    if channels is not None and (len(shape) != 4 or min(shape) < 1 or shape[3] != channels):
        raise FileFault(
            path,
            f"a {len(shape)}-D array of shape {shape}",
            f"a 4-D array (x, y, z, channel) of {channels} channels",
            "stack the channels along a fourth axis in the order of the dataset's description, or correct that",
        )
    if channels is None and (len(shape) != 3 or min(shape) < 1):
        raise FileFault(
            path,
            f"a {len(shape)}-D array of shape {shape}",
            "one 3-D volume (x, y, z)",
            "save the one volume that is meant as a file of its own, without further axes",
        )
    if dtype.kind not in "iuf":
        raise FileFault(path, f"voxels of type {dtype}", "real numbers", "convert the file to a numeric type")
    needed = image.dataobj.offset + math.prod(shape) * dtype.itemsize
    if len(content) < needed:
        raise FileFault(
            path,
            f"{len(content):,} bytes of NIfTI",
            f"{needed:,} bytes for shape {shape} of {dtype}",
            _FETCH_AGAIN,
        )
    return image


def _content(path: Path, first: int | None = None) -> bytes:
    """The file's bytes, or the ``first`` of them, decompressed where its name ends in ``.gz``."""
    expected = "a gzipped NIfTI file" if path.suffix == ".gz" else "a NIfTI file"
    try:
        # Compressed bytes are hardly ever more than what they hold.
        raw = path.read_bytes() if first is None else _beginning(path, 2 * first)
    except FileNotFoundError:
        raise FileFault(path, "no such file", expected, _FETCH_AGAIN) from None
    except OSError as error:
        mend = "check what lies there, its permissions and its disk"
        raise FileFault(path, f"nothing that can be read ({error.strerror})", expected, mend) from error
    if not raw:
        raise FileFault(path, "an empty file (0 bytes)", expected, _FETCH_AGAIN)
    if path.suffix != ".gz":
        return raw[:first]
    if not raw.startswith(_GZIP_MAGIC):
        if _nifti_kind(raw) is None:
            raise FileFault(path, "neither gzip nor NIfTI", expected, _FETCH_AGAIN)
        mend = f"rename it to {path.stem} and compress it with gzip"
        raise FileFault(path, "plain NIfTI, not gzipped", expected, mend)
    try:
        if first is not None:
            return zlib.decompressobj(_GZIP_WINDOW).decompress(raw, first)
        return gzip.decompress(raw)
    except EOFError:
        found = f"a gzip stream that ends early, after {len(raw):,} bytes"
        raise FileFault(path, found, "a whole gzip stream", _FETCH_AGAIN) from None
    except (OSError, zlib.error) as error:
        raise FileFault(path, f"a damaged gzip stream ({error})", "a whole gzip stream", _FETCH_AGAIN) from error


def _beginning(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _parse(path: Path, content: bytes) -> Nifti1Image:
    from nibabel.spatialimages import HeaderDataError

    kind = _demand_kind(path, content)
    try:
        return kind.from_bytes(content)
    except (HeaderDataError, ValueError) as error:
        raise _damaged_header(path, error) from error


def _demand_kind(path: Path, content: bytes) -> type[Nifti1Image]:
    kind = _nifti_kind(content)
    if kind is None:
        raise FileFault(path, "no NIfTI header", "a NIfTI file", _FETCH_AGAIN)
    return kind


def _damaged_header(path: Path, error: Exception) -> FileFault:
    return FileFault(path, f"a damaged NIfTI header ({error})", "a NIfTI file", _FETCH_AGAIN)


def _nifti_kind(content: bytes) -> type[Nifti1Image] | None:
    import nibabel

    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        if kind.header_class.may_contain_header(content[: kind.header_class.sizeof_hdr]):
            return kind
    return None


def _geometry(path: Path, affine: NDArray[Any], shape: tuple[int, ...]) -> Geometry:
    """What an affine and a shape (x, y, z), or (x, y, z, channel), say."""
    affine = affine.astype(np.float64)
    if not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        raise FileFault(
            path,
            f"an affine that spans no volume, {affine[:3].tolist()}",
            "three independent finite axes in millimetres",
            "copy the affine of another file of the case, or obtain the file again",
        )
    x, y, z = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    return Geometry(affine=affine, shape=(shape[2], shape[1], shape[0]), spacing_mm=(z, y, x))


def _write(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    if array.shape != geometry.shape:
        raise ValueError(f"an array of shape {array.shape} does not fit a geometry of shape {geometry.shape}")
    content = _encode(array, geometry)
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=6, mtime=0)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with scratch.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({len(content):,} bytes): {error.strerror}. Expected a folder that exists, "
            "may be written to and has room; make one, or choose another."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def _encode(array: NDArray[Any], geometry: Geometry) -> bytes:
    import nibabel

    # nibabel refuses 64-bit integers unless their type is asked for by name.
    image = nibabel.Nifti1Image(array.T, geometry.affine, dtype=array.dtype)
    image.set_sform(geometry.affine, code=1)
    image.set_qform(geometry.affine, code=1)
    image.header.set_xyzt_units("mm")
    return image.to_bytes()
