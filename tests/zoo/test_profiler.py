"""A trace holds the chosen steps and is written where the tools look for it."""

import gzip
import json

import pytest

import jaxmnist
from jaxmnist.errors import UsageError
from jaxmnist.zoo.profiler import Profile
from support import Tiny, small_config, small_data


def train(path, first, last, **keys):
    config = small_config(train__steps=8, parallel__devices=2, **keys)
    parts = {"dataset": small_data(), "model": Tiny(), "callbacks": [Profile(first, last)]}
    return jaxmnist.train(config, path, quiet=True, **parts)


def traces(workdir):
    return sorted(workdir.glob("profile/plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize("steps", [(1, 2), (3, 5), (8, 8)])
def test_the_steps_are_traced_into_the_work_directory(tmp_path, steps):
    traced, plain = train(tmp_path / "a", *steps), train(tmp_path / "b", *steps)
    assert len(traces(tmp_path / "a")) == 1
    (file,) = (tmp_path / "a").glob("profile/plugins/profile/*/*.trace.json.gz")
    assert json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    assert traced.params_sha256 == plain.params_sha256


def test_a_run_that_is_past_the_steps_traces_nothing(tmp_path):
    train(tmp_path, 1, 2, train__ema_decay=0.5)
    (tmp_path / "result.json").unlink()
    train(tmp_path, 1, 2, train__ema_decay=0.5)
    assert len(traces(tmp_path)) == 1


def test_steps_that_the_run_does_not_make_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"steps 5:9 cannot be traced; the run has 8 steps: choo"):
        train(tmp_path, 5, 9)
