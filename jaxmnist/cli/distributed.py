"""The flags by which a command joins the other processes of a job."""

from typing import Any, Final

from jaxmnist.errors import UsageError

#: Names of the flags.
FLAGS: Final = [
    "distributed",
    "coordinator_address",
    "num_processes",
    "process_id",
    "local_device_ids",
    "initialization_timeout",
]


def join(flags: Any, *, quiet: bool = False) -> bool:
    """Joins the job that the flags or the cluster describe; says whether there is one.

    Args:
      flags: of the command.
      quiet: say nothing of it.

    Raises:
      UsageError: flags contradict each other.
      JobError: the others did not come in time.
    """
    from jaxmnist.distributed.start import Start, join

    texts = flags.local_device_ids
    if texts is not None and not all(text.isdecimal() for text in texts):
        rule = "must be numbers from 0, such as 0,1"
        raise UsageError(f"--local_device_ids={','.join(texts)} {rule}")
    start = Start(
        mode=flags.distributed,
        coordinator_address=flags.coordinator_address,
        num_processes=flags.num_processes,
        process_id=flags.process_id,
        local_device_ids=None if texts is None else tuple(map(int, texts)),
        timeout_s=flags.initialization_timeout,
    )
    return join(start, quiet=quiet)


def is_first() -> bool:
    """Whether this is process 0, which alone prints what all have found."""
    import jax

    return jax.process_index() == 0
