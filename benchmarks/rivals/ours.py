"""Worker: the real loop of `jaxmnist.train`, pipeline and logs included.

Requests: {"steps": n} runs a training of n steps; {"losses": n} gives the loss of each of n steps.
"""

import sys

from measure.steps import JUST_TRAIN, configured, run_loop, training_data
from measure.workers import serve

from rivals.task import LEARNING_RATE, SEED


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

    def answer(request):
        if "losses" in request:
            more = {"train.steps": request["losses"], "log.every": 1}
            run = run_loop(configured(keys | more), dataset=dataset)
            lines = [r for r in run.result.history if r["split"] == "train"]
            return {"losses": [line["loss"] for line in lines]}
        run = run_loop(configured(keys | {"train.steps": request["steps"]}), dataset=dataset)
        sample = run.sample
        return {
            "seconds": sample.seconds,
            "cpu_seconds": sample.cpu_seconds,
            "compile_seconds": run.result.train.compile_seconds,
        }

    serve(answer)


if __name__ == "__main__":
    main()
