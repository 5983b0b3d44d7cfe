"""Images per second from end to end: `jaxmnist.train` and other loops that train the same network.

  jaxmnist        the real loop: Grain pipeline, logs, default convolution, all CPU devices
  blog post       Flax, float32 host arrays, a plain jitted step, XLA's convolutions
  plain jit       uint8 batches, state donated, JAX's default settings, XLA's convolutions
  PyTorch …       fp32 channels_last; bfloat16; torch.compile; DistributedDataParallel with one
                  process a core. The best of them is the rival.

Each candidate is a process of its own; they work in turn, on the same batches of the same stream,
with the same Adam, from the same parameters. First each gives the losses of its first steps: those
in float32 must agree to 1e-3, or the program fails. Compiling and the first steps are outside the
clock. Without PyTorch (`pip install 'jaxmnist[peers]'`) its rows are left out.

    python benchmarks/peers.py --batches=64,256,1024 --rounds=5
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Recording, Sample, base_parser, interleave, numbers, ratios, row, table, words
from measure.steps import LINE
from measure.timing import rate_text, ratio_text
from measure.workers import Worker, WorkerError

# Name: module, its arguments after folder and batch, whether it computes in float32.
CANDIDATES = {
    "jaxmnist": ("rivals.ours", ("auto",), True),
    "blog post": ("rivals.jax_loops", ("blog",), True),
    "plain jit": ("rivals.jax_loops", ("plain",), True),
    "PyTorch fp32": ("rivals.torch_loop", ("fp32", "{cores}"), True),
    "PyTorch bf16": ("rivals.torch_loop", ("bf16", "{cores}"), False),
    "PyTorch compile": ("rivals.torch_loop", ("compile", "{cores}"), True),
    "PyTorch DDP": ("rivals.torch_loop", ("ddp", "{cores}"), True),
}
BASE = "PyTorch fp32"
TOLERANCE = 1e-3


def parser():
    """The options."""
    options = base_parser(__doc__, seconds=4)
    options.add_argument("--batches", type=numbers, default=[64, 256, 1024], help="batch sizes")
    options.add_argument(
        "--only", type=words, default=list(CANDIDATES), help="some of the candidates"
    )
    options.add_argument(
        "--checked_steps", type=int, default=5, help="steps whose losses are compared"
    )
    return options


class Peer:
    """A candidate at one batch size."""

    def __init__(self, name, folder, batch, *, cores):
        """Starts its process."""
        module, arguments, self.float32 = CANDIDATES[name]
        given = [argument.format(cores=cores) for argument in arguments]
        self.batch, self.name, self.compile_seconds = batch, name, None
        # On an accelerator all JAX processes must fit into its memory at once.
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._worker = Worker(module, folder, str(batch), *given, environment=environment)

    def losses(self, steps):
        """The losses of the first steps."""
        return self._worker.ask(losses=steps)["losses"]

    def measure(self, steps):
        """A sample of so many steps."""
        found = self._worker.ask(steps=steps)
        self.compile_seconds = found.get("compile_seconds", self.compile_seconds)
        return Sample(steps * self.batch, found["seconds"], found["cpu_seconds"])

    def close(self):
        """Ends its process."""
        self._worker.close()


def agreement(losses, *, of_float32):
    """The greatest relative difference between the losses of the float32 candidates.

    Raises:
      ValueError: they differ by more than 1e-3: they do not compute the same.
    """
    first, *others = [losses[name] for name in losses if name in of_float32]
    worst = 0.0
    for other in others:
        for a, b in zip(first, other, strict=True):
            worst = max(worst, abs(a - b) / abs(a))
    if worst > TOLERANCE:
        listed = "\n".join(f"  {name}: {values}" for name, values in losses.items())
        raise ValueError(f"losses differ by {worst:.2g}, more than {TOLERANCE:g}:\n{listed}")
    return worst


def started(arguments, folder, batch, *, cores):
    """The peers that start and give their first losses; why the others do not."""
    peers, losses, left_out = {}, {}, {}
    for name in arguments.only:
        if name.startswith("PyTorch") and importlib.util.find_spec("torch") is None:
            left_out[name] = "PyTorch is not installed (pip install 'jaxmnist[peers]')"
            continue
        if name == "PyTorch DDP" and (cores < 2 or batch % cores):
            left_out[name] = f"a batch of {batch} has no equal shares for {cores} core(s)"
            continue
        print(f"starting {name} at batch {batch}", file=sys.stderr, flush=True)
        peer = Peer(name, folder, batch, cores=cores)
        try:
            losses[name] = peer.losses(arguments.checked_steps)
            peers[name] = peer
        except WorkerError as error:
            peer.close()
            left_out[name] = str(error)
    return peers, losses, left_out


def measured(arguments, folder, batch, *, cores):
    """The rows of one batch size, the worst difference of losses, and what was left out."""
    peers, losses, left_out = started(arguments, folder, batch, cores=cores)
    try:
        worst = agreement(losses, of_float32=[n for n, peer in peers.items() if peer.float32])
        few_steps = max(LINE, 4096 // batch // LINE * LINE)
        for _ in range(2):  # the first time something is still starting in some of them
            few = {name: peer.measure(few_steps) for name, peer in peers.items()}
        rates = {name: sample.rate for name, sample in few.items()}
        # All make the same number of steps in a round, so that they meet the same batches.
        middle = sorted(rates.values())[len(rates) // 2]
        lines = round(arguments.seconds * middle / batch / LINE)
        steps = max(1, lines) * LINE
        work = {name: lambda peer=peer: peer.measure(steps) for name, peer in peers.items()}
        samples = interleave(work, rounds=arguments.rounds)
    finally:
        for peer in peers.values():
            peer.close()
    found = {name: [sample.rate for sample in values] for name, values in samples.items()}
    rows = []
    for name, values in samples.items():
        more = {"of_base": ratios(found[name], found[BASE])} if BASE in found else {}
        compiled = peers[name].compile_seconds
        facts = {"candidate": name, "batch": batch, "steps": steps}
        rows.append(row(facts, values, losses=losses[name], compile_seconds=compiled, **more))
    return rows, worst, left_out


def main():
    """Measures, prints a table and records it."""
    arguments = parser().parse_args()
    if unknown := set(arguments.only) - set(CANDIDATES):
        sys.exit(f"--only has {sorted(unknown)}: the candidates are {list(CANDIDATES)}")
    recording = Recording(arguments, devices=False)
    from jaxmnist.mesh import usable_cores

    rows, worst, left_out = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: this one must not occupy an accelerator.
        command = [sys.executable, "-m", "rivals.task", folder]
        cpu = os.environ | {"JAX_PLATFORMS": "cpu"}
        subprocess.run(command, check=True, env=cpu, cwd=Path(__file__).parent)
        for batch in arguments.batches:
            found, worst[batch], missing = measured(arguments, folder, batch, cores=usable_cores())
            rows += found
            left_out |= missing
    print(show(rows))
    for batch, difference in worst.items():
        print(f"batch {batch}: float32 losses agree to {difference:.1e}")
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    recording.write(rows, left_out=left_out, loss_difference=worst)


def show(rows):
    """The table of a record's rows."""
    return table(
        ["batch", "candidate", "images/s (range)", "iqr", "cores used", f"× {BASE} (range)"],
        [
            [
                r["batch"],
                r["candidate"],
                rate_text(r["images_per_second"]),
                f"{r['images_per_second']['iqr']:,.0f}",
                f"{r['cores']:.2f}",
                ratio_text(r["of_base"]) if "of_base" in r else "",
            ]
            for r in rows
        ],
    )


if __name__ == "__main__":
    main()
