"""The library's own loop, watched: its executable, its batch, its waiting, its time and cores.

The step that a benchmark times is the one that `jaxmnist.train` compiled, with the arrays that its
loop passed to it, whatever the configuration; nothing of the library is built again here.
"""

import contextlib
import dataclasses
import importlib
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from measure.timing import Sample, calls_for, clocked

# Steps between two lines of metrics by default; a call of several steps ends there too.
LINE = 20
_NEVER = "1000000 steps"
# A run that evaluates and saves only at its end, where the clock of training has stopped.
JUST_TRAIN = {"eval.every": _NEVER, "eval.batch_size": "64", "checkpoint.every": _NEVER}


def use_all_cores() -> int:
    """Makes JAX start with a CPU device for each usable core, unless told otherwise.

    Call it before anything uses JAX; where there is an accelerator it changes nothing.
    """
    import jax

    from jaxmnist.mesh import usable_cores

    # The library leaves the number alone where this variable is set; JAX has read it already.
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        os.environ["JAX_NUM_CPU_DEVICES"] = str(usable_cores())
        jax.config.update("jax_num_cpu_devices", usable_cores())
    return usable_cores()


def configured(overrides: Mapping[str, Any], *, name: str | None = None) -> Any:
    """A configuration of the library with keys set.

    Raises:
      jaxmnist.errors.ConfigError: a key that there is not, or a value it refuses.
    """
    import jaxmnist
    from jaxmnist.config import apply_overrides

    return apply_overrides(jaxmnist.get_config(name), {k: str(v) for k, v in overrides.items()})


def has_key(name: str) -> bool:
    """Whether the library knows this key of the configuration."""
    from jaxmnist.config.default import KEYS

    return name in KEYS


def training_data() -> Any:
    """MNIST with 64 test images, so that a short run is not mostly evaluation."""
    import numpy as np

    from jaxmnist import datasets

    mnist = datasets.load("mnist")
    return dataclasses.replace(mnist, test=mnist.test.take(np.arange(64)))


@dataclass
class Watch:
    """What was seen of one run of the loop.

    Attributes:
      step: the train step.
      mesh: its devices.
      batches: what the loop passed to its first three calls.
      entries: wall and CPU clock at the start of each call.
      all_waits: seconds that was waited for each batch, for each row of batches there was.
    """

    step: Any = None
    mesh: Any = None
    batches: list[Any] = field(default_factory=list)
    entries: list[tuple[float, float]] = field(default_factory=list)
    all_waits: list[list[float]] = field(default_factory=list)

    @property
    def waits(self) -> list[float]:
        """Seconds that the loop waited for each of its batches: the longest row there was."""
        return max(self.all_waits, key=len, default=[])

    @property
    def batch(self) -> Any:
        """The batch of one call; of several steps, where a call makes several."""

        def steps(batch: Any) -> int:
            return int(batch.count) if "count" in batch._fields else 1

        return max(self.batches, key=steps)

    @property
    def cores(self) -> float:
        """Cores busy between the first and the last call."""
        (wall, cpu), (wall_end, cpu_end) = self.entries[0], self.entries[-1]
        return (cpu_end - cpu) / max(wall_end - wall, 1e-9)


class Alternation:
    """Holds the loop up after every so many calls, to time as many calls of the bare step.

    A machine whose speed changes from second to second cannot be compared with itself in long
    measurements; here bare step and loop take turns about every second, in one process, with the
    same executable, the same arrays and the same bound on calls under way. A turn ends when its
    last step is done. The pipeline may fill its buffers (three batches) while the bare step runs.

    Attributes:
      bare: seconds of each turn of the bare step; one more than of the loop.
      loop: seconds of each turn of the loop.
      bare_cpu: CPU seconds likewise.
      loop_cpu: CPU seconds likewise.
    """

    def __init__(self, *, calls: int, warm_up: int):
        """Turns of `calls` calls each, after `warm_up` calls of the loop alone."""
        self.calls, self._left = calls, warm_up
        self._since: tuple[float, float] | None = None
        self.bare, self.loop = list[float](), list[float]()
        self.bare_cpu, self.loop_cpu = list[float](), list[float]()

    def before(self, watch: Watch, state: Any, batch: Any) -> None:
        """To be called before each call of the loop."""
        import jax

        self._left -= 1
        if self._left >= 0:
            return
        self._left = self.calls - 1
        jax.block_until_ready(state)
        if self._since is not None:
            wall, cpu = self._since
            self.loop.append(time.perf_counter() - wall)
            self.loop_cpu.append(time.process_time() - cpu)
        bare = BareStep.beside(watch, jax.tree.map(lambda x: x.copy(), state), batch)
        jax.block_until_ready(bare.state)
        sample = clocked(lambda: bare.run(self.calls), images=0)
        self.bare.append(sample.seconds)
        self.bare_cpu.append(sample.cpu_seconds)
        self._since = time.perf_counter(), time.process_time()


@contextlib.contextmanager
def watching(alternation: Alternation | None = None) -> Iterator[Watch]:
    """Watches the next `jaxmnist.train` in this thread."""
    importlib.import_module("jaxmnist.runs.train")  # only what is there can be watched
    watch = Watch()

    def watched_step(make: Any) -> Any:
        def make_watched(task: Any, mesh: Any, **kwargs: Any) -> Any:
            watch.mesh, watch.step = mesh, make(task, mesh, **kwargs)
            step = watch.step

            def call(state: Any, batch: Any) -> Any:
                if alternation is not None:
                    alternation.before(watch, state, batch)
                watch.entries.append((time.perf_counter(), time.process_time()))
                if len(watch.batches) < 3:
                    watch.batches.append(batch)
                return step(state, batch)

            return dataclasses.replace(step, call=call)

        return make_watched

    def watched_batches(placed: Any) -> Any:
        def batches(*args: Any, **kwargs: Any) -> Any:
            waits: list[float] = []
            watch.all_waits.append(waits)
            with contextlib.closing(placed(*args, **kwargs)) as inner:
                start = time.perf_counter()
                for batch in inner:
                    waits.append(time.perf_counter() - start)
                    yield batch
                    start = time.perf_counter()

        return batches

    with contextlib.ExitStack() as stack:
        wrappers = {"make_train_step": watched_step, "train_batches": watched_batches}
        for name, module in list(sys.modules.items()):
            for attribute, wrap in wrappers.items():
                if name.startswith("jaxmnist.runs.") and hasattr(module, attribute):
                    patch = mock.patch.object(module, attribute, wrap(getattr(module, attribute)))
                    stack.enter_context(patch)
        yield watch
    if watch.step is None:
        raise RuntimeError("no train step was made: is jaxmnist.runs.train still the loop?")


@dataclass
class LoopRun:
    """One run of the real loop.

    Attributes:
      result: what `jaxmnist.train` returned.
      watch: what was seen.
    """

    result: Any
    watch: Watch

    @property
    def sample(self) -> Sample:
        """Images, and seconds of training with the input pipeline; compiling is outside."""
        train = self.result.train
        return Sample(train.examples, train.seconds, self.watch.cores * train.seconds)


def run_loop(
    config: Any, *, dataset: Any, alternation: Alternation | None = None, **parts: Any
) -> LoopRun:
    """Runs `jaxmnist.train` in a directory that is thrown away."""
    import jaxmnist

    with tempfile.TemporaryDirectory() as folder, watching(alternation) as watch:
        result = jaxmnist.train(config, f"{folder}/run", dataset=dataset, quiet=True, **parts)
    return LoopRun(result, watch)


@dataclass
class BareStep:
    """A compiled step with a batch on the devices; calling it is all that is timed.

    Attributes:
      step: the train step.
      state: its state, consumed and replaced by each call.
      batch: the batch of every call.
      images: trained on by one call.
      in_flight: how many calls may be under way, as in the loop.
      compile_seconds: what `jaxmnist.train` took to compile.
    """

    step: Any
    state: Any
    batch: Any
    images: int
    in_flight: int
    compile_seconds: float

    @classmethod
    def of(cls, run: LoopRun, *, batch_size: int) -> "BareStep":
        """The step of a run, which goes on from where the run ended."""
        import jax

        from jaxmnist.mesh import in_flight_limit

        state = run.result.state
        bare = cls(
            step=run.watch.step,
            state=state,
            batch=run.watch.batch,
            images=batch_size,
            in_flight=in_flight_limit(run.watch.mesh),
            compile_seconds=run.result.train.compile_seconds,
        )
        before = int(jax.device_get(state.step))
        bare.run(1)
        bare.images = batch_size * (int(jax.device_get(bare.state.step)) - before)
        return bare

    @classmethod
    def beside(cls, watch: Watch, state: Any, batch: Any) -> "BareStep":
        """The step of a run that is under way, with a state of its own."""
        from jaxmnist.mesh import in_flight_limit

        limit = in_flight_limit(watch.mesh)
        return cls(watch.step, state, batch, images=0, in_flight=limit, compile_seconds=0.0)

    @classmethod
    def captured(
        cls, overrides: Mapping[str, Any], *, dataset: Any, steps_per_call: int = 1
    ) -> "BareStep":
        """The step of a short run with these keys set.

        Raises:
          jaxmnist.errors.ConfigError: the library refuses the combination.
        """
        keys = JUST_TRAIN | {"log.every": _NEVER, "train.steps": 3 * steps_per_call}
        config = configured(keys | overrides | {"train.steps_per_call": steps_per_call})
        # A line is due at the first step, which makes a short call; one of the next two is full.
        run = run_loop(config, dataset=dataset)
        return cls.of(run, batch_size=config.batch_size)

    def run(self, calls: int) -> None:
        """Makes so many calls and waits until all is done."""
        import jax

        under_way: deque[Any] = deque()
        for _ in range(calls):
            self.state, sums = self.step(self.state, self.batch)
            under_way.append(sums)
            if len(under_way) > self.in_flight:
                jax.block_until_ready(under_way.popleft())
        jax.block_until_ready((self.state, under_way))

    def timed(self, seconds: float) -> Any:
        """A function that times about so many seconds of calls; it warms up here."""
        self.run(2)
        one_call = clocked(lambda: self.run(2), images=0).seconds / 2
        calls = calls_for(seconds, one_call=one_call)
        return lambda: clocked(lambda: self.run(calls), images=calls * self.images)
