"""The clock adds up the parts of a run, by a watch that the test turns."""

import pytest

from jaxmnist.clock import Clock


class Watch:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def clock(watch):
    return Clock(now=watch)


def test_time_goes_to_the_part_that_runs_and_to_none_before_the_first(clock, watch):
    watch.now_s += 5
    assert clock.switch("compile") is None
    watch.now_s += 2
    assert clock.switch("train") == "compile"
    watch.now_s += 3
    assert clock.switch(None) == "train"
    watch.now_s += 7
    assert clock.switch("train") is None
    watch.now_s += 11
    clock.switch("eval")
    assert clock.seconds == {"compile": 2, "train": 14}


def test_a_part_within_a_part_is_not_counted_twice(clock, watch):
    clock.switch("train")
    watch.now_s += 1
    with clock.part("eval"):
        watch.now_s += 10
        with clock.part("checkpoint"):
            watch.now_s += 100
        watch.now_s += 20
    watch.now_s += 2
    clock.switch(None)
    assert clock.seconds == {"train": 3, "eval": 30, "checkpoint": 100}


def test_after_an_error_within_a_part_the_part_before_goes_on(clock, watch):
    clock.switch("train")
    with pytest.raises(ZeroDivisionError), clock.part("eval"):
        watch.now_s += 4
        print(1 / 0)
    watch.now_s += 2
    assert clock.total("train") == 2 and clock.seconds["eval"] == 4


def test_the_total_of_a_part_can_be_read_while_it_runs(clock, watch):
    clock.switch("train")
    watch.now_s += 3
    assert clock.total("train") == 3
    watch.now_s += 4
    assert clock.total("train") == 7
    assert clock.total("eval") == 0


def test_an_earlier_part_of_the_same_run_is_carried_on_and_left_as_it_was(watch):
    earlier = {"train": 50.0}
    clock = Clock(earlier, now=watch)
    clock.switch("train")
    watch.now_s += 5
    assert clock.total("train") == 55 and earlier == {"train": 50.0}
