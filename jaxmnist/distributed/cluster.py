"""Recognises the cluster that a process was started in, by JAX's own detection."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from jaxmnist.errors import JobError

_NAMES = {
    "tpu": "Cloud TPU",
    "gcetpu": "TPU VM",
    "gketpu": "GKE with TPUs",
    "slurm": "Slurm",
    "ompi": "Open MPI",
    "K8sCluster": "Kubernetes",
}


@dataclass(frozen=True)
class Cluster:
    """What a cluster says of this process.

    Attributes:
      name: of the cluster, for people.
      num_processes: of the job.
      process_id: of this one.
      coordinator_address: "host:port" of process 0.
      local_device_ids: the GPUs of this process where several share a host; None for all.
    """

    name: str
    num_processes: int
    process_id: int
    coordinator_address: str | None
    local_device_ids: tuple[int, ...] | None = None


def detect(timeout_s: int) -> Cluster | None:
    """The cluster around this process; None on a lone machine, where it costs nothing.

    Args:
      timeout_s: seconds that a TPU pod's workers may take to answer each other.

    Raises:
      JobError: a cluster was recognised, but does not answer.
    """
    # JAX has no public name for what it detects, and `initialize` does not tell it.
    from jax._src.clusters import ClusterEnv

    kinds = [kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method]
    kind = next((kind for kind in kinds if kind.is_env_present()), None)
    if kind is None:
        return None
    name = _NAMES.get(kind.name or kind.__name__, kind.__name__)
    try:
        count = kind.get_process_count()
        if count == 1:
            return Cluster(name, 1, 0, None)
        port = os.environ.get("JAX_COORDINATOR_PORT")
        address = kind.get_coordinator_address(
            timeout_secs=timeout_s, override_coordinator_port=port
        )
        return Cluster(name, count, kind.get_process_id(), address, local_gpus(os.environ))
    except Exception as error:  # whatever its metadata service, or a missing package, raises
        fault = f"{name} was recognised, but does not tell its processes"
        repair = (
            "give --coordinator_address, --num_processes and --process_id, or --distributed=off"
        )
        raise JobError(f"{fault}: {type(error).__name__}: {error}; {repair}") from error


def local_gpus(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """The GPUs that a task of Slurm or Open MPI takes: all, or its equal share of the host's.

    JAX itself gives one GPU to a task, and so leaves the others of the host idle where there are
    more GPUs than tasks.

    Args:
      environment: the environment variables of the task.

    Returns:
      Indices among the GPUs that the task sees; None where it is alone on its host or the
      environment names no GPU.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES") or environment.get("ROCR_VISIBLE_DEVICES")
    listed = len(visible.split(",")) if visible else None
    on_host = environment.get("SLURM_GPUS_ON_NODE")
    gpus = listed or (int(on_host) if on_host and on_host.isdigit() else 0)
    if "SLURM_PROCID" in environment:
        index, tasks = int(environment.get("SLURM_LOCALID", 0)), _tasks_on_host(environment)
        # Slurm has then shared them out itself, and the task sees its own only.
        own = "SLURM_GPUS_PER_TASK" in environment or "SLURM_TRES_PER_TASK" in environment
    else:
        index = int(environment.get("OMPI_COMM_WORLD_LOCAL_RANK", 0))
        tasks, own = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", 1)), False
    if not gpus or own or tasks <= 1 or gpus < tasks:
        return None
    share = gpus // tasks
    return tuple(range(index * share, (index + 1) * share))


def _tasks_on_host(environment: Mapping[str, str]) -> int:
    """Tasks of the step on this node, from a list by node such as "2(x3),1"."""
    text = environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    node = int(environment.get("SLURM_NODEID", 0))
    return counts[node] if node < len(counts) else counts[0]
