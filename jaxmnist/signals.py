"""SIGTERM and Ctrl-C: the first is a request to stop, a second ends the process at once."""

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """Whether the run was asked to stop.

    Attributes:
      signal_number: the first signal that came, or None.
    """

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def stop_requests(ask: Callable[[], object] | None = None) -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM within the block into a request, kept in what it yields.

    Python runs signal handlers between two instructions of the main thread, which may be inside a
    compilation for seconds; so a thread of its own listens for the second one and ends the
    process. Outside of the main thread signals are left alone.

    Args:
      ask: called when the first signal has come, in that thread.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def note(number: int, frame: FrameType | None) -> None:
        if request.signal_number is None:
            request.signal_number = number

    def listen() -> None:
        heard = 0
        while number := reader.recv(1):
            if number[0] not in _SIGNALS:
                continue
            heard += 1
            if heard == 1 and ask is not None:
                ask()
            if heard == 2:
                os._exit(128 + number[0])

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    native = {number: _native_handler(number) for number in _SIGNALS}
    before = {number: signal.signal(number, note) for number in _SIGNALS}
    old_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield request
    finally:
        signal.set_wakeup_fd(old_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
            if native[number]:
                _c_signal()(number, native[number])
        writer.close()
        listener.join()
        reader.close()


def _native_handler(number: int) -> int | None:
    """The address of a handler in C that Python does not know of, and could not put back.

    JAX's preemption service has one, where a program has joined a job by itself.
    """
    if signal.getsignal(number) is not signal.SIG_DFL:
        return None
    handler: int | None = _c_signal()(number, None)
    return handler


def _c_signal() -> Any:
    function = ctypes.CDLL(None).signal
    function.restype, function.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    return function
