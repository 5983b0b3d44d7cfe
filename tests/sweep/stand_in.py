"""Stands in for the process of a run: the same arguments, files and signals, and no training.

The accuracy is 0.5 + the learning rate + a hundredth of the seed. A learning rate above 1 fails,
one of 0.75 is refused before, seed 7 waits for a file `go` beside its work directory.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def leave(words, code):
    print(words, flush=True)
    os._exit(code)


def end_with_the_sweep():
    while os.read(0, 1):
        pass
    os._exit(1)


def main(request):
    rate, seed = request["config"]["optimizer"]["learning_rate"], request["config"]["seed"]
    if request["workdir"] is None:
        if rate == 0.75:
            leave(json.dumps({"fault": "configuration: 0.75 cannot be on these devices"}), 2)
        return
    place = Path(request["workdir"])
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps(request["config"]))
    with (place / "starts").open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\n")
    signal.signal(signal.SIGTERM, lambda *_: ((place / "saved").touch(), os._exit(143)))
    while seed == 7 and not (place.parent / "go").exists():
        time.sleep(0.01)
    if rate > 1:
        print("a line before")
        leave(json.dumps({"fault": "the loss was not finite\nat step 3"}), 1)
    if seed == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 8:
        raise ValueError("an error of the user's own")
    share = {"accuracy": 0.5 + rate + seed / 100, "loss": 1.0}
    if request["config"]["dataset"]["validation"]:
        # On the validation examples it is the other way round.
        line = {"split": "validation", "step": 1, "accuracy": 0.5 - rate, "loss": 2.0}
        (place / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    train = {"seconds": 1.5}
    params = {"count": 1, "sha256": f"{seed:064x}", "ema_sha256": None}
    result = {"test": share | {"count": 100}, "train": train, "params": params}
    (place / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    threading.Thread(target=end_with_the_sweep, daemon=True).start()
    main(json.loads(sys.argv[1]))
