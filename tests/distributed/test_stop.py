"""Processes that run at different speeds stop at one moment, and none of them waits for ever."""

import random
import threading
import time

import jax
import pytest

from jaxmnist.distributed.agreement import Agreement
from jaxmnist.distributed.stop import JointStop
from jaxmnist.testing import run_processes


def stopped_at(seed: int, asked: list[int], moments: int) -> int | None:
    """The moment at which this process stops; those in `asked` are asked on their way."""
    process = jax.process_index()
    speed = random.Random(seed + process)
    with JointStop(Agreement(timeout_s=20)) as stop:
        for moment in range(1, moments + 1):
            if process in asked and moment == 20 + process:
                stop.ask()
            if stop.reached():
                return moment
            time.sleep(speed.uniform(0, 0.01) * (process + 1))
    return None


# Who is asked, and how many moments the run has.
RUNS = [([2], 1000), ([0, 1, 2], 1000), ([], 30), ([2], 22), ([1], 1000)]


def one_run_after_another() -> list[int | None]:
    return [stopped_at(seed, *run) for seed, run in enumerate(RUNS)]


def left_alone() -> tuple[bool, float, float]:
    """Process 0 halts, as the other has not counted yet; how long, and the gaps in a thread."""
    stop = JointStop(Agreement(timeout_s=20))
    if jax.process_index():
        time.sleep(2)
        with stop:
            time.sleep(2)
        return False, 0.0, 0.0
    gaps, ended = [], threading.Event()

    def run() -> None:
        last = time.monotonic()
        while not ended.wait(0.01):
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=run)
    thread.start()
    with stop:
        stop.ask()
        time.sleep(0.5)
        begun = time.monotonic()
        reached = stop.reached()
        halted = time.monotonic() - begun
    ended.set()
    thread.join()
    return reached, halted, max(gaps)


def never_told() -> None:
    """Process 0 is asked, and the other does not say how far it is."""
    stop = JointStop(Agreement(timeout_s=1))
    if jax.process_index():
        time.sleep(30)
    with stop:
        stop.ask()
        time.sleep(0.5)
        stop.reached()
        print("it went on")


@pytest.fixture(scope="module")
def moments():
    """For each of the runs, the moments at which the three processes of one job stopped."""
    results = run_processes(one_run_after_another, processes=3, timeout_s=90)
    return [set(run) for run in zip(*results, strict=True)]


@pytest.mark.parametrize("run", [0, 1, 4])
def test_all_stop_at_one_moment_whoever_is_asked(moments, run):
    (moment,) = moments[run]
    assert moment is not None and moment > 20


def test_nobody_is_asked(moments):
    assert moments[2] == {None}


def test_one_is_asked_when_others_have_come_to_the_end(moments):
    assert moments[3] in ({None}, {22})


def test_other_threads_go_on_while_a_process_halts():
    (reached, halted, gap), _ = run_processes(left_alone, processes=2, timeout_s=60)
    assert reached and halted > 0.5 and gap < halted / 2


def test_a_process_that_does_not_say_how_far_it_is():
    with pytest.raises(AssertionError) as error:
        run_processes(never_told, processes=2, timeout_s=25)
    text = str(error.value)
    assert "jaxmnist: not every process came to compare the step to stop at within 1 s" in text
    assert "start all processes again" in text
    assert "it went on" not in text
