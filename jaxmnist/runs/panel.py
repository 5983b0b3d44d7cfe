"""What a run says about itself before its first step."""

import shlex
from collections.abc import Sequence

import jax

from jaxmnist.runs.setup import Setup
from jaxmnist.state import parameter_count
from jaxmnist.workdir import Workdir


def resume_command(place: Workdir, command: Sequence[str]) -> str:
    """What to type to go on in a work directory."""
    if command:
        return shlex.join([*command, f"--workdir={place.path}"])
    return f"jaxmnist.train(config, workdir={str(place.path)!r})"


def panel_rows(setup: Setup, place: Workdir, resume: str) -> list[tuple[str, str]]:
    """Names and values for the panel at the start."""
    config, data, mesh = setup.config, setup.data, setup.mesh
    first = mesh.devices.flat[0]
    devices = f"{mesh.size} × {first.device_kind} ({first.platform})"
    if jax.process_count() > 1:
        devices += f" in {jax.process_count()} processes"
    strategy = config.parallel.strategy
    if config.parallel.deterministic:
        strategy += ", deterministic"
    per_device = config.batch_size // mesh.size
    batch = f"{config.batch_size:,} = {mesh.size} × {per_device:,}"
    if config.train.accumulate > 1:
        batch += f", in {config.train.accumulate} microbatches"
    counts = ", ".join(f"{data.count(split):,} {split}" for split in data.splits)
    h, w, c = data.image_shape
    model = f"{config.model.name}, {parameter_count(setup.model.variables['params']):,} parameters"
    if setup.conv:
        model += f", {setup.conv} convolution"
    steps = f"{setup.steps:,} steps, {setup.epoch(setup.steps):.4g} epochs"
    rows = [
        ("devices", devices),
        ("strategy", strategy),
        ("batch", f"{batch} rows a device" if mesh.size > 1 else batch),
        ("model", model),
        ("data set", f"{data.name}: {counts}; {h}×{w}×{c}, {data.classes} classes"),
        ("training", f"{steps}, {config.optimizer.name}, {config.schedule.name} schedule"),
        ("work directory", str(place.path)),
        ("to resume", resume),
    ]
    return rows + [("note", note) for note in setup.notes]
