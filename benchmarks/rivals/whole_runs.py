"""Worker: whole trainings of a configuration of the library, one seed a request.

Request: {"seed": n} and perhaps further keys of the configuration, with accuracy and times as
answer. `seconds` is the time of the steps with their input. Where the data set lies on the
devices, laying it there is timed again on its own and added, so that it is inside in any case.
"""

import sys
import time

from measure.steps import configured, run_loop
from measure.workers import serve


def seconds_to_place(watch, dataset):
    """Seconds to lay the training data on the devices; 0 where batches are sent there."""
    import jax

    from jaxmnist.mesh import replicate

    batch = watch.batch
    batch = getattr(batch, "batches", batch)
    if not hasattr(batch, "table"):
        return 0.0
    start = time.perf_counter()
    arrays = (dataset.train.images, dataset.train.labels)
    jax.block_until_ready(replicate(arrays, watch.mesh))
    return time.perf_counter() - start


def main():
    """Serves trainings of one configuration."""
    from jaxmnist import datasets

    dataset = datasets.load("mnist")

    def answer(request):
        run = run_loop(configured(request, name=sys.argv[1]), dataset=dataset)
        train, placing = run.result.train, seconds_to_place(run.watch, dataset)
        return {
            "accuracy": run.result.test.accuracy,
            "seconds": train.seconds + placing,
            "placing_seconds": placing,
            "compile_seconds": train.compile_seconds,
            "cores": run.watch.cores,
            "images": train.examples,
            "devices": run.result.devices,
        }

    serve(answer)


if __name__ == "__main__":
    main()
