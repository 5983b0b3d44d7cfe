"""What every run needs before its first step: devices, data, model, optimizer, checked together."""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxmnist import datasets
from jaxmnist.augment import Augment, make_augment
from jaxmnist.config import Duration, is_due, to_steps, training_length, validate
from jaxmnist.errors import ConfigError, DataError
from jaxmnist.mesh import batch_faults, data_mesh, prepare_backend, replicate
from jaxmnist.metrics import cross_entropy
from jaxmnist.models import ModelFunctions, make_model, model_functions, winograd
from jaxmnist.optim import make_optimizer, make_schedule
from jaxmnist.pipeline import example_count, make_gather
from jaxmnist.state import TrainState, create_state
from jaxmnist.step import Task
from jaxmnist.step.body import INIT_STREAM, stream_key


@dataclass(frozen=True)
class Data:
    """The examples of a run.

    Attributes:
      name: of the data set.
      source: where it came from.
      classes: number of classes.
      image_shape: (h, w, c).
      image_dtype: of the images as they are read.
      splits: what to read by split name: "train", "test", perhaps "validation".
      digest: one SHA-256 for all files or arrays; empty where the source has none.
    """

    name: str
    source: str
    classes: int
    image_shape: tuple[int, ...]
    image_dtype: Any
    splits: dict[str, Any]
    digest: str

    def count(self, split: str) -> int:
        """Number of examples in a split."""
        return example_count(self.splits[split])


@dataclass(frozen=True)
class Setup:
    """All that is decided before the first step.

    Attributes:
      config: the validated configuration.
      mesh: the devices.
      data: the examples.
      model: the model's functions.
      task: what is trained and how.
      steps: length of the training.
      conv: the convolution that was chosen, for the panel; empty for a model without the choice.
      notes: sentences for the panel, such as why a fast path does not apply.
    """

    config: ConfigDict
    mesh: Mesh
    data: Data
    model: ModelFunctions
    task: Task
    steps: int
    conv: str
    notes: tuple[str, ...]

    def due(self, step: int, duration: int | str) -> bool:
        """Whether something that recurs every `duration` falls on the end of this step."""
        return is_due(
            step,
            Duration.parse(duration),
            batch_size=self.config.batch_size,
            train_examples=self.data.count("train"),
        )

    def epoch(self, step: int) -> float:
        """Passes over the training data after this many steps."""
        return step * self.config.batch_size / self.data.count("train")

    def initial_state(self) -> TrainState:
        """The state before the first step, in the memory of the host."""
        key = stream_key(self.config.seed, INIT_STREAM, 0)
        variables = jax.device_get(jax.jit(self.model.init)(key))
        ema = self.config.train.ema_decay is not None
        return jax.device_get(create_state(variables, self.task.tx, ema=ema))

    def replicated_state(self) -> TrainState:
        """The state before the first step, on every device."""
        return replicate(self.initial_state(), self.mesh)


def prepare(
    config: ConfigDict,
    *,
    dataset: Any = None,
    model: nn.Module | None = None,
    tx: optax.GradientTransformation | None = None,
    loss: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    training: bool = True,
) -> Setup:
    """Decides everything that a run of this configuration needs, or says all that is wrong.

    Args:
      config: from `jaxmnist.get_config`.
      dataset: a `jaxmnist.datasets.Dataset` in place of the configured one, or a
        `grain.MapDataset` of examples in place of its training split.
      model: a linen module in place of the configured one.
      tx: an optimizer in place of the configured one.
      loss: `loss(logits, labels)`, each row's loss [b], in place of cross-entropy.
      training: whether the batch must be one that the devices can share.

    Raises:
      ConfigError: what the configuration asks for cannot be; all such faults at once.
      DataError: the data set is missing or damaged.
      ModelError: the model breaks the contract of the train step.
    """
    validate(config)
    prepare_backend(
        config.batch_size,
        cpu_devices=config.parallel.cpu_devices,
        deterministic=config.parallel.deterministic,
    )
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load_data, config, dataset)
        mesh = _checked_names(config, model=model, tx=tx, training=training)
        data = loading.result()
    steps = _training_steps(config, data)
    conv, notes = _convolution(config, data, mesh)
    model = model or _configured_model(config, data.classes, conv)
    functions = model_functions(
        model,
        image_shape=data.image_shape,
        image_dtype=data.image_dtype,
        classes=data.classes,
    )
    schedule = _schedule(config, steps=steps, train_examples=data.count("train"))
    task = Task(
        apply=functions.apply,
        loss=loss or functools.partial(cross_entropy, label_smoothing=config.train.label_smoothing),
        tx=tx or _optimizer(config, schedule),
        schedule=schedule,
        seed=config.seed,
        augment=_augment(config, data),
        accumulate=config.train.accumulate,
        # jit: a loop would hold the all-reduce. CPU: XLA's convolution is ten times slower in one.
        unroll=config.parallel.strategy == "jit" or _platform(mesh) == "cpu",
        ema_decay=config.train.ema_decay,
        matmul_precision=config.parallel.matmul_precision,
    )
    has_conv = hasattr(model, "conv")
    return Setup(
        config=config,
        mesh=mesh,
        data=data,
        model=functions,
        task=task,
        steps=steps,
        conv=model.conv if has_conv else "",
        notes=notes if has_conv else (),
    )


def load_data(config: ConfigDict, dataset: Any = None) -> Data:
    """Reads the data set of a configuration, or looks at the one that is given.

    Raises:
      ConfigError: the name or the validation split cannot be.
      DataError: files are missing or damaged, or what is given is not a data set.
    """
    if not isinstance(dataset, datasets.Dataset):
        examples, directory = dataset, config.dataset.dir and Path(config.dataset.dir)
        dataset = datasets.load(
            config.dataset.name, directory=directory, classes=config.dataset.classes
        )
        if examples is not None:
            dataset = dataclasses.replace(dataset, train=examples, sha256={})
    if config.dataset.validation:
        if not isinstance(dataset.train, datasets.Split):
            raise ConfigError(
                [
                    f"dataset.validation={config.dataset.validation} holds out examples of "
                    "arrays: give a jaxmnist.datasets.Dataset with a validation split, or 0"
                ]
            )
        dataset = dataset.hold_out(config.dataset.validation, config.seed)
    splits = {"train": dataset.train, "test": dataset.test, "validation": dataset.validation}
    splits = {name: source for name, source in splits.items() if source is not None}
    first = {k: make_gather(v)(np.zeros(1, int), np.zeros(1, int))[0] for k, v in splits.items()}
    shapes = {name: image.shape[1:] for name, image in first.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(
            f"the splits of {dataset.name} have images of {shapes}: they must agree; give all of "
            "them in one jaxmnist.datasets.Dataset"
        )
    return Data(
        name=dataset.name,
        source=dataset.source,
        classes=dataset.classes,
        image_shape=shapes["train"],
        image_dtype=first["train"].dtype,
        splits=splits,
        digest=",".join(f"{k}={v}" for k, v in sorted(dataset.sha256.items())),
    )


def _checked_names(config: ConfigDict, *, model: Any, tx: Any, training: bool) -> Mesh:
    """The second stage of validation: devices and names, before data are read."""
    faults: list[str] = []

    def attempt(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except ConfigError as error:
            faults.extend(error.faults)
            return None

    devices = _devices(config)
    mesh = attempt(lambda: data_mesh(config.parallel.devices, devices=devices))
    if mesh is not None and training:
        faults += batch_faults(
            config.batch_size,
            mesh,
            accumulate=config.train.accumulate,
            deterministic=config.parallel.deterministic,
        )
    schedule = attempt(lambda: _schedule(config, steps=100, train_examples=config.batch_size * 50))
    if tx is None:
        attempt(lambda: _optimizer(config, schedule or optax.constant_schedule(1.0)))
    if model is None:
        attempt(lambda: _configured_model(config, 10, "xla"))
    if faults:
        raise ConfigError(faults)
    return mesh


def _devices(config: ConfigDict) -> list[jax.Device]:
    try:
        return jax.devices("cpu" if config.parallel.cpu_devices else None)
    except RuntimeError as error:
        fault, *_ = str(error).splitlines()
        raise ConfigError([f"JAX can use no device: {fault}; correct JAX_PLATFORMS"]) from error


def _configured_model(config: ConfigDict, classes: int, conv: str) -> nn.Module:
    return make_model(
        config.model.name,
        kwargs=config.model.kwargs.to_dict(),
        classes=classes,
        dtype=jnp.dtype(config.model.dtype),
        conv=conv,
    )


def _augment(config: ConfigDict, data: Data) -> Augment | None:
    side = min(data.image_shape[:2])
    if config.augment.shift >= side:
        raise ConfigError(
            [
                f"augment.shift={config.augment.shift} moves images of {side} pixels out of "
                f"sight: choose at most {side - 1}"
            ]
        )
    return make_augment(shift_pixels=config.augment.shift)


def _optimizer(config: ConfigDict, schedule: Any) -> optax.GradientTransformation:
    return make_optimizer(
        config.optimizer.name,
        schedule,
        weight_decay=config.optimizer.weight_decay,
        clip_norm=config.optimizer.clip_norm,
        kwargs=config.optimizer.kwargs.to_dict(),
    )


def _schedule(config: ConfigDict, *, steps: int, train_examples: int) -> Any:
    return make_schedule(
        config.schedule.name,
        config.optimizer.learning_rate,
        steps=steps,
        batch_size=config.batch_size,
        train_examples=train_examples,
        kwargs=config.schedule.kwargs.to_dict(),
    )


def _training_steps(config: ConfigDict, data: Data) -> int:
    length = training_length(
        epochs=config.train.epochs, steps=config.train.steps, examples=config.train.examples
    )
    return to_steps(length, batch_size=config.batch_size, train_examples=data.count("train"))


def _convolution(config: ConfigDict, data: Data, mesh: Mesh) -> tuple[str, tuple[str, ...]]:
    """Which convolution the model shall use, and why not the other where one was hoped for."""
    wanted = config.model.conv
    if wanted == "xla":
        return "xla", ()
    if wanted == "auto" and (_platform(mesh) != "cpu" or config.parallel.strategy == "jit"):
        return "xla", ()
    if reason := winograd.obstacle(data.image_shape, dtype=config.model.dtype):
        return "xla", (f"XLA's convolution is used: {reason}",)
    return "winograd", ()


def _platform(mesh: Mesh) -> str:
    return str(mesh.devices.flat[0].platform)


def in_flight_limit(mesh: Mesh) -> int:
    """How many steps may be under way at once.

    On CPU devices one: an all-reduce waits in a thread of a small pool for the devices that have
    not arrived, and more of them than threads wait for ever.
    """
    return 1 if _platform(mesh) == "cpu" else 4
