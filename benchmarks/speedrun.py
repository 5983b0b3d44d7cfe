"""Seeds of the fastest configuration beside the public one-epoch recipe in PyTorch, in turn.

The clock starts with uint8 arrays in host memory and initial parameters, and ends when the final
parameters are there: normalising, gathering and every pass over the training data are inside;
compiling is outside and stands beside. Accuracy is that of one forward pass over the 10,000 test
images. Both programs are warm; each seed is one run of each. Without PyTorch the recipe is left
out.

    python benchmarks/speedrun.py --config=speedrun --seeds=20
"""

import importlib.util
import statistics
import sys

from measure import Recording, interleave, plain_parser, ratios, spread, table
from measure.arguments import positive
from measure.timing import ratio_text
from measure.workers import Worker


def parser():
    """The options."""
    options = plain_parser(__doc__)
    options.add_argument("--config", default="speedrun", help="name or path of a configuration")
    options.add_argument("--seeds", type=positive, default=20, help="0, 1 … so many less one")
    options.add_argument("--first_seed", type=int, default=0, help="the seed to start with")
    options.add_argument(
        "--set", action="append", default=[], help="a further key of the configuration, key=value"
    )
    options.add_argument("--no_recipe", action="store_true", help="leave PyTorch out")
    options.add_argument(
        "--recipe_examples", type=int, default=None, help="for trials: so many examples only"
    )
    return options


def one_after_the_other(worker, first, **more):
    """A function that runs the next seed at each call."""
    seeds = iter(range(first, 10**9))

    def run():
        seed = next(seeds)
        found = worker.ask(seed=seed, **more)
        accuracy, seconds = found["accuracy"], found["seconds"]
        name = worker.name.rpartition(".")[2]
        print(f"{name} seed {seed}: {accuracy:.2%} in {seconds:.2f} s", file=sys.stderr)
        return found | {"seed": seed}

    return run


def summary(name, runs):
    """The row of a candidate."""
    accuracies = [100 * run["accuracy"] for run in runs]
    compiled = [run["compile_seconds"] for run in runs if "compile_seconds" in run]
    deviation = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
    return {
        "candidate": name,
        "seeds": len(runs),
        "accuracy_mean": statistics.mean(accuracies),
        "accuracy_std": deviation,
        "images": runs[0]["images"],
        "seconds": spread([run["seconds"] for run in runs]),
        "compile_seconds": spread(compiled) if compiled else None,
        "cores": statistics.median(run["cores"] for run in runs),
        "runs": runs,
    }


def main():
    """Runs all seeds, prints a table and records it."""
    arguments = parser().parse_args()
    recording = Recording(arguments, devices=False)
    from jaxmnist.mesh import usable_cores

    workers = {"jaxmnist": Worker("rivals.whole_runs", arguments.config)}
    more = {"jaxmnist": dict(setting.split("=", 1) for setting in arguments.set)}
    if arguments.no_recipe or importlib.util.find_spec("torch") is None:
        print("left out: PyTorch recipe (pip install 'jaxmnist[peers]')", file=sys.stderr)
    else:
        workers["PyTorch recipe"] = Worker("rivals.recipe", str(usable_cores()))
        more["PyTorch recipe"] = {"examples": arguments.recipe_examples}
    try:
        candidates = {
            name: one_after_the_other(worker, arguments.first_seed, **more[name])
            for name, worker in workers.items()
        }
        found = interleave(candidates, rounds=arguments.seeds)
    finally:
        for worker in workers.values():
            worker.close()
    rows = [summary(name, runs) for name, runs in found.items()]
    recipe = [run["seconds"] for run in found.get("PyTorch recipe", ())]
    for entry in rows if recipe else ():
        seconds = [run["seconds"] for run in entry["runs"]]
        entry["of_recipe"] = ratios(seconds, recipe)
    print(show(rows))
    recording.write(rows, config=arguments.config, devices=rows[0]["runs"][0]["devices"])


def show(rows):
    """The table of a record's rows."""

    def seconds(value):
        return f"{value['median']:.2f} ({value['min']:.2f}–{value['max']:.2f})" if value else ""

    head = ["candidate", "seeds", "test accuracy, %", "images seen", "seconds (range)"]
    head += ["compile s, outside", "cores used", "of the recipe's time"]
    return table(
        head,
        [
            [
                r["candidate"],
                r["seeds"],
                f"{r['accuracy_mean']:.3f} ± {r['accuracy_std']:.3f}",
                f"{r['images']:,}",
                seconds(r["seconds"]),
                seconds(r["compile_seconds"]),
                f"{r['cores']:.2f}",
                ratio_text(r["of_recipe"]) if "of_recipe" in r else "",
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    main()
