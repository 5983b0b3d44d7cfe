"""Reads by the host and second traces are counted, and their places and causes named."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmnist.testing import assert_no_host_transfers, assert_single_trace, count_traces


@pytest.fixture
def step():
    return jax.jit(lambda state: (state * 0.5, {"loss": state.sum(), "count": state[0]}))


@pytest.fixture(params=[1, 3])
def state(data_mesh, request):
    return jax.device_put(np.ones(6, np.float32), NamedSharding(data_mesh(request.param), P()))


READS = {
    "float": lambda a: float(a["loss"]),
    "int": lambda a: int(a["count"]),
    "bool": lambda a: bool(a["loss"] > a["count"]),
    "item": lambda a: a["loss"].item(),
    "tolist": lambda a: a["loss"].tolist(),
    "format": lambda a: f"{a['loss']:.3f}",
    "print": lambda a: str(a["loss"]),
    "numpy.asarray": lambda a: np.asarray(a["loss"]),
    "numpy.array": lambda a: np.array(a["loss"]),
    "one shard": lambda a: np.asarray(a["loss"].addressable_shards[0].data),
    "device_get of a tree": jax.device_get,
}


class TestNoHostTransfers:
    def test_a_loop_without_reads_passes(self, step, state):
        with assert_no_host_transfers() as reads:
            for _ in range(5):
                state, metrics = step(state)
            jax.block_until_ready(metrics)
        assert reads == []

    @pytest.mark.parametrize("name", READS)
    def test_every_way_of_reading_is_one_read(self, step, state, name):
        read = (lambda a: jax.device_get(a)) if name.startswith("device_get") else READS[name]
        _, metrics = step(state)
        with (
            pytest.raises(AssertionError, match=r"1 device-to-host reads, at most 0 allowed:\n"),
            assert_no_host_transfers(),
        ):
            read(metrics)

    def test_a_read_in_the_loop_is_placed_and_counted(self, step, state):
        text = (
            r"7 device-to-host reads, at most 2 allowed:\n  7 x .*test_loop.py:\d+ in train: float"
        )

        def train(state):
            for _ in range(7):
                state, metrics = step(state)
                float(metrics["loss"])

        with pytest.raises(AssertionError, match=text), assert_no_host_transfers(allowed=2):
            train(state)

    def test_allowed_reads_pass_and_everything_is_put_back(self, step, state):
        before = (jax.device_get, np.asarray, np.array, type(state)._value)
        with assert_no_host_transfers(allowed=1):
            jax.device_get(step(state))
        with pytest.raises(ZeroDivisionError), assert_no_host_transfers():
            float(step(state)[1]["loss"]) / 0
        assert before == (jax.device_get, np.asarray, np.array, type(state)._value)

    def test_other_threads_do_not_count(self, state):
        with assert_no_host_transfers():
            reader = threading.Thread(target=lambda: np.asarray(state))
            reader.start()
            reader.join()

    def test_an_implicit_transfer_to_the_device_raises(self, step, state):
        step(state)
        with (
            pytest.raises(
                AssertionError, match=r"an implicit transfer: .*host-to-device.*device_put"
            ),
            assert_no_host_transfers(),
        ):
            step(np.ones(6, np.float32))


class TestSingleTrace:
    @pytest.mark.parametrize("wrap", ["inside", "outside"])
    def test_a_changed_shape_is_named(self, wrap):
        def double(batch, *, scale):
            return batch["image"] * scale

        jitted = (
            jax.jit(assert_single_trace(double))
            if wrap == "inside"
            else assert_single_trace(jax.jit(double))
        )
        for _ in range(3):
            np.testing.assert_array_equal(jitted({"image": jnp.ones(3)}, scale=2.0), [2, 2, 2])
        text = (
            r"call \d of double .*traced.* again; since the first call:\n"
            r"  argument \[0\]\['image'\]: float32\[3\] -> float32\[4\]"
        )
        with pytest.raises(AssertionError, match=text):
            jitted({"image": jnp.ones(4)}, scale=2.0)

    def test_a_weak_type_is_named(self):
        update = assert_single_trace(jax.jit(lambda loss, rate: loss * rate))
        update(jnp.float32(1), jnp.float32(0.1))
        text = r"argument \[1\]: float32\[\] -> Python float, weakly typed"
        with pytest.raises(AssertionError, match=text):
            update(jnp.float32(1), 0.1)

    def test_a_weakly_typed_array_is_named(self):
        update = jax.jit(assert_single_trace(lambda loss: loss + 1))
        update(jnp.float32(1))
        with pytest.raises(AssertionError, match=r"float32\[\] -> float32\[\], weakly typed"):
            update(jnp.asarray(1.0))

    def test_a_compilation_for_another_placement_is_named(self, data_mesh):
        update = assert_single_trace(jax.jit(lambda x: x + 1))
        update(jnp.ones(4))
        with pytest.raises(AssertionError, match=r"argument \[0\]: .*committed: False -> Named"):
            update(jax.device_put(jnp.ones(4), NamedSharding(data_mesh(2), P())))

    def test_a_loop_that_makes_a_new_function_each_time_is_caught(self):
        def epoch(x):
            return jax.jit(lambda y: y + 1)(x)

        epoch = assert_single_trace(epoch)
        epoch(jnp.ones(2))
        with pytest.raises(
            AssertionError, match=r"no argument has changed: .*or the function is new"
        ):
            epoch(jnp.ones(2))

    def test_a_function_is_called_once_even_if_it_returns_none(self):
        calls = []
        assert assert_single_trace(calls.append)(3) is None
        assert calls == [3]

    def test_traces_are_counted_by_name(self):
        @jax.jit
        def train_step(x):
            return x + 1

        with count_traces() as traces:
            for size in (3, 3, 5, 3):
                train_step(np.ones(size))
        assert traces["train_step"] == 2
        assert traces["eval_step"] == 0
