"""Exports the model of a run to one file that needs neither this library nor Flax."""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from jaxmnist.checkpoint import CheckpointInfo
from jaxmnist.errors import ModelError, UsageError
from jaxmnist.images import is_on_black
from jaxmnist.names import resolve
from jaxmnist.runs.evaluate import load_run
from jaxmnist.runs.exported import FORMAT, sealed
from jaxmnist.runs.predict import SAMPLE
from jaxmnist.runs.setup import Setup
from jaxmnist.state import TrainState, tree_sha256
from jaxmnist.workdir import local_path
from jaxmnist.writers import write_atomically

PLATFORMS = ("cpu", "cuda", "tpu")
FORMATS = ("stablehlo", "safetensors")


def export(
    workdir: str | Path,
    out: str | Path | None = None,
    *,
    format: str = "stablehlo",
    step: int | None = None,
    **parts: Any,
) -> Path:
    """Exports the model of a checkpoint: the moving average of the parameters where there is one.

    Args:
      workdir: of the run.
      out: the file; None for model.stablehlo or model.safetensors in the work directory, which
        is uploaded where that is in a bucket.
      format: "stablehlo" for a program that takes uint8 [b, h, w, c] for any b and gives logits
        float32 [b, k], on CPU, CUDA and TPU; `jaxmnist.load_exported` and `jax.export.deserialize`
        read it. "safetensors" for parameters and statistics of batch norm alone, float32, named
        as in Flax: "params/Conv_0/kernel".
      step: which checkpoint; None for the newest.
      **parts: `dataset` and `model` as they were passed to `train`, if they were.

    Returns:
      The path of the file.

    Raises:
      UsageError: the format does not exist or needs a library that is missing, or the file cannot
        be written.
      WorkdirError: the directory is not that of a run.
      CheckpointError: no such checkpoint, or it is damaged.
      ModelError: the model cannot be computed for a batch of any size.
    """
    if format not in FORMATS:
        raise UsageError(f"the format {format!r} does not exist: choose {' or '.join(FORMATS)}")
    if format == "safetensors" and not importlib.util.find_spec("safetensors"):
        raise UsageError("the format safetensors needs a library: pip install 'jaxmnist[export]'")
    place = local_path(workdir)
    path = Path(out) if out is not None else place / f"model.{format}"
    if path.is_dir():
        rule = "it is a directory; choose another --out"
        raise UsageError(f"the model cannot be written to {path}: {rule}")
    # XLA's convolution is the one that every platform has made fast.
    if getattr(parts.get("model"), "conv", "xla") != "xla":
        parts["model"] = parts["model"].clone(conv="xla")
    setup, state, info = load_run(place, step=step, conv="xla", **parts)
    variables = jax.device_get((state.inference_params, state.batch_stats))
    manifest = _manifest(setup, state, info)
    write = _program if format == "stablehlo" else _parameters
    content = write(setup, variables, manifest)
    try:
        write_atomically(path, content)
    except OSError as error:
        fault = f"the model cannot be written to {path}: {error.strerror or error}"
        raise UsageError(f"{fault}; choose another --out") from error
    if out is None and place != Path(workdir):
        resolve("jaxmnist.bucket.copy:publish")(workdir, place)
    return path


def _manifest(setup: Setup, state: TrainState, info: CheckpointInfo) -> dict[str, Any]:
    """What a program that uses the file must know of it."""
    classes = setup.data.classes
    return {
        "format": FORMAT,
        "input": {"shape": ["b", *setup.data.image_shape], "dtype": "uint8"},
        "output": {"shape": ["b", classes], "dtype": "float32", "meaning": "logits"},
        "classes": classes,
        "on_black": is_on_black(setup.data.test.images[:SAMPLE]),
        "data_set": setup.data.name,
        "model": setup.config.model.name,
        "step": info.step,
        "parameters": "last" if state.ema is None else "moving average",
        "params_sha256": tree_sha256(state.inference_params),
        "jax": jax.__version__,
        "platforms": list(PLATFORMS),
    }


def _program(setup: Setup, variables: Any, manifest: dict[str, Any]) -> bytes:
    """The compiled-anywhere program, the variables within."""

    @jax.jit
    def logits(images: jax.Array) -> jax.Array:
        # XLA's compiler would compute beforehand what depends on constants alone, such as the
        # inverse root of batch norm's variance, and on some processors with other last bits.
        constants = jax.lax.optimization_barrier(variables)
        with jax.default_matmul_precision(setup.task.matmul_precision):
            return setup.task.apply(*constants, images, None)[0]

    (b,) = jax_export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((b, *setup.data.image_shape), jnp.uint8)
    try:
        with _no_locations():
            program = jax_export.export(logits, platforms=PLATFORMS)(images)
    except Exception as error:  # the user's model may raise anything on a size that is a symbol
        first = (str(error).strip().splitlines() or [""])[0]
        fault = f"cannot be exported for any batch: {type(error).__name__}: {first}"
        repair = "take sizes from the arrays' shapes, as in x.reshape(x.shape[0], -1)"
        raise ModelError(f"model {setup.config.model.name} {fault}; {repair}") from error
    return sealed(bytes(program.serialize()), manifest)


@contextlib.contextmanager
def _no_locations() -> Iterator[None]:
    """Keeps the paths of this machine, by which JAX says where each operation comes from, out."""
    before = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _parameters(setup: Setup, variables: Any, manifest: dict[str, Any]) -> bytes:
    """The variables by name, in the format of the library safetensors."""
    from flax.traverse_util import flatten_dict
    from safetensors.numpy import save

    params, batch_stats = variables
    tree = {"params": params, "batch_stats": batch_stats}
    flat = {name: np.asarray(x) for name, x in flatten_dict(tree, sep="/").items()}
    # Its metadata are texts alone.
    return save(flat, metadata={name: str(value) for name, value in manifest.items()})
