"""Which devices a run uses, and how arrays come to lie on them."""

import contextlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import platformdirs
from jax import P
from jax.sharding import AxisType, Mesh, NamedSharding

from jaxmnist.config import VIRTUAL_SHARDS, nearest_multiples
from jaxmnist.errors import ConfigError

DATA_AXIS = "data"
# Fewer rows than this on a device cost more in dispatch than a second CPU device saves.
MIN_ROWS_PER_CPU_DEVICE = 8
# Devices that share cores may reach an all-reduce minutes apart on a busy machine; XLA's own limit
# of 40 s would abort the process.
_PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
# By default XLA's loops use half the width of AVX-512; the whole makes a step 4 % faster.
_WIDE = "--xla_cpu_prefer_vector_width=512"


def usable_cores() -> int:
    """Cores this process may use: its affinity mask, cut down by the cgroup's CPU quota."""
    # Not every operating system has affinity masks.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or the quota is "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores or 1, -(-int(quota) // int(period)))
    return cores or 1


def default_cpu_devices(batch_size: int, *, cores: int) -> int:
    """The largest divisor of the batch that is at most `cores` and leaves enough rows a device."""
    most = min(cores, batch_size // MIN_ROWS_PER_CPU_DEVICE)
    return max((n for n in range(1, most + 1) if batch_size % n == 0), default=1)


def prepare_backend(batch_size: int, *, cpu_devices: int | None, deterministic: bool) -> None:
    """Sets up the CPU backend before it starts; does nothing once any backend runs.

    JAX makes one CPU device unless told otherwise. Who said how many (`cpu_devices`,
    `JAX_NUM_CPU_DEVICES` or an XLA flag) is obeyed; else as many are made as
    `default_cpu_devices` says. `XLA_FLAGS` gets what makes CPU devices patient and fast, unless it
    says otherwise.

    Args:
      batch_size: rows in a global batch.
      cpu_devices: number of CPU devices to make, or None.
      deterministic: whether results must not depend on the number of threads: XLA takes other
        convolution code where its thread pool has one thread only, so it gets two.

    Raises:
      ConfigError: `cpu_devices` was asked for after a backend had started with another count.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if deterministic and usable_cores() == 1:
        os.environ.setdefault("NPROC", "2")
    ours = [flag for flag in (_PATIENT, _WIDE) if flag.partition("=")[0] not in flags]
    os.environ["XLA_FLAGS"] = " ".join([flags, *ours]).strip()
    told = "host_platform_device_count" in flags or "JAX_NUM_CPU_DEVICES" in os.environ
    if cpu_devices is None and told:
        return
    count = cpu_devices or default_cpu_devices(batch_size, cores=usable_cores())
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        have = len(jax.devices("cpu"))
        if cpu_devices not in (None, have):
            fault = f"JAX already runs with {have} CPU device(s): set it before anything uses JAX"
            text = f"parallel.cpu_devices={cpu_devices}, but {fault}, or use parallel.devices"
            raise ConfigError([text]) from error


def keep_compiled_programs(mesh: Mesh) -> None:
    """Lets JAX keep what it compiles for accelerators in a directory of this user alone.

    Not for CPUs: such a program holds instructions of the machine that compiled it, which another
    one that shares the directory may lack. A directory that JAX was told of already is left as it
    is, and one that cannot be made is done without.
    """
    if mesh.devices.flat[0].platform == "cpu" or jax.config.values["jax_compilation_cache_dir"]:
        return
    path = Path(platformdirs.user_cache_dir("jaxmnist")) / "xla"
    with contextlib.suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        jax.config.update("jax_compilation_cache_dir", str(path))


def data_mesh(count: int | None = None, *, devices: Sequence[Any] | None = None) -> Mesh:
    """A one-axis mesh over the devices, ordered so that each process's rows are contiguous.

    Args:
      count: how many devices to use, an equal number of each process; None for all.
      devices: the devices to choose from; all of JAX's when None.

    Raises:
      ConfigError: there are fewer, or the processes cannot share `count` equally.
    """
    # jax.make_mesh may reorder devices to suit a TPU's wiring; rows must follow the processes.
    ordered = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
    if count is not None:
        groups = [list(group) for _, group in itertools.groupby(ordered, lambda d: d.process_index)]
        there, processes = len(ordered), len(groups)
        ordered = [d for group in groups for d in group[: count // processes]]
        if count < 1 or len(ordered) != count:
            fault = f"there are {there} device(s) in {processes} process(es)"
            repair = f"choose a multiple of {processes} up to {there} or raise parallel.cpu_devices"
            raise ConfigError([f"parallel.devices={count}, but {fault}: {repair}"])
    return Mesh(np.array(ordered), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, P())


def row_sharded(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: rows split evenly over the devices, in order."""
    return NamedSharding(mesh, P(DATA_AXIS))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies of the host arrays of a tree on every device; all processes must pass equal values."""
    sharding, host = replicated(mesh), jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), host)


def as_global(tree: Any, mesh: Mesh) -> Any:
    """The same replicated arrays as global ones over the mesh, without a copy.

    What `jax.pmap` returns in a job of several processes covers the local devices only.
    """

    def convert(x: jax.Array) -> jax.Array:
        pieces = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, replicated(mesh), pieces)

    return jax.tree.map(convert, tree)


def batch_faults(batch_size: int, mesh: Mesh, *, accumulate: int, deterministic: bool) -> list[str]:
    """Why the global batch cannot be shared out over the mesh; empty where it can."""
    faults, shards = [], VIRTUAL_SHARDS if deterministic else mesh.size
    if shards % mesh.size:
        valid = [n for n in range(1, shards + 1) if shards % n == 0]
        rule = f"{shards} virtual shards, which {mesh.size} devices cannot share equally"
        faults.append(f"parallel.deterministic has {rule}: set parallel.devices to one of {valid}")
    if batch_size % (shards * accumulate):
        rule = f"must be a multiple of {shards} devices or shards × train.accumulate={accumulate}"
        nearest = nearest_multiples(batch_size, shards * accumulate)
        faults.append(f"batch_size={batch_size} {rule}: the nearest valid values are {nearest}")
    return faults


def in_flight_limit(mesh: Mesh) -> int:
    """How many steps may be under way at once.

    On CPU devices one: an all-reduce waits in a thread of a small pool for the devices that have
    not arrived, and more of them than threads wait for ever.
    """
    return 1 if mesh.devices.flat[0].platform == "cpu" else 4
