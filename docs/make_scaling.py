"""Writes the tables of docs/scaling.md from docs/scaling.jsonl, which `jaxmnist plan --json` wrote.

python docs/make_scaling.py           writes them
python docs/make_scaling.py --check   exits 1 where they are stale
"""

import json
import re
import sys
from pathlib import Path

from jaxmnist.config import from_dict
from jaxmnist.plan.chips import CHIPS, parse_topology
from jaxmnist.plan.compiled import Program
from jaxmnist.plan.make import make_plan
from jaxmnist.plan.model import SHARE

HERE = Path(__file__).parent
DOCUMENT, RECORDS = HERE / "scaling.md", HERE / "scaling.jsonl"


def table(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def micro(seconds):
    """Microseconds."""
    return f"{1e6 * seconds:,.1f}"


def chips():
    """The published figures."""
    header = ["chip", "FLOP/s, bfloat16", "FLOP/s, float32 `highest`", "memory", "its bytes/s"]
    header += ["bytes/s of a link", "largest slice", "bytes/s between slices", "hop"]
    rows = [
        [
            chip.name,
            f"{chip.flops['bfloat16'] / 1e12:,.0f} T",
            f"{chip.flops['highest'] / 1e12:,.1f} T",
            f"{chip.memory_bytes / 1e9:,.1f} GB",
            f"{chip.memory_rate / 1e9:,.0f} G",
            f"{chip.link_rate / 1e9:,.0f} G",
            f"{chip.slice_chips:,}",
            f"{chip.outer_rate / 1e9:,.2f} G",
            f"{micro(chip.hop_seconds)} µs",
        ]
        for chip in CHIPS.values()
    ]
    return table(header, rows)


def sources():
    """Where they are published."""
    found = dict.fromkeys(source for chip in CHIPS.values() for source in chip.sources)
    return "\n".join(f"- {source}" for source in found)


def computed(plans):
    """What the compiled programs say."""
    header = ["topology", "batch", "rows a chip", "compile s", "memory of a chip", "MFLOP"]
    header += ["MB moved", "all-reduces", "their bytes", "other collectives", "compiled with"]
    rows = []
    for plan in plans:
        program = plan["program"]
        share = program["memory_bytes"] / plan["memory_capacity_bytes"]
        versions = ", ".join(f"{name} {version}" for name, version in program["versions"].items())
        rows.append(
            [
                plan["topology"],
                f"{plan['batch_size']:,}",
                plan["rows"],
                f"{program['compile_seconds']:.0f}",
                f"{program['memory_bytes'] / 1e6:.1f} MB ({share:.2%})",
                f"{program['flops'] / 1e6:,.1f}",
                f"{program['bytes_accessed'] / 1e6:,.1f}",
                program["all_reduces"],
                f"{program['all_reduce_bytes']:,}",
                ", ".join(program["other_collectives"]) or "none",
                versions,
            ]
        )
    return table(header, rows)


def predicted(plans):
    """The model of a step on each topology."""
    header = ["topology", "batch", "arithmetic µs", "memory µs", "all-reduce µs", "step µs"]
    header += ["images/s", f"batch for ≤ {SHARE:.0%} all-reduce"]
    rows = []
    for plan in plans:
        found = plan["prediction"]
        parts = [found[f"{part}_seconds"] for part in ("compute", "memory", "all_reduce", "step")]
        rates = [f"{found['images_per_second']:,.0f}", f"{found['batch_size']:,}"]
        rows.append([plan["topology"], f"{plan['batch_size']:,}", *map(micro, parts), *rates])
    return table(header, rows)


def scaling(plans):
    """The model from 1 to 4,096 chips: weak and strong efficiency, and the batch."""
    header = ["chips"]
    for plan in plans:
        header += [f"{plan['chip']}: all-reduce µs", f"weak, {plan['rows']} rows a chip"]
        header += [f"strong, batch {plan['batch_size']:,}", f"batch for ≤ {SHARE:.0%}"]
    rows = []
    for places in zip(*(plan["scaling"] for plan in plans), strict=True):
        row = [f"{places[0]['chips']:,}"]
        for at in places:
            strong = at["strong_efficiency"]
            row += [micro(at["all_reduce_seconds"]), f"{at['weak_efficiency']:.0%}"]
            row += ["–" if strong is None else f"{strong:.0%}", f"{at['batch_size']:,}"]
        rows.append(row)
    return table(header, rows)


def plan_of(record):
    """A record whose model is computed anew from its program."""
    config, place = from_dict(record["config"]), parse_topology(record["topology"])
    return make_plan(config, place, Program(**record["program"])).to_dict()


def document():
    """The document with its tables made anew."""
    plans = [plan_of(json.loads(line)) for line in RECORDS.read_text("utf-8").splitlines()]
    named = {plan["topology"]: plan for plan in plans}
    tables = {
        "chips": chips(),
        "sources": sources(),
        "computed": computed(plans),
        "predicted": predicted(plans),
        "scaling": scaling([named[name] for name in ("v5e:2x4", "v5p:2x2x2", "h100:8")]),
    }
    text = DOCUMENT.read_text("utf-8")
    for name, made in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(
            pattern, lambda m, t=made: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"{DOCUMENT} has {count} places for the table {name}, not one")
    return text


def main():
    """Writes or checks."""
    made = document()
    if "--check" in sys.argv[1:] and made != DOCUMENT.read_text("utf-8"):
        raise SystemExit(f"{DOCUMENT} is stale: run python docs/make_scaling.py")
    DOCUMENT.write_text(made, "utf-8")


if __name__ == "__main__":
    main()
