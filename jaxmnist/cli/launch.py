"""The commands that start a job of several processes: here, on TPU VMs, under Slurm."""

from typing import Any, Final

from jaxmnist.cli.arguments import configuration, steps_to_trace
from jaxmnist.errors import UsageError

#: The flags of `jaxmnist train` that every launcher passes on.
ANYWHERE: Final = [
    *("config", "workdir", "allow_config_change", "profile_steps", "report", "quiet"),
]
#: The flags of `jaxmnist launch slurm` and `tpu` beside them.
SLURM: Final = ["name", "nodes", "gpus_per_node", "cpus_per_task", "time", "partition", "account"]
TPU: Final = [
    "name",
    "zone",
    "project",
    "accelerator",
    "slices",
    "spot",
    "queued",
    "keep",
    "source",
]
#: Of both.
SCRIPT: Final = ["restarts", "run"]


def local(flags: Any) -> None:
    """Trains in several processes of this machine that form one job."""
    from jaxmnist.bucket.address import check
    from jaxmnist.launch.local import CPU_DEVICES, run_job, share_devices
    from jaxmnist.workdir import fresh_path

    config, count, given = _checked(flags), flags.processes, _given(flags)
    workdir = check(flags.workdir or fresh_path(config.dataset.name))
    asked = config.parallel.cpu_devices
    shares = share_devices(asked, batch_size=config.batch_size, processes=count)
    if count > 1 and not flags.quiet:
        print(f"{count} processes, each with {' '.join(shares[0]) or 'the devices that it finds'}")
    # What is shared out takes the place of what was given for the whole job.
    kept = [text for text in given if not (asked and text.startswith(f"{CPU_DEVICES}="))]
    command = ["jaxmnist", "launch", "local", f"--processes={count}", *given]
    run_job([[*kept, *share] for share in shares], command=command, workdir=workdir)


def slurm(flags: Any) -> None:
    """Prints, or submits with --run, the batch script that trains under Slurm."""
    from jaxmnist.launch.slurm import Slurm, script, submit

    _checked(flags)
    job = Slurm(
        name=flags.name or "jaxmnist",
        nodes=flags.nodes,
        gpus_per_node=flags.gpus_per_node,
        cpus_per_task=flags.cpus_per_task,
        time=flags.time,
        partition=flags.partition,
        account=flags.account,
        restarts=flags.restarts,
    )
    text = script(job, _given(flags), workdir=flags.workdir)
    if flags.run:
        print(submit(text, name=job.name), end="")
    else:
        print(text, end="")


def tpu(flags: Any, *steps: str) -> None:
    """Prints, or runs with --run, the script that trains on TPU VMs, from create to delete."""
    from jaxmnist.launch.tpu import Pod, run, script

    _checked(flags)
    pod = Pod(
        name=flags.name,
        zone=flags.zone,
        accelerator=flags.accelerator,
        project=flags.project,
        slices=flags.slices,
        spot=flags.spot,
        queued=flags.queued,
        restarts=flags.restarts,
        keep=flags.keep,
        runtime_version=flags.runtime_version,
        source=flags.source,
    )
    text = script(pod, _given(flags), workdir=flags.workdir)
    if steps and not flags.run:
        raise UsageError(f"{' '.join(steps)!r} is a step of the script: add --run to run it alone")
    if flags.run:
        run(text, steps)
    else:
        print(text, end="")


def _checked(flags: Any) -> Any:
    """The configuration; what is passed on has no faults that each process would find again."""
    steps_to_trace(flags)
    return configuration(flags)


def _given(flags: Any) -> list[str]:
    """What was given of the flags of `jaxmnist train`, without --workdir."""
    names = [name for name in flags if name.startswith("config.") or name in ANYWHERE]
    given = [name for name in names if flags[name].present and name != "workdir"]
    return [flags[name].serialize() for name in given]
