"""The address of a work directory in an object store, and what cannot be one."""

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from jaxmnist.errors import UsageError

_BUCKET = r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"


@dataclass(frozen=True)
class Address:
    """A directory of a bucket of Google Cloud Storage.

    Attributes:
      bucket: its name.
      path: of the directory in it, without slashes around it; empty for the bucket itself.
    """

    bucket: str
    path: str

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.path}".rstrip("/")

    def mirror(self, process: int) -> Path:
        """Where a process of this machine keeps its mirror: a directory of the user's cache."""
        root = Path(platformdirs.user_cache_dir("jaxmnist")) / "buckets"
        digest = hashlib.sha256(str(self).encode()).hexdigest()[:16]
        return root / digest / str(process) / self.name

    @property
    def name(self) -> str:
        """The last part, which is what people call the run."""
        return self.path.rpartition("/")[2] or self.bucket


def parse(workdir: object) -> Address | None:
    """The address in a bucket that a work directory is; None for a path of this machine.

    Raises:
      UsageError: it is a URL of something else, or no address that objects can have.
    """
    text = str(workdir)
    scheme, found, rest = text.partition("://")
    if not found:
        return None
    if scheme != "gs":
        rule = "the one object store is Google Cloud Storage, as gs://BUCKET/PATH"
        repair = "give such an address or a directory; other stores can be mounted as one"
        raise UsageError(f"--workdir={text} is not a place that jaxmnist can use: {rule}; {repair}")
    bucket, _, path = rest.partition("/")
    path = path.removesuffix("/")
    parts = path.split("/") if path else []
    if not re.fullmatch(_BUCKET, bucket):
        rule = "give gs://BUCKET/PATH with 3 to 222 small letters, digits and - _ . for BUCKET"
        raise UsageError(f"--workdir={text} names no bucket: {rule}")
    if len(path) > 500 or any(not re.fullmatch(r"[^\x00-\x1f\x7f#?*\[\]]+", p) for p in parts):
        rule = "its parts must not be empty, nor hold # ? * [ ] or control characters"
        raise UsageError(f"--workdir={text} is no good path in a bucket: {rule}; choose another")
    if {".", ".."} & {*parts}:
        raise UsageError(f"--workdir={text} has . or .. in its path: write it out")
    return Address(bucket, path)


def check(workdir: object, *, here: bool = True) -> str:
    """Returns a work directory as it is written on a command line, without touching it.

    Args:
      workdir: a path, or the address of a bucket.
      here: whether this machine's Python will use it.

    Raises:
      UsageError: it can be neither, or the library for buckets is missing here.
    """
    if (address := parse(workdir)) is None:
        return str(Path(str(workdir)))
    if here:
        check_library(address)
    return str(address)


def has_library() -> bool:
    """Whether the library that speaks to the store is installed; it is not imported."""
    try:
        return importlib.util.find_spec("google.cloud.storage") is not None
    except ModuleNotFoundError:
        return False


def check_library(address: Address) -> None:
    """Raises where the library that speaks to the store is not installed.

    Raises:
      UsageError: it is not.
    """
    if not has_library():
        raise UsageError(f"--workdir={address} needs a library: pip install 'jaxmnist[gcs]'")
