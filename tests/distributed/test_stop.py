"""Processes that run at different speeds stop at one moment, and none of them waits for ever."""

import random
import threading
import time

import jax

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
            time.sleep(speed.uniform(0, 0.03) * (process + 1))
    return None


def all_stop(asked, moments=1000) -> set[int | None]:
    return set(
        run_processes(stopped_at, processes=3, args=(len(asked), asked, moments), timeout_s=60)
    )


def two_in_a_row() -> list[int | None]:
    return [stopped_at(1, [0], 1000), stopped_at(2, [], 30), stopped_at(3, [1], 1000)]


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


def test_all_stop_at_one_moment_whoever_is_asked():
    for asked in ([0], [2], [0, 1, 2]):
        (moment,) = all_stop(asked)
        assert moment is not None and moment > 20


def test_nobody_is_asked():
    assert all_stop([], moments=30) == {None}


def test_one_is_asked_when_others_have_left():
    assert all_stop([2], moments=22) in ({None}, {22})


def test_one_run_after_another_in_one_job():
    first, second = run_processes(two_in_a_row, processes=2, timeout_s=60)
    assert first == second
    assert first[0] > 20 and first[1] is None and first[2] > 21


def test_other_threads_go_on_while_a_process_halts():
    (reached, halted, gap), _ = run_processes(left_alone, processes=2, timeout_s=60)
    assert reached and halted > 0.5 and gap < halted / 2
