"""What deterministic mode costs: the step with virtual shards against the plain step.

Both steps train the blog post's CNN on the same batch, already on the devices. They are timed in
turn, round by round, so that a change of the machine's speed meets both; the figure is the median
of the rounds' ratios. Compilation is outside.

    python benchmarks/overhead.py --batch_size=1024 --rounds=9 --out=overhead.jsonl
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np

import jaxmnist
from jaxmnist.config import apply_overrides
from jaxmnist.mesh import data_mesh
from jaxmnist.pipeline import BatchSource
from jaxmnist.runs.result import versions
from jaxmnist.runs.setup import prepare
from jaxmnist.step import make_train_step, place_batch


def seconds_a_step(step, state, batch, *, steps):
    """Wall time of a step, and the state after the steps."""
    start = time.perf_counter()
    for _ in range(steps):
        state, sums = step(state, batch)
        jax.block_until_ready(sums)
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / steps, state


def main():
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=1024)
    parser.add_argument("--devices", type=int, default=None, help="all by default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="steps a round")
    parser.add_argument("--conv", default="auto", help="auto, xla or winograd")
    parser.add_argument("--out", default=None, help="append a JSON record to this file")
    arguments = parser.parse_args()
    overrides = {
        "batch_size": str(arguments.batch_size),
        "parallel.devices": str(arguments.devices),
        "model.conv": arguments.conv,
        "parallel.deterministic": "true",
    }
    setup = prepare(apply_overrides(jaxmnist.get_config(), overrides))
    mesh = data_mesh(arguments.devices)
    source = BatchSource(
        setup.data.splits["train"],
        seed=0,
        batch_size=arguments.batch_size,
        steps=1,
        rows=slice(None),
    )
    batch = place_batch(source[0], mesh)
    steps, states, times = {}, {}, {"plain": [], "deterministic": []}
    for name in times:
        steps[name] = make_train_step(setup.task, mesh, deterministic_bits=name == "deterministic")
        _, states[name] = seconds_a_step(steps[name], setup.replicated_state(), batch, steps=3)
    for _ in range(arguments.rounds):
        for name in times:
            seconds, states[name] = seconds_a_step(
                steps[name], states[name], batch, steps=arguments.steps
            )
            times[name].append(seconds)
    ratios = [d / p for p, d in zip(times["plain"], times["deterministic"], strict=True)]
    record = {
        "benchmark": "overhead",
        "batch_size": arguments.batch_size,
        "devices": mesh.size,
        "conv": setup.conv,
        "plain_ms": 1e3 * statistics.median(times["plain"]),
        "deterministic_ms": 1e3 * statistics.median(times["deterministic"]),
        "ratio_median": statistics.median(ratios),
        "ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).round(3).tolist(),
        "rounds": arguments.rounds,
        "versions": versions(),
    }
    print(
        f"batch {record['batch_size']:,} on {record['devices']} device(s), {record['conv']}: plain "
        f"{record['plain_ms']:.1f} ms, deterministic {record['deterministic_ms']:.1f} ms a step, "
        f"ratio {record['ratio_median']:.2f} (quartiles {record['ratio_quartiles']})"
    )
    if arguments.out:
        with Path(arguments.out).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
