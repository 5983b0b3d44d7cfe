"""What processes must have in common is compared when they start; nothing here needs a device."""

import json
import platform
import socket
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final

from ml_collections import ConfigDict

from jaxmnist.config import to_dict
from jaxmnist.config.values import flatten
from jaxmnist.errors import JobError

#: Seconds that processes wait for each other where they compare; one may still download its data.
AGREEMENT_TIMEOUT_S: Final = 300
_VERSIONS: Final = ("jaxmnist", "jax", "jaxlib")
# A host may keep its copy of the data where it likes: their digests are compared.
_MAY_DIFFER: Final = {"dataset.dir"}


class Agreement:
    """Compares facts over the processes of a job, in the store that JAX's coordinator keeps.

    Every process calls the same methods in the same order; what one of them finds wrong, all raise.

    Attributes:
      process_id: number of this process.
      num_processes: of the job.
      client: of the store.
      timeout_ms: how long this process waits for the others, in milliseconds.
    """

    def __init__(self, *, timeout_s: float = AGREEMENT_TIMEOUT_S):
        """Finds the job that this process has joined; waits at most `timeout_s` for the others."""
        # JAX keeps to itself what its own libraries use: the store, and numbers without a backend.
        from jax._src import distributed

        state = distributed.global_state
        self.client: Any = state.client
        self.process_id, self.num_processes = state.process_id, state.num_processes
        self.timeout_ms = int(timeout_s * 1000)

    def compare(self, topic: str, facts: Mapping[str, str], *, repair: str) -> None:
        """Compares this process's facts with those of process 0.

        Raises:
          JobError: they differ; the text names process, key and both values.
        """
        theirs = json.loads(self.from_first(topic, json.dumps(dict(facts))))
        keys = [key for key in {**theirs, **facts} if theirs.get(key) != facts.get(key)]
        both = (f"{k} is {facts.get(k)} there and {theirs.get(k)} on process 0" for k in keys[:5])
        fault = f"process {self.process_id} on {socket.gethostname()} differs: {', '.join(both)}"
        self.settle(topic, f"{fault}; {repair}" if keys else "")

    def from_first(self, topic: str, text: str) -> str:
        """Returns the text of process 0, whatever the others pass."""
        key = self.key(f"{topic}/first")
        if self.process_id == 0:
            self.client.key_value_set(key, text)
            return text
        try:
            return str(self.client.blocking_key_value_get(key, self.timeout_ms))
        except Exception as error:
            raise self.late(topic, error) from error

    def settle(self, topic: str, fault: str) -> None:
        """Waits for all processes, and raises on each what any of them found wrong; "" is nothing.

        Raises:
          JobError: something is wrong somewhere, or a process did not come in time.
        """
        key = self.key(f"{topic}/faults")
        if fault:
            self.client.key_value_set(f"{key}/{self.process_id}", fault)
        try:
            self.client.wait_at_barrier(f"{key}/barrier", self.timeout_ms)
        except Exception as error:
            raise self.late(topic, error) from error
        if faults := [text for _, text in self.client.key_value_dir_get(key)]:
            more = f" (and {len(faults) - 3} more like it)" if len(faults) > 3 else ""
            raise JobError("\n".join(faults[:3]) + more)

    def key(self, topic: str) -> str:
        """A key of its own for each time; the store counts, so that runs may follow each other."""
        turn = self.client.key_value_increment(f"jaxmnist/{topic}/turn/{self.process_id}", 1)
        return f"jaxmnist/{topic}/{turn}"

    def late(self, topic: str, error: Exception) -> JobError:
        """What to raise where the wait for the others has ended in an error."""
        limit = f"within {self.timeout_ms / 1000:g} s"
        detail = " ".join(str(error).split())[:300]
        repair = "look at the logs of the others, then start all processes again"
        return JobError(f"not every process came to compare {topic} {limit}; {repair} ({detail})")


def program_facts(config: ConfigDict) -> dict[str, str]:
    """Versions and configuration: what must be the same before anything else is done."""
    values = flatten(to_dict(config))
    facts = {f"the version of {name}": metadata.version(name) for name in _VERSIONS}
    facts["the version of Python"] = platform.python_version()
    return facts | {key: repr(v) for key, v in values.items() if key not in _MAY_DIFFER}


def data_facts(digest: str) -> dict[str, str]:
    """The digest of each file of a data set, from "name=SHA-256" joined by commas."""
    parts = (part.partition("=") for part in digest.split(",") if part)
    return {f"the SHA-256 of {name}": value for name, _, value in parts}
