"""Copies a work directory to and from a bucket so that what is half copied never counts."""

import base64
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jaxmnist.bucket.store import Object, Store
from jaxmnist.checkpoint import MANIFEST, steps_in

_CHECKPOINTS = "checkpoints"


class Sync:
    """A work directory here, and what is known of its objects.

    A checkpoint is what its manifest says: the manifest is uploaded last and deleted first, and one
    that has none in the bucket is not fetched.
    """

    def __init__(self, store: Store, path: Path, confirm: Callable[[], None] = lambda: None):
        """Asks for nothing yet.

        Args:
          store: the objects.
          path: of the directory here.
          confirm: called before each write to the store, which it stops by raising.
        """
        self._store, self._path, self._confirm = store, path, confirm
        self._known: dict[str, Object] = {}
        self._digests: dict[str, tuple[tuple[int, int], str]] = {}

    @property
    def steps(self) -> set[int]:
        """Steps of the checkpoints that are whole in the bucket, as far as is known."""
        return {int(_step(n)) for n in self._known if _step(n) and n.endswith(f"/{MANIFEST}")}

    def know(self, listing: Mapping[str, Object]) -> None:
        """Takes note of what is in the bucket."""
        self._known = dict(listing)

    def pull(
        self,
        listing: Mapping[str, Object],
        *,
        skip: tuple[str, ...] = (),
        replace: bool = True,
    ) -> None:
        """Fetches what is not here, or is of other content.

        Args:
          listing: the objects.
          skip: beginnings of names that are not wanted.
          replace: also what is here; otherwise it is newer than the object.

        Raises:
          StoreError: the store cannot be used.
          OSError: the files cannot be written here.
        """
        self.know(listing)
        is_here = self._is_here if replace else lambda name: (self._path / name).exists()
        wanted = [n for n in listing if _is_ours(n) and not n.startswith(skip)]
        for name in wanted:
            if not _step(name) and not is_here(name):
                with contextlib.suppress(FileNotFoundError):  # its run has just deleted it
                    path = self._path / name
                    fetched = path.with_name(f".{path.name}.fetched")
                    self._store.fetch(name, fetched)
                    fetched.replace(path)
        for step in self.steps:
            place = self._path / _CHECKPOINTS / str(step)
            names = [n for n in wanted if _step(n) == str(step)]
            if names and not all(map(is_here, names)):
                with contextlib.suppress(FileNotFoundError):
                    self._fetch_checkpoint(place, names)

    def push(self) -> None:
        """Uploads what has changed, checkpoints last, and deletes those that are gone here.

        Raises:
          StoreError: the store cannot be used; the next call goes on where this one stopped.
        """
        # Looked for first: the metrics up to a checkpoint must be there before it counts.
        steps = {str(step) for step in steps_in(self._path / _CHECKPOINTS)}
        self.push_files()
        for step in sorted(steps, key=int):
            with contextlib.suppress(FileNotFoundError):  # a newer one has just taken its place
                self._push_checkpoint(step)
        for step in {_step(name) for name in self._known} - steps - {""}:
            self._drop(step, lambda name: True)

    def push_files(self) -> None:
        """Uploads what has changed, other than checkpoints; deletes nothing.

        Raises:
          StoreError: the store cannot be used.
        """
        # Without its configuration it would not be taken for a run.
        for name in sorted(_files(self._path), key=lambda name: name != "config.json"):
            if not _step(name):
                with contextlib.suppress(FileNotFoundError):  # something temporary
                    self._put(name)

    def _push_checkpoint(self, step: str) -> None:
        manifest = f"{_CHECKPOINTS}/{step}/{MANIFEST}"
        if self._is_same(manifest):
            return
        names = {*_files(self._path, below=f"{_CHECKPOINTS}/{step}")} - {manifest}
        listed = json.loads((self._path / manifest).read_bytes())["files"]
        if not {f"{_CHECKPOINTS}/{step}/{name}" for name in listed} <= names:
            return  # Orbax is just deleting it
        self._drop(step, lambda name: name not in names)
        for name in names:
            self._put(name)
        self._put(manifest)

    def _drop(self, step: str, unwanted: Callable[[str], bool]) -> None:
        """Deletes objects of a checkpoint, its manifest before all others."""
        names = [name for name in self._known if _step(name) == step and unwanted(name)]
        for name in sorted(names, key=lambda name: not name.endswith(f"/{MANIFEST}")):
            self._confirm()
            self._store.delete(name)
            del self._known[name]

    def _put(self, name: str) -> None:
        if self._is_same(name):
            return
        path = self._path / name
        # What grows is read whole first; a checkpoint does not change, and may be large.
        content = path if _step(name) else path.read_bytes()
        if isinstance(content, Path):
            uploaded = Object(self._md5(name), path.stat().st_size)
        else:
            uploaded = Object(_md5(content), len(content))
        self._confirm()
        self._store.put(name, content)
        # By now Orbax may have deleted the file; the object must be known, or it would stay.
        self._known[name] = uploaded

    def _is_here(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return self._is_same(name)
        return False

    def _is_same(self, name: str) -> bool:
        there = self._known.get(name)
        return there is not None and there.md5 == self._md5(name)

    def _md5(self, name: str) -> str:
        """Of a file here; it is read again only where size or time of it have changed."""
        found = (self._path / name).stat()
        mark = (found.st_size, found.st_mtime_ns)
        if (before := self._digests.get(name)) is None or before[0] != mark:
            before = self._digests[name] = (mark, _md5((self._path / name).read_bytes()))
        return before[1]

    def _fetch_checkpoint(self, place: Path, names: list[str]) -> None:
        fresh = place.with_name(f".fetched-{place.name}")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            for name in names:
                relative = Path(name).relative_to(_CHECKPOINTS, place.name)
                self._store.fetch(name, fresh / relative)
            shutil.rmtree(place, ignore_errors=True)
            fresh.rename(place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _files(path: Path, *, below: str = "") -> Iterator[str]:
    """Names of the files below a directory that belong to the run; others may come and go."""
    for folder, inner, names in os.walk(path / below):
        inner[:] = sorted(filter(_is_ours, inner))
        for file in (Path(folder) / name for name in sorted(filter(_is_ours, names))):
            if file.is_file():
                yield file.relative_to(path).as_posix()


def _is_ours(name: str) -> bool:
    """Whether it is neither a lock, nor only just written, nor a name that leads elsewhere."""
    parts = name.split("/")
    return not any(not p or p[0] == "." or ".orbax-checkpoint-tmp" in p for p in parts)


def _step(name: str) -> str:
    """The step of the checkpoint that a file is part of; "" for other files."""
    first, _, rest = name.partition("/")
    step = rest.partition("/")[0] if first == _CHECKPOINTS else ""
    return step if step.isdigit() else ""


def _md5(content: bytes) -> str:
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()
