"""Reads IDX files, gzipped or not, and believes nothing that a header claims.

An IDX file is two zero bytes, a type code, the number of dimensions, the sizes as big-endian
32-bit integers and then the data: http://yann.lecun.com/exdb/mnist/ (archived).
"""

import gzip
import hashlib
import io
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxmnist.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 18
_MAX_NDIM = 4  # [n, h, w, c]
_UINT8 = 0x08
_AGAIN = "copy or download the file again"

HashedArray = tuple[NDArray[np.uint8], str]


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
    path: str | os.PathLike[str], *, ndim: int | None = None, max_bytes: float = math.inf
) -> HashedArray:
    """Reads an IDX file as `read_idx` does, together with the SHA-256 of its decompressed bytes.

    Args:
      path: the file, gzipped or not.
      ndim: the number of dimensions that the file must have; None allows 1 to 4.
      max_bytes: the most bytes of data that the header may ask for.

    Returns:
      The read-only uint8 array and the digest as 64 hexadecimal characters.

    Raises:
      DataError: as for `read_idx`, and if there are more than `max_bytes` bytes of data.
    """
    try:
        with Path(path).open("rb") as raw:
            zipped = raw.peek(2)[:2] == _GZIP_MAGIC
            file = gzip.GzipFile(fileobj=raw) if zipped else raw
            return _parse(file, ndim=ndim, max_bytes=max_bytes)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: corrupt gzip file: {error}; {_AGAIN}") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read: {reason}; check path and permissions") from error
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory; use a smaller data set") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _parse(file: io.BufferedIOBase, *, ndim: int | None, max_bytes: float) -> HashedArray:
    """Array and digest of an open file; a ValueError says what is wrong with it."""
    magic = _take(file, 4, "the magic number")
    zeros, code, found = struct.unpack(">HBB", magic)
    if zeros != 0 or not 1 <= found <= _MAX_NDIM:
        rule = f"expected 0x000008 and the number of dimensions, 01 to 0{_MAX_NDIM}"
        raise ValueError(f"wrong magic number: found 0x{magic.hex()}, {rule}; give an IDX file")
    if code != _UINT8:
        raise ValueError(f"wrong type code: found {code:#04x}, expected 0x08; use unsigned bytes")
    if ndim not in (None, found):
        raise ValueError(f"found {found} dimensions, expected {ndim}; images and labels swapped?")
    sizes = _take(file, 4 * found, "the sizes")
    shape = struct.unpack(f">{found}I", sizes)
    count = math.prod(shape)
    if count == 0:
        raise ValueError(f"no data: found the sizes {shape}, expected at least 1; give examples")
    if count > max_bytes:
        asked = f"the sizes {shape} ask for {count} bytes of data"
        raise ValueError(f"too large: {asked}, expected at most {max_bytes}; {_AGAIN}")
    data = _take(file, count, f"data of the sizes {shape}")
    # Reading past the data is also what makes gzip check its trailer.
    if file.read(1):
        raise ValueError(f"over-long: found more than {count} bytes for sizes {shape}; {_AGAIN}")
    digest = hashlib.sha256(magic + sizes)
    digest.update(data)
    array = np.frombuffer(data, np.uint8).reshape(shape)
    array.flags.writeable = False
    return array, digest.hexdigest()


def _take(file: io.BufferedIOBase, count: int, what: str) -> bytearray:
    """The next `count` bytes, read in pieces: memory is taken for those that are there."""
    data = bytearray()
    while piece := file.read(min(count - len(data), _CHUNK_BYTES)):
        data += piece
    if len(data) < count:
        raise ValueError(f"truncated: found {len(data)} of {count} bytes of {what}; {_AGAIN}")
    return data
