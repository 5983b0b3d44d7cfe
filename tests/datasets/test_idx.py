"""An IDX file is read exactly or refused with a sentence; a lying header costs no memory."""

import gzip
import hashlib
import re
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmnist.errors import DataError
from jaxmnist.zoo.idx.reader import read_idx

IMAGES = np.arange(11 * 5 * 7, dtype=np.uint8).reshape(11, 5, 7)


@pytest.fixture
def write(tmp_path):
    def _write(content, name="images"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return _write


def refused(path, text, **kwargs):
    """Expects a refusal in one line that names the file, matches `text` and tells the repair."""
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {text}.*; .+") as caught:
        read_idx(path, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1,), (97,), (1, 1), (11, 5, 7), (3, 4, 5, 3)])
@pytest.mark.parametrize("gzipped", [False, True])
def test_reads_what_was_written(write, encode, shape, gzipped):
    array = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    data = encode(array)
    read, digest = read_idx(write(gzip.compress(data) if gzipped else data))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)
    assert digest == hashlib.sha256(data).hexdigest()


def test_gzip_is_told_by_content_not_by_name(write, encode):
    for content, name in (encode(IMAGES), "plain.gz"), (gzip.compress(encode(IMAGES)), "zip"):
        np.testing.assert_array_equal(read_idx(write(content, name))[0], IMAGES)


def test_a_gzip_file_of_several_members_is_one_file(write, encode):
    data = encode(IMAGES)
    path = write(gzip.compress(data[:101]) + gzip.compress(data[101:]))
    np.testing.assert_array_equal(read_idx(path)[0], IMAGES)


def test_more_than_one_chunk(write, encode):
    array = np.random.default_rng(2).integers(0, 256, (2**18 * 2 + 1,), np.uint8)
    np.testing.assert_array_equal(read_idx(write(gzip.compress(encode(array), 1)))[0], array)


def test_the_array_is_read_only(write, encode):
    with pytest.raises(ValueError, match=r"read-only"):
        read_idx(write(encode(IMAGES)))[0][0] = 1


def test_refuses_a_wrong_magic_number(write):
    png = write(b"\x89PNG\r\n\x1a\n")
    refused(png, "wrong magic number: found 0x89504e47, expected 0x00000801 to 04")
    refused(write(b"\1\0\x08\1\0\0\0\1\0"), "wrong magic number: found 0x01000801")
    refused(write(b"\0\0\x08\0" + bytes(9)), "wrong magic number: found 0x00000800")
    refused(write(b"\0\0\x08\xff" + bytes(2000)), "wrong magic number: found 0x000008ff")
    refused(write(b"\0\0\x08\5" + bytes(2000)), "wrong magic number: found 0x00000805")


def test_refuses_a_wrong_type_code(write, encode):
    refused(write(encode(IMAGES, code=0x0D)), "wrong magic number: found 0x00000d03, expected 0x0")


def test_refuses_a_size_of_zero(write, encode):
    refused(write(encode(IMAGES[:0])), r"the sizes \(0, 5, 7\) ask for 0 bytes, expected 1 to inf")


def test_refuses_another_digest_than_the_one_asked_for(write, encode):
    digest = hashlib.sha256(encode(IMAGES)).hexdigest()
    assert read_idx(write(encode(IMAGES)), sha256=digest)[1] == digest
    text = f"SHA-256 of the decompressed file is (?!{digest}).*, expected {digest}"
    refused(write(encode(IMAGES ^ 1)), text, sha256=digest)


def test_refuses_a_file_with_no_room_for_its_header(write, encode):
    refused(write(b""), "truncated: found 0 of 4 bytes of the magic number")
    refused(write(encode(IMAGES)[:15]), "truncated: found 11 of 12 bytes of the sizes")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_refuses_one_byte_too_few_and_one_too_many(write, encode, pack):
    refused(
        write(pack(encode(IMAGES)[:-1])),
        r"truncated: found 384 of 385 bytes of data of the sizes \(11, 5, 7\)",
    )
    refused(
        write(pack(encode(IMAGES) + b"\0")),
        r"over-long: found more than 385 bytes for .* \(11, 5, 7\)",
    )


def test_refuses_every_kind_of_corrupt_gzip(write, encode):
    good = gzip.compress(encode(IMAGES))
    bad_crc = good[:-8] + bytes([good[-8] ^ 1]) + good[-7:]
    bad_length = good[:-1] + b"\x7f"
    refused(write(bad_crc), "corrupt gzip file: CRC check failed")
    refused(write(bad_length), "corrupt gzip file: Incorrect length")
    refused(write(good[:-9]), "corrupt gzip file: Compressed file ended")
    refused(write(good[:-1]), "corrupt gzip file: Compressed file ended")
    refused(write(good[:5]), "corrupt gzip file")
    refused(write(good + b"garbage"), "corrupt gzip file: Not a gzipped file")
    refused(write(good[:10] + b"\xff" * 50), "corrupt gzip file: Error -3")


def test_refuses_what_cannot_be_opened(tmp_path):
    refused(tmp_path / "nothing", "cannot be read: No such file")
    refused(tmp_path, "cannot be read: Is a directory")


def test_refuses_more_than_the_limit_before_reading_on(write, encode):
    path = write(encode(IMAGES))
    assert read_idx(path, max_bytes=385)[0].shape == (11, 5, 7)
    refused(path, "the sizes .* ask for 385 bytes, expected 1 to 384", max_bytes=384)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_a_hostile_header_costs_no_memory(write, encode, pack):
    """2^31 images of 2^31×2^31 pixels in a file of 100 bytes."""
    path = write(pack(encode(np.zeros(84, np.uint8), shape=(2**31,) * 3)))
    tracemalloc.start()
    refused(path, f"truncated: found 84 of {2**93} bytes of data")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**21


def test_a_gzip_bomb_is_not_unpacked(write, encode):
    """The header asks for 385 bytes; behind it lie 64 MiB in 64 KiB of gzip."""
    path = write(gzip.compress(encode(IMAGES) + bytes(2**26)))
    assert path.stat().st_size < 2**17
    tracemalloc.start()
    refused(path, "over-long")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**21


@settings(max_examples=150, deadline=None, database=None)
@given(
    noise=st.binary(max_size=64),
    prefix=st.sampled_from(
        [b"", b"\x1f\x8b", b"\x1f\x8b\x08\x00", b"\0\0\x08\x01", struct.pack(">4B", 0, 0, 8, 3)]
    ),
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, noise, prefix):
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(prefix + noise)
    try:
        array, _ = read_idx(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert array.size + 4 + 4 * array.ndim == len(prefix + noise)
