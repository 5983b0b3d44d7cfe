"""Seconds from the command to the first finished step, in fresh processes, as a user sees them.

Each round starts `python -m jaxmnist train` and watches it from outside: when the panel appears on
its output, and when the line of the first step is in metrics.jsonl (it is written after the step's
loss was read). Imports are timed in a process of their own. No compilation cache is used; the
first round may also read the packages from disk for the first time: `max` then shows it.

    python benchmarks/startup.py --rounds=5
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from measure import Recording, base_parser, interleave, spread, table, words

IMPORTS = "import jaxmnist.cli.main, jaxmnist.runs.train"


def parser():
    """The options."""
    options = base_parser(__doc__)
    options.add_argument(
        "--convs", type=words, default=["xla", "winograd"], help="convolutions to start with"
    )
    options.add_argument("--batch_size", type=int, default=256, help="images in a step")
    return options


def seconds_of(command):
    """How long a process lives."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {"all": time.perf_counter() - start}


def first_step(conv, batch_size):
    """Seconds until the panel and until the first step of a fresh run."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        command = [sys.executable, "-m", "jaxmnist", "train", f"--workdir={workdir}"]
        keys = {"model.conv": conv, "batch_size": batch_size, "train.steps": 2, "log.every": 1}
        command += [f"--config.{key}={value}" for key, value in keys.items()]
        environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=environment, bufsize=0, cwd=folder
        )
        seen = {}

        def read():
            while process.stdout.read(4096):
                seen.setdefault("panel", time.perf_counter() - start)

        reader = threading.Thread(target=read)
        reader.start()
        metrics = workdir / "metrics.jsonl"
        while "first_step" not in seen and process.poll() is None:
            time.sleep(0.005)
            if metrics.exists() and b"\n" in metrics.read_bytes():
                seen["first_step"] = time.perf_counter() - start
        process.wait()
        reader.join()
        if process.returncode or "first_step" not in seen:
            raise RuntimeError(f"exit code {process.returncode} of {' '.join(command)}")
        return seen | {"all": time.perf_counter() - start}


def main():
    """Measures, prints a table and records it."""
    arguments = parser().parse_args()
    recording = Recording(arguments, devices=False)
    candidates = {
        "python": lambda: seconds_of([sys.executable, "-c", ""]),
        "import jax": lambda: seconds_of([sys.executable, "-c", "import jax"]),
        "imports of train": lambda: seconds_of([sys.executable, "-c", IMPORTS]),
        "jaxmnist --help": lambda: seconds_of([sys.executable, "-m", "jaxmnist", "--help"]),
    }
    for conv in arguments.convs:
        candidates[f"train, {conv}"] = lambda conv=conv: first_step(conv, arguments.batch_size)
    rows = []
    for name, samples in interleave(candidates, rounds=arguments.rounds).items():
        stages = {stage: spread([s[stage] for s in samples]) for stage in samples[0]}
        rows.append({"process": name, "seconds": stages})
    print(show(rows))
    recording.write(rows, batch_size=arguments.batch_size)


def show(rows):
    """The table of a record's rows."""

    def cell(row, stage):
        value = row["seconds"].get(stage)
        return f"{value['median']:.2f} ({value['min']:.2f}–{value['max']:.2f})" if value else ""

    stages = ("panel", "first_step", "all")
    return table(
        ["process", "panel, s", "first step, s", "whole process, s (range)"],
        [[r["process"], *(cell(r, stage) for stage in stages)] for r in rows],
    )


if __name__ == "__main__":
    main()
