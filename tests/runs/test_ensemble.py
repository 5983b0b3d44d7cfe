"""Several runs are evaluated as one, every example once, and each alone beside."""

import json

import jax
import numpy as np
import pytest

import jaxmnist
from jaxmnist import datasets
from jaxmnist.cli.main import main
from jaxmnist.errors import DataError, UsageError
from jaxmnist.runs.evaluate import load_run
from support import Tiny, small_config, small_data

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Three short runs of different seeds: none is good, and they err in different places."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / f"seed-{seed}" for seed in SEEDS]
    for path, seed in zip(paths, SEEDS, strict=True):
        config = small_config(seed=seed, train__steps=12, train__label_smoothing=0.1)
        jaxmnist.train(config, path, dataset=data, model=Tiny(), quiet=True)
    return paths


@pytest.fixture
def evaluate(data):
    def evaluate(workdir, **kwargs):
        return jaxmnist.evaluate(workdir, dataset=data, model=Tiny(), **kwargs)

    return evaluate


def probabilities_of(path, images, data):
    """float64 [n, k], one image at a time."""
    setup, state, _ = load_run(path, dataset=data, model=Tiny())
    variables = jax.device_get((state.inference_params, state.batch_stats))
    apply = jax.jit(lambda image: setup.task.apply(*variables, image[None], None)[0][0])
    logits = np.array([apply(image) for image in images], np.float64)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def members(runs, data):
    return [probabilities_of(path, data.test.images, data) for path in runs]


def test_the_mean_of_the_probabilities_decides(runs, data, members, evaluate):
    found = evaluate(runs)
    choice, labels = np.mean(members, axis=0).argmax(1), data.test.labels
    assert found.count == len(labels) == 131
    assert found.accuracy == (choice == labels).mean()
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, choice), 1)
    assert found.confusion == confusion.tolist()
    smooth = np.eye(10)[labels] * 0.9 + 0.01
    loss = -(smooth * np.log(np.mean(members, axis=0))).sum(1).mean()
    assert found.loss == pytest.approx(loss, rel=1e-5)


def test_each_member_alone_is_as_its_own_evaluation(runs, evaluate):
    found = evaluate(runs)
    assert list(found.members) == [str(path) for path in runs]
    for path, alone in zip(runs, found.members.values(), strict=True):
        single = evaluate(path)
        assert alone.confusion == single.confusion
        assert alone.loss == pytest.approx(single.loss, rel=1e-6)
    assert len({member.loss for member in found.members.values()}) == len(runs)


def test_a_majority_counts_choices_and_the_mean_decides_between_equals(
    runs, data, members, evaluate
):
    expected, ties = [], 0
    for row in np.stack(members, axis=1):
        votes = np.bincount(row.argmax(1), minlength=10)
        best = np.flatnonzero(votes == votes.max())
        ties += len(best) > 1
        expected.append(best[row.mean(0)[best].argmax()])
    assert ties > 0
    found = evaluate(runs, vote="majority")
    assert found.accuracy == (np.array(expected) == data.test.labels).mean()
    assert found.confusion != evaluate(runs).confusion


def test_test_time_augmentation_is_the_mean_over_moved_images(runs, data, evaluate):
    h, w = data.test.images.shape[1:3]
    padded = np.pad(data.test.images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    views = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    mean = np.mean([probabilities_of(runs[0], view, data) for view in views], axis=0)
    found = evaluate(runs[0], tta=1)
    assert found.accuracy == (mean.argmax(1) == data.test.labels).mean()
    assert found.count == 131
    assert found.confusion != evaluate(runs[0]).confusion


def test_of_one_run_without_moves_it_is_the_plain_evaluation(runs, evaluate):
    found = evaluate(runs[:1])
    assert found.confusion == evaluate(runs[0]).confusion


def test_train_examples_and_earlier_checkpoints_can_be_asked_for(runs, evaluate):
    assert evaluate(runs[:2], split="train").count == 509
    early, late = evaluate(runs[:2], step=8), evaluate(runs[:2])
    assert early.loss != late.loss


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"vote": "mode"}, "vote='mode' is not one of mean, majority: choose one"),
        ({"tta": 8}, "tta=8 must be an integer of pixels, 0 to 7 for these images: choose 0 or 1"),
        ({"tta": -1}, "tta=-1 must be an integer of pixels"),
        ({"split": "dev"}, "split 'dev' does not exist in this run: choose one of train, test"),
    ],
)
def test_arguments_that_cannot_be_are_refused(runs, evaluate, kwargs, sentence):
    with pytest.raises(UsageError, match=sentence):
        evaluate(runs[:2], **kwargs)


def test_no_run_and_the_same_run_twice_are_refused(runs, evaluate):
    for given in ([], [runs[0], runs[1], runs[0].parent / "." / runs[0].name]):
        with pytest.raises(UsageError, match=r"the work directories .* give at least one, each on"):
            evaluate(given)


def test_members_that_saw_other_examples_are_refused(runs, data, tmp_path, monkeypatch):
    other = datasets.from_arrays(
        data.train.images, data.train.labels, data.test.images[:77], data.test.labels[:77]
    )
    loaded = {str(runs[0]): data, str(runs[1]): other}

    def load(name, *, dataset, **kwargs):
        return load_run(name, dataset=loaded[name], **kwargs)

    monkeypatch.setattr("jaxmnist.runs.ensemble.load_run", load)
    rule = r"seed-1 and \S+seed-0 have other examples in 'test': choose runs on the same data"
    with pytest.raises(DataError, match=rule):
        jaxmnist.evaluate(runs[:2], model=Tiny())


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Runs whose parts have names, so that the command line can load them."""
    folder = tmp_path_factory.mktemp("known")
    for seed in (0, 1):
        flags = {"dataset.name": "support:small_data", "model.name": "support:Tiny", "seed": seed}
        flags |= {"train.steps": 5, "batch_size": 32, "parallel.devices": 1}
        given = [f"--config.{key}={value}" for key, value in flags.items()]
        assert main(["train", *given, "--quiet", f"--workdir={folder / str(seed)}"]) == 0
    return folder


class TestCommand:
    def test_json_holds_the_whole_and_the_members(self, known, capfd):
        workdirs = f"--workdir={known / '0'},{known / '1'}"
        assert main(["eval", workdirs, "--vote=majority", "--tta=1", "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["count"] == 131
        assert list(found["members"]) == [str(known / "0"), str(known / "1")]
        expected = jaxmnist.evaluate([known / "0", known / "1"], vote="majority", tta=1)
        assert found == json.loads(json.dumps(expected.to_dict()))

    def test_people_see_what_each_has_alone(self, known, capfd):
        assert main(["eval", f"--workdir={known / '0'},{known / '1'}"]) == 0
        out = capfd.readouterr().out
        found = jaxmnist.evaluate([known / "0", known / "1"])
        assert out.startswith(f"accuracy {found.accuracy:.2%} of 131, loss {found.loss:.4f}\n")
        for alone in found.members.values():
            assert f"{alone.accuracy:.2%}" in out and f"{alone.loss:.4f}" in out

    @pytest.mark.parametrize(
        ("flag", "sentence"),
        [
            ("--workdir={known}/0,", "--workdir={known}/0, has an empty name"),
            ("--workdir={known}/0,{known}/9", "{known}/9"),
            ("--tta=-1", "flag --tta=-1"),
            ("--tta=99", "tta=99 must be an integer of pixels, 0 to 7"),
            ("--vote=mode", "flag --vote=mode"),
        ],
    )
    def test_a_bad_flag_is_one_sentence(self, known, capfd, flag, sentence):
        flags = [f"--workdir={known}/0", flag.format(known=known)]
        assert main(["eval", *flags]) != 0
        err = capfd.readouterr().err
        assert err.startswith("jaxmnist: ") and "Traceback" not in err
        assert sentence.format(known=known) in err
