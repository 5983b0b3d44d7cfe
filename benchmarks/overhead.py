"""What the library adds to its bare step: loop, data, checkpoints, all-reduce, exact bits, K steps.

loop            `jaxmnist.train` against the bare step: the same executable, the same batch size,
                the same bound on steps under way, in one run. They take turns of two calls or
                more, bare, loop, bare, and so on; a turn of the loop, with a line of metrics
                every 20 steps, is compared with the mean of its neighbours. A call makes as many
                steps as the library chooses, rounded down to a divisor of 20.
data wait       share of the loop's time in which it waits for its next batch
checkpoint      share of the run that waits for a checkpoint, one saved each epoch
all-reduce      time of the step's one all-reduce alone, as a share of the step; at most that
                much is communication
deterministic   the step over virtual shards against the plain step
K steps a call  the loop with `train.steps_per_call` against one step a call, and whether the
                parameters are equal bit for bit

  python benchmarks/overhead.py --batches=64,256,1024
"""

import itertools
import statistics
import sys

from measure import Recording, base_parser, interleave, numbers, ratios, row, spread, table
from measure.steps import LINE
from measure.timing import Sample, rate_text, ratio_text

PARTS = ("loop", "checkpoint", "all_reduce", "deterministic", "steps_per_call")


def parser():
    """The options."""
    options = base_parser(__doc__, seconds=3)
    options.add_argument(
        "--batches", type=numbers, default=[64, 256, 1024], help="global batches of the loop"
    )
    options.add_argument(
        "--deterministic_batches", type=numbers, default=[1024], help="those of deterministic mode"
    )
    options.add_argument("--steps_per_call", type=int, default=16, help="K; 16 by default")
    options.add_argument("--turns", type=int, default=30, help="turns of the loop; 30 by default")
    options.add_argument("--conv", default="auto", help="auto, xla or winograd")
    options.add_argument(
        "--checkpoint_epochs", type=float, default=2.0, help="length of the run that saves"
    )
    options.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    return options


class Bench:
    """The options and the data that all parts share."""

    def __init__(self, arguments, dataset):
        """Measures nothing yet."""
        self.arguments = arguments
        self.dataset = dataset

    def bare(self, batch, **keys):
        """The bare step of a configuration."""
        from measure.steps import BareStep

        print(f"preparing batch {batch} {keys}", file=sys.stderr, flush=True)
        overrides = {"batch_size": batch, "model.conv": self.arguments.conv} | keys
        k = overrides.pop("train.steps_per_call", 1)
        return BareStep.captured(overrides, dataset=self.dataset, steps_per_call=k)

    def loop(self, batch, *, steps, alternation=None, **keys):
        """A run of the real loop that saves and evaluates only at its end."""
        from measure.steps import JUST_TRAIN, configured, run_loop

        overrides = {"batch_size": batch, "model.conv": self.arguments.conv}
        config = configured(overrides | JUST_TRAIN | {"train.steps": steps} | keys)
        return run_loop(config, dataset=self.dataset, alternation=alternation)

    def steps_per_call(self, batch):
        """The steps that the library puts into one call, or the next smaller divisor of a line."""
        from measure.steps import configured

        from jaxmnist.runs.setup import prepare

        overrides = {"batch_size": batch, "model.conv": self.arguments.conv}
        chosen = prepare(configured(overrides), dataset=self.dataset).steps_per_call
        return max(k for k in range(1, LINE + 1) if LINE % k == 0 and k <= chosen)

    def steps(self, bare):
        """How many steps last as long as one measurement should."""
        sample = bare.timed(0.2)()
        return max(8, round(self.arguments.seconds * sample.rate / bare.images))


def loop_rows(bench, batch):
    """Loop against bare step, in turns within one run; a turn is a line of metrics long or two."""
    from measure.steps import Alternation

    turns, k = max(3, round(bench.arguments.turns)), bench.steps_per_call(batch)
    steps = LINE if k < LINE else 2 * LINE
    calls = steps // k
    # A line is due at the first step too, which makes the first call a short one.
    warm_up = calls if k == 1 else calls + 1
    turn = Alternation(calls=calls, warm_up=warm_up)
    keys = {"train.steps_per_call": k}
    run = bench.loop(batch, steps=steps + steps * turns + k, alternation=turn, **keys)
    neighbours = [(before + after) / 2 for before, after in itertools.pairwise(turn.bare)]
    of_bare = ratios(neighbours, turn.loop)
    in_all = sum(neighbours) / sum(turn.loop)
    waits = run.watch.waits[warm_up : warm_up + calls * turns]
    waited = spread([sum(waits) / sum(turn.loop)]) if waits else None
    rows = []
    for name, wall, cpu in (
        ("bare step", turn.bare, turn.bare_cpu),
        ("loop", turn.loop, turn.loop_cpu),
    ):
        pairs = zip(wall, cpu, strict=True)
        samples = [Sample(steps * batch, seconds, used) for seconds, used in pairs]
        facts = {"part": f"{name}, K={k}", "batch": batch, "calls_a_turn": calls}
        rows.append(row(facts, samples))
    rows[1] |= {"ratio": of_bare, "ratio_in_all": in_all, "data_wait": waited}
    return rows


def checkpoint_rows(bench, batch):
    """Share of a run that waits for its checkpoints, with one each epoch as by default."""
    keys = {"train.epochs": bench.arguments.checkpoint_epochs, "checkpoint.every": "1 epochs"}
    from measure.steps import JUST_TRAIN, configured, run_loop

    overrides = JUST_TRAIN | {"batch_size": batch, "model.conv": bench.arguments.conv} | keys
    run = run_loop(configured(overrides), dataset=bench.dataset)
    train = run.result.train
    share = train.checkpoint_seconds / (train.seconds + train.checkpoint_seconds)
    facts = {"part": "checkpoint", "batch": batch, "epochs": bench.arguments.checkpoint_epochs}
    return [row(facts, [run.sample], share=spread([share]))]


def all_reduce_rows(bench, batch):
    """The all-reduce of the step's sums alone beside the whole step."""
    import jax
    from jax.sharding import PartitionSpec as P

    bare = bench.bare(batch)
    mesh = jax.tree.leaves(bare.state.params)[0].sharding.mesh
    reduced = jax.shard_map(
        lambda tree: jax.lax.psum(jax.lax.pcast(tree, "data", to="varying"), "data"),
        mesh=mesh,
        in_specs=P(),
        out_specs=P(),
    )
    function, params = jax.jit(reduced), bare.state.params
    params = jax.tree.map(lambda x: x.copy(), params)

    def reduce(count):
        for _ in range(count):
            jax.block_until_ready(function(params))

    from measure import calls_for, clocked

    reduce(3)
    one = clocked(lambda: reduce(5), images=0).seconds / 5
    count = calls_for(bench.arguments.seconds / 3, one_call=one)
    step = bare.timed(bench.arguments.seconds)
    timed = {
        "all-reduce": lambda: clocked(lambda: reduce(count), images=count * batch),
        "step": step,
    }
    found = interleave(timed, rounds=bench.arguments.rounds)
    share = ratios([s.rate for s in found["step"]], [s.rate for s in found["all-reduce"]])
    facts = {"part": "all-reduce", "batch": batch, "devices": mesh.size}
    milliseconds = 1e3 * batch / statistics.median(s.rate for s in found["all-reduce"])
    return [row(facts, found["all-reduce"], share=share, milliseconds=milliseconds)]


def deterministic_rows(bench, batch):
    """The step over virtual shards beside the plain one."""
    timed = {
        name: bench.bare(batch, **keys).timed(bench.arguments.seconds)
        for name, keys in {
            "plain step": {},
            "deterministic": {"parallel.deterministic": "true"},
        }.items()
    }
    found = interleave(timed, rounds=bench.arguments.rounds)
    rates = {name: [s.rate for s in samples] for name, samples in found.items()}
    ratio = ratios(rates["deterministic"], rates["plain step"])
    facts = {"batch": batch}
    return [
        row(facts | {"part": "plain step"}, found["plain step"]),
        row(facts | {"part": "deterministic"}, found["deterministic"], ratio=ratio),
    ]


def steps_per_call_rows(bench, batch):
    """K steps a call beside one: speed of the bare steps and of the loops, and the bits."""
    k = bench.arguments.steps_per_call
    bare = {n: bench.bare(batch, **({"train.steps_per_call": n} if n > 1 else {})) for n in (1, k)}
    steps = bench.steps(bare[1])
    timed = {f"bare, K={n}": step.timed(bench.arguments.seconds) for n, step in bare.items()}

    def loop(n):
        return bench.loop(batch, steps=steps, **{"train.steps_per_call": n})

    digests = {n: set() for n in bare}

    def measured(n):
        run = loop(n)
        digests[n].add(run.result.params_sha256)
        return run.sample

    timed |= {f"loop, K={n}": lambda n=n: measured(n) for n in bare}
    found: dict[str, list[Sample]] = interleave(timed, rounds=bench.arguments.rounds)
    rows, equal = [], len(digests[1] | digests[k]) == 1
    for name, samples in found.items():
        one = [s.rate for s in found[name.split("=")[0] + "=1"]]
        ratio = ratios([s.rate for s in samples], one)
        more = {"bits_equal": equal} if name == f"loop, K={k}" else {}
        rows.append(row({"part": name, "batch": batch}, samples, ratio=ratio, **more))
    return rows


def main():
    """Measures, prints a table and records it."""
    arguments = parser().parse_args()
    from measure.steps import has_key, training_data, use_all_cores

    use_all_cores()
    recording = Recording(arguments)
    parts, rows = arguments.parts.split(","), []
    bench = Bench(arguments, training_data())
    measures = {
        "loop": (loop_rows, arguments.batches),
        "checkpoint": (checkpoint_rows, arguments.batches[-1:]),
        "all_reduce": (all_reduce_rows, arguments.batches),
        "deterministic": (deterministic_rows, arguments.deterministic_batches),
        "steps_per_call": (steps_per_call_rows, arguments.batches),
    }
    for part in parts:
        if part == "steps_per_call" and not has_key("train.steps_per_call"):
            print("left out: this version has no train.steps_per_call", file=sys.stderr)
            continue
        measure, batches = measures[part]
        for batch in batches:
            rows += measure(bench, batch)
    print(show(rows))
    recording.write(rows, conv=arguments.conv)


def show(rows):
    """The table of a record's rows."""

    def remark(row):
        texts = []
        if ratio := row.get("ratio"):
            texts.append(f"{ratio_text(ratio)} × its base")
        if "ratio_in_all" in row:
            texts.append(f"{row['ratio_in_all']:.3g} × over all turns")
        if share := row.get("share"):
            texts.append(f"{share['median']:.1%} of the time")
        if wait := row.get("data_wait"):
            texts.append(f"waits for data {wait['median']:.2%}")
        if "bits_equal" in row:
            texts.append("bits equal" if row["bits_equal"] else "BITS DIFFER")
        return "; ".join(texts)

    return table(
        ["part", "batch", "images/s (range)", "cores used", "found"],
        [
            [
                r["part"],
                r["batch"],
                rate_text(r["images_per_second"]),
                f"{r['cores']:.2f}",
                remark(r),
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    main()
