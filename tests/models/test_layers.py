"""Dropout and BatchNorm depend on the rows of the global batch, never on the devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmnist.errors import ModelError
from jaxmnist.metrics import cross_entropy
from jaxmnist.models import BatchNorm, Dropout, model_functions, row_keys
from jaxmnist.models.rows import Rows, feeding
from jaxmnist.state import create_state
from jaxmnist.step.body import Batch, Part, Task, local_train_step
from support import bits_equal, relative, worst_leaf

B = 24


def rows(index=None, *, step=0, mask=None, **kwargs):
    index = np.arange(B, dtype=np.int32) if index is None else np.asarray(index, np.int32)
    mask = np.ones(len(index), bool) if mask is None else mask
    key = jax.random.fold_in(jax.random.key(5), step)
    return Rows(index=jnp.asarray(index), mask=jnp.asarray(mask), key=key, **kwargs)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(2.0, 3.0, shape).astype(np.float32)


def drop(x, fed=None, **fields):
    layer = Dropout(**{"rate": 0.4, "deterministic": False} | fields)
    with feeding(fed or rows()):
        return np.asarray(layer.apply({}, x))


class TestDropout:
    def test_it_drops_at_its_rate_and_scales_what_it_keeps(self):
        x = np.ones((B, 50, 40), np.float32)
        y = drop(x)
        # 48,000 draws: five standard deviations are 0.011.
        assert np.mean(y == 0) == pytest.approx(0.4, abs=0.011)
        assert set(np.unique(y)) == {0.0, np.float32(1 / 0.6)}

    @pytest.mark.parametrize("parts", [2, 3, 8, 24])
    def test_a_row_has_its_mask_however_the_batch_is_split(self, parts):
        x = normal(B, 13)
        split = [drop(x[i], rows(i)) for i in np.split(np.arange(B), parts)]
        assert bits_equal(np.concatenate(split), drop(x))

    @pytest.mark.parametrize("accumulate", [2, 4])
    def test_a_row_has_its_mask_in_whatever_microbatch_it_comes(self, accumulate):
        x, whole = normal(B, 13), drop(normal(B, 13))
        for a in range(accumulate):
            assert bits_equal(
                drop(x[a::accumulate], rows(range(a, B, accumulate))), whole[a::accumulate]
            )

    def test_rows_and_steps_differ(self):
        x = np.ones((B, 64), np.float32)
        masks = {drop(x, rows(step=step))[i].tobytes() for step in range(3) for i in range(B)}
        assert len(masks) == 3 * B

    def test_two_layers_and_two_calls_of_one_differ(self):
        class Two(nn.Module):
            @nn.compact
            def __call__(self, x):
                first, second = (Dropout(0.5, deterministic=False) for _ in range(2))
                return first(x), first(x), second(x)

        with feeding(rows()):
            results = Two().apply({}, np.ones((B, 64), np.float32))
        assert len({np.asarray(y).tobytes() for y in results}) == 3

    @pytest.mark.parametrize("dims", [(1,), (2,), (1, 2), (-1,)])
    def test_broadcast_dimensions_share_a_draw(self, dims):
        y = drop(np.ones((B, 6, 50), np.float32), broadcast_dims=dims)
        for d in dims:
            assert (y == np.take(y, [0], axis=d)).all()
        for d in {0, 1, 2} - {d % 3 for d in dims}:
            assert not (y == np.take(y, [0], axis=d)).all()

    @pytest.mark.parametrize("rate", [-0.1, 1.5, 3])
    def test_a_rate_that_is_no_probability_is_refused(self, rate):
        with pytest.raises(ModelError, match=rf"rate={rate}\) must be in \[0, 1\]"):
            drop(np.ones((2, 3), np.float32), rate=rate)

    def test_rates_of_0_and_1_keep_all_and_nothing(self):
        x = normal(B, 5)
        assert bits_equal(drop(x, rate=0.0), x)
        assert not drop(x, rate=1.0).any()

    def test_it_takes_the_place_of_flaxs(self):
        x = normal(B, 5)
        for ours, theirs in [
            (Dropout(0.3, (1,), True), nn.Dropout(0.3, (1,), True)),
            (Dropout(rate=0.3, deterministic=True), nn.Dropout(rate=0.3, deterministic=True)),
        ]:
            assert bits_equal(ours.apply({}, x), theirs.apply({}, x))
        assert bits_equal(Dropout(0.3).apply({}, x, deterministic=True), x)
        with pytest.raises(ValueError, match="deterministic"):
            Dropout(0.3).apply({}, x)

    def test_no_gradient_flows_where_it_dropped(self):
        x = normal(B, 9)
        with feeding(rows()):
            layer = Dropout(0.4, deterministic=False)
            gradient = jax.grad(lambda x: layer.apply({}, x).sum())(x)
        assert bits_equal(np.asarray(gradient) != 0, drop(x) != 0)

    def test_a_layer_of_ones_own_gets_a_key_for_each_row(self):
        class Noise(nn.Module):
            @nn.compact
            def __call__(self, x):
                return jax.vmap(lambda key: jax.random.normal(key, (3,)))(row_keys(self, len(x)))

        def noise(index):
            with feeding(rows(index)):
                return np.asarray(Noise().apply({}, np.zeros(len(index))))

        whole = noise(range(B))
        assert len(np.unique(whole)) == 3 * B
        assert bits_equal(noise([17, 3]), whole[[17, 3]])


def normalised(x, fed, *, stats=None, frozen=False, **fields):
    """Result and reports of the layer with unit scale and no bias."""
    c = x.shape[-1]
    stats = stats or {"mean": np.zeros(c, np.float32), "var": np.ones(c, np.float32)}
    variables = {
        "params": {"scale": np.ones(c, np.float32), "bias": np.zeros(c, np.float32)},
        "batch_stats": stats,
    }
    layer = BatchNorm(use_running_average=frozen, **fields)
    with feeding(fed):
        y, updates = layer.apply(variables, x, mutable=["batch_sums"])
    return np.asarray(y), updates.get("batch_sums", {})


def numpy_groups(x, groups, mask=None, epsilon=1e-5):
    """What batch norm of each group of consecutive rows gives, in float64; and the statistics."""
    mask = np.ones(len(x), bool) if mask is None else mask
    y, means, variances = np.zeros(x.shape), [], []
    for part in np.split(np.arange(len(x)), groups):
        kept = x[part][mask[part]].astype(np.float64)
        axes = tuple(range(x.ndim - 1))
        means.append(kept.mean(axes))
        variances.append(kept.var(axes))
        y[part] = (x[part] - means[-1]) / np.sqrt(variances[-1] + epsilon)
    return y, np.array(means), np.array(variances)


class TestBatchNorm:
    @pytest.mark.parametrize("groups", [1, 2, 8, 24])
    @pytest.mark.parametrize("shape", [(B, 5), (B, 3, 7, 5)])
    def test_it_normalises_each_group_of_rows(self, groups, shape):
        x = normal(*shape)
        y, _ = normalised(x, rows(), groups=groups)
        assert np.max(np.abs(y - numpy_groups(x, groups)[0])) < 2e-5 * max(1.0, np.abs(y).max())

    def test_it_reports_how_far_the_running_statistics_should_move(self):
        x, stats = normal(B, 4, 5), {"mean": normal(5, seed=1), "var": np.abs(normal(5, seed=2))}
        _, sums = normalised(x, rows(), stats=stats, groups=8, momentum=0.9)
        _, means, variances = numpy_groups(x, 8)
        assert sums["mean"]["weight"] == sums["var"]["weight"] == 8
        for name, found in (("mean", means), ("var", variances)):
            expected = 0.1 * (found - stats[name]).sum(0)
            assert relative(sums[name]["move"], expected) < 1e-5

    @pytest.mark.parametrize("parts", [2, 4, 8])
    def test_the_groups_are_the_same_however_the_batch_is_split(self, parts):
        x = normal(B, 5)
        whole, whole_sums = normalised(x, rows())
        split = [normalised(x[i], rows(i, parts=parts)) for i in np.split(np.arange(B), parts)]
        assert relative(np.concatenate([y for y, _ in split]), whole) < 1e-6
        total = jax.tree.map(lambda *leaves: sum(leaves), *(sums for _, sums in split))
        assert worst_leaf(total, whole_sums) < 1e-5

    @pytest.mark.parametrize("groups", [1, 4])
    def test_padded_rows_may_hold_nan(self, groups):
        x, mask = normal(B, 5), np.arange(B) % 6 != 4
        y, means, _ = numpy_groups(x, groups, mask)
        x[~mask] = np.nan
        found, sums = normalised(x, rows(mask=mask), groups=groups, momentum=0.5)
        assert np.max(np.abs(found[mask] - y[mask])) < 1e-5
        assert relative(sums["mean"]["move"], 0.5 * means.sum(0)) < 1e-5

    def test_a_group_of_nothing_but_padding_has_no_say(self):
        x, mask = normal(B, 5), np.arange(B) >= 6
        x[~mask] = np.nan
        _, sums = normalised(x, rows(mask=mask), groups=4, momentum=0.0)
        assert sums["mean"]["weight"] == 3
        expected = numpy_groups(x[6:], 3)[1].sum(0)
        assert relative(sums["mean"]["move"], expected) < 1e-5

    def test_evaluation_takes_the_running_statistics_and_reports_nothing(self):
        x, stats = normal(B, 5), {"mean": normal(5, seed=1), "var": np.abs(normal(5, seed=2))}
        y, sums = normalised(x, rows(), stats=stats, frozen=True)
        assert relative(y, (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)) < 1e-5
        assert sums == {}

    def test_one_group_is_flaxs_batch_norm_with_the_same_variables(self):
        x, key = normal(B, 3, 5), jax.random.key(0)
        fields = {"momentum": 0.8, "epsilon": 1e-3, "use_running_average": False}
        fields |= {"scale_init": nn.initializers.normal(), "bias_init": nn.initializers.normal()}
        ours, theirs = BatchNorm(groups=1, **fields), nn.BatchNorm(**fields)
        variables = theirs.init(key, x)
        assert bits_equal(ours.init(key, x), variables)
        expected, moved = theirs.apply(variables, x, mutable=["batch_stats"])
        with feeding(rows()):
            y, updates = ours.apply(variables, x, mutable=["batch_sums"])
        assert relative(y, expected) < 1e-5
        for name, value in moved["batch_stats"].items():
            move = updates["batch_sums"][name]["move"]
            assert relative(variables["batch_stats"][name] + move, value) < 1e-5

    def test_scale_bias_and_dtype_are_optional(self):
        x = normal(B, 5)
        plain = BatchNorm(use_scale=False, use_bias=False, dtype=jnp.bfloat16)
        variables = plain.init(jax.random.key(0), x, use_running_average=True)
        assert "params" not in variables
        y = plain.apply(variables, x, use_running_average=True)
        assert y.dtype == jnp.bfloat16

    def test_the_step_moves_the_running_statistics_by_the_mean_of_the_groups(self):
        class Net(nn.Module):
            @nn.compact
            def __call__(self, images, *, train=False):
                x = images.reshape(images.shape[0], -1)
                x = BatchNorm(momentum=0.75)(x, use_running_average=not train)
                return nn.Dense(10)(x)

        functions = model_functions(Net(), np.zeros((4, 4, 1), np.float32), classes=10)
        task = Task(
            apply=functions.apply,
            loss=cross_entropy,
            tx=optax.sgd(0.1),
            schedule=optax.constant_schedule(0.1),
            seed=0,
        )
        x = normal(B, 4, 4, 1)
        batch = Batch(image=x, label=np.arange(B) % 10, mask=np.ones(B, bool))
        state = create_state(functions.init(jax.random.key(0)), task.tx, ema=False)
        step = jax.jit(lambda state: local_train_step(task, state, batch, Part())[0])
        state = step(step(state))
        _, means, variances = numpy_groups(x.reshape(B, -1), 8)
        (found,) = state.batch_stats.values()
        kept = 0.75**2
        assert relative(found["mean"], (1 - kept) * means.mean(0)) < 1e-5
        assert relative(found["var"], kept + (1 - kept) * variances.mean(0)) < 1e-5

    @pytest.mark.parametrize(
        ("groups", "fed", "sentence"),
        [
            (5, {}, r"BatchNorm\(groups=5\) cannot split 1 part\(s\) of 24 row\(s\) into equal"),
            (
                8,
                {"parts": 3},
                r"cannot split 3 part\(s\) of 24 .*groups that the number of devices",
            ),
            (
                1,
                {"parts": 8, "communicate": False},
                r"groups=1\) .* whole batch .* parallel.deterministic forbids: use groups=8",
            ),
        ],
    )
    def test_groups_that_cannot_be_are_refused(self, groups, fed, sentence):
        with pytest.raises(ModelError, match=sentence):
            normalised(normal(B, 5), rows(**fed), groups=groups)
