"""Finds the command, runs it, and turns what goes wrong into one sentence and an exit code."""

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence

import jaxmnist
from jaxmnist.cli.arguments import HelpShown
from jaxmnist.config import did_you_mean
from jaxmnist.errors import JaxmnistError, UsageError

# Name, module with `main(arguments)`, and what it does.
COMMANDS = {
    "train": ("jaxmnist.cli.train", "train a model, or go on with a run"),
    "eval": ("jaxmnist.cli.evaluate", "evaluate a checkpoint of a run"),
    "predict": ("jaxmnist.cli.predict", "say which digits are in image files"),
    "checkpoints": ("jaxmnist.cli.checkpoints", "list the checkpoints of a run"),
    "config": ("jaxmnist.cli.config", "print the resolved configuration"),
    "info": ("jaxmnist.cli.info", "print versions, devices and memory"),
}


def run() -> None:
    """The console script: runs the command line of this process and exits."""
    # A terminal or locale that lacks a character, or a path of odd bytes, must not stop a run.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Args:
      argv: the arguments after the program's name.

    Returns:
      The exit code: 0 done, 1 failure, 2 usage or configuration, 128 + n stopped by signal n.
    """
    try:
        with contextlib.suppress(HelpShown):
            _dispatch(argv)
        sys.stdout.flush()
    except JaxmnistError as error:
        print(f"jaxmnist: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("jaxmnist: interrupted; nothing was under way that could be saved", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, went away; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"jaxmnist: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        # XLA's own error is a RuntimeError that begins with its status.
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fault, *_ = str(error).splitlines() or [""]
        repair = "make batch_size, eval.batch_size or the model smaller, or raise train.accumulate"
        print(f"jaxmnist: out of memory ({fault}): {repair}", file=sys.stderr)
        return 1
    return 0


def _dispatch(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help", "--helpfull", "help"):
        print(_usage())
        return
    if argv[0] == "--version":
        print(f"jaxmnist {jaxmnist.__version__}")
        return
    name = argv[0]
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        raise UsageError(
            f"there is no command {name!r}{hint}; the commands are {', '.join(COMMANDS)}"
        )
    importlib.import_module(COMMANDS[name][0]).main(list(argv[1:]))


def _usage() -> str:
    commands = "\n".join(f"  {name:<12} {text}" for name, (_, text) in COMMANDS.items())
    return (
        "Data-parallel training in JAX, proven on MNIST.\n\n"
        "usage: jaxmnist <command> [--flag=value ...]\n\n"
        f"{commands}\n\n"
        "jaxmnist train                              train the default configuration\n"
        "jaxmnist train --config=seed --config.seed=1 --workdir=runs/one\n"
        "jaxmnist <command> --help                   flags of a command"
    )
