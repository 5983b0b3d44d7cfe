"""Promise 4: one all-reduce a training step, whatever the accumulation; read from compiled HLO."""

import re

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxmnist.mesh import data_mesh, replicate, replicated, row_sharded
from jaxmnist.state import create_state, parameter_count
from jaxmnist.step import make_eval_step, make_train_step, place_batch
from jaxmnist.testing import assert_all_reduce_count, audit
from proofs.runs import STRATEGIES
from support import Tiny, small_batch, small_task

FLOAT_BYTES = 4
METRICS = 3  # loss, correct, count
WIDTH = 1040  # with 8x8 pixels, a kernel that is too large to be copied for the all-reduce


class Wide(nn.Module):
    """A large kernel among small arrays."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Dense(WIDTH)(images.reshape(images.shape[0], -1)))
        return nn.Dense(10)(x)


def compiled_train_step(strategy, devices, *, model=None, deterministic_bits=False, **kwargs):
    """The compiled programs of a step and the number of parameters."""
    task, init = small_task(model or Tiny(), **kwargs)
    mesh = data_mesh(devices)
    state = create_state(jax.device_get(init(jax.random.key(0))), task.tx, ema=False)
    step = make_train_step(task, mesh, strategy=strategy, deterministic_bits=deterministic_bits)
    batch = place_batch(small_batch(64), mesh, strategy=strategy)
    return step.compile(replicate(state, mesh), batch), parameter_count(state.params)


@pytest.mark.parametrize("strategy", ["shard_map", "pmap"])
@pytest.mark.parametrize(("accumulate", "unroll"), [(1, False), (4, True), (4, False)])
@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_a_step_has_one_all_reduce_of_parameters_and_metrics(strategy, devices, accumulate, unroll):
    programs, parameters = compiled_train_step(
        strategy, devices, accumulate=accumulate, unroll=unroll
    )
    found = assert_all_reduce_count(programs, 1, reduced_bytes=FLOAT_BYTES * (parameters + METRICS))
    assert not any(c.in_loop for c in found)


@pytest.mark.parametrize("strategy", ["shard_map", "pmap"])
def test_devices_meet_once_for_each_large_array_and_once_for_all_small_ones(strategy):
    """A CPU's devices wait for each other anew for every array of an all-reduce."""
    (program,), parameters = compiled_train_step(strategy, 2, model=Wide())
    (shape,) = re.findall(r" = \((.*)\) all-reduce\(", program.as_text())
    assert sorted(re.findall(r"f32\[(.*?)\]", shape)) == [
        f"{parameters - 64 * WIDTH + METRICS}",
        f"64,{WIDTH}",
    ]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_under_jit_it_is_one_operation_of_all_microbatches(accumulate):
    """XLA reduces each microbatch's gradients, all of them in one operation."""
    programs, parameters = compiled_train_step("jit", 8, accumulate=accumulate, unroll=True)
    (collective,) = assert_all_reduce_count(programs, 1)
    assert not collective.in_loop
    assert collective.bytes <= accumulate * FLOAT_BYTES * (parameters + METRICS)
    assert collective.bytes >= FLOAT_BYTES * parameters


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_running_statistics_ride_in_the_one_all_reduce(strategy):
    programs, _ = compiled_train_step(strategy, 4, model=Tiny(groups=8))
    assert_all_reduce_count(programs, 1)


@pytest.mark.parametrize("strategy", ["shard_map", "pmap"])
def test_batch_norm_over_the_whole_batch_costs_two_more_a_layer(strategy):
    programs, _ = compiled_train_step(strategy, 4, model=Tiny(groups=1))
    assert_all_reduce_count(programs, 1 + 2)


@pytest.mark.parametrize("devices", [2, 4])
def test_the_deterministic_step_has_one_all_gather_and_no_all_reduce(devices):
    programs, parameters = compiled_train_step(
        "shard_map", devices, deterministic_bits=True, accumulate=2, unroll=True
    )
    found = assert_all_reduce_count(programs, 0, all_gathers=1)
    (gather,) = [c for c in found if c.kind == "all-gather"]
    assert gather.bytes == 8 * FLOAT_BYTES * (parameters + METRICS)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_evaluation_has_at_most_one_all_reduce(strategy):
    task, init = small_task()
    mesh = data_mesh(4)
    variables = replicate(jax.device_get(init(jax.random.key(0))), mesh)
    step = make_eval_step(task, mesh, strategy=strategy)
    batch = place_batch(small_batch(64), mesh, strategy=strategy)
    assert_all_reduce_count(step.compile(variables["params"], {}, batch), 1)


def test_the_forward_pass_has_none():
    task, init = small_task(Tiny(groups=8))
    mesh = data_mesh(4)
    variables = replicate(jax.device_get(init(jax.random.key(0))), mesh)
    batch = place_batch(small_batch(64), mesh)

    def forward(variables, image):
        return task.apply(variables["params"], variables["batch_stats"], image, None)[0]

    forward = jax.jit(
        forward,
        in_shardings=(replicated(mesh), row_sharded(mesh)),
        out_shardings=row_sharded(mesh),
    )
    assert audit(forward.lower(variables, batch.image).compile()) == []


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_lowered_for_accelerators_nothing_is_reduced_inside_the_accumulation(platform):
    """No hardware is needed to lower; the loop over microbatches stays a loop there."""
    task, init = small_task(accumulate=4, unroll=False)
    mesh = data_mesh(4)
    state = create_state(jax.device_get(init(jax.random.key(0))), task.tx, ema=False)
    step = make_train_step(task, mesh)
    arguments = replicate(state, mesh), place_batch(small_batch(64), mesh)
    text = step.call.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    loops = text.count("stablehlo.while")
    assert loops >= 1
    before, _, rest = text.partition("stablehlo.while")
    assert "all_reduce" not in before
    inside = rest[: rest.index("stablehlo.return", rest.index("} do {"))]
    assert "all_reduce" not in inside
    assert "all_reduce" in rest


def test_the_audit_sees_a_reduction_inside_a_loop():
    """The count of a loop's collectives is multiplied by its trips."""
    from jax.sharding import PartitionSpec as P

    mesh = data_mesh(2)

    def body(x):
        def add(total, i):
            return total + jax.lax.psum(x * total.sum() + i, "data"), None

        steps = jax.numpy.arange(5.0)
        return jax.lax.scan(add, jax.numpy.zeros(x.shape), steps)[0]

    mapped = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=P("data"), out_specs=P()))
    with pytest.raises(AssertionError, match="5"):
        assert_all_reduce_count(mapped.lower(np.zeros(8, np.float32)).compile(), 1)
