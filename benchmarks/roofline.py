"""Where the step stands under the machine's measured ceilings, and which of them binds it.

Two ceilings are measured on all devices at once: matrix products (square, in the step's type and
precision) and memory (y = 2x + z on arrays far larger than the caches). FLOPs and bytes of the step
come from XLA's cost analysis of the compiled program. That counts the body of a loop once, so a
step that loops is compiled again for 16 and for 32 rows a device with its loops laid out, and both
figures are extended in a straight line to the real batch: what a row costs, and what a step costs
whatever its batch (the optimizer).

  MFU          FLOPs of the compiled step / (its time × the matmul ceiling). Above 1 it is
               impossible, and the program stops: a ceiling, a count or a clock is wrong.
  bytes        what the program's operations read and write, caches included: their rate may
               exceed that of main memory; then the caches serve them, and memory does not bind.
  model MFLOP  of one image by the textbook: direct convolutions, three times the forward pass
               (the first layer needs no gradient of its input, so twice). Winograd needs fewer.

    python benchmarks/roofline.py --batches=64,256,1024
"""

import contextlib
import statistics
import sys

from measure import (
    Recording,
    base_parser,
    calls_for,
    clocked,
    interleave,
    numbers,
    row,
    table,
    words,
)
from measure.timing import rate_text

# (multiply-adds of the forward pass, passes) by layer of the default network on 28×28 images.
LAYERS = (
    (28 * 28 * 9 * 1 * 32, 2),
    (14 * 14 * 9 * 32 * 64, 3),
    (7 * 7 * 64 * 256, 3),
    (256 * 10, 3),
)
MODEL_FLOPS = sum(2 * multiply_adds * passes for multiply_adds, passes in LAYERS)


def parser():
    """The options."""
    options = base_parser(__doc__)
    options.add_argument("--batches", type=numbers, default=[64, 256, 1024], help="global batches")
    options.add_argument("--convs", type=words, default=["auto"], help="auto, xla, winograd")
    options.add_argument("--dtypes", type=words, default=["float32"], help="float32, bfloat16")
    options.add_argument(
        "--matmul_sizes", type=numbers, default=[512, 1024, 2048], help="rows of the products"
    )
    options.add_argument(
        "--memory_mib", type=int, default=256, help="size of each array of the memory ceiling"
    )
    return options


def utilization(flops, *, seconds, peak):
    """Share of a ceiling that was reached.

    Args:
      flops: done in that time.
      seconds: the time.
      peak: the measured ceiling, FLOPs a second.

    Raises:
      ValueError: the share is above 1 or not positive, which no machine can do.
    """
    share = flops / (seconds * peak)
    if not 0 < share <= 1:
        raise ValueError(
            f"{flops:.3g} FLOPs in {seconds:.3g} s are {share:.2f} of a ceiling of {peak:.3g} "
            "FLOP/s, which is impossible: measure the ceiling again on a quiet machine (more "
            "--rounds, other --matmul_sizes), or correct the count"
        )
    return share


def matmul_ceiling(arguments, dtype, mesh):
    """FLOPs a second of the best square product on all devices."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    def products(a, b):
        for _ in range(4):
            a = jnp.matmul(a, b, precision="highest")
        return a

    timed = {}
    for size in arguments.matmul_sizes:
        shape = (mesh.size, size, size)
        a = jax.device_put(
            jnp.full(shape, 1 / size, dtype), NamedSharding(mesh, P("data", None, None))
        )
        mapped = jax.shard_map(products, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
        function = jax.jit(mapped)
        timed[size] = timer(function, (a, a), arguments.seconds / 2, 8 * size**3 * mesh.size)
    return best(timed, arguments.rounds)


def memory_ceiling(arguments, mesh):
    """Bytes a second of y = 2x + z on all devices."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    count = arguments.memory_mib * 2**20 // 4 // mesh.size
    x = jax.device_put(
        jnp.ones((mesh.size, count), jnp.float32), NamedSharding(mesh, P("data", None))
    )
    specs = {"in_specs": P("data"), "out_specs": P("data")}
    mapped = jax.shard_map(lambda x, z: 2 * x + z, mesh=mesh, **specs)
    timed = timer(jax.jit(mapped), (x, x + 1), arguments.seconds / 2, 12 * count * mesh.size)
    return best({arguments.memory_mib: timed}, arguments.rounds)


def timer(function, arguments, seconds, amount):
    """A function that times calls; a sample's `images` are the amount of work."""
    import jax

    def work(count):
        for _ in range(count):
            jax.block_until_ready(function(*arguments))

    work(2)
    count = calls_for(seconds, one_call=clocked(lambda: work(2), images=0).seconds / 2)
    return lambda: clocked(lambda: work(count), images=amount * count)


def best(timed, rounds):
    """The greatest rate of any size in any round: a ceiling is what can be reached at all."""
    return max(s.rate for samples in interleave(timed, rounds=rounds).values() for s in samples)


@contextlib.contextmanager
def unrolled_scans():
    """Lays loops out while programs are traced."""
    from unittest import mock

    import jax

    scan = jax.lax.scan

    def laid_out(*args, **kwargs):
        return scan(*args, **(kwargs | {"unroll": True}))

    with mock.patch.object(jax.lax, "scan", laid_out):
        yield


def costs(keys, bare, mesh, *, dataset):
    """FLOPs and bytes of one step over all devices; None where XLA does not say."""
    from measure.steps import BareStep

    def analysed(step):
        (lowered,) = step.step.lower(step.state, step.batch)
        compiled = lowered.compile()
        found = compiled.cost_analysis()
        if not found or "flops" not in found:
            return None, True
        values = [mesh.size * found[name] for name in ("flops", "bytes accessed")]
        return values, " while(" in compiled.as_text()

    values, loops = analysed(bare)
    if values is None or not loops:
        return values
    points = []
    with unrolled_scans():
        for rows in (16, 32):
            print(f"counting {rows} rows a device", file=sys.stderr, flush=True)
            small = keys | {"batch_size": rows * mesh.size}
            small_values, loops = analysed(BareStep.captured(small, dataset=dataset))
            if small_values is None or loops:
                return None
            points.append(small_values)
    rows = keys["batch_size"] / mesh.size
    return [a + (b - a) * (rows - 16) / 16 for a, b in zip(*points, strict=True)]


def measured_row(arguments, keys, *, ceilings, mesh, dataset):
    """One row: the step's time, costs, shares of the ceilings and the one that binds."""
    from measure.steps import BareStep

    bare = BareStep.captured(keys, dataset=dataset)
    samples = interleave({"step": bare.timed(arguments.seconds)}, rounds=arguments.rounds)["step"]
    found = costs(keys, bare, mesh, dataset=dataset)
    peak, bandwidth = ceilings
    seconds = keys["batch_size"] / statistics.median(s.rate for s in samples)
    more = {"milliseconds": 1e3 * seconds, "model_flops_an_image": MODEL_FLOPS}
    if found is not None:
        flops, bytes_moved = found
        bounds = {"compute": flops / peak, "memory": bytes_moved / bandwidth}
        memory_share = bounds["memory"] / seconds
        if memory_share > 1:
            del bounds["memory"]
        more |= {
            "flops": flops,
            "bytes": bytes_moved,
            "bound": max(bounds, key=bounds.get),
            "least_milliseconds": 1e3 * max(bounds.values()),
            "mfu": utilization(flops, seconds=seconds, peak=peak),
            "memory_share": memory_share,
        }
    settings = {name.split(".")[-1]: value for name, value in keys.items()}
    return row(settings | {"devices": mesh.size}, samples, **more)


def main():
    """Measures, prints a table and records it."""
    arguments = parser().parse_args()
    from measure.steps import training_data, use_all_cores

    use_all_cores()
    recording = Recording(arguments)
    from jaxmnist.mesh import data_mesh

    mesh, dataset, rows, ceilings = data_mesh(), training_data(), [], {}
    bandwidth = memory_ceiling(arguments, mesh)
    for dtype in arguments.dtypes:
        ceilings[dtype] = (matmul_ceiling(arguments, dtype, mesh), bandwidth)
        print(f"{dtype}: {ceilings[dtype][0] / 1e9:,.0f} GFLOP/s, {bandwidth / 1e9:,.1f} GB/s")
        for batch in arguments.batches:
            for conv in arguments.convs:
                keys = {"batch_size": batch, "model.conv": conv, "model.dtype": dtype}
                common = {"ceilings": ceilings[dtype], "mesh": mesh, "dataset": dataset}
                rows.append(measured_row(arguments, keys, **common))
    print(show(rows))
    named = {
        dtype: {"flops_a_second": peak, "bytes_a_second": width}
        for dtype, (peak, width) in ceilings.items()
    }
    recording.write(rows, ceilings=named)


def show(rows):
    """The table of a record's rows."""

    def counted(r):
        if "flops" not in r:
            return ["XLA does not say", "", "", "", ""]
        return [
            f"{r['flops'] / 1e6 / r['batch_size']:.1f}",
            f"{r['bytes'] / 1e6 / r['batch_size']:.2f}",
            r["bound"] if r["memory_share"] <= 1 else "compute (bytes from caches)",
            f"{r['least_milliseconds']:.1f}",
            f"{r['mfu']:.0%}",
        ]

    head = ["batch", "convolution", "type", "images/s (range)", "ms a step", "MFLOP an image"]
    head += ["MB an image", "bound", "least ms", "MFU"]
    return table(
        head,
        [
            [
                *(r[n] for n in ("batch_size", "conv", "dtype")),
                rate_text(r["images_per_second"]),
                f"{r['milliseconds']:.1f}",
                *counted(r),
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    main()
