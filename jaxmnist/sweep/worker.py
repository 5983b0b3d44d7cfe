"""The process of one run: `python -m jaxmnist.sweep.worker REQUEST`.

It ends with the sweep that started it: when its standard input ends, so does it, at once. The last
line that it writes is a fault as JSON, where there was one.
"""

import json
import os
import sys
import threading
from typing import Any

import jaxmnist
from jaxmnist.config import from_dict
from jaxmnist.errors import JaxmnistError


def _end_with_the_sweep() -> None:
    # Not sys.stdin: a thread that waits in its buffer is a fatal error when Python ends.
    while os.read(0, 1):
        pass
    os._exit(1)


def serve(request: dict[str, Any]) -> None:
    """Runs a configuration in a work directory or, without one, checks that it could be run.

    Raises:
      JaxmnistError: whatever `jaxmnist.train` refuses.
    """
    config = from_dict(request["config"])
    if request["workdir"]:
        jaxmnist.train(config, request["workdir"], quiet=True)
    else:
        from jaxmnist.runs.setup import prepare

        prepare(config)


def main() -> None:
    """Serves the request in the arguments of this process."""
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    try:
        serve(json.loads(sys.argv[1]))
    except (JaxmnistError, OSError, MemoryError) as error:
        fault = str(error) or type(error).__name__
        sys.stdout.write("\n" + json.dumps({"fault": fault}) + "\n")
        sys.exit(getattr(error, "exit_code", 1))


if __name__ == "__main__":
    main()
