"""Scaling of the bare step over devices: strong (one global batch) and weak (one batch a device).

Efficiency is speed-up over one device divided by the number of devices (strong), or the time of a
step on one device divided by that on n (weak). CPU devices share the cores of one machine, so for
n of them all threads of the process are confined to n cores: otherwise one device would borrow the
cores of the others and the figure would mean nothing.

    python benchmarks/scaling.py --strong=1024 --weak=256
"""

import contextlib
import os
import sys
from pathlib import Path

from measure import Recording, base_parser, interleave, numbers, ratios, row, table
from measure.timing import rate_text, ratio_text


def parser():
    """The options."""
    options = base_parser(__doc__)
    options.add_argument(
        "--devices", type=numbers, default=None, help="numbers of devices (1, 2, 4 … all)"
    )
    options.add_argument(
        "--strong", type=numbers, default=[256, 1024], help="global batches, shared by all devices"
    )
    options.add_argument(
        "--weak", type=numbers, default=[256], help="batches of one device; the global one grows"
    )
    options.add_argument("--strategy", default="shard_map", help="shard_map, pmap or jit")
    options.add_argument("--conv", default="auto", help="auto, xla or winograd")
    options.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    return options


@contextlib.contextmanager
def confined(cores):
    """Keeps all threads of this process on so many cores; None leaves them alone."""
    if cores is None:
        yield
        return
    allowed = sorted(os.sched_getaffinity(0))

    def allow(chosen):
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                os.sched_setaffinity(int(thread.name), chosen)

    allow(allowed[:cores])
    try:
        yield
    finally:
        allow(allowed)


def powers_of_two(most):
    """1, 2, 4 … and the number itself."""
    return sorted({most, *(2**i for i in range(most.bit_length()) if 2**i <= most)})


def prepare(arguments, kind, size, devices, *, dataset):
    """A timed function for one point of a curve, confined as it will be measured."""
    import jax
    from measure.steps import BareStep

    batch = size if kind == "strong" else size * devices
    print(f"preparing {kind} {size} on {devices}", file=sys.stderr, flush=True)
    keys = {
        "batch_size": batch,
        "parallel.devices": devices,
        "parallel.strategy": arguments.strategy,
        "model.conv": arguments.conv,
        "model.dtype": arguments.dtype,
    }
    bare = BareStep.captured(keys, dataset=dataset)
    cores = devices if jax.default_backend() == "cpu" else None
    with confined(cores):
        timed = bare.timed(arguments.seconds)

    def measure():
        with confined(cores):
            return timed()

    return measure


def rows_of(kind, size, measured):
    """The rows of one curve; ratios are taken round by round within it."""
    one = [sample.rate for sample in measured[min(measured)]]
    rows = []
    for devices, samples in measured.items():
        speedup = ratios([sample.rate for sample in samples], one)
        base = devices // min(measured)
        rows.append(
            row(
                {
                    "scaling": kind,
                    "size": size,
                    "batch": size if kind == "strong" else size * devices,
                    "devices": devices,
                },
                samples,
                speedup=speedup,
                efficiency={name: value / base for name, value in speedup.items()},
            )
        )
    return rows


def main():
    """Measures, prints a table and records it."""
    arguments = parser().parse_args()
    from measure.steps import training_data, use_all_cores

    use_all_cores()
    recording = Recording(arguments)
    import jax

    dataset, rows = training_data(), []
    counts = arguments.devices or powers_of_two(jax.device_count())
    curves = [("strong", n) for n in arguments.strong] + [("weak", n) for n in arguments.weak]
    for kind, size in curves:
        fit = [n for n in counts if kind == "weak" or size % n == 0]
        timed = {n: prepare(arguments, kind, size, n, dataset=dataset) for n in fit}
        rows += rows_of(kind, size, interleave(timed, rounds=arguments.rounds))
    print(show(rows))
    recording.write(rows, strategy=arguments.strategy, conv=arguments.conv)


def show(rows):
    """The table of a record's rows."""
    head = ["scaling", "global batch", "devices", "images/s (range)", "cores used", "speed-up"]
    head += ["efficiency"]
    return table(
        head,
        [
            [
                r["scaling"],
                r["batch"],
                r["devices"],
                rate_text(r["images_per_second"]),
                f"{r['cores']:.2f}",
                ratio_text(r["speedup"]),
                f"{r['efficiency']['median']:.0%}",
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    main()
