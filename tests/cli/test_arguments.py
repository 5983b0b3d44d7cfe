"""Flags are understood in every spelling, wherever the configuration's stand among them."""

import pytest
from absl import flags

from jaxmnist.cli.arguments import configuration, parse
from jaxmnist.cli.main import COMMANDS, main
from jaxmnist.errors import CheckpointError, ConfigError, UsageError


def parsed(*arguments, command="eval"):
    return parse(command, list(arguments), names=COMMANDS[command][1])


def configured(line, command="train"):
    return configuration(parsed(*line.split(), command=command)[0])


def test_flags_have_their_types_and_defaults():
    found, _ = parsed("--workdir=runs/one", "--step", "20", "--json")
    assert (found.workdir, found.step, found.json, found.split) == ("runs/one", 20, True, "test")
    found, _ = parsed()
    assert (found.workdir, found.step, found.json) == (None, None, False)
    assert parsed("--nojson")[0].json is False


def test_files_may_stand_among_the_flags():
    found, files = parsed("a.png", "--step=3", "b.png")
    assert files == ["a.png", "b.png"]
    assert found.step == 3
    assert parsed("--", "--odd.png")[1] == ["--odd.png"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--stp=3"], r"^Unknown command line flag 'stp'.*step.*; see `jaxmnist eval --help`$"),
        (["--step=x"], r"^flag --step=x: invalid literal.*; see `jaxmnist eval --help`$"),
        (["--workdir="], r"^--workdir= needs a value; see `jaxmnist eval --help`$"),
        (["--nojson=1"], r"^--nojson=1 does not take an argument; see `jaxmnist eval --help`$"),
    ],
)
def test_what_cannot_be_understood_is_refused_on_one_line(arguments, sentence):
    with pytest.raises(UsageError, match=sentence) as raised:
        parsed(*arguments)
    assert "\n" not in str(raised.value)


def test_a_key_that_is_taken_for_a_flag_is_named_where_there_are_keys():
    meant = r"^Unknown command line flag 'epochs'; did you mean '--config.train.epochs'\?; see `jax"
    with pytest.raises(UsageError, match=meant):
        parse("train", ["--epochs=3"], names=["config"])
    with pytest.raises(
        UsageError, match=r"^Unknown command line flag 'epochs'; see `jaxmnist eval"
    ):
        parsed("--epochs=3")


@pytest.mark.parametrize("spelling", ["-h", "--help", "-help", "--helpfull"])
def test_help_names_each_flag_even_beside_a_wrong_one(capsys, spelling):
    assert main(["predict", "--nope", spelling]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Says which digits are in image files")
    assert "\n\nusage: jaxmnist predict [--flag=value ...] IMAGE ...\n\n" in out
    for line in ("  --[no]json: Print JSON", "  --step: Which checkpoint", "  --workdir: Of the"):
        assert any(found.startswith(line) for found in out.splitlines())
    assert "--undefok" not in out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(capsys, command):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: jaxmnist {command} [--flag=value ...]" in out
    assert all(name in out for name in COMMANDS[command][1])
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("arguments", [[], ["help"], ["-h"], ["--help"]])
def test_the_overview_names_each_command(capsys, arguments):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for name, (function, _) in COMMANDS.items():
        assert f"\n  {name} " in out and function.__doc__ in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("line", "seed", "steps", "deterministic"),
    [
        ("", 0, None, False),
        ("--config.seed=3 --quiet --config=seed --config.train.steps 7", 3, 7, False),
        ("--config seed -config.seed=3 --config.seed=4", 4, None, False),
        ("--config.parallel.deterministic --config.seed 3", 3, None, True),
        ("--config.parallel.deterministic=true --noconfig.parallel.deterministic", 0, None, False),
        (
            "--config.train.steps=9 --config.train.steps=None --config.seed=0",
            0,
            None,
            False,
        ),
        ("--config.seed=3 -- --config.seed=4 --config.nope=1", 3, None, False),
    ],
)
def test_the_configurations_arguments_stand_anywhere(line, seed, steps, deterministic):
    config = configured(line)
    assert (config.seed, config.train.steps) == (seed, steps)
    assert config.parallel.deterministic is deterministic
    assert config.batch_size == (64 if "config=seed" in line or "config seed" in line else 256)


def test_free_keys_and_texts_with_equals_signs_reach_the_configuration():
    config = configured("--config.optimizer.kwargs.b1=0.8 --config.dataset.dir=a=b")
    assert config.optimizer.kwargs.to_dict() == {"b1": 0.8}
    assert config.dataset.dir == "a=b"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--config", "Missing value for flag --config; see"),
        ("--config=", "--config= needs a value; see"),
        ("--config.seed", "Missing value for flag --config.seed; see"),
        ("--config.optimizer.kwargs.b1=", "--config.optimizer.kwargs.b1= needs a value; see"),
        ("--noconfig.seed", "flag 'noconfig.seed'"),
        ("--config.parallel.deterministic=maybe", "parallel.deterministic=maybe: .*oolean"),
        ("--config.=2", "flag 'config.'"),
        ("--configs=a", "flag 'configs'"),
    ],
)
def test_configuration_arguments_without_their_value_are_refused(line, sentence):
    with pytest.raises(UsageError, match=sentence):
        configured(line)


def test_help_comes_before_a_configuration_that_does_not_exist(capsys):
    assert main(["train", "--config=nope", "--config.sead=1", "--help"]) == 0
    assert "usage: jaxmnist train" in capsys.readouterr().out


def test_a_fault_of_the_flags_comes_before_those_of_the_configuration():
    with pytest.raises(UsageError, match="flag 'nope'") as raised:
        configured("--config.seed=x --nope")
    assert not isinstance(raised.value, ConfigError)


def test_no_flag_is_global():
    before = set(flags.FLAGS)
    configured("--config.seed=3")
    assert set(flags.FLAGS) == before


@pytest.mark.parametrize(
    ("cause", "told", "not_told"),
    [
        ("UNKNOWN: Gloo AllGather failed: reset", "connection to another process broke", "free sp"),
        ("DEADLINE_EXCEEDED: no space", "free space", "another process"),
    ],
)
def test_a_process_lost_in_a_checkpoint_is_told_as_that(monkeypatch, capsys, cause, told, not_told):
    def dispatch(argv):
        fault = f"a checkpoint could not be written to x: {cause}; free space"
        raise CheckpointError(fault) from RuntimeError(cause)

    monkeypatch.setattr("jaxmnist.cli.main._dispatch", dispatch)
    assert main(["train"]) == 1
    said = capsys.readouterr().err
    assert told in said and not_told not in said
