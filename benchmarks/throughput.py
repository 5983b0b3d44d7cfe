"""Images per second of the bare compiled step: strategy × batch × devices × convolution × type × K.

The step is the one that `jaxmnist.train` compiles, with a batch that already lies on the devices;
as many steps are under way as in the loop. K is the number of steps that one call makes. What the
library refuses, such as a loop over XLA's convolution on CPU, is listed with its reason. Compile
seconds are those of the whole run's compilation, and stand apart.

    python benchmarks/throughput.py --batches=64,256,1024 --convs=xla,winograd
"""

import itertools
import sys

from measure import Recording, base_parser, interleave, numbers, row, table, words
from measure.timing import rate_text


def parser():
    """The options."""
    options = base_parser(__doc__)
    options.add_argument(
        "--strategies",
        type=words,
        default=["shard_map", "pmap", "jit"],
        help="ways to spread a step over devices (default: all three)",
    )
    options.add_argument(
        "--batches", type=numbers, default=[64, 256, 1024], help="global batch sizes"
    )
    options.add_argument(
        "--devices", type=numbers, default=None, help="numbers of devices, such as 1,2 (all)"
    )
    options.add_argument(
        "--convs", type=words, default=["xla", "winograd"], help="xla, winograd or both"
    )
    options.add_argument(
        "--dtypes", type=words, default=["float32"], help="float32, bfloat16 or both"
    )
    options.add_argument(
        "--steps_per_call", type=numbers, default=[1], help="steps that one call makes: 1,16"
    )
    options.add_argument(
        "--resident",
        type=words,
        default=["auto"],
        help="whether the data set lies on the devices: auto, on, off, or several of them",
    )
    return options


def candidates(arguments, batch, *, dataset):
    """A timed function for each combination at one batch size, and what was refused."""
    import jax
    from measure.steps import BareStep

    from jaxmnist.errors import ConfigError

    timed, facts, refused = {}, {}, []
    for strategy, devices, conv, dtype, k, resident in itertools.product(
        arguments.strategies,
        arguments.devices or [jax.device_count()],
        arguments.convs,
        arguments.dtypes,
        arguments.steps_per_call,
        arguments.resident,
    ):
        settings = (strategy, batch, devices, conv, dtype, k, resident)
        keys = {
            "parallel.strategy": strategy,
            "batch_size": batch,
            "parallel.devices": devices,
            "model.conv": conv,
            "model.dtype": dtype,
        }
        if resident != "auto":
            keys["pipeline.resident"] = resident
        print(f"preparing {settings}", file=sys.stderr, flush=True)
        try:
            bare = BareStep.captured(keys, dataset=dataset, steps_per_call=k)
        except ConfigError as error:
            refused.append({"settings": settings, "reason": "; ".join(error.faults)})
            continue
        timed[settings] = bare.timed(arguments.seconds)
        facts[settings] = {"compile_seconds": bare.compile_seconds}
    return timed, facts, refused


def main():
    """Measures, prints a table and records it."""
    arguments = parser().parse_args()
    from measure.steps import training_data, use_all_cores

    use_all_cores()
    recording = Recording(arguments)
    dataset = training_data()
    rows, refusals = [], []
    names = ("strategy", "batch", "devices", "conv", "dtype", "steps_per_call", "resident")
    for batch in arguments.batches:
        timed, facts, refused = candidates(arguments, batch, dataset=dataset)
        refusals += refused
        for settings, samples in interleave(timed, rounds=arguments.rounds).items():
            named = dict(zip(names, settings, strict=True))
            rows.append(row(named, samples, **facts[settings]))
    print(show(rows))
    for refusal in refusals:
        print(f"refused: {refusal['settings']}: {refusal['reason']}")
    recording.write(rows, refused=refusals)


def show(rows):
    """The table of a record's rows."""
    head = ["strategy", "batch", "devices", "convolution", "type", "K", "resident"]
    return table(
        [*head, "images/s (range)", "iqr", "cores used", "compile s"],
        [
            [
                *(r[n] for n in ("strategy", "batch", "devices", "conv", "dtype")),
                r["steps_per_call"],
                r["resident"],
                rate_text(r["images_per_second"]),
                f"{r['images_per_second']['iqr']:,.0f}",
                f"{r['cores']:.2f}",
                f"{r['compile_seconds']:.1f}",
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    main()
