"""Worker: the real loop of `jaxmnist.train`, pipeline and logs included.

Requests: {"losses": n} gives the loss of each of n steps; {"steps": n} times n steps. All timed
steps belong to one training that is held up between the requests, as other rivals' loops are: what
starts a training (pipeline, first steps) is outside the clock. A call makes as many steps as the
library chooses where there is no callback.
"""

import queue
import sys
import tempfile
import threading
import time

import jax
from measure.steps import JUST_TRAIN, configured, run_loop, training_data
from measure.workers import serve

from jaxmnist.callbacks import Callback
from jaxmnist.runs.setup import prepare
from rivals.task import LEARNING_RATE, SEED

_ENDLESS = 10**6


class Gate(Callback):
    """Holds a training up until it is asked for steps."""

    def __init__(self, train):
        """Closed; `train(gate)` starts with the first request."""
        self._thread = threading.Thread(target=self._run, args=(train,), daemon=True)
        self._asked, self._answers = queue.SimpleQueue(), queue.SimpleQueue()
        self._end, self._since = 0, (0.0, 0.0)

    def ask(self, steps):
        """Wall and CPU seconds of so many further steps; the first ones include the start.

        Raises:
          Exception: what the training raised.
        """
        self._asked.put(steps)
        if not self._thread.ident:
            self._thread.start()
        answer = self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return dict(zip(("seconds", "cpu_seconds"), answer, strict=True))

    def on_start(self, workdir, step, total_steps):
        """Waits for the first request."""
        self._wait()

    def on_step(self, step, state):
        """Answers when the last step asked for is done, and waits for the next request.

        Steps are asked for in multiples of those between two lines of the log: a call ends there.
        """
        if step == self._end:
            jax.block_until_ready(state)
            wall, cpu = self._since
            self._answers.put((time.perf_counter() - wall, time.process_time() - cpu))
            self._wait()

    def _run(self, train):
        try:
            train(self)
        except Exception as error:
            self._answers.put(error)

    def _wait(self):
        self._end += self._asked.get()
        self._since = time.perf_counter(), time.process_time()


def steps_per_call(keys, dataset):
    """What the library chooses for a training of the default length, without a callback."""
    return prepare(configured(keys), dataset=dataset).steps_per_call


def main():
    """Serves the loop at one batch size."""
    batch, conv = int(sys.argv[2]), sys.argv[3]
    dataset = training_data()
    keys = JUST_TRAIN | {
        "seed": SEED,
        "batch_size": batch,
        "model.conv": conv,
        "optimizer.learning_rate": LEARNING_RATE,
        "schedule.name": "constant",
    }
    facts = {}

    def train(gate):
        import jaxmnist

        config = configured(keys | {"train.steps": _ENDLESS})
        config.train.steps_per_call = steps_per_call(keys, dataset)
        jaxmnist.train(config, f"{folder}/run", dataset=dataset, callbacks=[gate], quiet=True)

    def answer(request):
        if "steps" in request:
            return gate.ask(request["steps"]) | facts
        more = {"train.steps": request["losses"], "log.every": 1}
        result = run_loop(configured(keys | more), dataset=dataset).result
        facts["compile_seconds"] = result.train.compile_seconds
        return {"losses": [r["loss"] for r in result.history if r["split"] == "train"]}

    gate = Gate(train)
    with tempfile.TemporaryDirectory() as folder:
        serve(answer)


if __name__ == "__main__":
    main()
