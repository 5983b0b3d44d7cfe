"""What only the trained model can tell: its mistakes, how sure it is, what it looks for."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from markupsafe import Markup
from PIL import Image

from jaxmnist.datasets import KNOWN
from jaxmnist.errors import WorkdirError
from jaxmnist.models.build import MODELS
from jaxmnist.report.gather import Run, number, pick
from jaxmnist.runs.evaluate import load_run
from jaxmnist.runs.probabilities import log_probabilities

_MOST_FILTERS = 64
_MOST_MISTAKES = 24
# Recomputed on other devices, an example or so may fall to the other side.
_TOLERANCE = 1e-3

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Look:
    """What the state of the newest checkpoint does with the test split.

    Attributes:
      step: of the checkpoint.
      confidence: probability of each prediction, float32 [n].
      correct: whether it is right, bool [n].
      mistakes: the most confident ones first: PNG as data URI, label, prediction, confidence.
      images: of the mistakes, uint8 [n, h, w, c].
      filters: of the first layer, PNGs as data URIs; empty where it has none that are images.
      sizes: bytes by part of the train state.
    """

    step: int
    confidence: Array
    correct: Array
    mistakes: list[tuple[Markup, int, int, float]]
    images: Array
    filters: list[Markup]
    sizes: Mapping[str, int]


def refusal(run: Run) -> str:
    """Why the model of a run is not loaded; empty where it may be.

    Drawing a page imports no code that a configuration names: names of our tables only.
    """
    config = run.config
    if jax.distributed.is_initialized():
        return "one of several processes cannot load a checkpoint; write the report anew in one"
    names = [k for k in config if k.endswith(".name") or k == "augment.custom"]
    if own := [f"{k}={config[k]!r}" for k in names if ":" in str(config[k])]:
        return f"{', '.join(own)} is code of your own, and a report imports none"
    known = config.get("dataset.name") in KNOWN or config.get("dataset.dir")
    if config.get("model.name") not in MODELS or not known:
        return "the configuration names no model and data set of the library"
    return "" if run.checkpoint else "there is no checkpoint that can be used"


def look(run: Run) -> Look:
    """Loads the newest checkpoint and evaluates it on the test split, in one pass.

    Raises:
      WorkdirError: what the configuration names is not what the run had.
      JaxmnistError: configuration, data or checkpoint cannot be used.
    """
    # XLA's convolution is compiled in a fraction of the time of the one for training on CPUs.
    setup, state, info = load_run(run.path, conv="xla")
    question = "was the run given a data set or a model in Python?"
    if not setup.data.digest or pick(info.notes, "data") != setup.data.digest:
        raise WorkdirError(f"the run had other data than its configuration names; {question}")
    split = setup.data.splits["test"]
    probabilities = np.exp(log_probabilities(setup, state)(split.images))
    predictions, confidence = probabilities.argmax(1), probabilities.max(1)
    correct = predictions == split.labels
    said = number(pick(run.result, "test.accuracy"))
    if info.step == pick(run.result, "train.steps") and abs(correct.mean() - said) > _TOLERANCE:
        found = f"accuracy {correct.mean():.2%} where result.json says {said:.2%}"
        raise WorkdirError(f"the model that its configuration names has {found}; {question}")
    wrong = np.flatnonzero(~correct)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MOST_MISTAKES]
    pictures = [_png(split.images[i]) for i in worst]
    facts = (array[worst].tolist() for array in (split.labels, predictions, confidence))
    mistakes = list(zip(pictures, *facts, strict=True))
    filters = [_png(f) for f in _filters(state.inference_params, setup.data.image_shape)]
    parts = {"parameters": state.params, "moving average": state.ema}
    parts |= {"optimizer state": state.opt_state, "whole train state": state}
    sizes = {name: sum(x.nbytes for x in jax.tree.leaves(part)) for name, part in parts.items()}
    return Look(info.step, confidence, correct, mistakes, split.images[worst], filters, sizes)


def _filters(params: Any, image_shape: tuple[int, ...]) -> Array:
    """Kernels of the first layer that sees images as uint8 [n, h, w, c]: zero is mid-grey."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    kernels = [x for x in leaves if x.ndim == 4 and x.shape[2] == image_shape[-1]]
    dense = [x for x in leaves if x.ndim == 2 and len(x) == np.prod(image_shape)]
    kernels += [x.reshape(*image_shape, -1) for x in dense]
    kernel = np.moveaxis(kernels[0], -1, 0)[:_MOST_FILTERS] if kernels else np.zeros((0, 1, 1, 1))
    scale = np.abs(kernel).max(initial=1e-30)
    return np.rint(127.5 + 127.5 * kernel / scale).astype(np.uint8)


def _png(image: Array) -> Markup:
    """An image uint8 [h, w, c] as data URI; of other channels than 1 and 3 their mean."""
    picture = Image.fromarray(image if image.shape[-1] == 3 else image.mean(-1).astype(np.uint8))
    picture.thumbnail((128, 128))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return Markup("data:image/png;base64,") + base64.b64encode(file.getvalue()).decode()
