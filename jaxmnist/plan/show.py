"""A plan as rows of tables, and as a picture."""

from pathlib import Path
from typing import Final

from jaxmnist.plan.make import Plan
from jaxmnist.plan.model import SHARE

SCALING: Final = ("chips", "topology", "all-reduce", "weak efficiency", "weak images/s")
SCALING_HEADER: Final = (*SCALING, "strong efficiency", f"batch for ≤ {SHARE:.0%} all-reduce")


def program_rows(plan: Plan) -> list[tuple[str, str]]:
    """What the compiled program says."""
    program, capacity = plan.program, plan.memory_capacity_bytes
    used = f"{program.memory_bytes / 1e6:,.1f} MB of {capacity / 1e9:,.1f} GB"
    row = f"{program.row_flops / 1e6:,.2f} MFLOP, {program.row_bytes / 1e6:,.2f} MB"
    others = [f"{kind} {size:,} bytes" for kind, size in program.other_collectives.items()]
    return [
        ("compile time, here", f"{program.compile_seconds:.1f} s"),
        ("memory of a chip", f"{used} ({program.memory_bytes / capacity:.2%})"),
        ("FLOPs of a chip", f"{program.flops / 1e6:,.1f} MFLOP"),
        ("memory traffic of a chip", f"{program.bytes_accessed / 1e6:,.1f} MB"),
        ("a row more, on a CPU", row),
        ("all-reduces", f"{program.all_reduces} of {program.all_reduce_bytes:,} bytes together"),
        ("other collectives", ", ".join(others) or "none"),
        ("compiled with", ", ".join(f"{k} {v}" for k, v in program.versions.items())),
    ]


def prediction_rows(plan: Plan) -> list[tuple[str, str]]:
    """What the model says of a step on the topology."""
    found = plan.prediction
    bound = "arithmetic" if found.compute_seconds > found.memory_seconds else "memory traffic"
    return [
        ("arithmetic", _time(found.compute_seconds)),
        ("memory traffic", _time(found.memory_seconds)),
        ("all-reduce", _time(found.all_reduce_seconds)),
        ("step", f"{_time(found.step_seconds)}; {bound} binds the chip"),
        ("images/s", f"{found.images_per_second:,.0f}"),
        (f"batch for ≤ {SHARE:.0%} all-reduce", f"{found.batch_size:,}"),
    ]


def scaling_rows(plan: Plan) -> list[list[str]]:
    """The model for 1 to 4,096 chips, under `SCALING_HEADER`."""
    return [
        [
            f"{at.chips:,}",
            at.topology,
            _time(at.all_reduce_seconds),
            f"{at.weak_efficiency:.1%}",
            f"{at.images_per_second:,.0f}",
            "–" if at.strong_efficiency is None else f"{at.strong_efficiency:.1%}",
            f"{at.batch_size:,}",
        ]
        for at in plan.scaling
    ]


def draw(plan: Plan, path: Path) -> None:
    """Draws efficiency, and the batch at which communication stops mattering, by chips."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(f"{plan.chip}, {plan.config['model']['name']}: a model, not a measurement")
    weak = [(at.chips, at.weak_efficiency) for at in plan.scaling]
    strong = [(at.chips, at.strong_efficiency) for at in plan.scaling if at.strong_efficiency]
    enough = [(at.chips, at.batch_size) for at in plan.scaling[1:]]
    left.plot(*zip(*weak, strict=True), "o-", label=f"weak: {plan.rows:,} rows a chip")
    left.plot(*zip(*strong, strict=True), "s--", label=f"strong: batch {plan.batch_size:,}")
    left.legend()
    right.plot(*zip(*enough, strict=True), "o-")
    left.set(xlabel="chips", ylabel="efficiency", ylim=(0, 1.05))
    right.set(xlabel="chips", ylabel=f"batch for ≤ {SHARE:.0%} all-reduce", yscale="log")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 8, 64, 512, 4096], ["1", "8", "64", "512", "4,096"])
        axes.grid(alpha=0.3)
    figure.savefig(path)


def _time(seconds: float) -> str:
    return f"{1e6 * seconds:,.1f} µs" if seconds < 1e-3 else f"{1e3 * seconds:,.2f} ms"
