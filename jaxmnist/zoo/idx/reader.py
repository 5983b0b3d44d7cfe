"""Reads IDX files, gzipped or not, and believes nothing that a header claims.

An IDX file is two zero bytes, a type code, the number of dimensions, the sizes as big-endian
32-bit integers and then the data: http://yann.lecun.com/exdb/mnist/ (archived).
"""

import errno
import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxmnist.errors import DataError

_CHUNK_BYTES = 1 << 18
_AGAIN = "give a whole IDX file of unsigned bytes"

HashedArray = tuple[NDArray[np.uint8], str]


def read_idx(path: Path, *, max_bytes: float = math.inf, sha256: str = "") -> HashedArray:
    """Reads an IDX file of bytes.

    Args:
      path: the file, gzipped or not (told by its first bytes, not by its name).
      max_bytes: the most bytes of data that the header may ask for.
      sha256: what the digest must be; "" allows any.

    Returns:
      A read-only uint8 array of the shape that the header gives, of 1 to 4 dimensions, and the
      SHA-256 of the decompressed file as 64 hexadecimal characters.

    Raises:
      DataError: the file cannot be read, is not an IDX file of bytes, is empty, too large,
        truncated, over-long, a corrupt gzip file or of another digest. Memory grows with the data
        that is really there, never with what the header asks for.
    """
    try:
        if path.is_fifo():
            raise OSError(errno.EINVAL, "it is a pipe")  # which might be waited for for ever
        with path.open("rb") as raw:
            zipped = raw.peek(2).startswith(b"\x1f\x8b")
            array, digest = _parse(gzip.GzipFile(fileobj=raw) if zipped else raw, max_bytes)
        if sha256 not in ("", digest):
            raise ValueError(f"SHA-256 of the decompressed file is {digest}, expected {sha256}")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: corrupt gzip file: {error}; {_AGAIN}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}; {_AGAIN}") from error
    return array, digest


def _parse(file: io.BufferedIOBase, max_bytes: float) -> HashedArray:
    """Array and digest of an open file; a ValueError says what is wrong with it."""
    magic = _take(file, 4, "the magic number")
    if not b"\0\0\x08\1" <= magic <= b"\0\0\x08\4":
        raise ValueError(f"wrong magic number: found 0x{magic.hex()}, expected 0x00000801 to 04")
    sizes = _take(file, 4 * magic[3], "the sizes")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    count = math.prod(shape)
    if not 1 <= count <= max_bytes:
        raise ValueError(f"the sizes {shape} ask for {count} bytes, expected 1 to {max_bytes}")
    data = _take(file, count, f"data of the sizes {shape}")
    # Reading past the data is also what makes gzip check its trailer.
    if file.read(1):
        raise ValueError(f"over-long: found more than {count} bytes for sizes {shape}")
    digest = hashlib.sha256(magic + sizes + data).hexdigest()
    return np.frombuffer(data, np.uint8).reshape(shape), digest


def _take(file: io.BufferedIOBase, count: int, what: str) -> bytes:
    """The next `count` bytes, read in pieces: memory is taken for those that are there."""
    data = bytearray()
    while piece := file.read(min(count - len(data), _CHUNK_BYTES)):
        data += piece
    if len(data) < count:
        raise ValueError(f"truncated: found {len(data)} of {count} bytes of {what}")
    return bytes(data)
