"""Which runs a sweep makes, and what is wrong with the texts that ask for them."""

import pytest

import jaxmnist
from jaxmnist.errors import ConfigError, UsageError
from jaxmnist.sweep.grid import expand, parse_grid, parse_seeds

RATE = "optimizer.learning_rate"


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0:3", [0, 1, 2]),
        ("5", [5]),
        ("9,1, 5", [9, 1, 5]),
        ("0:2,7:9,4", [0, 1, 7, 8, 4]),
        ("4294967295", [4294967295]),
    ],
)
def test_a_text_names_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is not a seed or a range of seeds: give FIRST:END"),
        ("a", "'a' is not a seed"),
        ("-1", "'-1' is not a seed"),
        ("1.5", "'1.5' is not a seed"),
        ("0:8:2", "'0:8:2' is not a seed"),
        ("1,,2", "'' is not a seed"),
        (":8", "':8' is not a seed"),
        ("5:5", "the range 5:5 holds no seed"),
        ("8:0", "the range 8:0 holds no seed"),
        ("0:1000000000", "1,000,000,000 seeds: choose at most 10,000"),
    ],
)
def test_a_text_that_names_no_seeds_is_refused(text, sentence):
    with pytest.raises(UsageError, match=f"--seeds={text}: .*{sentence}"):
        parse_seeds(text)


def test_texts_name_a_grid():
    texts = [
        "optimizer.learning_rate:1e-3, 3e-3",
        "model.kwargs.channels:(8,16),[4,8]",
        "a.b:'x,y'",
    ]
    assert parse_grid(texts) == {
        RATE: ["1e-3", "3e-3"],
        "model.kwargs.channels": ["(8,16)", "[4,8]"],
        "a.b": ["'x,y'"],
    }


@pytest.mark.parametrize("text", ["", "batch_size", "batch_size:", ":64", "batch_size:64,,128"])
def test_a_grid_without_a_key_or_a_value_is_refused(text):
    with pytest.raises(UsageError, match=f"--grid={text}: a key or a value is missing: give KEY:"):
        parse_grid([text])


def test_a_key_has_one_grid():
    with pytest.raises(UsageError, match="batch_size has a grid already: give its values in one"):
        parse_grid(["batch_size:64", "batch_size:128"])


def test_the_runs_are_every_point_with_every_seed():
    grid = {RATE: [1e-3, 0.5], "model.kwargs": [{"dropout": 0.1}]}
    runs = expand(jaxmnist.get_config(), seeds=[4, 2], grid=grid)
    rows = [(run.seed, run.config.seed, run.config.optimizer.learning_rate) for run in runs]
    assert rows == [(4, 4, 1e-3), (4, 4, 0.5), (2, 2, 1e-3), (2, 2, 0.5)]
    assert {run.config.model.kwargs.dropout for run in runs} == {0.1}
    assert runs[1].name == "1-learning_rate=0.5,kwargs=_dropout_0.1_/seed-4"
    assert len({run.name for run in runs}) == 4


def test_without_a_grid_a_run_is_named_by_its_seed():
    (run,) = expand(jaxmnist.get_config("debug"), seeds=[3], grid={})
    assert (run.name, run.words) == ("seed-3", "seed 3")
    assert run.config.batch_size == 64


def test_a_length_of_training_takes_the_place_of_the_configured_one():
    runs = expand(jaxmnist.get_config(), seeds=[0], grid={"train.steps": [5, 6]})
    assert [(run.config.train.steps, run.config.train.epochs) for run in runs] == [
        (5, None),
        (6, None),
    ]


@pytest.mark.parametrize(
    ("seeds", "grid", "sentence"),
    [
        ([], {}, "needs at least one seed: give --seeds"),
        ([1, 2, 1], {}, "name 1 twice: name each seed once"),
        ([0], {"seed": [1]}, "the grid has the key 'seed': give the seeds in --seeds"),
        ([0], {RATE: []}, f"no value for '{RATE}': give at least one"),
        (range(500), {"batch_size": range(64, 128)}, "64 points × 500 seeds is larger than 10,000"),
    ],
)
def test_what_is_no_sweep_is_refused(seeds, grid, sentence):
    with pytest.raises(UsageError, match=sentence):
        expand(jaxmnist.get_config(), seeds=seeds, grid=grid)


def test_all_faults_of_a_grid_are_told_at_once_and_each_once():
    grid = {"batch_size": ["64", "no"], "learning_rate": ["1", "2"]}
    with pytest.raises(ConfigError) as raised:
        expand(jaxmnist.get_config(), seeds=[0, 1], grid=grid)
    assert len(raised.value.faults) == 2
    assert "there is no key 'learning_rate'; did you mean 'optimizer" in str(raised.value)
    assert "batch_size = 'no' must be an integer >= 1" in str(raised.value)


def test_a_seed_that_no_configuration_takes_is_refused():
    with pytest.raises(ConfigError, match="seed = 4294967296 must be an integer in"):
        expand(jaxmnist.get_config(), seeds=[2**32], grid={})


def test_points_that_are_the_same_are_refused():
    rule = "'learning_rate=1e-3' and 'learning_rate=0.001' of the grid are one configuration"
    with pytest.raises(ConfigError, match=rule):
        expand(jaxmnist.get_config(), seeds=[0], grid={RATE: ["1e-3", "0.001"]})
