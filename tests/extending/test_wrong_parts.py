"""A part that breaks the contract gets a sentence that names it and its repair, before training."""

import re
from typing import Any

import flax.linen as nn
import grain
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmnist
from jaxmnist.callbacks import Callback
from jaxmnist.cli.main import main
from jaxmnist.datasets import Dataset, Split, from_arrays
from jaxmnist.errors import ConfigError, DataError, JaxmnistError, ModelError
from jaxmnist.metrics import cross_entropy
from support import Tiny, small_config, small_data

PARTS = """
import jax.numpy as jnp, numpy as np, optax
from jaxmnist.callbacks import Callback
from jaxmnist.datasets import from_arrays
from support import Tiny
def scalar(logits, labels): return (logits ** 2).mean()
def matrix(logits, labels): return logits ** 2
def whole(logits, labels): return labels
def failing(logits, labels): return logits.no_such
def leaving(logits, labels): raise SystemExit("done")
def undefined(logits, labels): return jnp.log(logits * 0).sum(-1) * 0
def unbounded(logits, labels): return jnp.sqrt((logits * 0).sum(-1)) + logits[:, 0]
def mistakes(logits, labels): return (logits.argmax(-1) != labels).astype('float32')
def mixing(logits, labels):
    loss = (logits ** 2).sum(-1)
    return loss / loss.mean()
def larger(images, keys): return jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
def scaled(images, keys): return images / 255.0
def centred(images, keys): return images - images.mean(0).astype(images.dtype)
def table(peak, steps): return [peak] * steps
def rates(peak, steps): return lambda count: jnp.full((3,), peak)
def branching(peak, steps): return lambda count: peak if count < 10 else 0.0
def leaving_schedule(peak, steps): raise SystemExit
def broken_schedule(peak, steps, colour): return lambda count: peak
def no_rate(momentum): return optax.sgd(0.1, momentum)
def number(learning_rate): return 0.1
def leaving_optimizer(learning_rate): raise SystemExit("done")
def updates_of_one(learning_rate):
    return optax.stateless(lambda updates, params: jnp.zeros(()))
def leaving_data(): raise SystemExit("done")
def uneven():
    x, y = [np.zeros((8, 8), 'uint8'), np.zeros((9, 8), 'uint8')], [0, 1]
    return from_arrays(x, y, x, y)
def demanding(images, labels): return images
def crashing(): raise KeyError("no such file")
def made_of_floats():
    x, y = np.zeros((9, 8, 8)), np.arange(9)
    return from_arrays(x, y, x, y)
class NotOne:
    pass
class Needy(Callback):
    def __init__(self, path): self.path = path
class Short(Callback):
    def on_step(self, step): pass
class Failing(Callback):
    def on_step(self, step, state): raise KeyError("no such\\nkey")
class Full(Callback):
    def on_end(self): raise OSError("the disk of mine is full")
VALUE, NET = 3, Tiny()
"""
BROKEN = {"broken": "def f(:", "talking": "raise ValueError('first\\nsecond')"}
BROKEN["leaving"] = "import sys; sys.exit(3)"


@pytest.fixture(autouse=True)
def my_parts(tmp_path, monkeypatch):
    (tmp_path / "wrong_parts.py").write_text(PARTS)
    for name, text in BROKEN.items():
        (tmp_path / f"{name}_parts.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))


def refused(tmp_path, error, text, *, parts=None, **overrides):
    """Asserts that a run is refused with one sentence, and leaves nothing behind."""
    given = {"dataset": small_data(), "model": Tiny(), "quiet": True} | (parts or {})
    with pytest.raises(error, match=text):
        jaxmnist.train(small_config(**overrides), tmp_path / "run", **given)
    assert issubclass(error, JaxmnistError)
    assert not (tmp_path / "run").exists()


class TestLosses:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("matrix", r"'wrong_parts:matrix' gives float32\[7, 10\], float32\[7\] is expected .*"),
            ("scalar", r"'wrong_parts:scalar' gives float32\[\], .*give one number for each row"),
            ("whole", r"gives int32\[7\], .*cast it with .astype\('float32'\)"),
            ("failing", r"fails on float32\[7, 10\], int32\[7\]: AttributeError.*correct the func"),
            (
                "leaving",
                "'wrong_parts:leaving' fails on .*: SystemExit: done; correct the function",
            ),
            (
                "undefined",
                "'wrong_parts:undefined' gives NaN or infinite values for finite ones: l",
            ),
            ("unbounded", "'wrong_parts:unbounded' has a gradient that is NaN or infinite: keep"),
            ("mistakes", "'wrong_parts:mistakes' does not move with the logits, nothing is lear"),
            ("mixing", r"another value when other rows .*number of devices: compute each row"),
            ("VALUE", r"loss.name='wrong_parts:VALUE' is 3: it must be a function or a class"),
            ("absent", r"loss.name='wrong_parts:absent' cannot be imported: .*'absent'"),
        ],
    )
    def test_that_do_not_give_one_number_for_each_row(self, tmp_path, name, text):
        refused(tmp_path, ConfigError, text, loss__name=f"wrong_parts:{name}")

    def test_that_are_functions(self, tmp_path):
        loss = {"loss": lambda logits, labels: logits.sum()}
        refused(tmp_path, ConfigError, r"loss=.*<lambda> gives float32\[\]", parts=loss)

    def test_that_do_not_exist(self, tmp_path):
        text = r"loss.name='cross_entrop' is not one of cross_entropy: .*did you mean 'cross_entr"
        refused(tmp_path, ConfigError, text, loss__name="cross_entrop")

    def test_arguments_that_the_loss_does_not_take(self, tmp_path):
        refused(tmp_path, ConfigError, "'cross_entropy' fails.*gamma", loss__kwargs={"gamma": 2})

    def test_smoothing_has_a_key_of_its_own(self, tmp_path):
        text = "loss.kwargs has label_smoothing, which has a key of its own: set train.label_smoo"
        refused(tmp_path, ConfigError, text, loss__kwargs={"label_smoothing": 2})

    def test_that_cannot_smooth_labels(self, tmp_path):
        parts = {"loss": lambda logits, labels: (logits**2).sum(-1)}
        text = r"train.label_smoothing=0.1 is no argument of loss=.*: set it to 0, or let"
        refused(tmp_path, ConfigError, text, parts=parts, train__label_smoothing=0.1)


class TestAugmentations:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("larger", r"'wrong_parts:larger' gives uint8\[7, 10, 10, 1\], uint8\[7, 8, 8, 1\] is"),
            ("scaled", r"gives float32\[7, 8, 8, 1\], .*cast it with .astype\('uint8'\)"),
            ("centred", r"another value when other rows are beside it"),
            ("VALUE", r"augment.custom='wrong_parts:VALUE' is 3: it must be a function"),
            ("absent", r"augment.custom='wrong_parts:absent' cannot be imported"),
        ],
    )
    def test_that_change_more_than_pixels(self, tmp_path, name, text):
        refused(tmp_path, ConfigError, text, augment__custom=f"wrong_parts:{name}")

    def test_arguments_for_none(self, tmp_path):
        text = r"augment.kwargs=\{'p': 3\} belongs to augment.custom, which is not set: set it, or"
        refused(tmp_path, ConfigError, text, augment__kwargs={"p": 3})


class TestSchedulesAndOptimizers:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("wrong_parts:table", "'wrong_parts:table': .*must give a function from finished ste"),
            ("wrong_parts:rates", r"the rate of a step is .*3.*expected one number"),
            ("wrong_parts:broken_schedule", r"'colour' \(it takes colour, warmup\); it must give"),
            ("cosin", r"schedule.name='cosin' is not one of .*; did you mean 'cosine'\?"),
            ("wrong_parts:branching", "Attempted boolean conversion of traced array"),
            ("wrong_parts:leaving_schedule", r"'wrong_parts:leaving_schedule': .*\(it takes warm"),
            ("wrong_parts:absent", "schedule.name='wrong_parts:absent' cannot be imported"),
        ],
    )
    def test_schedules_that_give_no_rate(self, tmp_path, name, text):
        refused(tmp_path, ConfigError, text, schedule__name=name)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("addam", r"optimizer.name='addam' is not an optimizer .*did you mean 'adam'\?"),
            ("wrong_parts:no_rate", "is not an optimizer of optax that takes learning_rate"),
            ("wrong_parts:number", "gives 0.1, expected an optax.GradientTransformation"),
            (
                "lbfgs",
                "for 'lbfgs': .*missing 3 required .*update must need gradients and params o",
            ),
            ("wrong_parts:leaving_optimizer", "_optimizer': done; it takes learning_rate"),
            ("wrong_parts:absent", "optimizer.name='wrong_parts:absent' cannot be imported"),
            ("wrong_parts:updates_of_one", "tree, shapes and dtypes of the parameters"),
        ],
    )
    def test_optimizers_that_are_none(self, tmp_path, name, text):
        refused(tmp_path, ConfigError, text, optimizer__name=name, optimizer__kwargs={})

    def test_arguments_that_the_optimizer_does_not_take(self, tmp_path):
        text = r"'nesterof'.*; it takes learning_rate, momentum, nesterov, accumulator_dtype, and i"
        refused(tmp_path, ConfigError, text, optimizer__kwargs={"nesterof": True})

    def test_objects_that_are_none(self, tmp_path):
        text = "the optimizer tx is 'adam': it must be an optax.GradientTransformation"
        refused(tmp_path, ConfigError, text, parts={"tx": "adam"})

    def test_patterns_that_match_no_parameter(self, tmp_path):
        text = r"optimizer.no_decay='Conv_0/\*,Densse\*': Densse\* matches no parameter; there are"
        refused(tmp_path, ConfigError, text, optimizer__no_decay="Conv_0/*,Densse*")


class Flat(nn.Module):
    """Gives one number for an image."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(1)(images.reshape(len(images), -1) / 255.0)[:, 0]


class Odd(nn.Module):
    """Gives what the logits become in the hands of `change`."""

    change: Any

    @nn.compact
    def __call__(self, images):
        return self.change(nn.Dense(10)(images.reshape(len(images), -1) / 255.0))


class Counting(nn.Module):
    """Has a parameter that is no floating-point number."""

    @nn.compact
    def __call__(self, images):
        count = self.param("count", lambda key: jnp.zeros((10,), jnp.int32))
        return nn.Dense(10)(images.reshape(len(images), -1) / 255.0) + count


def leave(logits):
    raise SystemExit(3)


class TestModels:
    def test_of_another_shape(self, tmp_path):
        text = r"model Flat gives logits of shape \(8,\) for 8 images of 10 classes: \(8, 10\) is"
        refused(tmp_path, ModelError, text, parts={"model": Flat()})

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (lambda x: (x, x), "model Odd gives tuple: it must return one floating-point array"),
            (lambda x: {"logits": x}, r"model Odd gives dict: it .*, the logits \[b, 10\]"),
            (lambda x: None, "model Odd gives NoneType: it must return one"),
            (lambda x: x.astype("int32"), "model Odd gives int32: it must return one floating"),
            (lambda x: x > 0, "model Odd gives bool: it must return one"),
            (lambda x: x[:, None], r"model Odd gives logits of shape \(8, 1, 10\) for 8 images"),
            (lambda x: x if x.mean() > 0 else -x, "model Odd fails on .*; correct it or model.kw"),
            (leave, r"model Odd fails on images uint8 \(8, 8, 8, 1\): SystemExit: 3; correct it"),
        ],
    )
    def test_that_give_something_else_than_logits(self, tmp_path, change, text):
        refused(tmp_path, ModelError, text, parts={"model": Odd(change)})

    def test_with_parameters_that_cannot_be_trained(self, tmp_path):
        text = "model Counting has parameters of type int32: only floating-point ones can be train"
        refused(tmp_path, ModelError, text, parts={"model": Counting()})

    @pytest.mark.parametrize("given", [Tiny, lambda x: x, "cnn", 3])
    def test_that_are_no_modules(self, tmp_path, given):
        text = "model=.* must be an object of a flax.linen.Module class: call the class"
        refused(tmp_path, ModelError, text, parts={"model": given})

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("no_such_package.models:Net", "No module named 'no_such_package'.*installed or lies"),
            ("wrong_parts:scalar", "must be a flax.linen.Module class"),
            ("flax.linen:Module", "must be a flax.linen.Module class"),
            ("wrong_parts:NET", "is Tiny.* # attributes classes = 10.*must be a flax.linen.Module"),
            (
                "broken_parts:Net",
                "cannot be imported: SyntaxError: .*installed or lies on PYTHONPA",
            ),
            ("talking_parts:Net", "cannot be imported: ValueError: first second; give 'package.mo"),
            ("leaving_parts:Net", "cannot be imported: SystemExit: 3; give 'package.module:name'"),
            ("my_package.Net", "give your own as 'package.module:Class'"),
        ],
    )
    def test_that_are_none(self, tmp_path, name, text):
        refused(tmp_path, ConfigError, text, parts={"model": None}, model__name=name)


def grained(image, label=1):
    """A data set of Grain examples that are all the same."""
    return grain.MapDataset.range(64).map(lambda i: {"image": image, "label": label})


class TestData:
    @pytest.mark.parametrize(
        ("image", "label", "text"),
        [
            (np.zeros((8, 8)), 1, "an 'image' that is float64 of shape"),
            (np.full((8, 8), np.nan, np.float32), 1, "an 'image' that holds NaN"),
            (np.zeros((8, 9), np.uint8), 1, r"an 'image' of \(8, 9, 1\), those of the test"),
            (np.zeros((8, 8), np.uint8), 1.0, "'float' object cannot be interpreted as an int"),
            (np.zeros((8, 8), np.uint8), "one", "'str' object cannot be interpreted as an int"),
            (np.zeros((8, 8), np.uint8), 10, r"the label 10, which is not in 0\.\.9"),
        ],
    )
    def test_examples_of_the_wrong_type(self, tmp_path, image, label, text):
        data = small_data()
        mine = Dataset("mine", 10, train=grained(image, label), test=data.test)
        refused(tmp_path, DataError, text, parts={"dataset": mine})

    def test_nan_that_comes_late_ends_the_run_with_the_sentence(self, tmp_path):
        def example(i):
            value = np.nan if i == 5 else 0.5
            return {"image": np.full((8, 8), value, np.float32), "label": 1}

        train = grain.MapDataset.range(64).map(example)
        mine = Dataset("mine", 10, train=train, test=small_data().test)
        with pytest.raises(DataError, match="an 'image' that holds NaN or infinite values"):
            jaxmnist.train(small_config(), tmp_path / "run", dataset=mine, model=Tiny(), quiet=True)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (
                lambda d: d.map(lambda e: e["picture"]),
                r"fails at place \d+: KeyError: 'picture'; c",
            ),
            (lambda d: d.filter(lambda e: False), r"has no example at place \d+; a filter leaves"),
            (lambda d: d.repeat(), r"elements: give a finite one without repeat\(\)"),
        ],
    )
    def test_examples_that_cannot_be_read(self, tmp_path, change, text):
        train = change(grained(np.zeros((8, 8), np.uint8)))
        mine = Dataset("mine", 10, train=train, test=small_data().test)
        text = f"the grain.MapDataset .*{text}"
        refused(tmp_path, DataError, text, parts={"dataset": mine})

    @pytest.mark.parametrize("wrong", [np.nan, 0.5])
    def test_float64_images(self, tmp_path, wrong):
        images, labels = np.full((9, 8, 8), wrong), np.arange(9)
        with pytest.raises(DataError, match=r"images are float64 .*expected uint8.*convert them"):
            from_arrays(images, labels, images, labels)
        split = Split(images[..., None], labels)
        refused(
            tmp_path,
            DataError,
            "images are float64",
            parts={"dataset": Dataset("x", 9, split, split)},
        )

    @pytest.mark.parametrize("kind", [np.float32, str, bool])
    def test_labels_of_the_wrong_type(self, kind):
        images, labels = np.zeros((9, 8, 8), np.uint8), np.arange(9)
        with pytest.raises(
            DataError, match=r"train_labels: labels are .*, expected integers, class numbers"
        ):
            from_arrays(images, labels.astype(kind), images, labels)

    @pytest.mark.parametrize(
        ("name", "error", "text"),
        [
            ("wrong_parts:made_of_floats", DataError, "images are float64"),
            (
                "wrong_parts:uneven",
                DataError,
                "train_images: no array can be made of these: .* one s",
            ),
            ("wrong_parts:leaving_data", DataError, "leaving_data fails: SystemExit: done; corre"),
            ("wrong_parts:crashing", DataError, "crashing fails: KeyError: 'no such file'"),
            ("wrong_parts:demanding", ConfigError, "function that makes a Dataset .*no argument"),
            ("wrong_parts:NotOne", ConfigError, "expected a function that makes a Dataset"),
            ("os:abort", ConfigError, "expected a function that makes a Dataset"),
            ("wrong_parts:VALUE", DataError, "gives int; expected a function"),
        ],
    )
    def test_functions_that_make_none(self, tmp_path, name, error, text):
        refused(tmp_path, error, text, parts={"dataset": None}, dataset__name=name)

    def test_objects_that_are_none(self, tmp_path):
        text = "a data set of type dict cannot be read: give jaxmnist.datasets.from_arrays"
        refused(tmp_path, DataError, text, parts={"dataset": {}})


class TestCallbacks:
    @pytest.mark.parametrize(
        ("names", "text"),
        [
            ("wrong_parts:NotOne", "is no subclass of jaxmnist.callbacks.Callback: derive it"),
            ("wrong_parts:VALUE", "callbacks has 3: derive its class from jaxmnist.callbacks.Cal"),
            ("wrong_parts:Needy", "callbacks='wrong_parts:Needy' cannot be made: .*'path'"),
            (
                "wrong_parts:Short",
                r"Short.on_step cannot be called: .*on_step\(step, state\); give",
            ),
            ("wrong_parts:absent", "callbacks='wrong_parts:absent' cannot be imported"),
        ],
    )
    def test_that_are_named_and_are_none(self, tmp_path, names, text):
        refused(tmp_path, ConfigError, text, callbacks=names)

    @pytest.mark.parametrize("wrong", [print, Callback])
    def test_that_are_given_and_are_none(self, tmp_path, wrong):
        refused(tmp_path, ConfigError, "callbacks has", parts={"callbacks": [wrong]})

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("Failing", r"Failing fails in on_step, wrong_parts.py, line \d+: KeyError: 'no such"),
            ("Full", r"Full fails in on_end, wrong_parts.py, line \d+: OSError: the disk of mine"),
        ],
    )
    def test_that_fail_end_the_command_in_a_sentence(self, tmp_path, capfd, name, text):
        keys = {"dataset.name": "support:small_data", "model.name": "support:Tiny"}
        keys |= {"callbacks": f"wrong_parts:{name}", "batch_size": 32, "train.steps": 2}
        flags = [f"--config.{key}={value}" for key, value in keys.items()]
        assert main(["train", "--quiet", *flags, f"--workdir={tmp_path / 'run'}"]) == 1
        error = capfd.readouterr().err
        assert re.fullmatch(
            f"jaxmnist: callback wrong_parts:{text}.*; correct it, then .*\n", error
        )

    def test_that_are_no_list(self, tmp_path):
        text = r"callbacks=.*Callback object.* is no list: give \[callback, ...\]"
        refused(tmp_path, ConfigError, text, parts={"callbacks": Callback()})


def test_several_faults_are_said_at_once(tmp_path):
    text = r"2 faults:\n  - schedule.name='x' .*\n  - loss.name='wrong_parts:matrix'"
    refused(tmp_path, ConfigError, text, schedule__name="x", loss__name="wrong_parts:matrix")


def test_good_parts_pass_these_checks(tmp_path):
    result = jaxmnist.train(
        small_config(train__steps=2),
        tmp_path / "run",
        dataset=small_data(),
        model=Tiny(),
        tx=optax.sgd(0.1),
        loss=lambda logits, labels: cross_entropy(logits, labels) + 0 * jnp.sum(logits, -1),
        callbacks=[Callback()],
        quiet=True,
    )
    assert result.train.steps == 2
