"""The command that plans a run on hardware that is not here."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from jaxmnist.cli.arguments import configuration
from jaxmnist.errors import UsageError

_PICTURES = (".svg", ".png", ".pdf")


def plan(flags: Any) -> None:
    """Compiles the train step for TPUs or GPUs that are not here, and predicts its scaling."""
    from jaxmnist.plan import plan
    from jaxmnist.plan.show import draw

    if not flags.topology:
        raise UsageError("jaxmnist plan needs --topology, such as v5e:16x16, v5p:2x2x2 or h100:8")
    picture = Path(flags.picture) if flags.picture else None
    if picture and picture.suffix not in _PICTURES:
        raise UsageError(f"--picture={picture}: end it in one of {', '.join(_PICTURES)}")
    if picture and not importlib.util.find_spec("matplotlib"):
        raise UsageError("--picture needs matplotlib: pip install 'jaxmnist[plan]'")
    config = configuration(flags)
    # A batch that is asked for must fit; that of the configuration is raised until it does.
    asked = "config.batch_size" in flags and flags["config.batch_size"].present
    found = plan(config, flags.topology, batch_size=config.batch_size if asked else None)
    if picture:
        draw(found, picture)
    if flags.json:
        print(json.dumps(found.to_dict()))
    else:
        _print(found)


def _print(plan: Any) -> None:
    from jaxmnist.display.terminal import print_table
    from jaxmnist.plan.show import SCALING_HEADER, prediction_rows, program_rows, scaling_rows

    print(f"{plan.topology}: {plan.chip}, batch {plan.batch_size:,}, {plan.rows:,} rows a chip")
    print("\nComputed: read from the train step that XLA compiled for these chips")
    print_table(["", ""], program_rows(plan))
    print("\nA model, not a measurement: published rates, no overheads, nothing overlaps")
    print_table(["", ""], prediction_rows(plan))
    print("\nThe same model by number of chips; weak: rows a chip as above, strong: batch as above")
    print_table(SCALING_HEADER, scaling_rows(plan))
    print(*(f"note: {note}" for note in plan.notes), sep="\n")
    print(*(f"source: {source}" for source in plan.sources), sep="\n")
