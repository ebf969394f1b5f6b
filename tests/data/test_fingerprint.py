"""Fingerprints: the content counts, not where or how it lies on the disk."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from data.errors import DataError
from data.fingerprint import file_checksum, fingerprint
from data.volume import CaseFiles


def _case(folder: Path, content: bytes = b"voxels" * 99, level: int = 6) -> CaseFiles:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a-t1.nii.gz").write_bytes(gzip.compress(content, compresslevel=level, mtime=level))
    (folder / "a-seg.nii").write_bytes(b"labels")
    return CaseFiles("a", "a", (folder / "a-t1.nii.gz",), folder / "a-seg.nii")


def test_a_copy_elsewhere_and_another_compression_are_the_same_data(tmp_path: Path) -> None:
    one = _case(tmp_path / "one", level=1)
    two = _case(tmp_path / "two", level=9)
    assert one.images[0].read_bytes() != two.images[0].read_bytes()
    assert fingerprint([one]) == fingerprint([two])


@pytest.mark.parametrize("what", ["image", "label", "name"])
def test_any_change_of_content_or_name_is_another_fingerprint(tmp_path: Path, what: str) -> None:
    one = _case(tmp_path / "one")
    two = _case(tmp_path / "two", b"voxelz" * 99 if what == "image" else b"voxels" * 99)
    assert two.label is not None
    if what == "label":
        two.label.write_bytes(b"labelz")
    if what == "name":
        moved = two.label.with_name("b-seg.nii")
        shutil.move(two.label, moved)
        two = CaseFiles("a", "a", two.images, moved)
    assert fingerprint([one]) != fingerprint([two])


def test_the_order_of_cases_does_not_matter(tmp_path: Path) -> None:
    one = _case(tmp_path / "one")
    two = CaseFiles("b", "b", one.images, one.label)
    assert fingerprint([one, two]) == fingerprint([two, one])


def test_block_gzip_is_told_by_its_content(tmp_path: Path) -> None:
    """Block formats (bgzip) end in an empty block, whose trailer says nothing of the file."""
    for name, content in (("one.gz", b"1" * 50), ("two.gz", b"2" * 50)):
        (tmp_path / name).write_bytes(gzip.compress(content) + gzip.compress(b""))
    assert file_checksum(tmp_path / "one.gz") != file_checksum(tmp_path / "two.gz")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*missing\.nii\.gz"):
        file_checksum(tmp_path / "missing.nii.gz")
