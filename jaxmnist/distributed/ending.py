"""How a process of a job ends when the job cannot go on: with a sentence, and without waiting."""

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

_REASON = "jaxmnist/reason"
_LISTEN_EVERY_S = 1.0
_AGAIN = "start all processes again: the run goes on from its last checkpoint"
# What JAX says where a connection to another process broke.
_BROKEN: Final = ("Gloo", "NCCL", "onnection closed", "onnection reset", "coordination service")


# Several threads may find at once that the process must end: the first one says why.
_last_word = threading.RLock()


def take_last_word() -> None:
    """From here on only this thread may end the process, which it must; others that would, wait."""
    _last_word.acquire()


def end(text: str, code: int = 1) -> NoReturn:
    """Prints a sentence and ends the process; an ordinary exit would wait for the others."""
    take_last_word()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        os.write(2, f"jaxmnist: {text}\n".encode())
    os._exit(code)


@contextlib.contextmanager
def time_limit(seconds: float, describe: Callable[[], str]) -> Iterator[None]:
    """Ends the process with what `describe` says when the block takes longer."""
    timer = threading.Timer(seconds, lambda: end(describe()))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Ending:
    """Gives a process of a job a sentence for each of the ways in which others can end it.

    JAX aborts a process when the job has lost one, from a thread of its own and without a Python
    exception; that abort is caught here, after JAX has printed what it knows.

    Attributes:
      text: what to say after an abort.
    """

    def __init__(self, text: str):
        """Catches aborts from here on, until the interpreter exits."""
        self.text = text
        library = ctypes.CDLL(None)
        handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: end(self.text))
        library.signal.restype = ctypes.c_void_p
        library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        library.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
        # It must live as long as C may call it, and not be called when Python is gone.
        atexit.register(lambda: (library.signal(signal.SIGABRT, 0), handler))

    def joined(self) -> None:
        """From here on another process may tell why it ends."""
        from jax._src import distributed

        self.text = f"the job has lost a process: the lines above say which, and why; {_AGAIN}"
        exiting, client = threading.Event(), distributed.global_state.client
        listener = threading.Thread(target=_listen, args=(client, exiting), name="reason")
        listener.daemon = True
        listener.start()
        # A thread that is in JAX while the interpreter ends would abort the process. The last one
        # that is registered comes first.
        atexit.register(listener.join)
        atexit.register(exiting.set)


def _listen(client: Any, exiting: threading.Event) -> None:
    while not exiting.wait(_LISTEN_EVERY_S):
        with contextlib.suppress(Exception):  # there is no reason yet, or process 0 is gone
            code, _, text = client.key_value_try_get(_REASON).partition(" ")
            end(text, int(code))


def abandon(reason: str, code: int) -> None:
    """Tells the other processes of a job why this one ends, and ends it; alone it does nothing.

    Args:
      reason: in words; it was printed here.
      code: to exit with.
    """
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return
    from jax._src import distributed

    state = distributed.global_state
    who = f"process {state.process_id} on {socket.gethostname()} has ended"
    with contextlib.suppress(Exception):  # another one was faster, or process 0 is gone
        client: Any = state.client
        client.key_value_set(_REASON, f"{code} {who}: {reason}")
    take_last_word()
    sys.stdout.flush()
    sys.stderr.flush()
    # Process 0 keeps the store: the others must have read it before.
    time.sleep(2 * _LISTEN_EVERY_S if state.process_id == 0 else 0.0)
    os._exit(code)


def lost_connection(error: BaseException) -> str:
    """What to say of an error that a broken connection to another process caused; "" of others."""
    text = " ".join(str(error).split())
    if not any(sign in text for sign in _BROKEN):
        return ""
    return f"the connection to another process broke ({text[:200]}): it has ended; {_AGAIN}"
