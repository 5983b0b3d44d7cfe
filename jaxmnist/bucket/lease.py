"""Keeps a second run out of a directory of a bucket, by an object that its holder renews."""

import datetime
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from jaxmnist.bucket.store import Conflict, Store
from jaxmnist.distributed.lock import LOCK
from jaxmnist.errors import WorkdirError

#: Seconds without a renewal after which the holder is taken for dead.
LEASE_S: Final = 20.0
_REPAIR: Final = "wait for that run, stop it, or choose another --workdir"


class LeaseLost(WorkdirError):
    """Another run has taken the lease, or somebody has deleted it."""


class Lease:
    """The right to write below an address, for one run at a time.

    Each write names the generation that it replaces, so that of two runs one fails. No clocks are
    compared: who finds the object held watches it for `LEASE_S` and takes it over where nothing
    has changed. The object stays behind when a run ends, and tells who was the last to write.

    Attributes:
      token: differs each time that it is taken; the object holds it.
    """

    def __init__(self, store: Store, *, before: str = ""):
        """Takes nothing yet; `before` is the token with which this mirror was last written."""
        self._store, self._before, self.token = store, before, uuid.uuid4().hex
        self._generation, self._lock = 0, threading.Lock()
        self._lost, self._written = "", 0.0
        self._since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")

    def take(self, *, say: Callable[[str], object]) -> bool:
        """Takes it, from nobody or from a run that is dead; tells `say` before it has to wait.

        Returns:
          Whether this mirror was the last one to be written to the bucket.

        Raises:
          WorkdirError: another run holds it.
          StoreError: the store cannot be used.
        """
        found, self._generation = self._read()
        ours = bool(found) and found.get("token") == self._before
        # Of a run of this machine the lock of the mirror has told that it is dead.
        if found.get("held") and not (ours and found.get("host") == socket.gethostname()):
            say(f"{_in_use(self._store, found)}: waiting {LEASE_S:g} s for a sign of life")
            self._await_death()
        try:
            self._write(held=True)
        except Conflict as error:
            found, _ = self._read()
            raise WorkdirError(f"{_in_use(self._store, found)}: {_REPAIR}") from error
        return ours

    def renew(self) -> None:
        """Shows that the run lives; any thread may.

        Raises:
          LeaseLost: another run has taken it, or it was deleted.
          StoreError: the store cannot be used.
        """
        try:
            with self._lock:
                if self._lost:
                    raise LeaseLost(self._lost)
                self._write(held=True)
        except Conflict as error:
            found, _ = self._read()
            fault = f"{_in_use(self._store, found)}, which has taken it over from this run"
            if not found:
                fault = f"work directory {self._store.address} was deleted while this run went on"
            repair = "run the same command again once nobody uses it"
            self._lost = f"{fault}; {repair}"
            raise LeaseLost(self._lost) from error

    def confirm(self) -> None:
        """Makes sure that the lease is held now, as `renew`; costs nothing where it just was.

        Raises:
          LeaseLost: another run has taken it, or it was deleted.
          StoreError: the store cannot be used.
        """
        if self._lost or time.monotonic() - self._written > LEASE_S / 2:
            self.renew()

    def release(self) -> None:
        """Lets the next run have it at once.

        Raises:
          StoreError: the store cannot be used.
        """
        with self._lock:
            self._write(held=False)

    def holds(self, token: str) -> bool:
        """Whether the object has this token: the store is the one that process 0 uses."""
        return self._read()[0].get("token") == token

    def _await_death(self) -> None:
        until = time.monotonic() + LEASE_S
        while time.monotonic() < until:
            time.sleep(min(1.0, LEASE_S / 5))
            found, generation = self._read()
            if not found.get("held"):
                self._generation = generation
                return
            if generation != self._generation:
                raise WorkdirError(f"{_in_use(self._store, found)}: {_REPAIR}")

    def _write(self, *, held: bool) -> None:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": self._since}
        holder |= {"token": self.token, "held": held}
        content = json.dumps(holder).encode()
        try:
            self._generation = self._store.write(LOCK, content, generation=self._generation)
        except Conflict:
            found, generation = self._read()
            if found.get("token") != self.token:
                raise
            # It is our own: it was written, and then the answer was lost.
            self._generation = self._store.write(LOCK, content, generation=generation)
        self._written = time.monotonic()

    def _read(self) -> tuple[dict[str, Any], int]:
        """What the object holds and its generation; nothing, and 0, where there is none."""
        if (found := self._store.read(LOCK)) is None:
            return {}, 0
        try:
            return {**json.loads(found[0])}, found[1]
        except (ValueError, TypeError):
            return {}, found[1]


def _in_use(store: Store, found: dict[str, Any]) -> str:
    who = f"process {found.get('pid', '?')} on {found.get('host', '?')}"
    return f"work directory {store.address} is in use by {who} since {found.get('since', '?')}"
