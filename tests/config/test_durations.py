"""Durations: every boundary is hit by exactly one step, in exact arithmetic."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmnist.config import Duration, next_due, to_steps, training_length
from jaxmnist.errors import ConfigError

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
sizes = st.integers(1, 300)


def steps_due(duration, *, last, **sizes):
    """All steps up to the last at which a duration is due, as a run meets them."""
    steps = [next_due(0, duration, **sizes)]
    while steps[-1] < last:
        steps.append(next_due(steps[-1], duration, **sizes))
    return [step for step in steps if step <= last]


@pytest.mark.parametrize(
    ("value", "amount", "unit"),
    [
        (20, 20, "steps"),
        ("20", 20, "steps"),
        ("500 steps", 500, "steps"),
        ("1 step", 1, "steps"),
        ("1 epoch", 1, "epochs"),
        ("2  Epochs ", 2, "epochs"),
        ("0.1 epochs", Fraction(1, 10), "epochs"),
        (".5 epochs", Fraction(1, 2), "epochs"),
        ("1e5 examples", 100_000, "examples"),
        ("1.5e1 examples", 15, "examples"),
        ("1 example", 1, "examples"),
    ],
)
def test_a_duration_is_read_exactly(value, amount, unit):
    assert Duration.parse(value) == Duration(Fraction(amount), unit)


@pytest.mark.parametrize(
    "value",
    [
        *("", "epochs", "2 weeks", "two epochs", "2epochs", "2 s", "nan epochs", "1e999 steps"),
        *("1/3 epochs", "1__0 steps", True, 2.5, None),
    ],
)
def test_what_names_no_duration_is_refused_with_examples(value):
    with pytest.raises(ConfigError, match=r"must be '<number> <unit>' or a number.*'2 epochs'"):
        Duration.parse(value)


@pytest.mark.parametrize("value", [0, -1, "0 epochs", "-2 epochs", "0.5 steps", "1.5 examples"])
def test_a_duration_is_positive_and_steps_and_examples_are_whole(value):
    with pytest.raises(
        ConfigError, match=r"duration .* must be .*positive, whole unless epochs, such as 20"
    ):
        Duration.parse(value)


def test_a_number_of_a_million_digits_is_not_computed():
    with pytest.raises(ConfigError, match="'1e999999999 steps' must be"):
        Duration.parse("1e999999999 steps")


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        (7, 7),
        ("1 epochs", 235),
        ("2 epochs", 469),
        ("0.1 epochs", 24),
        ("60000 examples", 235),
        ("256 examples", 1),
        ("257 examples", 2),
    ],
)
def test_steps_of_a_duration_on_60000_examples_in_batches_of_256(value, steps):
    assert to_steps(Duration.parse(value), batch_size=256, train_examples=60_000) == steps


def test_a_tenth_of_an_epoch_does_not_drift():
    # In floats, 3 * 0.1 * 1000 / 1 is 300.00000000000006, which would round up to step 301.
    tenth = Duration.parse("0.1 epochs")
    due = steps_due(tenth, last=1000, batch_size=1, train_examples=1000)
    assert due == list(range(100, 1001, 100))
    # The float 0.1 is a little more than a tenth, which would round up to step 101.
    length = training_length(epochs=0.1)
    assert to_steps(length, batch_size=1, train_examples=1000) == 100


@quick
@given(st.integers(1, 50), sizes, sizes)
def test_every_k_steps_is_every_multiple_of_k(k, batch_size, train_examples):
    sizes = {"batch_size": batch_size, "train_examples": train_examples}
    assert steps_due(Duration.parse(k), last=120, **sizes) == [*range(k, 121, k)]


@quick
@given(
    st.sampled_from(["1 epochs", "2 epochs", "0.1 epochs", "0.37 epochs", "1 examples"])
    | st.integers(1, 999).map(lambda m: f"{m} examples"),
    sizes,
    sizes,
)
def test_the_steps_that_are_due_are_exactly_those_where_a_boundary_falls(text, batch, examples):
    every = Duration.parse(text)
    scale = examples if every.unit == "epochs" else 1
    last = 150
    boundaries = set()
    i = 1
    while (step := math.ceil(i * every.amount * scale / batch)) <= last:
        boundaries.add(step)
        # Many boundaries may fall within one step: jump to the last of them.
        i = max(i + 1, math.floor(step * batch / (every.amount * scale)))
    sizes = {"batch_size": batch, "train_examples": examples}
    due = steps_due(every, last=last, **sizes)
    assert due == sorted(boundaries)
    # From any other step the next is the same.
    for step in range(0, last, 11):
        later = [other for other in due if other > step]
        found = next_due(step, every, **sizes)
        assert found == later[0] if later else found > last


@quick
@given(st.integers(1, 4), sizes, sizes)
def test_the_end_of_each_epoch_is_due_and_is_where_a_run_of_so_many_epochs_ends(e, batch, examples):
    sizes = {"batch_size": batch, "train_examples": examples}
    end = to_steps(training_length(epochs=e), **sizes)
    assert end == -(-e * examples // batch)
    assert next_due(end - 1, Duration.parse("1 epochs"), **sizes) == end


def test_several_epochs_within_one_step_are_due_once():
    sizes = {"batch_size": 50, "train_examples": 7}
    due = steps_due(Duration.parse("1 epochs"), last=4, **sizes)
    assert due == [1, 2, 3, 4]


def test_the_length_of_training_is_one_of_three():
    assert training_length(steps=60) == Duration(Fraction(60), "steps")
    assert training_length(examples=61) == Duration(Fraction(61), "examples")
    assert training_length(epochs=1e-05, steps=None) == Duration(Fraction(1, 100_000), "epochs")
    with pytest.raises(ConfigError, match="'0 epochs' must be"):
        training_length(epochs=0)
