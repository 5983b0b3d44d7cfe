"""The flags of the commands, and the configuration's arguments among them, on absl."""

import re
from functools import partial
from typing import Any, Final

from absl import flags
from ml_collections import ConfigDict

from jaxmnist.config import apply_overrides, did_you_mean, get_config
from jaxmnist.config.default import KEYS
from jaxmnist.config.rules import FLAG
from jaxmnist.errors import UsageError

_TEXT: Final = partial(flags.DEFINE_string, default=None)
_SWITCH: Final = partial(flags.DEFINE_boolean, default=False)
_MANY: Final = partial(flags.DEFINE_multi_string, default=None)
_STEP: Final = partial(flags.DEFINE_integer, default=None, lower_bound=0)
_POSITIVE: Final = partial(flags.DEFINE_integer, lower_bound=1)
_SPLIT: Final = partial(flags.DEFINE_enum, enum_values=["test", "train", "validation"])
_MODE: Final = partial(flags.DEFINE_enum, default="auto", enum_values=["auto", "on", "off"])
_COUNT: Final = partial(flags.DEFINE_integer, default=None)
_FORMAT: Final = partial(
    flags.DEFINE_enum, default="stablehlo", enum_values=["stablehlo", "safetensors"]
)
_VOTE: Final = partial(flags.DEFINE_enum, enum_values=["mean", "majority"])
_FLAGS: Final[dict[str, Any]] = {
    "config": partial(_TEXT, help="NAME or FILE.py; --config.KEY=VALUE sets one of its keys."),
    "workdir": partial(_TEXT, help="Of the run; train and sweep make a fresh one without it."),
    "step": partial(_STEP, help="Which checkpoint; the newest without it."),
    "compare": partial(flags.DEFINE_list, default=None, help="Work directories beside it."),
    "model": partial(_TEXT, help="A file of `jaxmnist export`, in place of --workdir."),
    "format": partial(_FORMAT, help="A program, or the parameters alone."),
    "out": partial(_TEXT, help="The file to write; one in the work directory without it."),
    "topology": partial(_TEXT, help="KIND:CHIPS, such as v5e:16x16, v5p:2x2x2 or h100:8."),
    "picture": partial(_TEXT, help="A file to draw the scaling into: .svg, .png or .pdf."),
    "split": partial(_SPLIT, default="test", help="Which examples."),
    "vote": partial(_VOTE, default="mean", help="How several --workdir=A,B,C decide."),
    "tta": partial(_STEP, default=0, help="Average over images moved by up to so many pixels."),
    "json": partial(_SWITCH, help="Print JSON instead of a table."),
    "profile_steps": partial(_TEXT, help="FIRST:LAST, steps to trace into WORKDIR/profile."),
    "report": partial(_SWITCH, default=True, help="Write report.html when the run is finished."),
    "seeds": partial(_TEXT, help="FIRST:END (END is left out) or numbers with commas."),
    "grid": partial(_MANY, help="KEY:VALUE,VALUE of the configuration; may be given many times."),
    "at_once": partial(_POSITIVE, default=1, help="Runs at a time, each on a GPU of its own."),
    "quiet": partial(_SWITCH, help="Print nothing but errors."),
    "allow_config_change": partial(_SWITCH, help="Go on although keys that decide differ."),
    "distributed": partial(_MODE, help="Join other processes; auto: where flags or a cluster say."),
    "coordinator_address": partial(_TEXT, help="HOST:PORT of process 0, the same for all."),
    "num_processes": partial(_COUNT, help="How many processes the job has."),
    "process_id": partial(_COUNT, help="Number of this process, from 0."),
    "local_device_ids": partial(
        flags.DEFINE_list, default=None, help="GPUs of this process, such as 0,1; all without it."
    ),
    "processes": partial(_POSITIVE, default=2, help="How many to start."),
    "run": partial(_SWITCH, help="Run the script; without it, print it."),
    "name": partial(_TEXT, help="Of what is created: a-z, 0-9 and dashes."),
    "restarts": partial(_STEP, default=5, help="How often a failed job is tried anew."),
    "zone": partial(_TEXT, help="Of the cloud, such as us-west4-a."),
    "project": partial(_TEXT, help="Of the cloud; that of gcloud without it."),
    "accelerator": partial(_TEXT, help="KIND-NUMBER, such as v5e-16, as in v5litepod-16."),
    "runtime_version": partial(_TEXT, help="Image of the TPU VMs; by accelerator without it."),
    "slices": partial(_POSITIVE, default=1, help="How many of the accelerators."),
    "spot": partial(_SWITCH, help="Take cheaper machines that may be taken away."),
    "queued": partial(_SWITCH, help="Wait in the queue for them; so do --slices=2 and more."),
    "keep": partial(_SWITCH, help="Do not delete the machines when the job is done."),
    "source": partial(_TEXT, default=".", help="Checkout of jaxmnist to install on the machines."),
    "nodes": partial(_POSITIVE, default=1, help="How many machines."),
    "gpus_per_node": partial(_STEP, default=0, help="0 trains on the CPUs."),
    "cpus_per_task": partial(_POSITIVE, default=None, help="Cores of each machine."),
    "partition": partial(_TEXT, help="Of the cluster; its default without it."),
    "account": partial(_TEXT, help="To charge; your default without it."),
    "time": partial(_TEXT, help="Limit, such as 30, 4:00:00 or 1-0; the partition's without it."),
    "initialization_timeout": partial(
        _POSITIVE, default=300, help="Seconds to wait for the others."
    ),
}


def define(names: list[str]) -> Any:
    """Returns the flags of those names with their defaults; none of them is global."""
    values = flags.FlagValues()
    for name in names:
        _FLAGS[name](name, flag_values=values)
    return values


def parse(command: str, arguments: list[str], *, names: list[str]) -> tuple[Any, list[str]]:
    """Returns the flags of a command, as attributes, and what is left, such as files.

    Args:
      command: its name.
      arguments: what follows the name.
      names: of its flags; where "config" is one, each --config.KEY that is given is one, too.

    Raises:
      UsageError: an unknown flag, or a bad or empty value.
    """
    values = define(names)
    keys = re.findall(r"(?m)^--?(?:no)?config\.([\w.]+)", "\n".join(arguments))
    for key in dict.fromkeys(keys if "config" in names else ()):
        switch = key in KEYS and KEYS[key].rule is FLAG
        (_SWITCH if switch else _TEXT)(f"config.{key}", help="", flag_values=values)
    try:
        left = values([command, *arguments])[1:]
        if empty := [name for name in values if values[name].value == ""]:
            raise ValueError(f"--{empty[0]}= needs a value")
    except (flags.Error, ValueError) as error:
        text = " ".join(str(error).split()).rstrip(".")
        # A key is easily taken for a flag of its own.
        keys = [f"--config.{key}" for key in KEYS if "config" in names]
        near = did_you_mean(getattr(error, "flagname", ""), keys)
        raise UsageError(f"{text}{near}; see `jaxmnist {command} --help`") from error
    return values, left


def configuration(values: Any) -> ConfigDict:
    """Returns the validated configuration that parsed flags name.

    Raises:
      ConfigError: it does not exist or has faults; all of them at once.
    """
    given = [name for name in values if name.startswith("config.") and values[name].present]
    texts = {name.removeprefix("config."): str(values[name].value) for name in given}
    return apply_overrides(get_config(values.config), texts)


def steps_to_trace(values: Any) -> tuple[int, int] | None:
    """Returns the first and the last of the steps that parsed flags name, None without any.

    Raises:
      UsageError: the text is not such as "10:15".
    """
    if (text := values.profile_steps) is None:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        rule = "give the first and the last step, such as 10:15; steps are counted from 1"
        raise UsageError(f"--profile_steps={text}: {rule}")
    return int(found[1]), int(found[2])
