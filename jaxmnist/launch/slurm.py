"""Writes the batch script that trains under Slurm: one process a node, begun again if it fails."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jaxmnist.errors import UsageError
from jaxmnist.launch.script import check_name, execute, render, shared_workdir

_TIME = r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}"
_WORD = r"[\w.,@+-]+"


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What to ask Slurm for.

    Attributes:
      name: of the job.
      nodes: how many; each runs one process, which drives all of its GPUs.
      gpus_per_node: 0 trains on the CPUs.
      cpus_per_task: cores of each process; None leaves it to the cluster.
      time: limit in a format of sbatch; the job saves two minutes before it. None: the partition's.
      partition: or None for the cluster's default.
      account: or None for the user's default.
      restarts: how often a job that failed is queued again.
    """

    name: str = "jaxmnist"
    nodes: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    restarts: int = 5

    def check(self) -> None:
        """Says what sbatch would not take.

        Raises:
          UsageError: a name, or the time, is not of the form that Slurm reads.
        """
        check_name(self.name)
        if self.time is not None and not re.fullmatch(_TIME, self.time):
            rule = "give minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS, such as 4:00:00"
            raise UsageError(f"--time={self.time} is no time that Slurm reads: {rule}")
        for flag, value in {"partition": self.partition, "account": self.account}.items():
            if value is not None and not re.fullmatch(_WORD, value):
                raise UsageError(f"--{flag}={value} is no name: give letters, digits and - _ . ,")


def script(job: Slurm, train: Sequence[str], *, workdir: str | None) -> str:
    """The batch script.

    Args:
      job: what to ask for.
      train: the flags of `jaxmnist train`, without --workdir.
      workdir: that all hosts see.

    Raises:
      UsageError: the cluster would refuse it, or there is no --workdir.
    """
    job.check()
    place = shared_workdir(workdir, here=True)
    gpus = ",".join(map(str, range(job.gpus_per_node)))
    mode = ["--distributed=on" if job.nodes > 1 else "--distributed=off"]
    # JAX would take one GPU of each node, as if every GPU had a task of its own.
    devices = [f"--local_device_ids={gpus}"] if gpus and job.nodes > 1 else []
    command = [sys.executable, "-m", "jaxmnist", "train", *train, place, *mode, *devices]
    platform = "cuda" if gpus else "cpu"
    return render("slurm.sh.j2", job=job, command=shlex.join(command), platform=platform)


def submit(text: str, *, name: str) -> str:
    """Hands a batch script to sbatch; returns the commands that follow, stop and show the job.

    Raises:
      JobError: there is no sbatch here, or it refused the job.
    """
    number, _, _ = execute(["sbatch", "--parsable"], text=text, keep=True).strip().partition(";")
    lines = (
        f"job {number} is queued",
        f"  its log:  tail -F {name}-{number}.log",
        f"  its place: squeue --job={number}",
        f"  stop it, saved: scancel --signal=TERM {number}",
    )
    return "\n".join(lines) + "\n"
