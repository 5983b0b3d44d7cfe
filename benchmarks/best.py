"""Accuracy of the most accurate configuration: seeds of one network, and what they vote together.

Every seed is a run of its own in a sweep; `accuracy` is that of its last parameters in one forward
pass over all test images. In the vote each network names a class, and the most named one wins; of
classes that are named equally often the one with the highest mean probability. The mean of
probabilities stands beside it. Test images are looked at once, at the end of a run, and nothing is
chosen on them. `seconds` is the wall time of the training steps with the input pipeline; compiling,
evaluation and checkpoints are in the total.

Broken off, the same command goes on.

    python benchmarks/best.py --config=best --seeds=3 --datasets=mnist,fashion_mnist
"""

from pathlib import Path

from measure import Recording, plain_parser, spread, table, words
from measure.arguments import positive


def parser():
    """The options."""
    options = plain_parser(__doc__)
    options.add_argument("--config", default="best", help="name or path of a configuration")
    options.add_argument("--seeds", type=positive, default=3, help="0, 1 … so many less one")
    options.add_argument(
        "--datasets", type=words, default=["mnist", "fashion_mnist"], help="names of data sets"
    )
    options.add_argument(
        "--workdir", type=Path, default=Path("runs/best"), help="where the runs are kept"
    )
    options.add_argument(
        "--set", action="append", default=[], help="a further key of the configuration, key=value"
    )
    return options


def together(workdirs):
    """Accuracy of each run by itself, and of all by the vote and by the mean, on the test examples.

    Args:
      workdirs: of the runs.
    """
    from jaxmnist.runs.ensemble import evaluate_ensemble

    vote, mean = (evaluate_ensemble(workdirs, vote=name) for name in ("majority", "mean"))
    accuracies = {"vote": vote.accuracy, "mean_of_probabilities": mean.accuracy}
    return [member.accuracy for member in vote.members.values()], accuracies


def measured(config, dataset, *, seeds, workdir):
    """The row of a data set."""
    import jaxmnist

    found = jaxmnist.sweep(config, workdir, seeds=range(seeds))
    if found.failed:
        raise SystemExit(f"{found.failed[0]['run']} failed: {found.failed[0]['reason']}")
    alone, accuracies = together([workdir / run["run"] for run in found.runs])
    for here, run in zip(alone, found.runs, strict=True):
        if abs(here - run["test"]["accuracy"]) > 2e-4:  # two of 10,000 may be ties
            raise SystemExit(f"{run['run']}: {here} here, {run['test']['accuracy']} in the run")
    return {
        "dataset": dataset,
        "seeds": seeds,
        "parameters": found.runs[0]["params"]["count"],
        "images": found.runs[0]["train"]["examples"],
        "accuracy": found.points[0].to_dict()["test"],
        **accuracies,
        "seconds": spread([run["train"]["seconds"] for run in found.runs]),
        "total_seconds": spread([run["train"]["total_seconds"] for run in found.runs]),
        "runs": list(found.runs),
    }


def main():
    """Trains all seeds on each data set, prints a table and records it."""
    arguments = parser().parse_args()
    recording = Recording(arguments, devices=False)
    from jaxmnist.config import apply_overrides, get_config

    keys = dict(setting.split("=", 1) for setting in arguments.set)
    rows = []
    for dataset in arguments.datasets:
        config = apply_overrides(get_config(arguments.config), {"dataset.name": dataset, **keys})
        place = arguments.workdir / dataset
        rows.append(measured(config, dataset, seeds=arguments.seeds, workdir=place))
    print(show(rows))
    recording.write(rows, config=arguments.config)


def show(rows):
    """The table of a record's rows."""

    def per_cent(value):
        std, ci95 = (f"{100 * value[name]:.3f}" if value[name] else "–" for name in ("std", "ci95"))
        return f"{100 * value['mean']:.3f} ± {std} (95 %: ± {ci95})"

    def seconds(value):
        return f"{value['median']:,.0f} ({value['min']:,.0f}–{value['max']:,.0f})"

    head = ["data set", "seeds", "test accuracy of one, %", "vote, %", "mean of probabilities, %"]
    head += ["parameters", "images seen", "training s (range)", "in all s (range)"]
    return table(
        head,
        [
            [
                r["dataset"],
                r["seeds"],
                per_cent(r["accuracy"]),
                f"{100 * r['vote']:.2f}",
                f"{100 * r['mean_of_probabilities']:.2f}",
                f"{r['parameters']:,}",
                f"{r['images']:,}",
                seconds(r["seconds"]),
                seconds(r["total_seconds"]),
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    main()
