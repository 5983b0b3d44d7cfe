"""`jaxmnist config`."""

import json
from collections.abc import Sequence

from jaxmnist.cli.arguments import define_json, parse_with_config
from jaxmnist.config import to_dict, to_text

_ABOUT = """Prints the resolved configuration, each key under its comment.

  --config=NAME or --config=FILE.py, --config.KEY=VALUE   as for `jaxmnist train`"""


def main(arguments: Sequence[str]) -> None:
    """Runs the command."""
    config, parsed = parse_with_config("config", arguments, define_json, about=_ABOUT)
    print(json.dumps(to_dict(config), indent=2) if parsed.json else to_text(config))
