"""Processes of a job that are asked to stop agree on the moment at which all of them do."""

import contextlib
import threading
import time
from typing import Final, Self

from jaxmnist.distributed.agreement import Agreement
from jaxmnist.distributed.ending import end

#: Seconds after which the other processes have found the notice of one that is asked to stop.
LOOK_EVERY_S: Final = 1.0
_JAX_FIRST_S = 3.0


class JointStop:
    """Lets the processes of a job stop at the same moment, whichever of them is asked to.

    Each process counts its moments, which are the same places in the same program. One that is
    asked leaves a notice in the store that JAX's coordinator keeps. A process that finds it halts
    at its next moment and says how far it has counted; all stop at the moment after the furthest
    count, which nobody has passed and everybody reaches.

    JAX's preemption service follows the same protocol, but a process that halts in it keeps
    Python's global lock. If another process dies meanwhile, JAX aborts this one, and the handler
    of the abort, a Python function, would wait for that lock for ever. All waits here are without.

    It is a context manager: notices are looked for within it.
    """

    def __init__(self, agreement: Agreement):
        """Every process of the job makes one, in the same order of its agreements."""
        self._agreement, self._key = agreement, agreement.key("stop")
        self._moments, self._stop_at = 0, 0
        self._published, self._asked, self._left = False, False, False
        self._moment, self._wake = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._listen, name="joint stop", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        self._wake.set()
        self._thread.join()
        # Others that have just been asked wait for this count.
        with contextlib.suppress(Exception):  # process 0 is gone
            self._publish()

    def ask(self) -> None:
        """Asks all processes to stop; returns at once, from any thread."""
        self._asked = True
        self._wake.set()

    def reached(self) -> bool:
        """Counts a moment; says whether it is the one to stop at. Halts while that is agreed."""
        with self._moment:
            self._moments += 1
            return self._moments == self._stop_at

    def _listen(self) -> None:
        try:
            while not self._noticed():
                if self._left:
                    return
                self._wake.wait(LOOK_EVERY_S)
            # Where it fails, it is not given back: others may stop at a moment that lies before.
            self._moment.acquire()
            self._agree()
            self._moment.release()
        except Exception as error:
            # Where a process is lost, JAX ends this one and says which it is.
            time.sleep(_JAX_FIRST_S)
            end(str(self._agreement.late("the step to stop at", error)))

    def _agree(self) -> None:
        self._publish()
        client, timeout_ms = self._agreement.client, self._agreement.timeout_ms
        keys = (f"{self._key}/moments/{i}" for i in range(self._agreement.num_processes))
        self._stop_at = 1 + max(int(client.blocking_key_value_get(k, timeout_ms)) for k in keys)

    def _noticed(self) -> bool:
        client, key = self._agreement.client, f"{self._key}/notice"
        if self._asked:
            client.key_value_set(key, "", allow_overwrite=True)
            return True
        with contextlib.suppress(Exception):  # there is none
            client.key_value_try_get(key)
            return True
        return False

    def _publish(self) -> None:
        if not self._published:
            key = f"{self._key}/moments/{self._agreement.process_id}"
            self._agreement.client.key_value_set(key, str(self._moments))
            self._published = True
