"""What the compiled train step says, asked of a process of its own that uses only the CPU.

A process of its own, because libtpu and the CUDA plugin read their environment once, and so that
nothing of them is left in the program that asks.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_collections import ConfigDict

from jaxmnist.config import to_dict
from jaxmnist.errors import UsageError
from jaxmnist.plan.chips import Topology

# libtpu would ask the cloud's metadata server and complain on stderr, and allows one process a
# machine, since it thinks of the chips; here it only compiles.
_ENVIRONMENT: Final = {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


@dataclass(frozen=True)
class Program:
    """What is read from the compiled step; of one chip and one step.

    Attributes:
      compile_seconds: of XLA, on this machine.
      flops: floating-point operations; one of float32 counts once, however many passes it takes.
      bytes_accessed: read and written by the program's operations.
      row_flops: more of a row more, by two programs of the same step compiled for a CPU.
      row_bytes: likewise.
      memory_bytes: arguments, results, temporary arrays and code, shared buffers once.
      state_bytes: of the train state.
      all_reduces: number of all-reduces.
      all_reduce_bytes: reduced by them.
      other_collectives: bytes of other collectives by kind.
      versions: of what compiled.
      notes: how these figures differ from those of a run.
    """

    compile_seconds: float
    flops: float
    bytes_accessed: float
    row_flops: float
    row_bytes: float
    memory_bytes: int
    state_bytes: int
    all_reduces: int
    all_reduce_bytes: int
    other_collectives: dict[str, int]
    versions: dict[str, str]
    notes: Sequence[str] = ()


def compile_step(config: ConfigDict, topology: Topology) -> Program:
    """Compiles the configured train step for the chips of a topology.

    Raises:
      UsageError: the compiler is not installed, or the topology or the configuration is refused.
    """
    gpu = topology.kind == "h100"
    package, extra = ("jax_cuda12_plugin", "cuda") if gpu else ("libtpu", "plan")
    if not importlib.util.find_spec(package):
        repair = f"pip install 'jaxmnist[{extra}]' (no such chip is needed)"
        raise UsageError(f"topology '{topology}' needs the package {package}: {repair}")
    # The user's modules are found where this process finds them.
    environment = os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(sys.path)}
    request = json.dumps({"config": to_dict(config), "topology": str(topology)})
    pipes: dict[str, Any] = {"input": request, "capture_output": True, "text": True}
    command = [sys.executable, "-m", "jaxmnist.plan.worker"]
    done = subprocess.run(command, **pipes, env=environment, check=False)
    answer = done.stdout.rpartition("\n")[2]
    if not answer.startswith("{"):
        last = (done.stderr.strip() or "no word of it").splitlines()[-1]
        raise UsageError(f"the compiler for '{topology}' ended with {done.returncode}: {last}")
    found = json.loads(answer)
    if "fault" in found:
        raise UsageError(found["fault"])
    return Program(**found)
