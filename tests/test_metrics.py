"""Metrics are sums over rows, divided once: they agree with NumPy and ignore padding."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmnist.metrics import Evaluation, Window, confusion_sums, cross_entropy, step_sums
from support import relative

B, K = 23, 7


def rows():
    rng = np.random.default_rng(0)
    return (4 * rng.normal(size=(B, K))).astype(np.float32), rng.integers(0, K, B).astype(np.int32)


def numpy_cross_entropy(logits, labels, smoothing):
    x = logits.astype(np.float64)
    log_p = x - x.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    target = np.full((len(x), K), smoothing / K)
    target[np.arange(len(x)), labels] += 1 - smoothing
    return -(target * log_p).sum(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_of_each_row(smoothing):
    logits, labels = rows()
    found = cross_entropy(logits, labels, label_smoothing=smoothing)
    assert found.shape == (B,)
    assert relative(found, numpy_cross_entropy(logits, labels, smoothing)) < 1e-6


def test_cross_entropy_is_float32_and_finite_for_any_logits():
    logits = jnp.asarray([[1e4, -1e4, 0.0], [-3e38, 3e38, 0.0]], jnp.float32)
    found = cross_entropy(logits, jnp.array([0, 1]))
    np.testing.assert_array_equal(found, [0.0, 0.0])
    assert cross_entropy(logits.astype(jnp.bfloat16), jnp.array([0, 1])).dtype == jnp.float32


# XLA may turn a product with a mask into a choice, so that a wrong one shows op by op only.
@pytest.mark.parametrize("compiled", [True, False])
def test_sums_of_a_step_leave_padding_out_though_it_holds_nan(compiled):
    logits, labels = rows()
    mask = np.arange(B) % 5 != 3
    losses = numpy_cross_entropy(logits, labels, 0).astype(np.float32)
    expected_loss = losses[mask].sum()
    expected_hits = (logits.argmax(1) == labels)[mask].sum()
    losses[~mask], logits[~mask] = np.nan, np.nan
    sums = (jax.jit(step_sums) if compiled else step_sums)(losses, logits, labels, mask)
    assert float(sums.loss) == pytest.approx(expected_loss, rel=1e-6)
    assert (float(sums.correct), float(sums.count)) == (expected_hits, mask.sum())
    # One dtype, so that XLA reduces them in one all-reduce.
    assert {x.dtype for x in jax.tree.leaves(sums)} == {jnp.dtype(jnp.float32)}


def test_confusion_counts_label_by_prediction():
    logits, labels = rows()
    mask = np.arange(B) % 4 != 1
    expected = np.zeros((K, K))
    np.add.at(expected, (labels[mask], logits.argmax(1)[mask]), 1)
    logits[~mask] = np.nan
    found = jax.jit(confusion_sums)(logits, labels, mask)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, found.T)


def test_a_window_adds_steps_and_keeps_the_last_rate():
    logits, labels = rows()
    losses, mask = numpy_cross_entropy(logits, labels, 0).astype(np.float32), np.ones(B, bool)
    sums = step_sums(losses, logits, labels, mask)
    window = Window.empty().add(sums, 0.5).add(sums, 0.25)
    hits = (logits.argmax(1) == labels).sum()
    assert (int(window.count), int(window.correct)) == (2 * B, 2 * hits)
    assert float(window.loss) == pytest.approx(2 * losses.sum(), rel=1e-6)
    assert float(window.learning_rate) == 0.25
    kinds = [(x.dtype, x.shape) for x in jax.tree.leaves(window)]
    assert kinds == [(x.dtype, x.shape) for x in jax.tree.leaves(Window.empty())]


CONFUSION = np.array([[5, 1, 0], [0, 0, 0], [2, 0, 3]])


def test_an_evaluation_divides_once_and_has_none_for_a_label_that_does_not_occur():
    found = Evaluation.from_sums(5.5, CONFUSION)
    assert (found.loss, found.accuracy, found.count) == (0.5, 8 / 11, 11)
    assert found.per_class == [5 / 6, None, 3 / 5]
    assert found.confusion == CONFUSION.tolist()


def test_an_evaluation_of_nothing_is_no_division_by_zero():
    found = Evaluation.from_sums(0.0, np.zeros((2, 2), int))
    assert (found.loss, found.accuracy, found.count) == (0.0, 0.0, 0)


def test_an_evaluation_survives_json():
    found = Evaluation.from_sums(5.5, CONFUSION)
    assert Evaluation.from_dict(json.loads(json.dumps(found.to_dict()))) == found
