"""What a run was given is noted, asked for again, and a run may start from another's parameters."""

import shutil

import flax.linen as nn
import grain
import jax
import numpy as np
import optax
import pytest

import jaxmnist
from jaxmnist.checkpoint import newest_good
from jaxmnist.cli.main import main
from jaxmnist.errors import CheckpointError, UsageError, WorkdirError
from jaxmnist.state import tree_sha256
from support import Tiny, bits_equal, small_config, small_data


def squared(logits, labels):
    return ((logits - jax.nn.one_hot(labels, 10)) ** 2).sum(-1)


PARTS = {"dataset": small_data(), "model": Tiny(), "tx": optax.sgd(0.1, 0.9), "loss": squared}


def run(path, *, parts=PARTS, **overrides):
    overrides = {"train__steps": 6, "checkpoint__every": 3} | overrides
    return jaxmnist.train(small_config(**overrides), path, quiet=True, **parts)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("given") / "run"
    return path, run(path)


class TestPartsGivenInPython:
    def test_their_names_are_noted(self, whole):
        info, _ = newest_good(whole[0] / "checkpoints")
        assert info.notes["parts"] == {
            "dataset": "jaxmnist.datasets.dataset:Dataset",
            "model": "support:Tiny",
            "tx": f"{type(PARTS['tx']).__module__}:{type(PARTS['tx']).__qualname__}",
            "loss": f"{squared.__module__}:squared",
        }

    def test_evaluating_says_what_to_pass(self, whole):
        with pytest.raises(UsageError) as caught:
            jaxmnist.evaluate(whole[0])
        text = str(caught.value)
        assert "was given in Python: dataset = jaxmnist.datasets.dataset:Dataset, model = " in text
        assert f"jaxmnist.evaluate({str(whole[0])!r}, dataset=..., model=..., loss=...)" in text
        with pytest.raises(UsageError, match=r"in Python: loss = .*squared"):
            jaxmnist.evaluate(whole[0], dataset=small_data(), model=Tiny())

    def test_so_does_the_command_line_without_a_trace(self, whole, capsys):
        assert main(["eval", f"--workdir={whole[0]}"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("jaxmnist: the run in ") and "model=..." in error
        assert len(error.splitlines()) == 1

    def test_the_optimizer_is_not_needed_to_evaluate(self, whole):
        parts = {name: part for name, part in PARTS.items() if name != "tx"}
        assert jaxmnist.evaluate(whole[0], **parts) == whole[1].test

    def test_another_model_is_refused_without_the_optimizer(self, whole):
        parts = {"dataset": small_data(), "model": Tiny(groups=8), "loss": squared}
        with pytest.raises(CheckpointError, match=r"another model(.|\n)*BatchNorm_0"):
            jaxmnist.evaluate(whole[0], **parts)

    def test_going_on_without_them_is_refused(self, whole, tmp_path):
        path = shutil.copytree(whole[0], tmp_path / "run")
        shutil.rmtree(path / "checkpoints" / "6")
        parts = {name: part for name, part in PARTS.items() if name != "loss"}
        with pytest.raises(UsageError, match=r"in Python: loss = .*squared"):
            run(path, parts=parts)
        assert run(path).params_sha256 == whole[1].params_sha256

    def test_pairs_of_arrays_are_data_sets(self, tmp_path):
        data = small_data()
        pairs = tuple((split.images, split.labels) for split in (data.train, data.test))
        expected = run(tmp_path / "a", parts=PARTS).params_sha256
        assert run(tmp_path / "b", parts=PARTS | {"dataset": pairs}).params_sha256 == expected

    def test_grain_examples_are_a_training_split(self, tmp_path, mnist):
        def example(i):
            return {"image": mnist.train.images[i], "label": mnist.train.labels[i]}

        examples = {"dataset": grain.MapDataset.range(64).map(example), "model": Tiny()}
        pair = {"dataset": (mnist.train.images[:64], mnist.train.labels[:64]), "model": Tiny()}
        first = run(tmp_path / "a", parts=examples, train__steps=2)
        assert first.params_sha256 == run(tmp_path / "b", parts=pair, train__steps=2).params_sha256


PLAIN = {"dataset": small_data(), "model": Tiny(groups=8)}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "run"
    return path, run(path, parts=PLAIN, train__ema_decay=0.9)


class TestStartingFromAnotherRun:
    def test_starts_from_what_it_was_evaluated_with(self, source, tmp_path):
        seen = {}

        class Look(jaxmnist.callbacks.Callback):
            def on_step(self, step, state):
                seen.setdefault(step, jax.device_get(state))

        run(
            tmp_path / "run",
            parts=PLAIN | {"callbacks": [Look()]},
            train__init_from=source[0],
            train__ema_decay=0.5,
            train__steps=1,
            optimizer__learning_rate=1e-50,
        )
        theirs = jax.device_get(source[1].state)
        assert bits_equal(seen[1].params, theirs.ema)
        assert not bits_equal(theirs.params, theirs.ema)
        assert not bits_equal(seen[1].batch_stats, theirs.batch_stats)  # the step moved them
        info, _ = newest_good(tmp_path / "run" / "checkpoints")
        assert info.notes["init_from"] == {
            "workdir": str(source[0]),
            "step": 6,
            "params_sha256": tree_sha256(theirs.ema),
        }

    def test_going_on_needs_the_source_no_more(self, source, tmp_path):
        moved = shutil.copytree(source[0], tmp_path / "source")
        expected = run(tmp_path / "a", parts=PLAIN, train__init_from=moved)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        shutil.rmtree(tmp_path / "b" / "checkpoints" / "6")
        shutil.rmtree(moved)
        again = run(tmp_path / "b", parts=PLAIN, train__init_from=moved)
        assert again.params_sha256 == expected.params_sha256
        notes = [newest_good(tmp_path / x / "checkpoints")[0].notes["init_from"] for x in "ab"]
        assert notes[0] == notes[1] != None  # noqa: E711

    def test_all_arrays_that_do_not_fit_are_listed(self, source, tmp_path):
        class Other(nn.Module):
            @nn.compact
            def __call__(self, images):
                x = nn.Dense(16)(images.reshape(len(images), -1) / 255.0)
                return nn.Dense(10)(x)

        with pytest.raises(CheckpointError) as caught:
            run(
                tmp_path / "run",
                parts={"dataset": small_data(), "model": Other()},
                train__init_from=source[0],
            )
        first, *lines = str(caught.value).splitlines()
        assert first.startswith(f"train.init_from={str(source[0])!r} holds the parameters of anoth")
        assert "  - ema.Dense_0.kernel: float32[16, 16] there, float32[64, 16] here" in lines
        assert any("Conv_0.kernel" in line and "none here" in line for line in lines)
        assert f"{len(lines)} arrays differ" in first
        assert not (tmp_path / "run").exists()

    def test_what_is_no_run_is_refused(self, tmp_path):
        nothing = tmp_path / "nothing"
        text = f"train.init_from='{nothing}': {nothing} is not the work directory of a run: .*; g"
        with pytest.raises(WorkdirError, match=text):
            run(tmp_path / "run", parts=PLAIN, train__init_from=nothing)
        assert not (tmp_path / "run").exists()

    def test_a_run_without_a_checkpoint_is_refused(self, source, tmp_path):
        empty = shutil.copytree(source[0], tmp_path / "empty")
        shutil.rmtree(empty / "checkpoints")
        text = f"train.init_from='{empty}': .* has no checkpoint that can be used: .*; choose anot"
        with pytest.raises(CheckpointError, match=text):
            run(tmp_path / "run", parts=PLAIN, train__init_from=empty)
        assert not (tmp_path / "run").exists()


def test_parameters_named_by_pattern_do_not_decay(tmp_path):
    kept = {"optimizer__learning_rate": 0.1, "optimizer__weight_decay": 0.5, "train__steps": 1}
    parts = {"dataset": small_data(), "model": Tiny()}
    a, b, c = (
        jax.device_get(run(tmp_path / str(i), parts=parts, **kept | more).state.params)
        for i, more in enumerate(
            ({}, {"optimizer__no_decay": "Dense_*/*"}, {"optimizer__weight_decay": 0.0})
        )
    )
    np.testing.assert_array_equal(b["Dense_0"]["kernel"], c["Dense_0"]["kernel"])
    np.testing.assert_array_equal(b["Conv_0"]["kernel"], a["Conv_0"]["kernel"])
    assert not bits_equal(a["Dense_0"], b["Dense_0"])
    assert not bits_equal(a["Conv_0"], c["Conv_0"])
