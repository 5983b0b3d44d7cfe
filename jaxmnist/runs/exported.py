"""Loads and runs an exported model, without Flax and without the code that made it.

The file is what `jax.export` serialises, parameters included, followed by two lines: the manifest
as JSON and the SHA-256 of everything before it. `tail -n 2 model.stablehlo` shows them, and
`jax.export.deserialize` reads the file as it is.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from jaxmnist.errors import ModelError, UsageError
from jaxmnist.runs.pictures import Pictures, Prediction, predict_examples, to_examples

FORMAT = 1
_REPAIR = "export it anew with `jaxmnist export`"


@dataclass(frozen=True)
class Exported:
    """A model that was exported, ready to be called.

    Attributes:
      program: what `jax.export` gave; its function takes uint8 [b, h, w, c] for any b.
      manifest: input and output (shape, dtype), classes, platforms, the run's data set and step,
        which parameters, and their SHA-256.
    """

    program: jax_export.Exported
    manifest: Mapping[str, Any]

    def __call__(self, images: Any) -> jax.Array:
        """The logits float32 [b, k] of images uint8 [b, h, w, c], for any b.

        Raises:
          UsageError: the images are not such an array.
          ModelError: the program was not exported for the devices that are here.
        """
        _, *shape = self.manifest["input"]["shape"]
        images = images if hasattr(images, "dtype") else np.asarray(images)
        if images.dtype != np.uint8 or list(images.shape[1:]) != shape or not len(images):
            takes = f"uint8 of shape [b, {', '.join(map(str, shape))}]"
            found = f"{images.dtype} of shape {images.shape}"
            raise UsageError(f"the exported model takes images {takes}, not {found}")
        if (here := jax.devices()[0].platform) not in _platforms(self.program):
            names = ", ".join(self.program.platforms)
            repair = "export it anew, or run it on one of them, such as with JAX_PLATFORMS=cpu"
            raise ModelError(f"the model was exported for {names}, not for {here}: {repair}")
        return self._run(images)

    def predict(self, images: Pictures) -> list[Prediction]:
        """Predicts the classes of pictures, as `jaxmnist.predict` does.

        Raises:
          DataError: pictures cannot be used; all of them are listed, and nothing was predicted.
        """
        _, *shape = self.manifest["input"]["shape"]
        examples = to_examples(images, shape, on_black=self.manifest["on_black"])
        return predict_examples(examples, lambda batch: jax.nn.softmax(self(batch)))

    @functools.cached_property
    def _run(self) -> Any:
        return jax.jit(self.program.call)


def _platforms(program: jax_export.Exported) -> set[str]:
    # JAX calls the devices "gpu" whoever made them.
    return {"gpu" if name == "cuda" else name for name in program.platforms}


def load_exported(path: str | Path) -> Exported:
    """Loads a model that `jaxmnist.export` wrote.

    Args:
      path: of the file.

    Raises:
      ModelError: the file cannot be read, is damaged or of another format.
    """
    serialized, manifest = _opened(path)
    try:
        program = jax_export.deserialize(bytearray(serialized))
    except Exception as error:  # its reader raises anything on what it does not know
        fault = f"cannot be read by JAX {jax.__version__}: {error}"
        raise ModelError(f"{path} {fault}; use a newer JAX, or export it anew") from error
    # The seal says that nothing was changed, not that what was sealed belongs together.
    if not _describes(manifest, program):
        takes = f"it takes {program.in_avals} and gives {program.out_avals}"
        raise ModelError(f"{path} has a manifest that is not its program's, {takes}: {_REPAIR}")
    return Exported(program, manifest)


def _opened(path: str | Path) -> tuple[bytes, Any]:
    """The serialised program and the manifest of a file that is whole and of this format."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        fault = f"cannot be read ({error.strerror}): give a file of `jaxmnist export`"
        raise ModelError(f"{path} {fault}") from error
    body, _, digest = content.removesuffix(b"\n").rpartition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        rule = "it does not end in the SHA-256 of its content"
        raise ModelError(f"{path} is damaged or no exported model: {rule}; {_REPAIR}")
    serialized, _, text = body.rpartition(b"\n")
    try:
        manifest = json.loads(text)
        version = manifest["format"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ModelError(f"{path} is no exported model: it has no manifest; {_REPAIR}") from error
    if version != FORMAT:
        rule = f"this version reads format {FORMAT}"
        raise ModelError(f"{path} is of format {version}, {rule}: export it anew")
    return serialized, manifest


def _describes(manifest: Any, program: jax_export.Exported) -> bool:
    """Whether a manifest says what a program takes and gives, and that it does so for any batch."""
    try:
        for said, (array,) in (("input", program.in_avals), ("output", program.out_avals)):
            b, *shape = array.shape
            found = {"shape": [str(b), *shape], "dtype": str(array.dtype)}
            if manifest[said] | found != manifest[said]:
                return False
        return [manifest["classes"]] == shape and isinstance(manifest["on_black"], bool)
    except (ValueError, TypeError, LookupError):
        return False


def sealed(program: bytes, manifest: Mapping[str, Any]) -> bytes:
    """The content of the file of a serialised program."""
    body = program + b"\n" + json.dumps(manifest, sort_keys=True).encode()
    return body + f"\n{hashlib.sha256(body).hexdigest()}\n".encode()
