"""Finds the command, runs it, and turns what goes wrong into one sentence and an exit code."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

import jaxmnist
from jaxmnist.cli import commands
from jaxmnist.cli.arguments import define, parse
from jaxmnist.cli.plan import plan
from jaxmnist.cli.report import report
from jaxmnist.cli.sweep import sweep
from jaxmnist.config import did_you_mean
from jaxmnist.errors import JaxmnistError, UsageError

# What runs each command, and the names of its flags.
COMMANDS: Final[dict[str, tuple[Callable[..., None], list[str]]]] = {
    "train": (commands.train, ["config", "workdir", "allow_config_change", "quiet"]),
    "eval": (commands.evaluate, ["workdir", "step", "split", "json"]),
    "predict": (commands.predict, ["workdir", "step", "json"]),
    "checkpoints": (commands.checkpoints, ["workdir", "json"]),
    "config": (commands.config, ["config", "json"]),
    "info": (commands.info, ["json"]),
    "report": (report, ["workdir", "compare", "out"]),
    "sweep": (sweep, ["config", "seeds", "grid", "at_once", "workdir", "json", "quiet"]),
    "plan": (plan, ["config", "topology", "picture", "json"]),
}
# Commands that take more than flags, and what.
_TAKES: Final = {"predict": " IMAGE ...", "report": " [--compare WORKDIR ...]"}
_HELP: Final = {"-h", "--help", "-help", "--helpfull"}
_EXAMPLES: Final = """
jaxmnist train                              train the default configuration
jaxmnist train --config=seed --config.seed=1 --workdir=runs/one
jaxmnist <command> --help                   flags of a command"""


def run() -> None:
    """The console script: runs the command line of this process and exits."""
    # A terminal or locale that lacks a character, or a path of odd bytes, must not stop a run.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Args:
      argv: the arguments after the program's name.

    Returns:
      The exit code: 0 done, 1 failure, 2 usage or configuration, 128 + n stopped by signal n.
    """
    try:
        _dispatch(argv)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, went away; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (JaxmnistError, OSError) as error:
        fault, code = str(error), getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        fault, code = "interrupted; nothing was under way that could be saved", 130
    except (MemoryError, RuntimeError) as error:
        # XLA's own error is a RuntimeError that begins with its status.
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        repair = "make batch_size, eval.batch_size or the model smaller, or raise train.accumulate"
        status, _, _ = str(error).partition("\n")
        fault, code = f"out of memory ({status}): {repair}", 1
    print(f"jaxmnist: {fault}", file=sys.stderr)
    return code


def _dispatch(argv: Sequence[str]) -> None:
    name, *arguments = argv or ["help"]
    if name in {*_HELP, "help"}:
        lines = [f"  {name:<12} {function.__doc__}" for name, (function, _) in COMMANDS.items()]
        print("Data-parallel training in JAX, proven on MNIST.\n")
        print("usage: jaxmnist <command> [--flag=value ...]\n", *lines, _EXAMPLES, sep="\n")
    elif name == "--version":
        print(f"jaxmnist {jaxmnist.__version__}")
    elif name not in COMMANDS:
        known = f"the commands are {', '.join(COMMANDS)}"
        raise UsageError(f"there is no command {name!r}{did_you_mean(name, COMMANDS)}; {known}")
    elif _HELP & {*arguments}:
        function, names = COMMANDS[name]
        files = _TAKES.get(name, "")
        _, _, flags = define(names).get_help(include_special_flags=False).partition(":\n")
        print(f"{function.__doc__}\n\nusage: jaxmnist {name} [--flag=value ...]{files}\n\n{flags}")
    else:
        _run(name, arguments)


def _run(name: str, arguments: list[str]) -> None:
    function, names = COMMANDS[name]
    flags, files = parse(name, arguments, names=names)
    if files and name not in _TAKES:
        rule = f"flags begin with two dashes; see `jaxmnist {name} --help`"
        raise UsageError(f"jaxmnist {name} takes no argument {files[0]!r}: {rule}")
    if "workdir" in names and name not in ("train", "sweep") and not flags.workdir:
        what = "the work directory of a run of `jaxmnist train`"
        raise UsageError(f"jaxmnist {name} needs --workdir, {what}")
    function(flags, *files)
