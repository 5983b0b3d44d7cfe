"""What a run says about itself before its first step."""

import jax

from jaxmnist.runs.setup import Setup
from jaxmnist.state import parameter_count
from jaxmnist.workdir import Workdir


def panel_rows(setup: Setup, place: Workdir, resume: str) -> list[tuple[str, str]]:
    """Names and values for the panel at the start."""
    config, data, mesh = setup.config, setup.data, setup.mesh
    first, (h, w, c) = mesh.devices.flat[0], data.image_shape
    processes, accumulate = jax.process_count(), config.train.accumulate
    together = f" in {processes} processes" if processes > 1 else ""
    microbatches = f", in {accumulate} microbatches" if accumulate > 1 else ""
    deterministic = ", deterministic" if config.parallel.deterministic else ""
    convolution = f", {setup.conv} convolution" if setup.conv else ""
    several = f", up to {setup.steps_per_call} steps a call" if setup.steps_per_call > 1 else ""
    rows_a_device = f"{mesh.size} × {config.batch_size // mesh.size:,} rows a device"
    parameters = f"{parameter_count(setup.model.variables['params']):,} parameters"
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    steps = f"{setup.steps:,} steps, {setup.epoch(setup.steps):.4g} epochs"
    rows = {
        "devices": f"{mesh.size} × {first.device_kind} ({first.platform}){together}",
        "strategy": f"{config.parallel.strategy}{deterministic}{several}",
        "batch": f"{config.batch_size:,} = {rows_a_device}{microbatches}",
        "model": f"{config.model.name}, {parameters}{convolution}",
        "data set": f"{data.name}: {counts}; {h}×{w}×{c}, {data.classes} classes",
        "training": f"{steps}, {config.optimizer.name}, {config.schedule.name} schedule",
        "work directory": place.address,
        "to resume": resume,
    }
    return [*rows.items(), *(("note", note) for note in setup.notes)]
