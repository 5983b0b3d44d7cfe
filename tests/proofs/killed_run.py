"""A small training run as a process of its own, which can be told to die at a chosen moment.

python killed_run.py '{"workdir": …, "config": {…}, "model": {…}, "die": […]}'
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path


def die_at(function, *, call=1, when="before"):
    """Makes this process kill itself at the n-th call of the function of a dotted name."""
    module, owner, name = function.split(":")[0], *function.split(":")[1].rpartition(".")[::2]
    place = importlib.import_module(module)
    for part in filter(None, owner.split(".")):
        place = getattr(place, part)
    original, calls = getattr(place, name), iter(range(1, 10**9))

    def watched(*args, **kwargs):
        dies = next(calls) == call
        if dies and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, name, watched)


def main(job):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import jaxmnist
    from support import Tiny, small_config, small_data

    if job["die"]:
        die_at(**job["die"])
    config = small_config(**job["config"])
    sys.stdout.write("starts\n")
    sys.stdout.flush()
    jaxmnist.train(config, job["workdir"], dataset=small_data(), model=Tiny(**job["model"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
