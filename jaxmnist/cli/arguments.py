"""Flags of the commands, on absl, and the configuration's arguments among them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from jaxmnist.config import apply_overrides, get_config, split_arguments
from jaxmnist.errors import UsageError

Define = Callable[[flags.FlagValues], None]


class HelpShown(Exception):
    """The help of a command was asked for and printed: there is nothing left to do."""


@dataclass(frozen=True)
class Parsed:
    """A command line, understood.

    Attributes:
      flags: the command's flags by name.
      positional: what is left, such as files.
    """

    flags: flags.FlagValues
    positional: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.flags, name)


def parse(
    command: str, arguments: Sequence[str], define: Define, *, positional: str = "", about: str
) -> Parsed:
    """Parses the flags of a command.

    Args:
      command: its name.
      arguments: what follows the name.
      define: defines the flags on the values that it is given.
      positional: how the other arguments are called in the help; empty where there are none.
      about: what the command does, for the help.

    Raises:
      UsageError: an unknown flag, a bad or empty value, or an argument that is not wanted.
      HelpShown: the help was asked for and printed.
    """
    values = flags.FlagValues()
    define(values)
    if any(a in ("-h", "--help", "-help", "--helpfull") for a in arguments):
        print(_help(command, values, positional=positional, about=about))
        raise HelpShown
    try:
        left = values([command, *arguments])[1:]
    except flags.Error as error:
        text = re.sub(r"\s+", " ", str(error)).strip().rstrip(".")
        raise UsageError(f"{text}; see `jaxmnist {command} --help`") from error
    if empty := [name for name in values if values[name].value == ""]:
        raise UsageError(f"--{empty[0]}= needs a value; see `jaxmnist {command} --help`")
    if left and not positional:
        raise UsageError(
            f"jaxmnist {command} takes no argument {left[0]!r}: flags begin with two dashes; see "
            f"`jaxmnist {command} --help`"
        )
    return Parsed(values, tuple(left))


def parse_with_config(
    command: str, arguments: Sequence[str], define: Define, *, about: str
) -> tuple[ConfigDict, Parsed]:
    """As `parse`, with the validated configuration that the --config arguments name.

    Raises:
      UsageError: as for `parse`.
      ConfigError: the configuration does not exist or has faults; all of them at once.
      HelpShown: as for `parse`.
    """
    split = split_arguments(arguments)
    parsed = parse(command, split.rest, define, about=about)
    return apply_overrides(get_config(split.config), split.overrides), parsed


def require_workdir(parsed: Parsed, command: str) -> str:
    """The --workdir of a command that cannot do without.

    Raises:
      UsageError: it is not given.
    """
    if not parsed.workdir:
        raise UsageError(
            f"jaxmnist {command} needs --workdir, the work directory of a run of `jaxmnist train`"
        )
    return str(parsed.workdir)


def define_checkpoint(values: flags.FlagValues) -> None:
    """Defines the flags that choose a checkpoint of a run, and --json."""
    flags.DEFINE_string("workdir", None, "Work directory of the run.", flag_values=values)
    flags.DEFINE_integer(
        "step", None, "Which checkpoint; the newest by default.", 0, flag_values=values
    )
    define_json(values)


def define_json(values: flags.FlagValues) -> None:
    """Defines --json."""
    flags.DEFINE_boolean("json", False, "Print JSON instead of a table.", flag_values=values)


def _help(command: str, values: flags.FlagValues, *, positional: str, about: str) -> str:
    lines = [about, "", f"usage: jaxmnist {command} [--flag=value ...] {positional}".rstrip(), ""]
    for name in sorted(values):
        flag = values[name]
        lines += [f"  --{name}" + ("" if flag.boolean else "=..."), f"      {flag.help}"]
    return "\n".join(lines)
