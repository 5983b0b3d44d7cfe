"""Images per second of the input alone: the library's source, per-record Grain, NumPy, resident.

  jaxmnist     the library's stream through its Grain source, whose element is a whole batch
  grain        Grain as its guide shows it: shuffle, repeat, batch over single records, no threads
  grain16      the same with Grain's own default of 16 reading threads
  numpy        one gather from a permuted array, the least there is to do
  placed       the library's stream laid on the devices, as the loop does it
  resident     the data set lies on the devices; row numbers travel, the gather happens there

All give shuffled uint8 batches. The first four stay in host memory.

    python benchmarks/pipeline.py --batches=64,256,1024
"""

import itertools

import numpy as np
from measure import Recording, base_parser, calls_for, clocked, interleave, numbers, row, table
from measure.timing import rate_text

# Steps of the stream, more than any measurement draws.
_STEPS = 200_000


def parser():
    """The options."""
    options = base_parser(__doc__)
    options.add_argument("--batches", type=numbers, default=[64, 256, 1024], help="batch sizes")
    return options


def ours(train, batch, *, indexed=False, place=list):
    """The library's stream, batches (or row numbers), in host memory unless they are placed."""
    from jaxmnist.pipeline import BatchSource, train_batches

    options = {"seed": 0, "batch_size": batch, "rows": slice(None), "indexed": indexed}
    return train_batches(BatchSource(train, bounds=range(_STEPS + 1), **options), place)


def per_record(train, batch, *, default_threads):
    """Grain over single records."""
    import grain

    class Records:
        def __len__(self):
            return len(train)

        def __getitem__(self, index):
            return {"image": train.images[index], "label": train.labels[index]}

    records = grain.MapDataset.source(Records()).shuffle(seed=0).repeat()
    if default_threads:
        return iter(records.to_iter_dataset().batch(batch, drop_remainder=True))
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(records.batch(batch, drop_remainder=True).to_iter_dataset(options))


def plain_numpy(train, batch):
    """A permutation an epoch and one gather a batch."""
    draws = np.random.default_rng(0)
    while True:
        order = draws.permutation(len(train))
        for start in range(0, len(train) - batch + 1, batch):
            rows = order[start : start + batch]
            yield train.images[rows], train.labels[rows]


def placed(train, batch, mesh, *, indexed=False):
    """The library's stream on the devices."""
    from jaxmnist.step import place_batch

    return ours(train, batch, indexed=indexed, place=lambda rows: place_batch(rows, mesh))


def resident(train, batch, mesh):
    """Row numbers to the devices, each of which gathers its rows from its copy."""
    import jax
    from jax.sharding import PartitionSpec as P

    from jaxmnist.mesh import replicate

    data, specs = replicate((train.images, train.labels), mesh), (P(), P("data"))

    def rows_of(data, index):
        return jax.tree.map(lambda x: x[index], data)

    gather = jax.jit(jax.shard_map(rows_of, mesh=mesh, in_specs=specs, out_specs=P("data")))
    for rows in placed(train, batch, mesh, indexed=True):
        yield gather(data, rows.index)


def timed(iterator, batch, *, seconds):
    """A function that draws batches for about so long; buffers are full when it starts."""
    import jax

    def draw(count):
        for item in itertools.islice(iterator, count):
            jax.block_until_ready(item)

    draw(3)
    # Long enough to empty what reading threads have prepared ahead.
    one = clocked(lambda: draw(600 // batch + 20), images=0).seconds / (600 // batch + 20)
    count = calls_for(seconds, one_call=one)
    return lambda: clocked(lambda: draw(count), images=count * batch)


def main():
    """Measures, prints a table and records it."""
    arguments = parser().parse_args()
    from measure.steps import use_all_cores

    use_all_cores()
    recording = Recording(arguments)
    from jaxmnist import datasets
    from jaxmnist.mesh import data_mesh

    train, mesh, rows = datasets.load("mnist").train, data_mesh(), []
    for batch in arguments.batches:
        sources = {
            "jaxmnist": ours(train, batch),
            "grain": per_record(train, batch, default_threads=False),
            "grain16": per_record(train, batch, default_threads=True),
            "numpy": plain_numpy(train, batch),
        }
        if batch % mesh.size == 0:
            sources |= {
                "placed": placed(train, batch, mesh),
                "resident": resident(train, batch, mesh),
            }
        drawn = {k: timed(v, batch, seconds=arguments.seconds) for k, v in sources.items()}
        for name, samples in interleave(drawn, rounds=arguments.rounds).items():
            rows.append(row({"pipeline": name, "batch": batch}, samples))
        for source in sources.values():
            source.close()
    print(show(rows))
    recording.write(rows)


def show(rows):
    """The table of a record's rows."""
    return table(
        ["pipeline", "batch", "images/s (range)", "ms a batch", "cores used"],
        [
            [
                r["pipeline"],
                r["batch"],
                rate_text(r["images_per_second"]),
                f"{1e3 * r['batch'] / r['images_per_second']['median']:.2f}",
                f"{r['cores']:.2f}",
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    main()
