"""Fills in a shell script, every value quoted, and runs it or what takes it."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from jaxmnist.bucket.address import check
from jaxmnist.errors import JobError, UsageError


def render(template: str, **values: Any) -> str:
    """Returns the script; its template quotes with `value | quote` and `flags | join_quoted`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "quote": lambda value: shlex.quote(str(value)),
        "join_quoted": shlex.join,
    }
    return environment.get_template(template).render(values)


def check_name(name: str | None) -> str:
    """Returns the name of a job or a machine.

    Raises:
      UsageError: it is missing, or has letters that a cloud refuses.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", name or ""):
        rule = "a letter, then letters, digits and dashes, all small, at most 50"
        fault = f"--name={name} is no name" if name else "--name is missing"
        raise UsageError(f"{fault}: give {rule}, such as --name=mnist-1")
    return str(name)


def shared_workdir(workdir: str | None, *, here: bool) -> str:
    """The flag for the work directory of a job of several hosts.

    Args:
      workdir: a path that all of them see, or the address of a bucket.
      here: whether the job runs with the Python of this machine.

    Raises:
      UsageError: there is none, so that the job could not go on when it is begun again; or it
        can be neither.
    """
    if not workdir:
        rule = "on a file system that all of its hosts share, such as NFS, or gs://BUCKET/PATH"
        raise UsageError(f"--workdir is missing: give the job a directory {rule}")
    return f"--workdir={check(workdir, here=here)}"


def execute(command: Sequence[str], *, text: str | None = None, keep: bool = False) -> str:
    """Runs a program of the cloud or the cluster.

    Args:
      command: the program and its arguments.
      text: what it reads from its standard input; None for the terminal.
      keep: return what it prints on its standard output instead of showing it.

    Raises:
      JobError: it is not installed, or fails; the error has its exit code.
    """
    if shutil.which(command[0]) is None:
        raise JobError(f"there is no program {command[0]!r} here: install it, or leave --run out")
    out = subprocess.PIPE if keep else None
    done = subprocess.run(command, input=text, stdout=out, text=True, check=False)
    if done.returncode:
        error = JobError(f"{command[0]} ended with exit code {done.returncode}; see above")
        error.exit_code = done.returncode if done.returncode > 0 else 128 - done.returncode
        raise error
    return done.stdout or ""
