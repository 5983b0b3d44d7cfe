"""The command `report`."""

from typing import Any

from jaxmnist.cli.commands import written


def report(flags: Any, *more: str) -> None:
    """Writes one HTML file that shows a run, or lays several side by side."""
    from jaxmnist.report import report

    # `--compare a b c` leaves b and c behind as files.
    path = report(flags.workdir, compare=[*(flags.compare or ()), *more], out=flags.out)
    print(path if flags.out else written(path, flags.workdir))
