"""Promise 3: evaluation counts every example once, for every batch size and device count."""

import jax
import numpy as np
import pytest

from jaxmnist import datasets
from jaxmnist.config import apply_overrides, get_config
from jaxmnist.datasets import from_arrays
from jaxmnist.models import CNN
from jaxmnist.runs.evaluate import Evaluator
from jaxmnist.runs.setup import prepare
from support import Tiny, small_config, small_data


def evaluated(dataset, *, batch_size, devices, strategy="shard_map", model=None):
    """The evaluation of the initial parameters on the test split."""
    config = small_config(
        parallel__devices=devices, parallel__strategy=strategy, eval__batch_size=batch_size
    )
    setup = prepare(config, dataset=dataset, model=model or Tiny(), training=False)
    return Evaluator(setup).run(setup.initial_state(), "test")


@pytest.fixture(scope="module")
def reference(mnist):
    return evaluated(mnist, batch_size=1000, devices=1)


SIZES = [128, 9_999, 16_384]
MORE = [pytest.param(size, marks=pytest.mark.slow) for size in (1, 7, 100, 10_000)]


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("batch_size", [*SIZES, *MORE])
def test_ten_thousand_of_ten_thousand(mnist, reference, batch_size, devices):
    found = evaluated(mnist, batch_size=batch_size, devices=devices)
    assert found.count == 10_000
    assert found.accuracy == reference.accuracy
    assert found.confusion == reference.confusion
    assert found.per_class == reference.per_class
    assert found.loss == pytest.approx(reference.loss, rel=1e-6)


@pytest.mark.parametrize("strategy", ["pmap", "jit"])
def test_the_strategies_agree(mnist, reference, strategy):
    found = evaluated(mnist, batch_size=777, devices=8, strategy=strategy)
    assert (found.confusion, found.count) == (reference.confusion, 10_000)


@pytest.mark.parametrize("count", [1, 49, 50, 51, 251])
def test_awkward_sizes(count):
    data = small_data().train
    part = (data.images[:count], data.labels[:count])
    dataset = from_arrays(*part, *part, classes=10)
    found = evaluated(dataset, batch_size=50, devices=3)
    assert found.count == count
    labels = np.bincount(data.labels[:count], minlength=10)
    assert [sum(row) for row in found.confusion] == labels.tolist()
    assert [share is None for share in found.per_class] == (labels == 0).tolist()


def test_it_agrees_with_numpy_on_the_logits(mnist):
    """The whole CNN, evaluated here in one piece by NumPy from its logits."""
    config = apply_overrides(get_config(), {"parallel.devices": "2", "model.conv": "xla"})
    small = mnist.test.take(np.arange(500))
    dataset = datasets.Dataset("part", 10, small, small)
    setup = prepare(config, dataset=dataset)
    state = setup.initial_state()
    found = Evaluator(setup).run(state, "test")
    params = jax.device_get(state.params)
    logits = np.asarray(CNN().apply({"params": params}, small.images), np.float64)
    top = logits.max(1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    assert found.loss == pytest.approx(-logs[np.arange(500), small.labels].mean(), rel=1e-5)
    assert found.accuracy == (logits.argmax(1) == small.labels).mean()


def test_the_moving_average_is_what_is_evaluated():
    config = small_config(train__ema_decay=0.9)
    setup = prepare(config, dataset=small_data(), model=Tiny(), training=False)
    state = setup.initial_state()
    broken = jax.tree.map(lambda x: x * 0, state.params)
    evaluator = Evaluator(setup)
    good = evaluator.run(state, "test")
    assert evaluator.run(state.replace(params=broken), "test") == good
    assert evaluator.run(state.replace(ema=broken), "test") != good


def test_evaluation_neither_drops_nor_shifts_anything():
    dropping = small_config(augment__shift=2)
    setup = prepare(dropping, dataset=small_data(), model=Tiny(dropout=0.9), training=False)
    plain = evaluated(small_data(), batch_size=50, devices=None)
    assert Evaluator(setup).run(setup.initial_state(), "test") == plain
