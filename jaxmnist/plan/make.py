"""The plan of a run on a topology: what the compiled step says, and what follows from a model."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_collections import ConfigDict

from jaxmnist.config import from_dict, nearest_multiples, to_dict, validate
from jaxmnist.errors import ConfigError
from jaxmnist.plan.chips import Topology, parse_topology, topology_of
from jaxmnist.plan.compiled import Program, compile_step
from jaxmnist.plan.model import Prediction, Work, line, predict

_CHIPS: Final = tuple(2**power for power in range(13))


@dataclass(frozen=True)
class Plan:
    """What is known of a run on hardware that is not here.

    Attributes:
      topology: its name.
      chip: the chip's name.
      memory_capacity_bytes: of one chip, as published.
      batch_size: the global batch.
      rows: of the batch on each chip.
      config: the configuration.
      program: read from the compiled step.
      prediction: a model of that step.
      scaling: the model for 1 to 4,096 chips.
      notes: what was changed, and how the program differs from that of a run.
      sources: where the figures of the model are published, and what is assumed.
    """

    topology: str
    chip: str
    memory_capacity_bytes: float
    batch_size: int
    rows: int
    config: dict[str, Any]
    program: Program
    prediction: Prediction
    scaling: Sequence[Prediction]
    notes: Sequence[str]
    sources: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-able dictionary of all fields."""
        return dataclasses.asdict(self)


def plan(config: ConfigDict, topology: str, *, batch_size: int | None = None) -> Plan:
    """Compiles the configured train step for a topology and predicts its time; needs no such chip.

    Args:
      config: from `jaxmnist.get_config`.
      topology: such as "v5e:16x16", "v4:2x2x2" or "h100:8".
      batch_size: the global batch; None takes that of the configuration, raised to the next
        multiple of the chips.

    Raises:
      UsageError: no such topology, its compiler is not installed, or it refuses.
      ConfigError: the chips cannot share the batch, or the configuration has other faults.
    """
    validate(config)
    place, config = parse_topology(topology), from_dict(to_dict(config))
    wanted = config.batch_size if batch_size is None else batch_size
    parts = place.chips * config.train.accumulate
    config.batch_size, notes = -(-wanted // parts) * parts, list[str]()
    if config.batch_size != wanted or wanted < 1:
        rule = f"{place.chips} chips times train.accumulate={config.train.accumulate}"
        if batch_size is not None:
            nearest = f"the nearest valid values are {nearest_multiples(batch_size, parts)}"
            raise ConfigError([f"batch_size={batch_size} cannot be divided by {rule}: {nearest}"])
        notes = [f"batch_size is {config.batch_size}, not {wanted}: it is divided by {rule}"]
    return make_plan(config, place, compile_step(config, place), notes=notes)


def make_plan(
    config: ConfigDict, place: Topology, program: Program, *, notes: Sequence[str] = ()
) -> Plan:
    """Returns the plan that follows from a program by arithmetic; compiles nothing."""
    chip, batch_size, rows = place.chip, config.batch_size, config.batch_size // place.chips
    dtype, precision = config.model.dtype, config.parallel.matmul_precision
    peak, rate = chip.flops[precision if dtype == "float32" else dtype], chip.memory_rate
    work = Work(
        line(program.flops / peak, rows=rows, slope=program.row_flops / peak),
        line(program.bytes_accessed / rate, rows=rows, slope=program.row_bytes / rate),
    )
    # An all-reduce moves its bytes twice, any other collective about once.
    size = program.all_reduce_bytes + sum(program.other_collectives.values()) / 2
    places = [place, *(topology_of(place.kind, chips) for chips in _CHIPS)]
    options: dict[str, Any] = {"rows": rows, "batch_size": batch_size, "size": size}
    prediction, *scaling = (predict(at, work, **options) for at in places)
    published = (str(place), chip.name, chip.memory_bytes)
    batch = (batch_size, rows, to_dict(config))
    return Plan(
        *published, *batch, program, prediction, scaling, (*notes, *program.notes), chip.sources
    )
