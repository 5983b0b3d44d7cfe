"""Reads IDX files, gzipped or not, and believes nothing that a header claims.

An IDX file is two zero bytes, a type code, the number of dimensions, the sizes as big-endian
32-bit integers and then the data: http://yann.lecun.com/exdb/mnist/ (archived).
"""

import gzip
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from jaxmnist.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 18
_MAX_NDIM = 4  # [n, h, w, c]
_UINT8 = 0x08
_AGAIN = "copy or download the file again"


def read_idx(path: str | os.PathLike[str], *, ndim: int | None = None) -> NDArray[np.uint8]:
    """Reads an IDX file of bytes.

    Args:
      path: the file, gzipped or not (told by its first bytes, not by its name).
      ndim: the number of dimensions that the file must have; None allows 1 to 4.

    Returns:
      A read-only uint8 array of the shape that the header gives.

    Raises:
      DataError: the file cannot be read, is not an IDX file of bytes, has another number of
        dimensions, is truncated, over-long or a corrupt gzip file. Memory grows with the data
        that is really there, never with what the header asks for.
    """
    return read_idx_hashed(path, ndim=ndim)[0]


def read_idx_hashed(
    path: str | os.PathLike[str], *, ndim: int | None = None, max_bytes: int | None = None
) -> tuple[NDArray[np.uint8], str]:
    """Reads an IDX file as `read_idx` does, together with the SHA-256 of its decompressed bytes.

    Args:
      path: the file, gzipped or not.
      ndim: the number of dimensions that the file must have; None allows 1 to 4.
      max_bytes: the most decompressed bytes that the header may ask for; None sets no limit.

    Returns:
      The read-only uint8 array and the digest as 64 hexadecimal characters.

    Raises:
      DataError: as for `read_idx`, and if the file is larger than `max_bytes`.
    """
    try:
        with Path(path).open("rb") as raw:
            if raw.peek(2)[:2] != _GZIP_MAGIC:
                return _parse(raw, str(path), ndim=ndim, max_bytes=max_bytes)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                return _parse(unzipped, str(path), ndim=ndim, max_bytes=max_bytes)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: corrupt gzip file: {error}; {_AGAIN}") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read: {reason}; check path and permissions") from error
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory; use a smaller data set") from error


def _parse(
    file: IO[bytes] | gzip.GzipFile, path: str, *, ndim: int | None, max_bytes: int | None
) -> tuple[NDArray[np.uint8], str]:
    header = _take(file, 4, path=path, what="the magic number")
    shape = _shape(file, header, path=path, ndim=ndim)
    expected = math.prod(shape)
    if max_bytes is not None and len(header) + expected > max_bytes:
        raise DataError(
            f"{path}: too large: the header asks for {shape} = {expected} bytes of data, "
            f"expected a file of at most {max_bytes} bytes; {_AGAIN}"
        )
    digest = hashlib.sha256(header)
    data = bytearray()
    for chunk in _chunks(file, expected):
        data += chunk
        digest.update(chunk)
    if len(data) < expected:
        raise DataError(
            f"{path}: truncated: the header asks for {shape} = {expected} bytes of data, "
            f"found {len(data)}; {_AGAIN}"
        )
    # Reading past the data is also what makes gzip check its trailer.
    if file.read(1):
        raise DataError(
            f"{path}: over-long: the header asks for {shape} = {expected} bytes of data, "
            f"found more; {_AGAIN}"
        )
    array = np.frombuffer(data, np.uint8).reshape(shape)
    array.flags.writeable = False
    return array, digest.hexdigest()


def _shape(
    file: IO[bytes] | gzip.GzipFile, header: bytearray, *, path: str, ndim: int | None
) -> tuple[int, ...]:
    """Checks the magic number in `header`, appends the sizes to it and returns them."""
    zeros, code, found = struct.unpack(">HBB", header)
    if zeros != 0 or not 1 <= found <= _MAX_NDIM:
        raise DataError(
            f"{path}: wrong magic number: found 0x{header.hex()}, expected 0x000008 and the number "
            f"of dimensions (01 to 0{_MAX_NDIM}); give an IDX file, gzipped or not"
        )
    if code != _UINT8:
        raise DataError(
            f"{path}: wrong type code: found 0x{code:02x}, expected 0x08 (unsigned bytes); "
            "write the values as bytes of 0 to 255"
        )
    if ndim is not None and found != ndim:
        raise DataError(
            f"{path}: wrong number of dimensions: found {found}, expected {ndim}; "
            "check that images and labels are not swapped"
        )
    header += _take(file, 4 * found, path=path, what="the sizes")
    shape = struct.unpack(f">{found}I", header[4:])
    if 0 in shape:
        raise DataError(
            f"{path}: no data: found the sizes {shape}, expected sizes of at least 1; "
            "give a file with examples"
        )
    return shape


def _take(file: IO[bytes] | gzip.GzipFile, count: int, *, path: str, what: str) -> bytearray:
    data = bytearray().join(_chunks(file, count))
    if len(data) < count:
        raise DataError(
            f"{path}: truncated: found {len(data)} bytes of {what}, expected {count}; {_AGAIN}"
        )
    return data


def _chunks(file: IO[bytes] | gzip.GzipFile, count: int) -> Iterator[bytes]:
    """Yields at most `count` bytes in pieces; fewer where the file ends."""
    while count and (chunk := file.read(min(count, _CHUNK_BYTES))):
        count -= len(chunk)
        yield chunk
