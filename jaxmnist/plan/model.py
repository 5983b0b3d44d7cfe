"""The model: seconds of a step from FLOPs, bytes and published rates. Nothing here is measured.

A chip takes the longer of its arithmetic and its memory traffic; then, since the one all-reduce
needs the finished gradient, the all-reduce is added:

    t(b, n) = max((F₀ + F·b) / peak, (M₀ + M·b) / memory rate) + r(n)

for b rows a chip on n chips. F₀ + F·b FLOPs and M₀ + M·b bytes go through what is counted in the
compiled program. An all-reduce of S bytes over n chips with links of rate w:

    r(n) = 2·S·(n−1)/n / (w·directions) + 2·hops·latency

A ring of d chips gives two directions and ⌊d/2⌋ hops, a line one direction and d−1 hops; axes add
up. Between m slices each chip exchanges its n-th part of S over the outer network, in ⌈log₂ m⌉
hops.
"""

import math
from dataclasses import dataclass

from jaxmnist.plan.chips import Topology

# Communication no longer matters where it takes at most this share of a step.
SHARE = 0.1


@dataclass(frozen=True)
class Work:
    """Seconds of one chip in a step, two straight lines in its rows: (without rows, of a row).

    Attributes:
      compute: of its arithmetic.
      memory: of its memory traffic.
    """

    compute: tuple[float, float]
    memory: tuple[float, float]

    def parts(self, rows: float) -> tuple[float, float]:
        """Seconds of the arithmetic and of the memory traffic."""
        compute, memory = (fixed + slope * rows for fixed, slope in (self.compute, self.memory))
        return compute, memory

    def rows_for(self, seconds: float) -> int:
        """The fewest rows that keep the chip busy for that long."""
        lines = (self.compute, self.memory)
        return max(1, math.ceil(min((seconds - fixed) / slope for fixed, slope in lines)))


def line(value: float, *, rows: int, slope: float) -> tuple[float, float]:
    """The line through a point as (without rows, of a row), both kept above zero."""
    slope = min(max(slope, 1e-9 * value / rows), value / rows)
    return value - slope * rows, slope


@dataclass(frozen=True)
class Prediction:
    """A step on some chips by the model.

    Attributes:
      topology: the chips.
      chips: how many.
      compute_seconds: of a chip's arithmetic.
      memory_seconds: of its memory traffic.
      all_reduce_seconds: of the communication.
      step_seconds: the longer of the first two, and the third.
      images_per_second: of all chips.
      weak_efficiency: against one chip with as many rows as each of these.
      strong_efficiency: of the planned global batch shared out, against one chip with all of it;
        None where it cannot be shared equally.
      batch_size: the smallest global batch that spends at most `SHARE` in the all-reduce.
    """

    topology: str
    chips: int
    compute_seconds: float
    memory_seconds: float
    all_reduce_seconds: float
    step_seconds: float
    images_per_second: float
    weak_efficiency: float
    strong_efficiency: float | None
    batch_size: int


def all_reduce_seconds(topology: Topology, size: float) -> float:
    """Seconds of one all-reduce of `size` bytes over all chips of the topology."""
    chip, inner, slices = topology.chip, math.prod(topology.shape), topology.slices
    axes = [axis for axis in zip(topology.shape, topology.rings, strict=True) if axis[0] > 1]
    seconds = 0.0
    if axes:
        rate = chip.link_rate * sum(2 if ring else 1 for _, ring in axes)
        hops = sum(length // 2 if ring else length - 1 for length, ring in axes)
        seconds += 2 * size * (inner - 1) / inner / rate + 2 * hops * chip.hop_seconds
    if slices > 1:
        seconds += 2 * size / inner * (slices - 1) / slices / chip.outer_rate
        seconds += 2 * math.ceil(math.log2(slices)) * chip.outer_hop_seconds
    return seconds


def predict(
    topology: Topology, work: Work, *, rows: int, batch_size: int, size: float
) -> Prediction:
    """Predicts a step of `rows` rows a chip whose all-reduce has `size` bytes.

    Args:
      topology: the chips.
      work: of one chip.
      rows: on each chip.
      batch_size: the global batch that strong scaling shares out.
      size: bytes of the all-reduce.
    """
    n, reduce = topology.chips, all_reduce_seconds(topology, size)
    parts = work.parts(rows)
    step = max(parts) + reduce
    alone, shared = (max(work.parts(batch_size / count)) for count in (1, n))
    strong = None if batch_size % n else alone / (n * (shared + reduce))
    enough = n * work.rows_for(reduce * (1 - SHARE) / SHARE)
    rates = (n * rows / step, max(parts) / step)
    return Prediction(str(topology), n, *parts, reduce, step, *rates, strong, enough)
