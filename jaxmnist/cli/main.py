"""Finds the command, runs it, and turns what goes wrong into one sentence and an exit code."""

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Final

import jaxmnist
from jaxmnist.cli import commands
from jaxmnist.cli.arguments import define, parse
from jaxmnist.cli.distributed import FLAGS
from jaxmnist.cli.launch import ANYWHERE, SCRIPT, SLURM, TPU, local, slurm, tpu
from jaxmnist.cli.plan import plan
from jaxmnist.cli.report import report
from jaxmnist.cli.sweep import sweep
from jaxmnist.config import did_you_mean
from jaxmnist.distributed.ending import abandon, lost_connection
from jaxmnist.errors import CheckpointError, Interrupted, JaxmnistError, UsageError

# What runs each command, and the names of its flags.
COMMANDS: Final[dict[str, tuple[Callable[..., None], list[str]]]] = {
    "train": (
        commands.train,
        [
            *("config", "workdir", "allow_config_change", "profile_steps", "report", "quiet"),
            *FLAGS,
        ],
    ),
    "eval": (commands.evaluate, ["workdir", "step", "split", "vote", "tta", "json", *FLAGS]),
    "predict": (commands.predict, ["workdir", "model", "step", "json"]),
    "checkpoints": (commands.checkpoints, ["workdir", "json"]),
    "config": (commands.config, ["config", "json"]),
    "info": (commands.info, ["json"]),
    "export": (commands.export, ["workdir", "step", "format", "out"]),
    "report": (report, ["workdir", "compare", "out"]),
    "sweep": (sweep, ["config", "seeds", "grid", "at_once", "workdir", "json", "quiet"]),
    "plan": (plan, ["config", "topology", "picture", "json"]),
    "launch local": (local, ["processes", *ANYWHERE]),
    "launch slurm": (slurm, [*SLURM, *SCRIPT, *ANYWHERE]),
    "launch tpu": (tpu, [*TPU, "runtime_version", *SCRIPT, *ANYWHERE]),
}
# Commands that take more than flags, and what.
_TAKES: Final = {
    "predict": " IMAGE ...",
    "report": " [--compare WORKDIR ...]",
    "launch tpu": " [create|copy|install|start|follow|delete]",
}
_WITHOUT_WORKDIR: Final = {
    "train",
    "sweep",
    "predict",
    "launch local",
    "launch slurm",
    "launch tpu",
}
_AGAIN: Final = "then run the same command again: it goes on from its last checkpoint"
_REPAIRS: Final = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), f"free space there, {_AGAIN}"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), f"raise `ulimit -n`, {_AGAIN}"),
}
_HELP: Final = {"-h", "--help", "-help", "--helpfull"}
_EXAMPLES: Final = """
jaxmnist train                              train the default configuration
jaxmnist train --config=seed --config.seed=1 --workdir=runs/one
jaxmnist <command> --help                   flags of a command"""


def run() -> None:
    """The console script: runs the command line of this process and exits."""
    # A terminal or locale that lacks a character, or a path of odd bytes, must not stop a run.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    # Orbax logs with a trace what it raises as well, and main says it in a sentence.
    logging.getLogger("absl").addFilter(lambda record: not record.exc_info)
    try:
        code = main(sys.argv[1:])
    except Exception as error:
        # Shown here, because a process of a job does not exit as others do.
        traceback.print_exc()
        abandon(f"{type(error).__name__}: {error}", code := 1)
    sys.exit(code)


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
    except Interrupted as error:
        # All processes of a job are: they leave it together.
        print(f"jaxmnist: {error}", file=sys.stderr)
        return error.exit_code
    except (JaxmnistError, OSError) as error:
        fault = _lost_in_checkpoint(error) or _told_by_callback(error)
        fault = fault or f"{error}{_repair(error)}"
        code = getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        fault, code = "interrupted; nothing was under way that could be saved", 130
    except Exception as error:
        if not (fault := _told_by_xla(error) or _told_by_callback(error)):
            raise
        code = 1
    print(f"jaxmnist: {fault}", file=sys.stderr)
    abandon(fault, code)
    return code


def _repair(error: BaseException | None) -> str:
    """What to do about the operating system's error behind an error; "" where nothing is known."""
    while error is not None and getattr(error, "errno", None) not in _REPAIRS:
        error = error.__cause__ or error.__context__
    return f"; {_REPAIRS[error.errno]}" if isinstance(error, OSError) and error.errno else ""


def _lost_in_checkpoint(error: Exception) -> str:
    """A sentence for a process that was lost where all of them meet to save; "" for others."""
    cause = error.__cause__
    return lost_connection(cause) if isinstance(error, CheckpointError) and cause else ""


def _told_by_callback(error: Exception) -> str:
    """A sentence for an error in a callback of the user's own; "" for others."""
    # Loaded by every run that has such callbacks.
    module = sys.modules.get("jaxmnist.zoo.own.callbacks")
    return str(module.told(error)) if module else ""


def _told_by_xla(error: Exception) -> str:
    """A sentence for an error of XLA, which is a RuntimeError or ValueError; "" for others."""
    status, _, _ = str(error).partition("\n")
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        repair = "make batch_size, eval.batch_size or the model smaller, or raise train.accumulate"
        return f"out of memory ({status}): {repair}"
    return lost_connection(error)


def _dispatch(argv: Sequence[str]) -> None:
    name, *arguments = argv or ["help"]
    if name == "launch" and arguments and arguments[0] not in _HELP:
        name, *arguments = f"launch {arguments[0]}", *arguments[1:]
    if name in {*_HELP, "help"} or (name == "launch" and _HELP & {*arguments}):
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
    if "workdir" in names and name not in _WITHOUT_WORKDIR and not flags.workdir:
        what = "the work directory of a run of `jaxmnist train`"
        raise UsageError(f"jaxmnist {name} needs --workdir, {what}")
    function(flags, *files)
