"""`jaxmnist info`."""

import json
from collections.abc import Sequence

from jaxmnist.cli.arguments import define_json, parse

_ABOUT = "Prints versions, devices and memory of this machine."


def main(arguments: Sequence[str]) -> None:
    """Runs the command."""
    parsed = parse("info", arguments, define_json, about=_ABOUT)
    from jaxmnist.runs.info import info

    values = info()
    if parsed.json:
        print(json.dumps(values))
        return
    from jaxmnist.terminal import print_table

    rows = [[f"{group} {name}", value] for group in values for name, value in values[group].items()]
    print_table(["", ""], rows)
