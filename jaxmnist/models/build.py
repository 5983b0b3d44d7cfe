"""Builds a model from its name and checks, before anything runs, that it keeps the contract."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmnist.errors import ConfigError, ModelError
from jaxmnist.models.rows import Rows, feeding
from jaxmnist.names import find, in_line, resolve

MODELS: Mapping[str, str] = {
    "cnn": "jaxmnist.models.cnn:CNN",
    "mlp": "jaxmnist.zoo.models.mlp:MLP",
    "simple_cnn": "jaxmnist.zoo.models.simple_cnn:SimpleCNN",
    "resnet": "jaxmnist.zoo.models.resnet:ResNet",
}
# Rows of the batch that a model is tried on; a multiple of batch norm's groups.
_TRIAL_ROWS = 8
# Says in a sentence why a model cannot be trained.
_SAY = "jaxmnist.zoo.own.model"


@dataclass(frozen=True)
class ModelFunctions:
    """A model as plain functions.

    Attributes:
      init: `init(key)` gives the initial variables.
      apply: `apply(params, batch_stats, images, rows)` gives logits float32 [b, k] and the reports
        of batch norm; training where `rows` is given, evaluation where it is None.
      variables: shapes and dtypes of the variables.
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[..., tuple[jax.Array, Any]]
    variables: Any


def make_model(name: str, *, kwargs: Mapping[str, Any] | None = None, **offered: Any) -> nn.Module:
    """The model of that name, or of a dotted path to a Flax linen module class.

    Args:
      name: a key of `MODELS`, or "package.module:Class".
      kwargs: further fields of the class.
      **offered: classes, dtype and conv, each passed on where the class has such a field.

    Raises:
      ConfigError: no such model, not a linen module class, fields that it does not have, or that
        are offered already.
    """
    model_class = find(name, MODELS, key="model.name", kind="a flax.linen.Module class")
    fits = inspect.isclass(model_class) and issubclass(model_class, nn.Module)
    if not fits or model_class is nn.Module:
        rule = "it must be a flax.linen.Module class"
        fault = f"model.name={name!r} is {in_line(repr(model_class)):.80}: {rule}"
        raise ConfigError([fault])
    given = dict(kwargs or {})
    fields = {f.name for f in dataclasses.fields(model_class)} - {"parent", "name"}
    if double := sorted({*given} & {*offered}):
        keys = "which have keys of their own: set model.conv, model.dtype or dataset.classes"
        raise ConfigError([f"model.kwargs has {', '.join(double)}, {keys}"])
    if unknown := sorted({*given} - fields):
        rule = f"does not take: its fields are {', '.join(sorted(fields))}"
        fault = f"model.kwargs has {', '.join(unknown)}, which {model_class.__name__} {rule}"
        raise ConfigError([fault])
    try:
        return model_class(**{k: v for k, v in offered.items() if k in fields}, **given)
    except (Exception, SystemExit) as error:  # the user's class may raise anything
        rule = f"its fields are {', '.join(sorted(fields))}"
        raise ConfigError([f"model.kwargs for {name!r}: {in_line(error)}; {rule}"]) from error


def model_functions(model: nn.Module, image: Any, *, classes: int) -> ModelFunctions:
    """The functions of a model, tried in the abstract: no array is made.

    Args:
      model: a linen module whose `__call__(images)` or `__call__(images, *, train)` gives logits.
      image: an image [h, w, c] as the model will be given it, or its shape and dtype.
      classes: number of logits expected.

    Raises:
      ModelError: the model fails on such images, gives another shape, draws random numbers that
        would depend on the number of devices, or keeps state other than batch norm's.
    """
    name = type(model).__name__
    images = jax.ShapeDtypeStruct((_TRIAL_ROWS, *image.shape), image.dtype)
    takes_train = "train" in inspect.signature(type(model).__call__).parameters

    def call(variables: Any, images: jax.Array, *, train: bool) -> tuple[jax.Array, Any]:
        kwargs: dict[str, Any] = {"train": train} if takes_train else {}
        logits, updates = model.apply(variables, images, mutable=["batch_sums"], **kwargs)
        if not jnp.issubdtype(getattr(logits, "dtype", object), jnp.floating):
            raise ModelError(resolve(f"{_SAY}:no_logits")(model, logits, classes=classes))
        return logits.astype(jnp.float32), updates.get("batch_sums", {})

    def init(key: jax.Array) -> Any:
        variables = model.init({"params": key}, jnp.zeros(images.shape, images.dtype))
        return {k: v for k, v in variables.items() if k != "batch_sums"}

    def apply(params: Any, batch_stats: Any, images: jax.Array, rows: Rows | None) -> Any:
        variables = {"params": params, "batch_stats": batch_stats}
        with contextlib.nullcontext() if rows is None else feeding(rows):
            return call(variables, images, train=rows is not None)

    def trial(key: jax.Array, images: jax.Array) -> Any:
        variables = init(key)
        _check_variables(name, variables)
        rows = Rows(jnp.arange(_TRIAL_ROWS), jnp.ones(_TRIAL_ROWS, bool), key)
        stats = variables.get("batch_stats", {})
        logits = [apply(variables["params"], stats, images, r)[0] for r in (rows, None)]
        return variables, logits

    with nn.intercept_methods(_refuse_device_dependent):
        try:
            variables, logits = jax.eval_shape(trial, jax.random.key(0), images)
        except ModelError:
            raise
        except (Exception, SystemExit) as error:  # the user's model may raise anything
            raise ModelError(resolve(f"{_SAY}:failure")(model, images, error)) from error
    expected = (_TRIAL_ROWS, classes)
    if wrong := [x.shape for x in logits if x.shape != expected]:
        rule = f"of {classes} classes: {expected} is expected; check its last layer"
        raise ModelError(
            f"model {name} gives logits of shape {wrong[0]} for {_TRIAL_ROWS} images {rule}"
        )
    return ModelFunctions(init=init, apply=apply, variables=variables)


def _check_variables(name: str, variables: Any) -> None:
    if extra := sorted({*variables} - {"params", "batch_stats"}):
        rule = "only params and batch_stats can be trained and saved"
        raise ModelError(f"model {name} keeps the collections {', '.join(extra)}: {rule}")
    if not variables.get("params"):
        raise ModelError(f"model {name} has no parameters: there is nothing to train")
    types = {leaf.dtype for leaf in jax.tree.leaves(variables["params"])}
    if wrong := [t.name for t in types if not jnp.issubdtype(t, jnp.floating)]:
        rule = "only floating-point ones can be trained; keep others as constants of the module"
        raise ModelError(f"model {name} has parameters of type {', '.join(wrong)}: {rule}")


def _refuse_device_dependent(next_method: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Stops at Flax's layers whose results depend on the number of devices."""
    for layer in (nn.Dropout, nn.BatchNorm):
        if isinstance(context.module, layer):
            rule = "gives results that depend on the number of devices"
            repair = f"use jaxmnist.models.{layer.__name__}, which takes the same arguments"
            raise ModelError(f"flax.linen.{layer.__name__} {rule}: {repair}")
    return next_method(*args, **kwargs)
