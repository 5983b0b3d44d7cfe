"""What every run needs before its first step: devices, data, model, optimizer, checked together."""

import functools
import importlib
from collections.abc import Callable, Sequence
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
from numpy.typing import NDArray

from jaxmnist import datasets
from jaxmnist.augment import SHIPPED, Augment, make_augment
from jaxmnist.callbacks import Callback
from jaxmnist.config import Duration, next_due, to_steps, training_length, validate
from jaxmnist.datasets import Dataset
from jaxmnist.errors import ConfigError
from jaxmnist.mesh import batch_faults, data_mesh, prepare_backend, replicate, replicated
from jaxmnist.metrics import cross_entropy
from jaxmnist.models import CONVOLUTIONS, ModelFunctions, make_model, model_functions
from jaxmnist.names import resolve
from jaxmnist.optim import make_optimizer, make_schedule
from jaxmnist.pipeline import make_gather
from jaxmnist.state import TrainState, create_state
from jaxmnist.step import Task
from jaxmnist.step.body import INIT_STREAM, Loss, stream_key
from jaxmnist.writers import writer_types

# The data set may take this much of a device's memory.
_RESIDENT_SHARE = 0.25


@dataclass(frozen=True)
class Setup:
    """All that is decided before the first step.

    Attributes:
      config: the validated configuration.
      mesh: the devices.
      data: the examples; `data.train` may be a `grain.MapDataset`.
      model: the model's functions.
      task: what is trained and how.
      steps: length of the training.
      conv: the convolution that was chosen, for the panel; empty for a model without the choice.
      steps_per_call: the most steps that one call makes.
      resident: whether the train split lies on the devices, and batches are gathered there.
      notes: sentences for the panel, such as why a fast path does not apply.
      callbacks: those that the configuration names, then those that were given.
    """

    config: ConfigDict
    mesh: Mesh
    data: Dataset
    model: ModelFunctions
    task: Task
    steps: int
    conv: str
    steps_per_call: int
    resident: bool
    notes: tuple[str, ...]
    callbacks: Sequence[Callback]

    def next_due(self, step: int, duration: int | str) -> int:
        """The first step after this one at whose end something that recurs is due."""
        sizes = {"batch_size": self.config.batch_size, "train_examples": len(self.data.train)}
        return next_due(step, Duration.parse(duration), **sizes)

    def recurring(self, duration: int | str, *, start: int) -> Callable[[int], bool]:
        """Whether something that recurs every `duration` falls on the end of a step.

        The function is to be asked about steps after `start` that never go back: the exact
        arithmetic is then done once a period and not at every step.
        """
        upcoming = self.next_due(start, duration)

        def due(step: int) -> bool:
            nonlocal upcoming
            while upcoming < step:
                upcoming = self.next_due(upcoming, duration)
            return upcoming == step

        return due

    def call_bounds(self, start: int) -> Sequence[int]:
        """Where calls from `start` on begin and end: cut where something is due between steps."""
        if self.steps_per_call == 1:
            return range(start, self.steps + 1)
        every = {self.config.log.every, self.config.eval.every, self.config.checkpoint.every}
        cut: Callable[..., list[int]] = resolve("jaxmnist.zoo.loops:call_bounds")
        return cut(start, self.steps, self.steps_per_call, every, self.next_due)

    @functools.cached_property
    def table(self) -> Any:
        """The train split on every device, images [n, h, w, c] and labels int32 [n]; or empty."""
        split = self.data.train
        arrays = (split.images, split.labels.astype(np.int32)) if self.resident else ()
        return replicate(arrays, self.mesh)

    def epoch(self, step: int) -> float:
        """Passes over the training data after this many steps."""
        return step * self.config.batch_size / len(self.data.train)

    def initial_state(self) -> TrainState:
        """The state before the first step, on every device."""
        key = stream_key(self.config.seed, INIT_STREAM, 0)
        variables = jax.device_get(jax.jit(self.model.init)(key))
        return replicate(jax.device_get(self._state_of(variables)), self.mesh)

    def state_shapes(self) -> TrainState:
        """Shapes and places of the state's arrays, to restore it without making it before."""
        shapes, place = jax.eval_shape(self._state_of, self.model.variables), replicated(self.mesh)
        with_place = functools.partial(jax.ShapeDtypeStruct, sharding=place)
        return jax.tree.map(lambda x: with_place(x.shape, x.dtype), shapes)

    def _state_of(self, variables: Any) -> TrainState:
        return create_state(variables, self.task.tx, ema=self.config.train.ema_decay is not None)


def prepare(
    config: ConfigDict,
    *,
    dataset: Any = None,
    model: nn.Module | None = None,
    tx: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    callbacks: Sequence[Callback] = (),
    training: bool = True,
) -> Setup:
    """Decides everything that a run of this configuration needs, or says all that is wrong.

    Args:
      config: from `jaxmnist.get_config`.
      dataset: as `jaxmnist.train` takes it; likewise model, tx, loss and callbacks.
      model: see dataset.
      tx: see dataset.
      loss: see dataset.
      callbacks: see dataset.
      training: whether the batch must be one that the devices can share.

    Raises:
      ConfigError: what the configuration asks for cannot be; all such faults at once.
      DataError: the data set is missing or damaged.
      ModelError: the model breaks the contract of the train step.
    """
    validate(config)
    cpu_devices, bits = config.parallel.cpu_devices, config.parallel.deterministic
    prepare_backend(config.batch_size, cpu_devices=cpu_devices, deterministic=bits)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load_data, config, dataset)
        mesh = _checked_names(config, model=model, tx=tx, loss=loss, training=training)
        if training and (callbacks or config.callbacks):
            callbacks = _own("callbacks:make_callbacks")(config.callbacks, callbacks)
        data = loading.result()
    length = training_length(
        epochs=config.train.epochs, steps=config.train.steps, examples=config.train.examples
    )
    examples, on_cpu = len(data.train), platform(mesh) == "cpu"
    steps = to_steps(length, batch_size=config.batch_size, train_examples=examples)
    conv, notes = _convolution(config, data, mesh)
    model = model or _configured_model(config, data.classes, conv)
    functions = model_functions(model, _first_image(data.train), classes=data.classes)
    schedule = _schedule(config, steps=steps, train_examples=examples)
    own_tx = tx or config.optimizer.no_decay or ":" in config.optimizer.name
    tx = tx or _optimizer(config, schedule)
    if own_tx:
        _own("optimizer:check")(tx, functions.variables, no_decay=config.optimizer.no_decay)
    task = Task(
        apply=functions.apply,
        loss=_loss(config, loss, data.classes),
        tx=tx,
        schedule=schedule,
        seed=config.seed,
        augment=_augment(config, data),
        accumulate=config.train.accumulate,
        # jit: a loop would hold the all-reduce. CPU: XLA's convolution is ten times slower in one.
        unroll=config.parallel.strategy == "jit" or on_cpu,
        ema_decay=config.train.ema_decay,
        matmul_precision=config.parallel.matmul_precision,
    )
    conv = getattr(model, "conv", "")
    known = {"conv": conv, "steps": steps, "on_cpu": on_cpu, "callbacks": bool(callbacks)}
    choose = resolve("jaxmnist.zoo.loops:steps_per_call")
    several = choose(config, functions, data.image_shape, **known)
    resident, notes = _is_resident(config, data, mesh), notes if conv else ()
    facts = (config, mesh, data, functions, task, steps, conv, several, resident, notes, callbacks)
    return Setup(*facts)


def load_data(config: ConfigDict, dataset: Any = None) -> Dataset:
    """Reads the data set of a configuration, or looks at the one that is given.

    Raises:
      ConfigError: the name or the validation split cannot be.
      DataError: files are missing or damaged, or what is given is not a data set.
    """
    directory = config.dataset.dir and Path(config.dataset.dir)
    options = {"directory": directory, "classes": config.dataset.classes}
    load = functools.partial(datasets.load, config.dataset.name, **options)
    dataset = load() if dataset is None else _own("data:as_dataset")(dataset, load)
    if held_out := config.dataset.validation:
        if not isinstance(dataset.train, datasets.Split):
            rule = "give a jaxmnist.datasets.Dataset with a validation split, or 0"
            fault = f"dataset.validation={held_out} holds out examples of arrays: {rule}"
            raise ConfigError([fault])
        dataset = dataset.hold_out(held_out, config.seed)
    return dataset


def _first_image(split: Any) -> NDArray[Any]:
    images, _ = make_gather(split)(np.zeros(1, int), np.zeros(1, int))
    return images[0]


def _own(part: str) -> Any:
    """What makes or tries a part of the user's own; a run without such parts imports none of it."""
    return resolve(f"jaxmnist.zoo.own.{part}")


def _checked_names(config: ConfigDict, *, model: Any, tx: Any, loss: Any, training: bool) -> Mesh:
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
        accumulate, bits = config.train.accumulate, config.parallel.deterministic
        faults += batch_faults(config.batch_size, mesh, accumulate=accumulate, deterministic=bits)
    schedule = attempt(lambda: _schedule(config, steps=100, train_examples=config.batch_size * 50))
    if training:
        attempt(lambda: writer_types(config.log.writers))
    if tx is None:
        attempt(lambda: _optimizer(config, schedule or optax.constant_schedule(1.0)))
    if model is None:
        attempt(lambda: _configured_model(config, 10, "xla"))
    attempt(lambda: _loss(config, loss, 10))
    if config.augment.custom:
        attempt(lambda: resolve(config.augment.custom, key="augment.custom"))
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


def _augment(config: ConfigDict, data: Dataset) -> Augment | None:
    asked = {"shift": config.augment.shift, "rotation": config.augment.rotation}
    asked |= {"scale": config.augment.scale, "shear": config.augment.shear}
    functions = resolve(SHIPPED)(data.image_shape, **asked, cutout=config.augment.cutout)
    if (custom := config.augment.custom) or config.augment.kwargs:
        kwargs, image = config.augment.kwargs.to_dict(), _first_image(data.train)
        own = _own("augment:own_augment")(custom, kwargs=kwargs, image=image)
        functions = [*functions, own]
    return make_augment(functions)


def _loss(config: ConfigDict, given: Loss | None, classes: int) -> Loss:
    kwargs, smoothing = config.loss.kwargs.to_dict(), config.train.label_smoothing
    if given is None and config.loss.name == "cross_entropy" and not kwargs:
        return functools.partial(cross_entropy, label_smoothing=smoothing)
    options = {"kwargs": kwargs, "label_smoothing": smoothing, "classes": classes}
    return _own("loss:make_loss")(given or config.loss.name, **options)


def _optimizer(config: ConfigDict, schedule: Any) -> optax.GradientTransformation:
    return make_optimizer(
        config.optimizer.name,
        schedule,
        weight_decay=config.optimizer.weight_decay,
        clip_norm=config.optimizer.clip_norm,
        kwargs=config.optimizer.kwargs.to_dict(),
        no_decay=config.optimizer.no_decay,
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


def _convolution(config: ConfigDict, data: Dataset, mesh: Mesh) -> tuple[str, tuple[str, ...]]:
    """Which convolution the model shall use, and why not the other where one was hoped for."""
    slow = platform(mesh) != "cpu" or config.parallel.strategy == "jit"
    if config.model.conv == "xla" or (config.model.conv == "auto" and slow):
        return "xla", ()
    obstacle = importlib.import_module(CONVOLUTIONS["winograd"]).obstacle
    if reason := obstacle(data.image_shape, dtype=config.model.dtype):
        return "xla", (f"XLA's convolution is used: {reason}",)
    return "winograd", ()


def _is_resident(config: ConfigDict, data: Dataset, mesh: Mesh) -> bool:
    """Whether the train split shall lie on the devices: by default where there is room for it."""
    split, wanted = data.train, config.pipeline.resident
    arrays = isinstance(split, datasets.Split)
    if wanted == "on" and not arrays:
        fault = "a grain.MapDataset makes its examples on the host: set it to 'auto' or 'off'"
        raise ConfigError([f"pipeline.resident='on', but {fault}"])
    if wanted != "auto" or not arrays or config.parallel.deterministic:
        return wanted == "on"
    memory = (mesh.local_devices[0].memory_stats() or {}).get("bytes_limit", 0)
    return platform(mesh) != "cpu" and split.images.nbytes < _RESIDENT_SHARE * memory


def platform(mesh: Mesh) -> str:
    """Kind of the devices: "cpu", "gpu" or "tpu"."""
    return str(mesh.devices.flat[0].platform)
