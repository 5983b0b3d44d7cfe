"""Writes docs/performance.md and its pictures from the records, and nothing else.

The page and each picture carry the digest of all records; --check compares and exits 1 when the
page or a picture is stale. Of several runs of one command on one kind of device the newest counts.
Drawing needs matplotlib (`pip install 'jaxmnist[peers]'`); checking does not.

    python benchmarks/report.py
"""

import argparse
import importlib
import sys
from pathlib import Path

from measure import digest, latest, read_records
from measure.arguments import RECORDS
from pictures import pictures

DOCS = Path(__file__).parents[1] / "docs"
# Program, title, and what a reader must know to believe the table.
SECTIONS = (
    (
        "time_to_accuracy",
        "Time to accuracy",
        "Whole trainings, one fresh process a seed. Mean ± standard deviation over seeds of the "
        "accuracy on all 10,000 test images, with the last parameters. Compiling is outside the "
        "training seconds.",
    ),
    (
        "best",
        "Best accuracy",
        "Seeds of one network, each in one forward pass with its last parameters, and what they "
        "vote together. The configuration was chosen on validation examples; the test images were "
        "looked at once.",
    ),
    (
        "speedrun",
        "Speedrun",
        "Least time to about 99 %. The clock starts with uint8 arrays in host memory and initial "
        "parameters and ends with the final parameters; compiling is outside.",
    ),
    (
        "peers",
        "End to end against other loops",
        "Images per second of whole training loops on the same batches, in turn; the float32 "
        "losses of the first steps agree. Ratios are taken round by round.",
    ),
    (
        "throughput",
        "The bare step",
        "Images per second of the compiled step with a batch already on the devices. K: steps "
        "that one call makes.",
    ),
    (
        "scaling",
        "Scaling over devices",
        "Strong: one global batch for all devices. Weak: one batch for each. n CPU devices are "
        "confined to n cores.",
    ),
    (
        "overhead",
        "What the loop costs",
        "The real loop beside its own executable called bare, and what its other parts take.",
    ),
    (
        "pipeline",
        "Input alone",
        "Batches drawn as fast as they come, with no training.",
    ),
    (
        "startup",
        "Start-up",
        "From the command to the first finished step, seen from outside, without a compilation "
        "cache.",
    ),
    (
        "roofline",
        "Roofline",
        "FLOPs and bytes of the compiled step against measured ceilings of this machine.",
    ),
)
_HEAD = """# Performance

Written by `python benchmarks/report.py` from the records in `benchmarks/records/`; every table
names the command that made it. Figures are medians with the range over interleaved rounds after
warm-up; compare them within one table only, since tables may come from different hours of a
machine; the newest stands first. "Cores used" is CPU time over wall time: where it is below the
number of cores, something else ran too, or the work did not fill them.

Digest of the records: `{digest}`
"""


def parser():
    """The options."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--records", type=Path, default=RECORDS, help="directory of the records")
    options.add_argument("--docs", type=Path, default=DOCS, help="directory of the document")
    options.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if anything is stale"
    )
    return options


def newest_records(directory):
    """The records that count, by program."""
    found = {name: records for name, records in read_records(directory).items() if records}
    return {name: latest(records) for name, records in found.items()}


def machine_text(record):
    """A sentence about where and when a record was made."""
    place = record["environment"]
    versions, devices = place["versions"], place.get("devices")
    parts = [f"{place['cores']} cores of {place['processor']}"]
    if devices:
        parts.insert(0, f"{devices['count']} × {devices['kind']} ({devices['platform']})")
    names = [f"{name} {versions[name]}" for name in ("jax", "torch") if name in versions]
    names = [name for name in names if "not installed" not in name]
    load = f", load {place['load']:.1f} at the start" if "load" in place else ""
    parts.append(f"Python {versions['python']}, {', '.join(names)}{load}")
    return f"{'; '.join(parts)}; {place['date'][:10]}, commit `{place['commit']}`."


def remarks(record):
    """What a record says beside its table."""
    lines = []
    for dtype, ceiling in record.get("ceilings", {}).items():
        flops, width = ceiling["flops_a_second"] / 1e9, ceiling["bytes_a_second"] / 1e9
        lines.append(f"Ceilings, {dtype}: {flops:,.0f} GFLOP/s, {width:,.1f} GB/s.")
    for name, reason in record.get("left_out", {}).items():
        lines.append(f"Left out: {name}: {reason}.")
    for refusal in record.get("refused", ()):
        lines.append(f"Refused: {', '.join(map(str, refusal['settings']))}: {refusal['reason']}.")
    for batch, difference in record.get("loss_difference", {}).items():
        lines.append(f"Batch {batch}: float32 losses agree to {difference:.0e}.")
    return "".join(f"\n- {line}" for line in lines) + ("\n" if lines else "")


def document(directory):
    """The page."""
    newest = newest_records(directory)
    drawn = pictures(newest)
    text = _HEAD.format(digest=digest(directory))
    for name, title, about in SECTIONS:
        if name not in newest:
            continue
        text += f"\n## {title}\n\n{about}\n"
        show = importlib.import_module(name).show
        for record in reversed(newest[name]):
            text += f"\n`{record['command']}`\n\n{show(record['rows'])}\n{remarks(record)}"
            text += f"\n{machine_text(record)}\n"
            for file, (of, caption, _) in drawn.items():
                if of is record:
                    where = record["environment"]["processor"]
                    text += f"\n![{caption}, {where}](pictures/{file})\n"
    return text


def stale(directory, docs):
    """Sentences about what is not up to date; none where all is."""
    page, faults = docs / "performance.md", []
    if not page.exists() or page.read_text("utf-8") != document(directory):
        faults.append(f"{page} is not what the records say")
    for name in pictures(newest_records(directory)):
        path = docs / "pictures" / name
        if not path.exists() or digest(directory) not in path.read_text("utf-8"):
            faults.append(f"{path} was drawn from other records")
    return faults


def main():
    """Writes or checks."""
    arguments = parser().parse_args()
    if arguments.check:
        faults = stale(arguments.records, arguments.docs)
        for fault in faults:
            print(f"stale: {fault}; run python benchmarks/report.py", file=sys.stderr)
        sys.exit(1 if faults else 0)
    folder = arguments.docs / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    mark = digest(arguments.records)
    for name, (_, _, draw) in pictures(newest_records(arguments.records)).items():
        draw(folder / name, mark)
    page = arguments.docs / "performance.md"
    page.write_text(document(arguments.records), encoding="utf-8")
    print(f"wrote {page}")


if __name__ == "__main__":
    main()
