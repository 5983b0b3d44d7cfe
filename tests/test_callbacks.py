"""Callbacks: each moment in its order, and on_end whatever happens."""

import jax
import pytest

import jaxmnist
from jaxmnist.callbacks import Callback
from support import Tiny, small_config, small_data

pytestmark = pytest.mark.smoke


class Diary(Callback):
    """Keeps what it is told, as lines."""

    def __init__(self, fail_at=None):
        self.lines, self.fail_at, self.states = [], fail_at, []

    def on_start(self, workdir, step, total_steps):
        self.lines.append(("start", workdir.name, step, total_steps))

    def on_step(self, step, state):
        self.lines.append(("step", step))
        self.states.append(int(jax.device_get(state.step)))
        if step == self.fail_at:
            raise RuntimeError("enough")

    def on_evaluation(self, step, split, result, state):
        self.lines.append(("evaluation", step, split, result.count, int(state.step)))

    def on_checkpoint(self, step, state):
        self.lines.append(("checkpoint", step, int(state.step)))

    def on_end(self):
        self.lines.append(("end",))


def run(path, *callbacks, **keys):
    keys = {"train__steps": 3, "eval__every": 2, "checkpoint__every": 2} | keys
    return jaxmnist.train(
        small_config(**keys),
        path / "run",
        dataset=small_data(),
        model=Tiny(),
        callbacks=callbacks,
        quiet=True,
    )


def test_each_moment_is_told_in_its_order(tmp_path):
    diary = Diary()
    run(tmp_path, diary)
    assert diary.lines == [
        ("start", "run", 0, 3),
        ("step", 1),
        ("step", 2),
        ("evaluation", 2, "test", 131, 2),
        ("checkpoint", 2, 2),
        ("step", 3),
        ("evaluation", 3, "test", 131, 3),
        ("checkpoint", 3, 3),
        ("end",),
    ]
    assert diary.states == [1, 2, 3]


def test_a_callback_that_fails_ends_the_run_and_the_run_goes_on_where_it_was_saved(tmp_path):
    first, other, second = Diary(fail_at=3), Diary(), Diary()
    with pytest.raises(RuntimeError, match="enough"):
        run(tmp_path, first, other)
    assert first.lines[-1] == other.lines[-1] == ("end",)
    run(tmp_path, second)
    assert second.lines[:2] == [("start", "run", 2, 3), ("step", 3)]


def test_callbacks_change_no_bit(tmp_path):
    plain, told = run(tmp_path / "a"), run(tmp_path / "b", Diary(), Callback())
    assert plain.params_sha256 == told.params_sha256
