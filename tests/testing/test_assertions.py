"""The assertions pass on right data-parallel code, and say what is wrong with wrong code."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmnist.errors import UsageError
from jaxmnist.testing import (
    assert_all_reduce_count,
    assert_equal_across_devices,
    assert_replicas_equal,
)

X = np.random.Generator(np.random.Philox(3)).normal(size=(24, 5)).astype(np.float32)


def gradient(mesh, reduce, *, check_vma=True):
    """The gradient of a mean of squares on a mesh, with the reduction to be tested."""

    def local(w, x):
        w = lax.pcast(w, "data", to="varying")
        total = jax.grad(lambda w: jnp.sum((x @ w - 1) ** 2))(w)
        return {"w": reduce(total) / len(X)}

    specs = {"in_specs": (P(), P("data")), "out_specs": P()}
    mapped = jax.shard_map(local, mesh=mesh, check_vma=check_vma, **specs)
    return jax.jit(mapped)(jnp.ones(5), jax.device_put(X, NamedSharding(mesh, P("data"))))


def once(total):
    return lax.psum(total, "data")


def twice(total):
    return lax.psum(lax.pcast(lax.psum(total, "data"), "data", to="varying"), "data")


def not_at_all(total):
    return total


def replicas(values, mesh):
    """An array that claims to be replicated and holds what it is given."""
    shards = [jax.device_put(v, d) for v, d in zip(values, mesh.devices.flat, strict=True)]
    sharding = NamedSharding(mesh, P())
    return jax.make_array_from_single_device_arrays(values[0].shape, sharding, shards)


class TestReplicas:
    def test_equal_replicas_pass(self, data_mesh):
        sharding = NamedSharding(data_mesh(3), P())
        tree = {"w": jnp.full((2, 3), jnp.nan), "key": jax.random.key(1), "b": jnp.bfloat16(0.1)}
        assert_replicas_equal(jax.device_put(tree, sharding) | {"step": 3})

    def test_a_missing_reduction_is_named(self, data_mesh):
        grads = gradient(data_mesh(4), not_at_all, check_vma=False)
        with pytest.raises(AssertionError, match=r"\['w'\]: .*0 and .*3: 5 of 5 elements differ"):
            assert_replicas_equal(grads)

    def test_device_difference_and_first_index_are_named(self, data_mesh):
        good = np.zeros((3, 2), np.float32)
        bad = good.copy()
        bad[1, 1] = 0.25
        text = r"\['a'\]\['b'\]: .*0 and .*1: 1 of 6 .*= 0.25, first at index \(1, 1\): 0.0 against"
        with pytest.raises(AssertionError, match=text):
            assert_replicas_equal({"a": {"b": replicas([good, bad, good], data_mesh(3))}})

    def test_one_bit_is_enough(self, data_mesh):
        plus, minus = np.zeros(1, np.float32), -np.zeros(1, np.float32)
        with pytest.raises(AssertionError, match=r"first at index \(0,\): 0.0 against -0.0"):
            assert_replicas_equal(replicas([plus, minus], data_mesh(2)))

    def test_split_arrays_and_empty_trees_are_no_replicas(self, data_mesh):
        split = jax.device_put(X, NamedSharding(data_mesh(2), P("data")))
        with pytest.raises(AssertionError, match="is split over devices, not replicated"):
            assert_replicas_equal(split)
        with pytest.raises(AssertionError, match="nothing was compared"):
            assert_replicas_equal({"w": X})


class TestEqualAcrossDevices:
    def test_a_right_gradient_passes_and_the_difference_is_returned(self, devices):
        worst = assert_equal_across_devices(lambda mesh: gradient(mesh, once), devices=(1, 2, 4))
        assert 0 <= worst < 1e-6

    def test_a_sum_too_many_is_recognised_by_its_scale(self, devices):
        with pytest.raises(AssertionError) as caught:
            assert_equal_across_devices(lambda mesh: gradient(mesh, twice), devices=(1, 2, 4))
        text = str(caught.value)
        assert "2 of 2 leaves differ from 1 device(s) by more than rtol=1e-05" in text
        assert re.search(r"4 devices  \['w'\]: 3  scale 4  .*4 times too large on 4 devices", text)
        assert text.index("4 devices  ") < text.index("2 devices  ")  # the worst first

    def test_a_missing_reduction_fails(self, devices):
        with pytest.raises(AssertionError, match=r"2 devices  \['w'\]: \S+  scale 0\."):
            assert_equal_across_devices(
                lambda mesh: gradient(mesh, not_at_all, check_vma=False), devices=(1, 2)
            )

    @pytest.mark.parametrize("rtol", [0, 1e-9])
    def test_rtol_zero_asks_for_equal_bits(self, devices, rtol):
        def almost(mesh):
            value = np.float32(1) if mesh.size == 1 else np.nextafter(np.float32(1), np.float32(2))
            return {"loss": value}

        with pytest.raises(AssertionError, match=r"\['loss'\]: 1.19e-07"):
            assert_equal_across_devices(almost, devices=(1, 2), rtol=rtol)
        assert assert_equal_across_devices(almost, devices=(1, 3), rtol=1e-6) > 0
        assert assert_equal_across_devices(almost, devices=(2, 3), rtol=0) == 0

    def test_nan_negative_zero_and_zero_references_are_not_forgiven(self, devices):
        def value(table):
            return lambda mesh: np.array([table[mesh.size]], np.float32)

        with pytest.raises(AssertionError, match=r"\(the value\): inf"):
            assert_equal_across_devices(value({1: 1.0, 2: np.nan}), devices=(1, 2))
        with pytest.raises(AssertionError, match=r"inf  scale 1"):
            assert_equal_across_devices(value({1: 0.0, 2: 1e-30}), devices=(1, 2))
        with pytest.raises(AssertionError, match=r"2.23e-308  scale 1  .*-0.0 against 0.0"):
            assert_equal_across_devices(value({1: 0.0, 2: -0.0}), devices=(1, 2), rtol=0)
        assert assert_equal_across_devices(value({1: 0.0, 2: -0.0}), devices=(1, 2)) < 1e-300
        both = value({1: np.nan, 2: np.nan})
        assert assert_equal_across_devices(both, devices=(1, 2), rtol=0) == 0

    def test_other_shapes_leaves_and_unused_meshes_are_named(self, devices):
        with pytest.raises(AssertionError, match=r"float64\[2\] against float64\[1\]"):
            assert_equal_across_devices(lambda mesh: np.ones(mesh.size), devices=(1, 2))
        with pytest.raises(AssertionError, match=r"leaves \[\"\['2'\]\"\] differ"):
            tree = {"0": X}
            assert_equal_across_devices(
                lambda mesh: tree if mesh.size == 1 else {**tree, "2": X}, devices=(1, 2)
            )
        with pytest.raises(AssertionError, match="does not use its mesh"):
            assert_equal_across_devices(lambda mesh: jnp.ones(3), devices=(1, 2))
        with pytest.raises(AssertionError, match="nothing was compared"):
            assert_equal_across_devices(lambda mesh: {}, devices=(1, 2))

    def test_too_few_devices_are_a_usage_error(self, devices):
        with pytest.raises(
            UsageError, match=r"a mesh of 999 .* start pytest with --fake-devices=999"
        ):
            assert_equal_across_devices(lambda mesh: X, devices=(1, 999))
        with pytest.raises(UsageError, match=r"devices=\(2,\) compares nothing"):
            assert_equal_across_devices(lambda mesh: X, devices=(2,))


class TestAllReduceCount:
    def program(self, mesh, body):
        mapped = jax.shard_map(body, mesh=mesh, in_specs=P("data"), out_specs=P(), check_vma=False)
        return jax.jit(mapped).lower(jnp.ones((12, 3))).compile()

    def test_one_reduction_of_a_tree_passes(self, data_mesh):
        program = self.program(
            data_mesh(2), lambda x: lax.psum({"a": x.sum(0), "b": x.sum()}, "data")
        )
        found = assert_all_reduce_count(program, 1, reduced_bytes=16)
        assert [item.kind for item in found] == ["all-reduce"]
        with pytest.raises(AssertionError, match="16 bytes all-reduced, 12 expected"):
            assert_all_reduce_count(program, 1, reduced_bytes=12)

    def test_a_reduction_in_the_accumulation_loop_counts_each_time(self, data_mesh):
        def body(x):
            rows = x.reshape(3, -1, 3)
            return lax.scan(lambda c, r: (c + lax.psum(r.sum(0), "data"), None), x[0], rows)[0]

        text = r"3 all-reduce, 1 expected\n  3 x all-reduce of 12 bytes \(in a loop, computation"
        with pytest.raises(AssertionError, match=text):
            assert_all_reduce_count(self.program(data_mesh(2), body), 1)

    def test_no_reduction_and_unexpected_gathers_fail(self, data_mesh):
        none = self.program(data_mesh(2), lambda x: x.sum(0))
        with pytest.raises(AssertionError, match="0 all-reduce, 1 expected"):
            assert_all_reduce_count(none, 1)
        gather = self.program(data_mesh(2), lambda x: lax.all_gather(x, "data").sum(0))
        with pytest.raises(AssertionError, match="1 all-gather, 0 expected"):
            assert_all_reduce_count(gather, 0)
        assert_all_reduce_count([none, gather], 0, all_gathers=1)
        swap = self.program(data_mesh(2), lambda x: lax.ppermute(x, "data", [(0, 1), (1, 0)]))
        with pytest.raises(AssertionError, match=r"1 others, 0 expected\n.*collective-permute"):
            assert_all_reduce_count(swap, 0)
        assert_all_reduce_count(swap, 0, others=1)

    def test_a_loop_over_steps_needs_its_trip_count(self, data_mesh):
        def body(x):
            done = jnp.int32(x.sum())
            return lax.fori_loop(0, done, lambda _, c: c - lax.psum(jnp.sin(c), "data"), x[0])

        program = self.program(data_mesh(2), body)
        with pytest.raises(AssertionError, match="unknown trip count: give unknown_trips"):
            assert_all_reduce_count(program, 1)
        assert_all_reduce_count(program, 1, unknown_trips=1)
