"""Small IDX files and a mirror on the loopback address for the tests of the data sets."""

import gzip
import hashlib
import http.server
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from jaxmnist.datasets import registry
from jaxmnist.zoo import idx

SHORT_NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def _encode(array: np.ndarray, *, shape: tuple[int, ...] | None = None, code: int = 8) -> bytes:
    sizes = array.shape if shape is None else shape
    return struct.pack(f">HBB{len(sizes)}I", 0, code, len(sizes), *sizes) + array.tobytes()


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """The bytes of an IDX file of an array; `shape` and `code` make the header lie."""
    return _encode


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A made-up set of 97 train and 13 test images of 5×7 pixels in 3 classes."""
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (97, 5, 7), np.uint8),
        "train_labels": (np.arange(97) % 3).astype(np.uint8),
        "test_images": rng.integers(0, 256, (13, 5, 7), np.uint8),
        "test_labels": (np.arange(13) % 2).astype(np.uint8),
    }


@pytest.fixture
def write_set(tmp_path: Path, arrays) -> Callable[..., Path]:
    """Writes the made-up set, with some arrays replaced, into a directory and returns it."""

    def write(*, suffix: str = "", dotted: bool = False, **replaced: np.ndarray) -> Path:
        directory = tmp_path / "my_set"
        directory.mkdir(exist_ok=True)
        for key, array in {**arrays, **replaced}.items():
            name = SHORT_NAMES[key].replace("-idx", ".idx" if dotted else "-idx")
            data = _encode(array)
            content = gzip.compress(data) if suffix == ".gz" else data
            (directory / (name + suffix)).write_bytes(content)
        return directory

    return write


@dataclass
class Mirror:
    """A web server: `answers` by path, 404 for the rest; it can be slow, silent or cut answers."""

    url: str
    delay_s: float = 0.0
    answers: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


class _Handler(http.server.BaseHTTPRequestHandler):
    mirror: Mirror

    def do_GET(self) -> None:
        mirror = self.mirror
        mirror.requests.append(self.path)
        if self.path in mirror.silent:
            mirror.released.wait(10)
            return
        time.sleep(mirror.delay_s)
        body = mirror.answers.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path in mirror.cut else body)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror at 127.0.0.1 that knows no file yet."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Handler", (_Handler,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.mirror = Mirror(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield handler.mirror
        handler.mirror.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty directory in place of the user's cache; it is not made."""
    monkeypatch.setenv("JAXMNIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def known_set(monkeypatch: pytest.MonkeyPatch, arrays) -> Mapping[str, bytes]:
    """Makes the made-up set known as 'tiny', on no mirror; returns its gzipped files by name."""
    files = {SHORT_NAMES[key]: _encode(array) for key, array in arrays.items()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    tiny = {"mirrors": ["http://127.0.0.1:1/"], "sha256": digests}
    monkeypatch.setattr(registry, "KNOWN", registry.KNOWN | {"tiny": registry.KNOWN["mnist"]})
    monkeypatch.setattr(idx, "FILES", {**idx.FILES, "tiny": tiny})
    monkeypatch.setattr(idx, "_MAX_BYTES", arrays["train_images"].size + 64)
    return {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in files.items()}
