"""Takes the model out of a checkpoint, without the optimizer that it was trained with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxmnist.checkpoint import CheckpointInfo, flat, types
from jaxmnist.errors import CheckpointError, WorkdirError
from jaxmnist.runs.evaluate import find_checkpoint
from jaxmnist.state import TrainState, tree_sha256
from jaxmnist.workdir import Workdir, local_path, read_config


def restore_model(directory: Path, info: CheckpointInfo, target: TrainState) -> TrainState:
    """Restores a state whose optimizer is not known, as evaluation needs it.

    Args:
      directory: the checkpoints' directory.
      info: of the checkpoint.
      target: shapes and shardings of the state, that of the optimizer empty.

    Raises:
      CheckpointError: the checkpoint holds another model, or not what its digests say.
    """
    arrays, wanted = _arrays(directory, info, target.step.sharding), flat(target)
    _compare(arrays, wanted, lambda name: name, source=f"checkpoint {directory / str(info.step)}")
    found = [arrays[name] for name in wanted]
    state: TrainState = jax.tree.unflatten(jax.tree.structure(target), found)
    _verify(state.params, info.params_sha256, directory / str(info.step))
    if info.ema_sha256:
        _verify(state.ema, info.ema_sha256, directory / str(info.step))
    return state


def start_from(state: TrainState, source: str) -> tuple[TrainState, dict[str, Any]]:
    """Puts the parameters of another run into a fresh state.

    They are those that the run was evaluated with: their moving average where it kept one. The
    running statistics of batch norm come along; the optimizer starts anew, and a moving average
    starts at the parameters.

    Args:
      state: of the new run, before its first step.
      source: work directory of the other run; its newest sound checkpoint is read.

    Returns:
      The state, and what to note of where it came from: `workdir`, `step`, `params_sha256`.

    Raises:
      WorkdirError: the directory is not that of a run.
      CheckpointError: it holds no checkpoint that can be used, or another model; all arrays that
        differ are listed with their shapes.
    """
    place, info, there = _open(source, state)
    arrays = _arrays(place.checkpoints, info, state.step.sharding)
    model = {"params": state.params, "batch_stats": state.batch_stats}
    found = [arrays[there(name)] for name in flat(model)]
    model = jax.tree.unflatten(jax.tree.structure(model), found)
    digest = info.ema_sha256 or info.params_sha256
    _verify(model["params"], digest, place.checkpoints / str(info.step))
    # Copies: a state is donated, and one buffer cannot be given away twice.
    average = None if state.ema is None else jax.tree.map(lambda x: x.copy(), model["params"])
    origin = {
        "workdir": source if "://" in source else str(place.path),
        "step": info.step,
        "params_sha256": digest,
    }
    return state.replace(**model, ema=average), origin


def check_source(source: str, state: TrainState) -> None:
    """Says what `start_from` would refuse, from shapes alone, before anything is written.

    Args:
      source: work directory of the other run.
      state: shapes of the new run's.

    Raises:
      WorkdirError: the directory is not that of a run.
      CheckpointError: it holds no checkpoint that can be used, or another model.
    """
    _open(source, state)


def _open(source: str, state: TrainState) -> tuple[Workdir, CheckpointInfo, Callable[[str], str]]:
    """The run to start from, its checkpoint, and what an array of ours is called in it."""
    what = f"train.init_from={source!r}"
    place = Workdir(local_path(source).expanduser())
    try:
        read_config(place)
        info = find_checkpoint(place, None)
    except WorkdirError as error:
        repair = "give the work directory of a run of `jaxmnist train`"
        raise WorkdirError(f"{what}: {str(error).partition(';')[0]}; {repair}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{what}: {error}; choose another run, or train that one") from error
    kept = "ema" if info.ema_sha256 else "params"

    def there(name: str) -> str:
        return name.replace("params", kept, 1) if name.startswith("params") else name

    wanted = flat({"params": state.params, "batch_stats": state.batch_stats})
    _compare(_shapes(place.checkpoints, info), wanted, there, source=what)
    return place, info, there


def _shapes(directory: Path, info: CheckpointInfo) -> dict[str, Any]:
    """Shapes and dtypes of all arrays of a checkpoint, by path."""
    import orbax.checkpoint as ocp

    path = (directory / str(info.step) / "state").absolute()
    return dict(ocp.StandardCheckpointHandler().metadata(path).tree)


def _arrays(directory: Path, info: CheckpointInfo, sharding: Any) -> dict[str, Any]:
    """All arrays of a checkpoint, by path."""
    import orbax.checkpoint as ocp

    path = (directory / str(info.step) / "state").absolute()
    shapes = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
        for name, x in _shapes(directory, info).items()
    }
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        return dict(checkpointer.restore(path, args=ocp.args.StandardRestore(shapes)))


def _compare(
    arrays: dict[str, Any], wanted: dict[str, Any], there: Callable[[str], str], *, source: str
) -> None:
    """Refuses arrays that are not of the model; those of the model that are missing as well."""
    old, new = types(arrays), types(wanted)
    groups = {there(name).partition(".")[0] for name in new} - {"opt_state"}
    back = {there(name): name for name in new}
    for name in old:
        if name.partition(".")[0] in groups:
            back.setdefault(name, name)
    lines = [
        f"\n  - {name}: {old.get(name, 'none')} there, {new.get(mine, 'none')} here"
        for name, mine in back.items()
        if old.get(name) != new.get(mine)
    ]
    if lines:
        fault = f"{source} holds the parameters of another model, {len(lines)} arrays differ"
        repair = "give the model that they were trained with"
        raise CheckpointError(f"{fault}; {repair}:{''.join(lines)}")


def _verify(tree: Any, digest: str, place: Path) -> None:
    if (found := tree_sha256(tree)) != digest:
        fault = f"its parameters have SHA-256 {found}, expected {digest}"
        raise CheckpointError(f"checkpoint {place} is damaged: {fault}")
