"""`jaxmnist.train` from Python: results, other data and models, losses that are not finite."""

import json

import grain
import jax
import numpy as np
import pytest

import jaxmnist
from jaxmnist.errors import ConfigError, DataError, ModelError, NonFiniteLossError, WorkdirError
from jaxmnist.runs.evaluate import Evaluator
from jaxmnist.writers import read_records
from support import Tiny, bits_equal, small_config, small_data

pytestmark = pytest.mark.smoke


def run(path, *, dataset=None, model=None, quiet=True, **overrides):
    return jaxmnist.train(
        small_config(**overrides),
        path / "run",
        dataset=dataset or small_data(),
        model=model or Tiny(),
        quiet=quiet,
    )


def test_the_result_is_what_lies_in_the_work_directory(tmp_path):
    result = run(tmp_path, train__ema_decay=0.9)
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved == result.to_dict() | {key: saved[key] for key in ("command", "memory")}
    assert saved["command"].startswith("jaxmnist.train(config, workdir=")
    assert saved["memory"]["host_peak_bytes"] > 2**20
    assert saved["test"]["count"] == 131
    assert saved["train"]["examples"] == 20 * 32
    assert saved["train"]["epochs"] == pytest.approx(20 * 32 / 509)
    assert saved["params"]["ema_sha256"] not in (None, saved["params"]["sha256"])
    assert result.history == read_records(tmp_path / "run" / "metrics.jsonl")
    assert int(result.state.step) == 20
    again = run(tmp_path, train__ema_decay=0.9)
    assert again.to_dict() == result.to_dict()
    assert bits_equal(jax.device_get(again.state), jax.device_get(result.state))


def test_training_learns(tmp_path):
    result = run(tmp_path, train__steps=150, batch_size=64)
    assert result.test.accuracy > 0.7
    assert result.history[-1]["accuracy"] == result.test.accuracy


def test_lines_carry_what_the_format_says(tmp_path):
    history = run(tmp_path).history
    train = [r for r in history if r["split"] == "train"]
    assert [r["step"] for r in train] == [1, 4, 8, 12, 16, 20]
    assert [r["step"] for r in history if r["split"] == "test"] == [16, 20]
    assert set(train[0]) == {
        *("split", "step", "epoch", "loss", "accuracy", "learning_rate", "images_per_second")
    }
    assert train[2]["epoch"] == pytest.approx(8 * 32 / 509)
    assert train[0]["learning_rate"] == pytest.approx(0.05)


def test_validation_examples_choose_the_best_and_test_is_looked_at_once(tmp_path):
    # So small a rate changes nothing: all states are equally good, and the first is the best.
    settings = {"optimizer__learning_rate": 1e-30, "checkpoint__keep": 1, "eval__every": 7}
    result = run(tmp_path, dataset__validation=100, train__steps=40, **settings)
    splits = {r["split"] for r in result.history}
    assert splits == {"train", "validation"}
    scores = [r for r in result.history if r["split"] == "validation"]
    best = max(scores, key=lambda r: (r["accuracy"], -r["loss"]))
    assert result.best.step == best["step"] == 7
    assert result.best.validation == {"accuracy": best["accuracy"], "loss": best["loss"]}
    assert result.best.test.count == result.test.count == 131
    assert (tmp_path / "run" / "checkpoints" / str(best["step"])).is_dir()


def test_the_test_split_is_evaluated_once_where_the_last_state_is_the_best(tmp_path, monkeypatch):
    splits, evaluate = [], Evaluator.run

    def run_and_note(self, state, split, **kwargs):
        splits.append(split)
        return evaluate(self, state, split, **kwargs)

    monkeypatch.setattr(Evaluator, "run", run_and_note)
    result = run(tmp_path, dataset__validation=100, train__steps=3)
    assert splits == ["validation", "test"]
    assert result.best.step == 3 and result.best.test == result.test


@pytest.mark.parametrize("rate", [1e30])
def test_a_loss_that_is_not_finite_stops_the_run(rate, tmp_path):
    with pytest.raises(
        NonFiniteLossError, match=r"not finite at step \d+ \(learning rate 1e\+30\).*last good"
    ):
        run(tmp_path, optimizer__learning_rate=rate, log__every=2, checkpoint__every=1)
    # Nothing that is not finite was saved.
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        assert int(path.name) < 3


def grain_examples(split):
    """The examples of a split as a user's own Grain data set."""

    def example(i):
        return {"image": split.images[i], "label": int(split.labels[i])}

    return grain.MapDataset.range(len(split.labels)).map(example)


def test_a_grain_data_set_takes_the_place_of_ours_and_changes_no_bit(tmp_path):
    ours = run(tmp_path / "ours")
    data = small_data()
    theirs = jaxmnist.datasets.Dataset(
        name="mine", classes=10, train=grain_examples(data.train), test=data.test
    )
    result = run(tmp_path / "theirs", dataset=theirs)
    assert result.params_sha256 == ours.params_sha256
    assert result.test == ours.test


def test_a_grain_data_set_of_other_images_than_the_configured_test_set_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"\(8, 8, 1\), those of the test split are \(28, 28, 1\)"):
        run(tmp_path, dataset=grain_examples(small_data().train))


def test_validation_examples_cannot_be_held_out_of_a_grain_data_set(tmp_path, mnist):
    with pytest.raises(ConfigError, match=r"dataset.validation=5 .*validation split"):
        run(tmp_path, dataset=grain_examples(mnist.train), dataset__validation=5)


def test_a_model_with_the_wrong_number_of_logits_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"\(8, 7\).*10 classes.*\(8, 10\)"):
        run(tmp_path, model=Tiny(classes=7))
    assert not (tmp_path / "run").exists()


def test_a_loss_of_ones_own(tmp_path):
    def squared(logits, labels):
        return np.float32(0.5) * ((logits - jax.nn.one_hot(labels, 10)) ** 2).sum(-1)

    result = jaxmnist.train(
        small_config(),
        tmp_path / "run",
        dataset=small_data(),
        model=Tiny(),
        loss=squared,
        quiet=True,
    )
    assert result.history[0]["loss"] < 5.0
    assert result.test.loss < result.history[0]["loss"]


def test_without_a_work_directory_a_fresh_one_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = jaxmnist.train(
        small_config(train__steps=2), dataset=small_data(), model=Tiny(), quiet=True
    )
    assert result.workdir.parent.name == "runs"
    assert (tmp_path / result.workdir / "result.json").exists()


def test_a_run_that_is_longer_than_asked_for_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(WorkdirError, match=r"has made 20 steps, more than the 10 of this"):
        jaxmnist.train(
            small_config(train__steps=10),
            tmp_path / "run",
            dataset=small_data(),
            model=Tiny(),
            quiet=True,
            allow_config_change=True,
        )
