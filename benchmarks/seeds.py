"""Accuracy and time of a configuration over seeds, each run as a user would start it.

    python benchmarks/seeds.py --seeds=5 --records=benchmarks/records/seeds.jsonl

appends a record for each run and writes the table of docs/results.md from all records there are.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "results.md"
_HEAD = """# Results

Written by `python benchmarks/seeds.py` from its records (`benchmarks/records/`). Accuracy is that
of the last step's parameters on all 10,000 test images; nothing is chosen on them. Training seconds
are the wall time of the steps with the input pipeline; compiling, evaluating and checkpoints are
beside them.
"""


def run(config, seed):
    """Trains once in a process of its own and returns the result with what was run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jaxmnist", "train", f"--config.seed={seed}"]
        command += [f"--config={config}", "--quiet", f"--workdir={folder}/run"]
        subprocess.run(command, check=True)
        result = json.loads((Path(folder) / "run" / "result.json").read_text())
    keep = {key: result[key] for key in ("train", "devices", "versions", "params")}
    return {"config": config, "seed": seed, "accuracy": result["test"]["accuracy"], **keep}


def document(records):
    """The page, from all records."""
    text = _HEAD
    for config in sorted({r["config"] for r in records}):
        rows = sorted((r for r in records if r["config"] == config), key=lambda r: r["seed"])
        accuracies = [100 * r["accuracy"] for r in rows]
        seconds = [r["train"]["seconds"] for r in rows]
        text += f"\n## `jaxmnist train --config={config} --config.seed=N`\n\n"
        text += "| seed | test accuracy | training s | images/s | compile s | evaluation s |\n"
        text += "|---|---|---|---|---|---|\n"
        for r in rows:
            t = r["train"]
            text += (
                f"| {r['seed']} | {100 * r['accuracy']:.2f} % | {t['seconds']:.1f} | "
                f"{t['images_per_second']:,.0f} | {t['compile_seconds']:.1f} | "
                f"{t['eval_seconds']:.1f} |\n"
            )
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        text += (
            f"\nMean {statistics.mean(accuracies):.3f} % ± {spread:.3f} (standard deviation of "
            f"{len(rows)} seeds), median {statistics.median(seconds):.1f} s of training.\n"
        )
        first = rows[0]
        devices, versions = first["devices"], first["versions"]
        text += (
            f"\nOn {devices['count']} × {devices['kind']} ({devices['platform']}), Python "
            f"{versions['python']}, JAX {versions['jax']}, {versions['system']}.\n"
        )
    return text


def main():
    """Parses the command line, runs, writes records and the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", default="default")
    parser.add_argument("--seeds", type=int, default=5, help="0 writes the page anew, nothing else")
    parser.add_argument("--records", default="benchmarks/records/seeds.jsonl")
    arguments = parser.parse_args()
    path = Path(arguments.records)
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        record = run(arguments.config, seed)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"seed {seed}: {record['accuracy']:.2%} in {record['train']['seconds']:.1f} s")
    records = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        records[record["config"], record["seed"]] = record
    DOCUMENT.write_text(document(list(records.values())), encoding="utf-8")


if __name__ == "__main__":
    main()
