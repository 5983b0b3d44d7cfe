"""The directory that a run in a bucket writes to: filled at the start, uploaded as it goes."""

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from jaxmnist.bucket.address import Address
from jaxmnist.bucket.lease import Lease, LeaseLost
from jaxmnist.bucket.store import Object, Store, StoreError
from jaxmnist.bucket.sync import Sync
from jaxmnist.checkpoint import steps_in
from jaxmnist.distributed.agreement import Agreement
from jaxmnist.distributed.lock import LOCK, locked
from jaxmnist.errors import Interrupted, JaxmnistError, WorkdirError
from jaxmnist.writers import write_atomically

#: Seconds between uploads, and between renewals of the lease. A checkpoint is uploaded as soon as
#: it is whole.
UPLOAD_EVERY_S: Final = 5.0
#: Seconds that the last upload of a run may take while the store cannot be reached.
LAST_UPLOAD_WITHIN_S: Final = 30.0
#: The same for a run that ends with an error, for which others may wait.
LAST_AFTER_ERROR_S: Final = 5.0
_POLL_S: Final = 0.25
# Hidden, and named so that a work directory may hold it.
_TOKEN: Final = ".config.json.mirror"
# What is not read again.
_WRITTEN_ONLY: Final = ("tensorboard/", "profile/")


class Mirror:
    """What stands between a run and its bucket; each process of a job has one of its own.

    It is a context manager. Process 0 takes the lease and uploads, in a thread of its own; the
    others read. A store that cannot be reached does not stop the run: what was not uploaded stays
    in the mirror, and the next upload, or the same command on the same machine, takes it along.

    Attributes:
      address: of the work directory.
      path: of the mirror.
    """

    def __init__(self, address: Address, agreement: Agreement | None):
        """Looks at nothing yet; `agreement` is that of the processes of a job."""
        self.address, self._agreement = address, agreement
        process = agreement.process_id if agreement else 0
        self.path, self._first = address.mirror(process), process == 0
        self._stack, self._fault, self._lost = ExitStack(), "", ""
        self._round = threading.RLock()
        self._uploads = _Repeated(self._upload_if_due, _POLL_S, name="bucket")
        # A large upload may take longer than a lease lasts.
        self._renewals = _Repeated(self._renew, UPLOAD_EVERY_S, name="lease")
        self._upcoming = 0.0

    def __enter__(self) -> Self:
        """Takes the lease and makes mirror and bucket equal.

        Raises:
          UsageError: the library is not installed.
          WorkdirError: the bucket cannot be used, is in use, or holds something else.
          JobError: one of the other processes cannot use it.
        """
        with ExitStack() as stack:
            if self._agreement is None:
                self._open(stack)
            else:
                fault = _fault_of(lambda: self._open(stack)) if self._first else ""
                self._agreement.settle("the bucket", fault)
                token = self._lease.token if self._first else ""
                token = self._agreement.from_first("the bucket", token)
                fault = "" if self._first else _fault_of(lambda: self._open_as_reader(stack, token))
                self._agreement.settle("the bucket", fault)
            self._stack = stack.pop_all()
        if self._first:
            self._uploads.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Uploads what is left and gives the lease back.

        Raises:
          WorkdirError: something could not be uploaded; it stays in the mirror.
        """
        with self._stack:
            if not self._first:
                return
            self._uploads.stop()
            saved = error is None or isinstance(error, Interrupted)
            if fault := self._finish(LAST_UPLOAD_WITHIN_S if saved else LAST_AFTER_ERROR_S):
                if error is None:
                    raise WorkdirError(fault)
                if fault != str(error):
                    _say(fault)

    def check(self) -> None:
        """Raises where another run has taken the bucket over.

        Raises:
          WorkdirError: it has.
        """
        if self._lost:
            raise WorkdirError(self._lost)

    def share(self) -> None:
        """Lets the other processes have what process 0 has written; all of them call it.

        A store that cannot be reached is no error here: who needs a file will miss it.

        Raises:
          JobError: a process did not come.
        """
        if self._agreement is None:
            return
        if self._first:
            self._upload_within(LAST_UPLOAD_WITHIN_S)
        self._agreement.settle("the bucket", "")
        if not self._first:
            with contextlib.suppress(StoreError):
                self._sync.pull(self._store.listing(), skip=_WRITTEN_ONLY)

    def _open(self, stack: ExitStack) -> None:
        self._store = Store(self.address)
        stack.enter_context(locked(self.path))
        listing = check_is_run(self._store)
        mine = self.path / _TOKEN
        self._lease = Lease(self._store, before=mine.read_text() if mine.exists() else "")
        if not self._lease.take(say=_say):
            # The bucket has gone on without this mirror.
            _empty(self.path, keep={LOCK})
            listing = self._store.listing()
        write_atomically(mine, self._lease.token)
        stack.callback(self._release)
        self._renewals.start()
        stack.callback(self._renewals.stop)
        self._sync = Sync(self._store, self.path, self._lease.confirm)
        self._sync.pull(listing, replace=False)
        self._sync.push()

    def _open_as_reader(self, stack: ExitStack, token: str) -> None:
        self._store = Store(self.address)
        if not Lease(self._store).holds(token):
            fault = f"does not find what process 0 wrote to {self.address}"
            raise WorkdirError(f"{_who(self._agreement)} {fault}: give all the same endpoint")
        self.path.mkdir(parents=True, exist_ok=True)
        _empty(self.path, keep=set())
        stack.callback(shutil.rmtree, self.path, ignore_errors=True)
        self._sync = Sync(self._store, self.path)
        self._sync.pull(self._store.listing(), skip=_WRITTEN_ONLY)

    def _renew(self) -> None:
        try:
            self._lease.renew()
        except LeaseLost as error:
            self._lost = str(error)
        except Exception:  # the next upload tells it
            return

    def _upload_if_due(self) -> None:
        with self._round:
            whole = {*steps_in(self.path / "checkpoints")} <= self._sync.steps
            due = time.monotonic() >= self._upcoming or (not whole and not self._fault)
            if due and not self._lost:
                self._upload()
                self._upcoming = time.monotonic() + UPLOAD_EVERY_S

    def _upload(self) -> bool:
        """Uploads what has changed, unless the lease is lost; whether all went well."""
        with self._round:
            try:
                self._lease.renew()
                self._sync.push()
            except LeaseLost as error:
                self._lost = str(error)
                return False
            except Exception as error:  # whatever a library raises, the run need not end
                fault = str(error) if isinstance(error, StoreError) else repr(error)
                if not self._fault:
                    kept = f"the run goes on, and what it writes is kept in {self.path}"
                    _say(f"{fault} (each {UPLOAD_EVERY_S:g} s it is tried again; {kept})")
                self._fault = fault
                return False
            if self._fault:
                _say(f"work directory {self.address} is reached again, and up to date")
            self._fault = ""
            return True

    def _upload_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self._upload():
            if self._lost or time.monotonic() > until:
                return False
            time.sleep(1.0)
        return True

    def _finish(self, seconds: float) -> str:
        """The last upload; what is wrong, if anything."""
        if self._lost or self._upload_within(seconds):
            return self._lost
        fault = f"{self._fault}; what was not uploaded is kept in {self.path}"
        return f"{fault}, and the same command on this machine uploads it"

    def _release(self) -> None:
        if not self._lost and not self._fault:
            with contextlib.suppress(WorkdirError):
                self._lease.release()


class _Repeated:
    """Calls a function again and again, in a thread of its own."""

    def __init__(self, function: Callable[[], object], every_s: float, *, name: str):
        self._function, self._every_s, self._ended = function, every_s, threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.start = self._thread.start

    def stop(self) -> None:
        """Returns once the call under way has ended."""
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(self._every_s):
            self._function()


def check_is_run(store: Store) -> dict[str, Object]:
    """Returns the objects of a run, or none where there are none.

    Raises:
      WorkdirError: there are other objects than those of a run.
      StoreError: the store cannot be used.
    """
    # Of something else there may be millions.
    if {*store.listing(most=2)} - {LOCK} and store.read("config.json") is None:
        fault = "is not empty and holds no config.json: it is not a run of jaxmnist"
        repair = "choose a new or empty --workdir"
        raise WorkdirError(f"work directory {store.address} {fault}; {repair}")
    return store.listing()


def _fault_of(action: Callable[[], None]) -> str:
    """What a process tells the others of its failure; "" for none."""
    try:
        action()
        return ""
    except (JaxmnistError, OSError) as error:
        return str(error)


def _who(agreement: Agreement | None) -> str:
    return f"process {agreement.process_id}" if agreement else "this process"


def _empty(path: Path, *, keep: set[str]) -> None:
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in keep:
            entry.unlink()


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads the standard error
        sys.stderr.write(f"jaxmnist: {text}\n")
        sys.stderr.flush()
