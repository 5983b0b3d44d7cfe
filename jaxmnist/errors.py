"""Every error that jaxmnist raises on purpose; a message names value, rule and repair."""

from collections.abc import Sequence


class JaxmnistError(Exception):
    """Base of all; the command line prints its text and exits with `exit_code`."""

    exit_code = 1


class UsageError(JaxmnistError, ValueError):
    """A command line or an argument of the Python API that cannot be understood."""

    exit_code = 2


class ConfigError(UsageError):
    """One or more faults of a configuration, all those of a stage at once.

    Attributes:
      faults: one sentence for each fault.
    """

    def __init__(self, faults: Sequence[str]):
        self.faults = tuple(faults)
        lines = faults if len(faults) == 1 else [f"{len(faults)} faults:", *faults]
        super().__init__("configuration: " + "\n  - ".join(lines))


class DataError(JaxmnistError, ValueError):
    """A data set that is missing, damaged or not what it says it is."""


class ModelError(JaxmnistError, ValueError):
    """A model that breaks the contract of the train step, or an exported one that is damaged."""


class WorkdirError(JaxmnistError):
    """A work directory that cannot be used for what was asked."""


class CheckpointError(JaxmnistError):
    """A checkpoint that is missing, damaged or of another format."""


class NonFiniteLossError(JaxmnistError):
    """The loss became NaN or infinite; the run stopped."""


class JobError(JaxmnistError):
    """A job of several processes that cannot start, or that lost one of them."""


class Interrupted(JaxmnistError):
    """The run was asked to stop by a signal, saved its state and can be resumed.

    Attributes:
      exit_code: 128 + the signal's number.
    """

    def __init__(self, message: str, *, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number
