"""Flags are understood in every spelling, wherever the configuration's stand among them."""

import pytest
from absl import flags

from jaxmnist.cli.arguments import (
    HelpShown,
    define_checkpoint,
    parse,
    parse_with_config,
    require_workdir,
)
from jaxmnist.cli.main import COMMANDS, main
from jaxmnist.errors import ConfigError, UsageError


def parsed(*arguments, positional=""):
    return parse("eval", arguments, define_checkpoint, positional=positional, about="Evaluates.")


def test_flags_have_their_types_and_defaults():
    found = parsed("--workdir=runs/one", "--step", "20", "--json")
    assert (found.workdir, found.step, found.json) == ("runs/one", 20, True)
    found = parsed()
    assert (found.workdir, found.step, found.json) == (None, None, False)
    assert parsed("--nojson").json is False


def test_files_may_stand_among_the_flags():
    found = parsed("a.png", "--step=3", "b.png", positional="IMAGE ...")
    assert found.positional == ("a.png", "b.png")
    assert found.step == 3
    assert parsed("--", "--odd.png", positional="IMAGE ...").positional == ("--odd.png",)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["7.png"], r"^jaxmnist eval takes no argument '7.png': flags begin with two dashes; see"),
        (["--stp=3"], r"^Unknown command line flag 'stp'.*step.*; see `jaxmnist eval --help`$"),
        (["--step=x"], r"^flag --step=x: invalid literal.*; see `jaxmnist eval --help`$"),
        (["--workdir="], r"^--workdir= needs a value; see `jaxmnist eval --help`$"),
    ],
)
def test_what_cannot_be_understood_is_refused_on_one_line(arguments, sentence):
    with pytest.raises(UsageError, match=sentence) as raised:
        parsed(*arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("spelling", ["-h", "--help", "-help", "--helpfull"])
def test_help_names_each_flag_even_beside_a_wrong_one(capsys, spelling):
    with pytest.raises(HelpShown):
        parsed("--nope", spelling, positional="IMAGE ...")
    out = capsys.readouterr().out
    assert out.startswith("Evaluates.\n\nusage: jaxmnist eval [--flag=value ...] IMAGE ...\n")
    for line in ("  --json", "  --step=...", "  --workdir=..."):
        assert line in out.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(capsys, command):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: jaxmnist {command} [--flag=value ...]" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("arguments", [[], ["help"], ["-h"], ["--help"]])
def test_the_overview_names_each_command(capsys, arguments):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out and text in out for name, (_, text) in COMMANDS.items())


def test_the_configurations_arguments_stand_anywhere():
    def define(values):
        flags.DEFINE_boolean("fast", False, "Fast.", flag_values=values)

    arguments = ["--config.seed=3", "--fast", "--config=seed", "--config.train.steps", "7"]
    config, found = parse_with_config("train", arguments, define, about="")
    assert found.fast is True
    assert (config.seed, config.batch_size, config.train.steps) == (3, 64, 7)
    assert config.train.epochs is None


def test_help_comes_before_a_configuration_that_does_not_exist(capsys):
    assert main(["train", "--config=nope", "--config.sead=1", "--help"]) == 0
    assert "usage: jaxmnist train" in capsys.readouterr().out


def test_a_fault_of_the_flags_comes_before_those_of_the_configuration():
    with pytest.raises(UsageError, match="flag 'nope'") as raised:
        parse_with_config("train", ["--config.seed=x", "--nope"], define_checkpoint, about="")
    assert not isinstance(raised.value, ConfigError)


def test_no_flag_is_global():
    before = set(flags.FLAGS)
    parsed("--workdir=x")
    assert set(flags.FLAGS) == before


def test_a_command_that_needs_a_work_directory_says_so():
    assert require_workdir(parsed("--workdir=w"), "eval") == "w"
    with pytest.raises(UsageError, match=r"^jaxmnist eval needs --workdir, the work directory of"):
        require_workdir(parsed(), "eval")
