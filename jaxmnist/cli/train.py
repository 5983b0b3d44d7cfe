"""`jaxmnist train`."""

from collections.abc import Sequence

from absl import flags

from jaxmnist.cli.arguments import parse_with_config

_ABOUT = """Trains a model, or goes on where an earlier run in the same work directory stopped.

  --config=NAME or --config=FILE.py   the configuration; the built-in default without it
  --config.KEY=VALUE                  one of its keys; `jaxmnist config` prints them all"""


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir",
        None,
        "Where everything is kept; a fresh directory under runs/ without it.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "allow_config_change",
        False,
        "Go on in --workdir although keys differ that decide what is computed.",
        flag_values=values,
    )
    flags.DEFINE_boolean("quiet", False, "Print nothing but errors.", flag_values=values)


def main(arguments: Sequence[str]) -> None:
    """Runs the command."""
    config, parsed = parse_with_config("train", arguments, _define, about=_ABOUT)
    from jaxmnist.runs.train import train

    command = [a for a in arguments if not a.lstrip("-").startswith("workdir")]
    train(
        config,
        parsed.workdir,
        allow_config_change=parsed.allow_config_change,
        quiet=parsed.quiet,
        command=["jaxmnist", "train", *command],
    )
