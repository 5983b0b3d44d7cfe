"""Promise 1: the same result on any number of devices and in every strategy."""

import jax
import numpy as np
import optax
import pytest

from jaxmnist.mesh import data_mesh, replicate
from jaxmnist.state import create_state
from jaxmnist.step import Batch, make_train_step, place_batch
from jaxmnist.step.body import INIT_STREAM, stream_key
from jaxmnist.testing import assert_replicas_equal
from proofs import oracle
from proofs.runs import STRATEGIES, VARIANTS, learned, trained
from support import Tiny, bits_equal, relative, small_data, small_task, worst_leaf

TOLERANCE = 1e-5


def thorough(variant, strategy):
    """Every variant by shard_map, and one of them by all three strategies."""
    return "shard_map" in strategy or "dropout" in variant


# Quick: those on 8 devices. Slow: those on 2 and 4, and the others on 8.
COMBINATIONS = [
    pytest.param(
        variant,
        strategy,
        devices,
        marks=() if devices == 8 and thorough(variant, strategy) else pytest.mark.slow,
        id=f"{devices}-{variant}-{strategy}",
    )
    for variant in VARIANTS
    for strategy in STRATEGIES
    for devices in (8, 2, 4)
    if devices == 8 or thorough(variant, strategy)
]


@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=() if "norm" in v else pytest.mark.slow) for v in VARIANTS],
)
def test_a_run_agrees_with_a_second_implementation(variant, record_property):
    """Plain loops over rows on one device, written without the library's step."""
    _, model, told = VARIANTS[variant]
    _, init = small_task(Tiny(**model))
    first = jax.device_get(init(stream_key(3, INIT_STREAM, 0)))["params"]
    params, velocity, average, running, losses = oracle.train(
        first, small_data(), seed=3, steps=20, batch_size=32, **told
    )
    result = trained(variant)
    state = jax.device_get(result.state)
    worst = worst_leaf(state.params, params)
    worst = max(worst, worst_leaf(optax.tree.get(state.opt_state, "trace"), velocity))
    if average is not None:
        worst = max(worst, worst_leaf(state.ema, average))
    if told.get("batch_norm"):
        stats = state.batch_stats["BatchNorm_0"]
        worst = max(worst, relative(stats["mean"], running[0]), relative(stats["var"], running[1]))
    lines = [r["loss"] for r in result.history if r["split"] == "train"]
    worst = max(worst, max(relative(a, b) for a, b in zip(lines, losses, strict=True)))
    record_property("worst", worst)
    assert worst < 5 * TOLERANCE


@pytest.mark.parametrize(("variant", "strategy", "devices"), COMBINATIONS)
def test_a_run_is_the_same_on_many_devices(variant, strategy, devices, record_property):
    reference = trained(variant)
    result = trained(variant, strategy, devices)
    worst = worst_leaf(learned(result), learned(reference))
    record_property("worst", worst)
    assert worst < TOLERANCE
    assert_replicas_equal(result.state)
    for mine, single in zip(result.history, reference.history, strict=True):
        assert mine["loss"] == pytest.approx(single["loss"], rel=TOLERANCE)
        assert mine["accuracy"] == single["accuracy"]


@pytest.mark.parametrize(
    ("variant", "devices"),
    [(v, 8) if "dropout" in v else pytest.param(v, 8, marks=pytest.mark.slow) for v in VARIANTS]
    + [pytest.param("dropout and shift", n, marks=pytest.mark.slow) for n in (2, 4)],
)
def test_shard_map_and_pmap_are_bit_equal(variant, devices):
    result = learned(trained(variant, "pmap", devices))
    assert bits_equal(result, learned(trained(variant, "shard_map", devices)))


def padded_batch(rows=32):
    """A batch whose padding lies on the last devices and holds NaN."""
    data = small_data().train
    image = data.images[:rows].astype(np.float32) / 255.0
    mask = np.arange(rows) < rows - 11
    image[~mask] = np.nan
    return Batch(image=image, label=data.labels[:rows].copy(), mask=mask)


def first_gradient(strategy, devices, *, batch, model=None, deterministic_bits=False, **kwargs):
    """The gradient of one step, as the momentum keeps it, and the metrics."""
    task, init = small_task(model or Tiny(), **kwargs)
    mesh = data_mesh(devices)
    step = make_train_step(task, mesh, strategy=strategy, deterministic_bits=deterministic_bits)
    state = replicate(
        create_state(jax.device_get(init(jax.random.key(0))), task.tx, ema=False), mesh
    )
    state, sums = step(state, place_batch(batch, mesh, strategy=strategy))
    return jax.device_get((state.opt_state[0].trace, sums))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_the_gradient_of_one_step_counts_each_row_once(strategy, accumulate, devices):
    """With padding spread unevenly, a mean of the devices' means would be another number."""
    batch = padded_batch()
    real = Batch(*(x[batch.mask] for x in batch))
    reference, sums = first_gradient("jit", 1, batch=real)
    gradient, padded_sums = first_gradient(
        strategy, devices, batch=batch, accumulate=accumulate, unroll=strategy == "jit"
    )
    assert worst_leaf(gradient, reference) < TOLERANCE
    assert padded_sums.count == sums.count == real.mask.sum()
    assert padded_sums.correct == sums.correct
    assert relative(padded_sums.loss, sums.loss) < TOLERANCE
