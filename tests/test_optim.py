"""Schedules and optimizers give the numbers of their formulas, and refuse what they cannot use."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmnist import optim
from jaxmnist.errors import ConfigError
from jaxmnist.optim import SCHEDULES, make_schedule

PEAK = 0.5


def rates(name, *steps, total=100, **kwargs):
    """The rates at some steps; an epoch is 250 examples of 10 a step: 25 steps."""
    schedule = make_schedule(
        name, PEAK, steps=total, batch_size=10, train_examples=250, kwargs=kwargs
    )
    return [float(schedule(step)) for step in steps]


class TestSchedules:
    @pytest.mark.parametrize(
        ("name", "kwargs", "expected"),
        [
            ("constant", {}, {0: PEAK, 99: PEAK, 1000: PEAK}),
            ("linear", {}, {0: PEAK, 25: 0.375, 50: 0.25, 100: 0, 150: 0}),
            ("linear", {"end": 0.2}, {0: PEAK, 50: 0.3, 100: 0.1, 150: 0.1}),
            ("cosine", {}, {0: PEAK, 25: PEAK * (1 + math.sqrt(0.5)) / 2, 50: 0.25, 100: 0}),
            ("cosine", {"end": 0.1}, {0: PEAK, 50: 0.55 * PEAK, 100: 0.05}),
            ("one_cycle", {}, {0: 0.02, 15: 0.26, 30: PEAK, 65: 0.250025, 100: PEAK * 1e-4}),
            (
                "one_cycle",
                {"rise": 0.5, "start": 0.2, "end": 0.4},
                {0: 0.1, 25: 0.3, 50: PEAK, 75: 0.35, 100: 0.2},
            ),
            ("step", {"every": 30}, {0: PEAK, 29: PEAK, 30: 0.05, 60: 0.005}),
            ("step", {"every": "2 epochs", "factor": 0.5}, {49: PEAK, 50: 0.25, 99: 0.25}),
            (
                "piecewise",
                {"at": ["1 epochs", 40], "factors": [0.1, 0.5]},
                {24: PEAK, 26: 0.05, 39: 0.05, 41: 0.025, 99: 0.025},
            ),
        ],
    )
    def test_each_has_its_values_at_the_key_points(self, name, kwargs, expected):
        assert rates(name, *expected, **kwargs) == pytest.approx([*expected.values()], abs=1e-7)

    @pytest.mark.parametrize("warmup", [20, "200 examples", "0.8 epochs"])
    def test_warmup_rises_from_0_before_the_schedule(self, warmup):
        found = rates("linear", 0, 5, 10, 20, 60, 100, warmup=warmup)
        assert found == pytest.approx([0, 0.125, 0.25, PEAK, 0.25, 0], abs=1e-7)

    @pytest.mark.parametrize("name", ["constant", "linear", "cosine", "one_cycle"])
    @pytest.mark.parametrize("total", [1, 2, 3])
    def test_the_shortest_trainings_have_finite_rates(self, name, total):
        found = rates(name, *range(total + 1), total=total)
        assert all(0 <= rate <= PEAK + 1e-7 for rate in found)
        assert max(found[:2]) > 0

    @pytest.mark.parametrize(
        ("name", "kwargs", "sentence"),
        [
            ("cosin", {}, "schedule.name='cosin' is not one of constant, cosine, linear, one_cyc"),
            ("linear", {"finish": 1}, r"{'finish': 1} for 'linear': .*\(it takes end, warmup\)"),
            ("step", {}, r"for 'step': .*'every' \(it takes every, factor, warmup\)"),
            ("step", {"every": "3 weeks"}, r"for 'step': .*duration '3 weeks' must be"),
            (
                "piecewise",
                {"at": [3, 4], "factors": [0.1]},
                r"'at': \[3, 4\], 'factors': \[0.1\]} .*argument 2 is shorter .*takes at, factors",
            ),
            ("linear", {"end": "low"}, r"schedule.kwargs={'end': 'low'} for 'linear'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, name, kwargs, sentence):
        with pytest.raises(ConfigError, match=sentence):
            rates(name, 0, **kwargs)

    def test_there_are_no_others(self):
        assert sorted(SCHEDULES) == [
            "constant",
            "cosine",
            "linear",
            "one_cycle",
            "piecewise",
            "step",
        ]


def params():
    rng = np.random.default_rng(0)
    return {
        "kernel": rng.normal(size=(3, 5)).astype(np.float32),
        "bias": rng.normal(size=5).astype(np.float32),
    }


def gradient(step):
    rng = np.random.default_rng(100 + step)
    return {name: rng.normal(size=p.shape).astype(np.float32) for name, p in params().items()}


def trained(tx, steps=3):
    values = params()
    state = tx.init(values)
    for step in range(steps):
        updates, state = tx.update(gradient(step), state, values)
        values = optax.apply_updates(values, updates)
    return values


def numpy_adamw(decay, steps=3):
    """AdamW by hand, in float64, the rate 0.1 / (step + 1); biases do not decay."""
    values = {name: p.astype(np.float64) for name, p in params().items()}
    for name in values:
        m = v = 0.0
        for step in range(steps):
            g, rate = gradient(step)[name].astype(np.float64), 0.1 / (step + 1)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            move = m / (1 - 0.9 ** (step + 1)) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
            shrink = rate * decay * values[name] if name == "kernel" else 0
            values[name] = values[name] - rate * move - shrink
    return values


def schedule(step):
    return 0.1 / (step + 1)


def make_optimizer(name, schedule, *, weight_decay=0.0, clip_norm=None, **more):
    """The optimizer with the defaults of the configuration."""
    given = {"kwargs": {}} | more
    return optim.make_optimizer(
        name, schedule, weight_decay=weight_decay, clip_norm=clip_norm, **given
    )


class TestOptimizers:
    @pytest.mark.parametrize("decay", [0.0, 0.3])
    @pytest.mark.parametrize("name", ["adam", "adamw"])
    def test_decay_is_decoupled_and_spares_biases(self, name, decay):
        found = trained(make_optimizer(name, schedule, weight_decay=decay))
        expected = numpy_adamw(decay)
        for leaf, value in expected.items():
            np.testing.assert_allclose(found[leaf], value, rtol=2e-6, atol=2e-6)

    def test_one_key_decides_on_decay_unless_the_arguments_do(self):
        def last(**kwargs):
            return trained(make_optimizer("lion", schedule, **kwargs))["kernel"]

        own = optax.lion(schedule, weight_decay=0.2)
        np.testing.assert_array_equal(
            last(), trained(optax.lion(schedule, weight_decay=0.0))["kernel"]
        )
        np.testing.assert_array_equal(last(kwargs={"weight_decay": 0.2}), trained(own)["kernel"])

    def test_a_long_gradient_of_all_parameters_together_is_cut(self):
        tx = make_optimizer("sgd", lambda step: 0.01, clip_norm=0.5)
        updates, _ = tx.update(gradient(0), tx.init(params()), params())
        norm = np.sqrt(sum(np.square(g).sum() for g in gradient(0).values()))
        for leaf, g in gradient(0).items():
            np.testing.assert_allclose(updates[leaf], -0.01 * 0.5 * g / norm, rtol=1e-6)

    def test_a_short_gradient_is_left_alone(self):
        tx = make_optimizer("sgd", lambda step: 1.0, clip_norm=50.0)
        updates, _ = tx.update(gradient(0), tx.init(params()), params())
        for leaf, g in gradient(0).items():
            np.testing.assert_array_equal(updates[leaf], -g)

    def test_decay_is_not_clipped(self):
        tx = make_optimizer("sgd", lambda step: 1.0, clip_norm=1e-6, weight_decay=0.25)
        found = trained(tx, steps=1)
        np.testing.assert_allclose(found["kernel"], 0.75 * params()["kernel"], atol=1e-5)

    def test_arguments_reach_the_optimizer(self):
        tx = make_optimizer("sgd", schedule, kwargs={"momentum": 0.9, "nesterov": True})
        expected = trained(optax.sgd(schedule, momentum=0.9, nesterov=True))
        jax.tree.map(np.testing.assert_array_equal, trained(tx), expected)

    @pytest.mark.parametrize("name", ["nadamw", "rmsprop", "adafactor", "lamb"])
    def test_any_optimizer_of_optax_can_be_named(self, name):
        assert np.isfinite(trained(make_optimizer(name, schedule))["kernel"]).all()

    def test_the_state_of_a_plain_optimizer_is_optaxs_own(self):
        ours = make_optimizer("adam", schedule).init(params())
        assert jax.tree.structure(ours) == jax.tree.structure(optax.adam(schedule).init(params()))

    @pytest.mark.parametrize(
        ("name", "kwargs", "sentence"),
        [
            ("adamm", {}, "optimizer.name='adamm' is not an optimizer of optax that takes learn"),
            ("chain", {}, "'chain' is not an optimizer of optax"),
            ("__doc__", {}, "'__doc__' is not an optimizer of optax"),
            ("adam.x", {}, "'adam.x' is not an optimizer of optax"),
            ("Schedule", {}, "'Schedule' is not an optimizer of optax"),
            ("adam", {"beta": 1}, r"optimizer.kwargs={'beta': 1} for 'adam': .*'beta'"),
            ("adam", {"b1": "x"}, r"optimizer.kwargs={'b1': 'x'} for 'adam': unsupported operand"),
            ("sgd", {"learning_rate": 1}, r"kwargs={'learning_rate': 1} for 'sgd': .*multiple"),
            ("lbfgs", {}, r"optimizer.kwargs={} for 'lbfgs': .*value"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, name, kwargs, sentence):
        with pytest.raises(ConfigError, match=sentence):
            make_optimizer(name, schedule, kwargs=kwargs)

    def test_the_learning_rate_may_be_traced(self):
        tx = make_optimizer("adam", schedule, weight_decay=0.1, clip_norm=1.0)
        shapes = jax.eval_shape(tx.init, params())
        assert {x.dtype for x in jax.tree.leaves(shapes)} == {
            jnp.dtype("float32"),
            jnp.dtype("int32"),
        }
