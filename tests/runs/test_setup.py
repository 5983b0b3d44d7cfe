"""What is decided before the first step: where the calls of the train step begin and end."""

import itertools

import flax.linen as nn
import pytest

from jaxmnist.runs.setup import prepare
from support import small_config, small_data


class MLP(nn.Module):
    """A model without a convolution, which may make several steps a call."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(10)(images.reshape(len(images), -1) / 255)


EVERY = {"log.every": 6, "eval.every": 10, "checkpoint.every": 15}


def setup_of(**keys):
    config = small_config(**{name.replace(".", "__"): v for name, v in (EVERY | keys).items()})
    return prepare(config, dataset=small_data(), model=MLP())


def test_one_step_a_call_is_a_range_however_long_the_training():
    setup = setup_of(**{"train.steps": 10**12, "train.steps_per_call": 1})
    assert setup.call_bounds(7) == range(7, 10**12 + 1)


@pytest.mark.parametrize("several", [2, 4, 64])
@pytest.mark.parametrize("start", [0, 1, 9, 59])
def test_calls_end_where_something_is_due_and_are_as_long_as_they_may_be(several, start):
    setup = setup_of(**{"train.steps": 60, "train.steps_per_call": several})
    due = {1, 60} | {step for every in EVERY.values() for step in range(every, 61, every)}
    wanted = [start]
    for step in range(start + 1, 61):
        if step in due or step - wanted[-1] == several:
            wanted.append(step)
    assert [*setup.call_bounds(start)] == wanted


def test_a_call_is_cut_at_the_end_of_an_epoch_that_is_no_whole_number_of_steps():
    keys = {"train.steps": 60, "eval.every": "1 epochs", "train.steps_per_call": 64}
    setup = setup_of(**keys | {"log.every": 1000, "checkpoint.every": 1000})
    # 509 examples in batches of 32: epochs end within steps 16, 32, 48 and, the fourth, past 60.
    assert [*setup.call_bounds(0)] == [0, 1, 16, 32, 48, 60]


def test_a_training_of_no_steps_has_no_calls():
    setup = setup_of(**{"train.steps": 60, "train.steps_per_call": 4})
    assert [*itertools.pairwise(setup.call_bounds(60))] == []
