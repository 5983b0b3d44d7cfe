"""Published figures of chips and their networks, each with its source, and what a topology is."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jaxmnist.config import did_you_mean
from jaxmnist.errors import UsageError


@dataclass(frozen=True)
class Chip:
    """What is published of one chip; rates in units a second, in one direction.

    Attributes:
      name: as it is sold.
      flops: dense peak FLOP/s of matrix products, by dtype, or by precision of float32.
      sources: where the figures are published, and what is assumed.
      memory_bytes: capacity of its main memory.
      memory_rate: bytes/s of its main memory.
      link_rate: bytes/s of a link to one neighbour, or of all links to a switch.
      axes: axes of a slice, which is joined by such links; 1 for chips around a switch.
      slice_chips: chips in the largest slice.
      outer_rate: bytes/s, for one chip, of the network between slices.
      hop_seconds: latency of a hop over a link.
      outer_hop_seconds: latency of a hop between slices.
    """

    name: str
    flops: Mapping[str, float]
    sources: Sequence[str]
    memory_bytes: float
    memory_rate: float
    link_rate: float
    axes: int
    slice_chips: int
    outer_rate: float
    hop_seconds: float = 1e-6
    outer_hop_seconds: float = 20e-6


def _tpu(name: str, peak: float, *figures: Any) -> Chip:
    # A product of float32 matrices takes 1, 3 or 6 passes over bfloat16 parts of them.
    flops = {"bfloat16": peak, "default": peak, "high": peak / 3, "highest": peak / 6}
    book = "https://jax-ml.github.io/scaling-book"
    sources = (
        f"https://docs.cloud.google.com/tpu/docs/{name}",
        f"{book}/tpus/ (links, rings, network of a host) and {book}/sharding/ (latency of a hop)",
        "https://docs.jax.dev/en/latest/201/precision.html (passes over bfloat16 parts)",
        "assumed, not published: a hop between slices takes 20 µs",
    )
    return Chip(f"TPU {name}", flops, sources, *figures)


_H100_FLOPS: Final = {"bfloat16": 989e12, "default": 494e12, "high": 494e12, "highest": 67e12}
_H100_RATES: Final = (80e9, 3350e9, 450e9, 1, 8, 400e9 / 8, 1.9e-6, 4e-6)
_H100_SOURCES: Final = (
    "https://www.nvidia.com/en-us/data-center/h100/ (FLOP/s with sparsity are halved)",
    "https://docs.nvidia.com/dgx/dgxh100-user-guide/ (400 Gb/s a GPU between nodes)",
    "https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc (latency: ring, LL128)",
)
CHIPS: Final[Mapping[str, Chip]] = {
    "v4": _tpu("v4", 275e12, 32 * 2**30, 1200e9, 45e9, 3, 4096, 25e9 / 4),
    "v5e": _tpu("v5e", 197e12, 16e9, 819e9, 45e9, 2, 256, 25e9 / 8),
    "v5p": _tpu("v5p", 459e12, 95 * 2**30, 2765e9, 90e9, 3, 6144, 50e9 / 8),
    "v6e": _tpu("v6e", 918e12, 32e9, 1638e9, 90e9, 2, 256, 100e9 / 8),
    "h100": Chip("NVIDIA H100 SXM", _H100_FLOPS, _H100_SOURCES, *_H100_RATES),
}


@dataclass(frozen=True)
class Topology:
    """Chips and how they are joined.

    Attributes:
      kind: a key of `CHIPS`.
      shape: chips along each axis of a slice.
      slices: number of slices.
    """

    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """The published figures of the chip."""
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """Number of chips in all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def rings(self) -> tuple[bool, ...]:
        """Which axes are rings: those of 16 chips in two dimensions, all of full cubes in three."""
        cubes = len(self.shape) == 3 and not any(length % 4 for length in self.shape)
        return tuple(cubes or (len(self.shape) == 2 and length == 16) for length in self.shape)

    def __str__(self) -> str:
        """The name that `parse_topology` reads, after the slices where there are several."""
        name = f"{self.kind}:{'x'.join(map(str, self.shape))}"
        return name if self.slices == 1 else f"{self.slices} × {name}"


def parse_topology(text: str) -> Topology:
    """Returns the topology of a name such as "v5e:16x16", "v5p:2x2x2" or "h100:8".

    Raises:
      UsageError: no such chip, or no such shape of it.
    """
    kind, _, lengths = text.partition(":")
    if kind not in CHIPS:
        known = f"choose one of {', '.join(CHIPS)}, as in v5e:16x16 or h100:8"
        raise UsageError(f"topology {text!r}: no chip {kind!r}{did_you_mean(kind, CHIPS)}; {known}")
    axes, most = CHIPS[kind].axes, CHIPS[kind].slice_chips
    numbers = re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3})*", lengths) and lengths.split("x")
    found = Topology(kind, tuple(int(number) for number in numbers or ()))
    if len(found.shape) != axes or found.chips > most:
        rule = f"the chips along {axes} axis or axes, together at most {most:,}"
        example = "8" if axes == 1 else "x".join("2" * axes)
        raise UsageError(f"topology {text!r}: give {rule}, as in {kind}:{example}")
    return found


def topology_of(kind: str, chips: int) -> Topology:
    """Returns the most cubic topology of a power of two of chips, in as few slices as can be."""
    inner = min(chips, 2 ** int(math.log2(CHIPS[kind].slice_chips)))
    shape = [1] * CHIPS[kind].axes
    while math.prod(shape) < inner:
        shape[shape.index(min(shape))] *= 2
    return Topology(kind, tuple(sorted(shape)), chips // inner)
