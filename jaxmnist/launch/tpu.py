"""Writes the script that trains on TPU VMs: create, copy, install, start, follow, delete."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmnist.config import did_you_mean
from jaxmnist.errors import UsageError
from jaxmnist.launch.script import check_name, execute, render, shared_workdir

# By kind: what Google calls it, its image, and whether the number counts chips (else TensorCores,
# two a chip). From Cloud TPU's pages "TPU software versions" and of each kind.
_KINDS = {
    "v4": ("v4", "tpu-ubuntu2204-base", False),
    "v5e": ("v5litepod", "v2-alpha-tpuv5-lite", True),
    "v5p": ("v5p", "v2-alpha-tpuv5", False),
    "v6e": ("v6e", "v2-alpha-tpuv6e", True),
}
#: Parts of the script that can be run alone.
STEPS = ("create", "copy", "install", "start", "follow", "delete")


@dataclass(frozen=True, kw_only=True)
class Pod:
    """The machines to train on.

    Attributes:
      name: of the TPU; slices are NAME-0, NAME-1, and so on.
      zone: of the cloud.
      accelerator: KIND-NUMBER as Google writes it, or with v5e for v5litepod.
      project: or None for that of gcloud.
      slices: how many of the accelerators, joined over the data centre's network.
      spot: take machines that may be taken away.
      queued: wait in the queue for them.
      restarts: how often a failed or preempted job is begun again.
      keep: leave the machines when the job is done.
      runtime_version: image of the machines; None for that of the kind.
      source: checkout of jaxmnist that is copied to the machines.
    """

    name: str | None
    zone: str | None
    accelerator: str | None
    project: str | None = None
    slices: int = 1
    spot: bool = False
    queued: bool = False
    restarts: int = 5
    keep: bool = False
    runtime_version: str | None = None
    source: str = "."

    def check(self) -> None:
        """Says what gcloud would refuse, and what would fail only after minutes.

        Raises:
          UsageError: name, zone, accelerator, project, image or source cannot be.
        """
        check_name(self.name)
        if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", self.zone or ""):
            fault = f"--zone={self.zone} is no zone" if self.zone else "--zone is missing"
            raise UsageError(f"{fault}: give one that has the accelerator, such as us-west4-a")
        accelerator_of(self.accelerator)
        for flag, value in {
            "project": self.project,
            "runtime_version": self.runtime_version,
        }.items():
            if value is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.:-]*", value):
                raise UsageError(f"--{flag}={value} is no name: give small letters, digits, - . :")
        if not (Path(self.source) / "pyproject.toml").is_file():
            rule = "give the directory of a checkout of jaxmnist, or run this command in it"
            raise UsageError(f"--source={self.source} holds no pyproject.toml to install: {rule}")


def accelerator_of(text: str | None) -> tuple[str, str]:
    """Google's name of an accelerator, and the image of its machines.

    Raises:
      UsageError: there is no such accelerator.
    """
    kinds = {"v5litepod": _KINDS["v5e"], **_KINDS}
    kind, _, number = (text or "").partition("-")
    rule = f"give KIND-NUMBER with one of {', '.join(_KINDS)}, such as v5e-16"
    if not text:
        raise UsageError(f"--accelerator is missing: {rule}")
    if kind not in kinds:
        raise UsageError(f"there is no accelerator {text!r}{did_you_mean(kind, kinds)}: {rule}")
    name, image, by_chip = kinds[kind]
    if not re.fullmatch(r"[1-9]\d{0,4}", number) or (not by_chip and int(number) % 8):
        unit = "its chips" if by_chip else "its TensorCores, two a chip and four chips a host"
        raise UsageError(f"accelerator {text!r}: the number of {kind} counts {unit}; {rule}")
    return f"{name}-{number}", image


def script(pod: Pod, train: Sequence[str], *, workdir: str | None) -> str:
    """The script, whose steps can also be run alone: `bash FILE follow`.

    Args:
      pod: the machines.
      train: the flags of `jaxmnist train`, without --workdir.
      workdir: that all hosts see.

    Raises:
      UsageError: the cloud would refuse it, or there is no --workdir.
    """
    pod.check()
    where = shared_workdir(workdir, here=False)
    accelerator, image = accelerator_of(pod.accelerator)
    several = pod.slices > 1
    return render(
        "tpu.sh.j2",
        pod=pod,
        accelerator=accelerator,
        image=pod.runtime_version or image,
        queued=pod.queued or several,
        nodes=[f"{pod.name}-{i}" for i in range(pod.slices)] if several else [pod.name],
        place=[f"--zone={pod.zone}", *([f"--project={pod.project}"] if pod.project else [])],
        source=str(Path(pod.source).resolve()),
        extras="tpu,gcs" if "://" in where else "tpu",
        command=shlex.join(["jaxmnist", "train", *train, where]),
        steps=STEPS,
    )


def run(text: str, steps: Sequence[str] = ()) -> None:
    """Runs the script, or some of its steps, here.

    Raises:
      UsageError: there is no such step.
      JobError: a command failed, or gcloud is not installed.
    """
    for step in steps:
        if step not in STEPS:
            raise UsageError(f"there is no step {step!r}: the steps are {', '.join(STEPS)}")
    execute(["gcloud", "--version"], keep=True)
    execute(["bash", "-c", text, "jaxmnist-launch", *steps])
