"""Accuracy and time of configurations over seeds, each run as a user would start it.

Every seed is a fresh `python -m jaxmnist train`. `seconds` is the wall time of the training steps
with the input pipeline; compiling, evaluations and checkpoints stand beside it. `reached` is the
first evaluation that was at least --target accurate: images seen, and seconds without and with
compiling. Accuracy is that of the last parameters on all 10,000 test images; nothing is chosen on
them. --blog_epochs runs the blog post's loop for as many epochs beside it, seed by seed, with the
same data and Adam at 1e-3, batches of 64.

    python benchmarks/time_to_accuracy.py --configs=default --seeds=5 --blog_epochs=10
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Recording, interleave, plain_parser, spread, table, words
from measure.arguments import positive
from measure.workers import Worker


def parser():
    """The options."""
    options = plain_parser(__doc__)
    options.add_argument("--configs", type=words, default=["default"], help="names or paths")
    options.add_argument("--seeds", type=positive, default=5, help="0, 1 … so many less one")
    options.add_argument("--target", type=float, default=0.99, help="accuracy to reach")
    options.add_argument(
        "--blog_epochs", type=int, default=0, help="epochs of the blog post's loop (0: none)"
    )
    options.add_argument(
        "--blog_examples", type=int, default=None, help="for trials: so many examples only"
    )
    options.add_argument(
        "--set", action="append", default=[], help="a further key of all configurations, key=value"
    )
    return options


def trained(config, seed, *, keys, target):
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        command = [sys.executable, "-m", "jaxmnist", "train", "--quiet", f"--workdir={workdir}"]
        command += [f"--config={config}", f"--config.seed={seed}"]
        subprocess.run([*command, *(f"--config.{key}" for key in keys)], check=True)
        result = json.loads((workdir / "result.json").read_text("utf-8"))
        lines = (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
    train = result["train"]
    curve = evaluated([json.loads(line) for line in lines], train)
    return {
        "seed": seed,
        "accuracy": result["test"]["accuracy"],
        "seconds": train["seconds"],
        "compile_seconds": train["compile_seconds"],
        "eval_seconds": train["eval_seconds"],
        "total_seconds": train["total_seconds"],
        "images": train["examples"],
        "curve": curve,
        "reached": reached(curve, train, target=target),
        "params_sha256": result["params"]["sha256"],
        "devices": result["devices"],
    }


def evaluated(metrics, train):
    """Images, seconds of training and accuracy at each evaluation, in their order.

    Args:
      metrics: the lines of metrics.jsonl.
      train: what result.json says of the training.
    """
    batch = train["examples"] / train["steps"]
    windows = sorted((m for m in metrics if m["split"] == "train"), key=lambda m: m["step"])

    def seconds(step):
        # A train line tells the rate since the one before; the last window is taken in part.
        total, before = 0.0, 0
        for line in windows:
            if line["images_per_second"] > 0:
                total += (min(line["step"], step) - before) * batch / line["images_per_second"]
            before = min(line["step"], step)
        return total

    lines = sorted((m for m in metrics if m["split"] != "train"), key=lambda m: m["step"])
    return [
        {
            "images": line["step"] * batch,
            "seconds": seconds(line["step"]),
            "accuracy": line["accuracy"],
        }
        for line in lines
    ]


def reached(curve, train, *, target):
    """Images and seconds up to the first evaluation of at least this accuracy, or None.

    Args:
      curve: of `evaluated`.
      train: what result.json says of the training.
      target: the accuracy.
    """
    first = next((point for point in curve if point["accuracy"] >= target), None)
    if first is None:
        return None
    return {
        "target": target,
        "images": first["images"],
        "seconds": first["seconds"],
        "seconds_with_compile": first["seconds"] + train["compile_seconds"],
    }


def summary(candidate, runs):
    """The row of a candidate."""
    accuracies = [100 * run["accuracy"] for run in runs]
    hits = [run["reached"] for run in runs if run.get("reached")]
    return {
        "candidate": candidate,
        "seeds": len(runs),
        "accuracy_mean": statistics.mean(accuracies),
        "accuracy_std": statistics.stdev(accuracies) if len(runs) > 1 else 0.0,
        "images": runs[0]["images"],
        "seconds": spread([run["seconds"] for run in runs]),
        "compile_seconds": spread([run["compile_seconds"] for run in runs]),
        "reached": {
            "seeds": len(hits),
            "target": hits[0]["target"],
            "images": statistics.median(hit["images"] for hit in hits),
            "seconds": spread([hit["seconds"] for hit in hits]),
            "seconds_with_compile": spread([hit["seconds_with_compile"] for hit in hits]),
        }
        if hits
        else None,
        "runs": runs,
    }


def main():
    """Runs all seeds, prints a table and records it."""
    arguments = parser().parse_args()
    recording = Recording(arguments, devices=False)

    def seeds(run):
        numbers = iter(range(arguments.seeds))

        def next_seed():
            found = run(next(numbers))
            print(f"{found['accuracy']:.2%} in {found['seconds']:.1f} s", file=sys.stderr)
            return found

        return next_seed

    candidates, workers = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for config in arguments.configs:
            candidates[config] = seeds(
                lambda seed, config=config: trained(
                    config, seed, keys=arguments.set, target=arguments.target
                )
            )
        if arguments.blog_epochs:
            command = [sys.executable, "-m", "rivals.task", folder]
            cpu = os.environ | {"JAX_PLATFORMS": "cpu"}
            subprocess.run(command, check=True, env=cpu, cwd=Path(__file__).parent)
            workers.append(Worker("rivals.jax_loops", folder, "64", "blog"))
            more = {"epochs": arguments.blog_epochs, "examples": arguments.blog_examples}
            candidates[f"blog post's loop, {arguments.blog_epochs} epochs"] = seeds(
                lambda seed: workers[0].ask(seed=seed, **more) | {"seed": seed}
            )
        try:
            found = interleave(candidates, rounds=arguments.seeds)
        finally:
            for worker in workers:
                worker.close()
    rows = [summary(name, runs) for name, runs in found.items()]
    print(show(rows))
    recording.write(rows, devices=rows[0]["runs"][0].get("devices"))


def show(rows):
    """The table of a record's rows."""

    def seconds(value):
        return f"{value['median']:.1f} ({value['min']:.1f}–{value['max']:.1f})" if value else ""

    def hit(row):
        found = row["reached"]
        if not found:
            return [""] * 4
        return [
            f"{found['seeds']} reach {found['target']:.1%}",
            f"{found['images']:,.0f}",
            f"{found['seconds']['median']:.1f}",
            f"{found['seconds_with_compile']['median']:.1f}",
        ]

    head = ["run", "seeds", "test accuracy, %", "images seen", "training s (range)", "compile s"]
    head += ["seeds that reach the target", "by images", "by s", "with compile"]
    return table(
        head,
        [
            [
                r["candidate"],
                r["seeds"],
                f"{r['accuracy_mean']:.3f} ± "
                + (f"{r['accuracy_std']:.3f}" if r["seeds"] > 1 else "–"),
                f"{r['images']:,}",
                seconds(r["seconds"]),
                seconds(r["compile_seconds"]),
                *hit(r),
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    main()
