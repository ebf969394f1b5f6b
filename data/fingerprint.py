"""A dataset's fingerprint: the same files give the same hash on any machine, without reading them whole."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

from data.errors import DataError
from data.volume import CaseFiles

_CHUNK = 1 << 20
_SMALLEST_GZIP = 18  # header and trailer


def fingerprint(cases: Iterable[CaseFiles]) -> str:
    """Hash of every file's name, and the size and checksum of its content; 64 hexadecimal digits.

    A gzip file ends in the CRC-32 and the size of what it holds (RFC 1952, section 2.3.1), so eight bytes a file
    tell its content, however it was compressed; other files are read whole. Where the files lie and when they
    were written does not matter.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for case in sorted(cases, key=lambda case: case.id):
        for path in (*case.images, *([case.label] if case.label else [])):
            digest.update(f"{case.id}/{path.name} {file_checksum(path)}\n".encode())
    return digest.hexdigest()


def file_checksum(path: Path) -> str:
    """CRC-32 and size of one file's uncompressed content, as text.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            crc, size = 0, 0
            if path.suffix == ".gz" and path.stat().st_size >= _SMALLEST_GZIP:
                file.seek(-8, 2)
                crc, size = struct.unpack("<II", file.read(8))
                file.seek(0)
            if not size:  # not gzip, or one of the block formats that end in an empty block
                while chunk := file.read(_CHUNK):
                    crc, size = zlib.crc32(chunk, crc), size + len(chunk)
            return f"{crc:08x} {size}"
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}. Check that it exists and may be read.") from error
