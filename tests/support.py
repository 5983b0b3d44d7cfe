"""Small models, data and configurations that the tests share."""

import functools

import flax.linen as nn
import numpy as np
import optax

import jaxmnist
from jaxmnist import datasets
from jaxmnist.augment import make_augment
from jaxmnist.config import apply_overrides
from jaxmnist.metrics import cross_entropy
from jaxmnist.models import BatchNorm, Dropout, model_functions, normalize
from jaxmnist.step import Batch, Task
from jaxmnist.zoo.augment import shipped


class Tiny(nn.Module):
    """A CNN of a few hundred parameters with every layer that could depend on the devices."""

    classes: int = 10
    dropout: float = 0.0
    groups: int | None = None

    @nn.compact
    def __call__(self, images, *, train=False):
        # No bias: batch norm takes it away again, and what is left of it is rounding noise.
        conv = nn.Conv(4, (3, 3), strides=(2, 2), use_bias=self.groups is None)
        x = conv(normalize(images))
        if self.groups is not None:
            x = BatchNorm(groups=self.groups)(x, use_running_average=not train)
        x = nn.relu(x)
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(16)(x.reshape(x.shape[0], -1)))
        x = Dropout(self.dropout)(x, deterministic=not train)
        return nn.Dense(self.classes)(x)


@functools.cache
def small_data(train=509, test=131, side=8, classes=10, seed=0):
    """Images whose class is a bright row or column: learnable, and of awkward (prime) sizes."""
    rng = np.random.default_rng(seed)

    def split(count):
        labels = rng.integers(0, classes, count)
        labels[0] = classes - 1
        images = rng.integers(0, 96, (count, side, side), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            line = image[label] if label < side else image[:, label - side]
            line += np.uint8(100)
        return images, labels

    return datasets.from_arrays(*split(train), *split(test), name="rows", classes=classes)


def small_config(**overrides):
    """The default made small: SGD with momentum, since Adam hides the scale of a gradient."""
    defaults = {
        "batch_size": 32,
        "train.steps": 20,
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.05,
        "optimizer.kwargs": {"momentum": 0.9},
        "schedule.name": "constant",
        "log.every": 4,
        "checkpoint.every": 8,
        "eval.every": 16,
        "eval.batch_size": 50,
    }
    values = defaults | {k.replace("__", "."): v for k, v in overrides.items()}
    return apply_overrides(
        jaxmnist.get_config(), {name: str(value) for name, value in values.items()}
    )


def small_task(model=None, *, shift=0, tx=None, **kwargs):
    """A task for the tiny model on 8×8 images, and the function that makes its variables."""
    functions = model_functions(model or Tiny(), np.zeros((8, 8, 1), np.uint8), classes=10)
    task = Task(
        apply=functions.apply,
        loss=kwargs.pop("loss", cross_entropy),
        tx=tx or optax.sgd(0.05, momentum=0.9),
        schedule=optax.constant_schedule(0.05),
        seed=3,
        augment=make_augment(shipped((8, 8, 1), shift=shift)),
        **kwargs,
    )
    return task, functions.init


def small_batch(rows=32, *, seed=0):
    """A batch of the small data as host arrays."""
    data = small_data().train
    index = np.random.default_rng(seed).permutation(len(data))[:rows]
    return Batch(image=data.images[index], label=data.labels[index], mask=np.ones(len(index), bool))


def relative(a, b):
    """max|a − b| / max|b|; infinite where one of them is not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    found = float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30))
    # Not left NaN: max() over leaves passes over a NaN, and a proof would pass with it.
    return found if np.isfinite(found) else np.inf


def worst_leaf(tree, reference):
    """The largest relative difference over the leaves of two trees of one structure."""
    import jax

    pairs = jax.tree.map(relative, tree, reference)
    return max(jax.tree.leaves(pairs), default=0.0)


def bits_equal(tree, reference):
    """Whether two trees have equal leaves, bit for bit."""
    import jax

    same = jax.tree.map(
        lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), tree, reference
    )
    return all(jax.tree.leaves(same))
