"""The process that compiles the train step for chips that are not here.

It reads a request from its standard input and ends its standard output with a line of JSON: a
`Program`, or the sentence of a fault.
"""

import dataclasses
import functools
import json
import sys
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.topologies import get_topology_desc
from ml_collections import ConfigDict

from jaxmnist.config import apply_overrides, from_dict
from jaxmnist.errors import ConfigError, JaxmnistError
from jaxmnist.mesh import batch_faults, data_mesh, replicated, row_sharded
from jaxmnist.pipeline import make_gather
from jaxmnist.plan.chips import Topology, parse_topology
from jaxmnist.plan.compiled import Program
from jaxmnist.runs.setup import Setup, prepare
from jaxmnist.state import create_state
from jaxmnist.step import Batch, make_train_step
from jaxmnist.testing.hlo import audit


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The program as a dictionary, or what is wrong."""
    name = request["topology"]
    try:
        program = compile_here(from_dict(request["config"]), parse_topology(name))
        return dataclasses.asdict(program)
    except JaxmnistError as error:
        return {"fault": str(error)}
    except RuntimeError as error:  # XLA's own
        first, *_ = str(error).splitlines()
        repair = "choose a shape that is sold, or a smaller batch_size or model"
        return {"fault": f"XLA cannot compile for {name!r}: {first}; {repair}"}


def compile_here(config: ConfigDict, topology: Topology) -> Program:
    """Compiles in this process.

    Raises:
      JaxmnistError: what the configuration asks for cannot be.
      RuntimeError: XLA refuses the topology or the program.
    """
    mesh, strategy = data_mesh(devices=_devices(topology)), config.parallel.strategy
    accumulate, bits = config.train.accumulate, config.parallel.deterministic
    if faults := batch_faults(config.batch_size, mesh, accumulate=accumulate, deterministic=bits):
        raise ConfigError(faults)
    # Data, model and optimizer are made on one CPU device, with the choices of an accelerator.
    changes = {"parallel.devices": "None", "parallel.cpu_devices": "1", "pipeline.resident": "off"}
    conv = config.model.conv.replace("auto", "xla")
    changes |= {"train.steps_per_call": "1", "model.conv": conv}
    setup = prepare(apply_overrides(config, changes), training=False)
    # Microbatches are looped over on accelerators; on the CPU they are laid out.
    task = dataclasses.replace(setup.task, unroll=strategy == "jit")
    step = make_train_step(task, mesh, strategy=strategy, deterministic_bits=bits)
    state, batch = _arguments(setup, mesh, rows=config.batch_size // mesh.size)
    lowered = step.lower(state, batch)
    start = time.monotonic()
    compiled = [part.compile() for part in lowered]
    seconds = time.monotonic() - start
    alone, few = make_train_step(setup.task, setup.mesh), 16 * accumulate
    small, large = (
        _costs(alone.compile(*_arguments(setup, setup.mesh, rows=rows))) for rows in (few, 2 * few)
    )
    row_flops, row_bytes = ((b - a) / few for a, b in zip(small, large, strict=True))
    loops, notes = 1 if task.unroll else accumulate, list[str]()
    if compiled[0].cost_analysis() is not None:
        # XLA counts the body of a loop once.
        flops, traffic = (loops * count for count in _costs(compiled))
    else:
        more_rows = config.batch_size // mesh.size - few
        flops, traffic = small[0] + row_flops * more_rows, small[1] + row_bytes * more_rows
        loops, notes = 1, ["FLOPs and memory traffic: of the step compiled for a CPU"]
    if loops > 1:
        notes = ["FLOPs and memory traffic: of one microbatch, times train.accumulate"]
    if config.train.steps_per_call not in (None, 1) or config.pipeline.resident == "on":
        notes.append("compiled with one step a call, its batch handed over by the host")
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    costs = (flops, traffic, row_flops, row_bytes, _memory(compiled), state_bytes)
    return Program(seconds, *costs, *_collectives(compiled), _versions(), notes)


def _devices(topology: Topology) -> Any:
    if topology.kind == "h100":
        text = Path(__file__).with_name("h100.txtpb").read_text("utf-8")
        shape = f"1x1x{topology.chips}"
        return get_topology_desc("h100", "cuda", target_config=text, topology=shape).devices
    # A v4 chip is two devices unless its cores are joined, as JAX joins them on the hardware.
    options: dict[str, Any] = {"chip_config_name": "megacore"} if topology.kind == "v4" else {}
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    return get_topology_desc(str(topology), "tpu", **options).devices


def _arguments(setup: Setup, mesh: Any, *, rows: int) -> tuple[Any, Any]:
    """The shapes of the state and of a batch of `rows` a chip, as they would lie on the chips."""

    def placed(tree: Any, sharding: Any) -> Any:
        place = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
        return jax.tree.map(lambda x: place(x.shape, x.dtype), tree)

    ema = setup.config.train.ema_decay is not None
    make_state = functools.partial(create_state, tx=setup.task.tx, ema=ema)
    state = jax.eval_shape(make_state, setup.model.variables)
    which = np.zeros(rows * mesh.size, int)
    image, label = make_gather(setup.data.train)(which, which)
    batch = Batch(image, label, which == 0)
    if setup.config.parallel.strategy == "pmap" and mesh.size > 1:
        batch = jax.tree.map(lambda x: x.reshape(mesh.size, -1, *x.shape[1:]), batch)
    return placed(state, replicated(mesh)), placed(batch, row_sharded(mesh))


def _costs(compiled: Any) -> list[float]:
    """FLOPs and bytes that XLA counts in the programs of a step."""
    found = [part.cost_analysis() for part in compiled]
    return [sum(costs[key] for costs in found) for key in ("flops", "bytes accessed")]


def _memory(compiled: Any) -> int:
    """Bytes of the program that needs most."""

    def size(found: Any) -> int:
        kept = found.argument_size_in_bytes + found.generated_code_size_in_bytes
        made = found.output_size_in_bytes - found.alias_size_in_bytes
        return int(kept + made + found.temp_size_in_bytes)

    return max(size(part.memory_analysis()) for part in compiled)


def _collectives(compiled: Any) -> tuple[int, int, dict[str, int]]:
    """Number of all-reduces, their bytes, and the bytes of other collectives by kind."""
    counts, sizes = Counter[str](), Counter[str]()
    for part in audit(compiled, unknown_trips=1):
        counts[part.kind] += part.count or 1
        sizes[part.kind] += part.bytes * (part.count or 1)
    return counts["all-reduce"], sizes.pop("all-reduce", 0), dict(sizes)


def _versions() -> dict[str, str]:
    packages = ("jax", "libtpu", "jax-cuda12-plugin")
    return {d.name: d.version for d in metadata.distributions() if d.name in packages}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(answer(json.loads(sys.stdin.read()))))
