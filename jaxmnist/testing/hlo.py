"""Counts the collectives of a compiled program, loops multiplied in, from its HLO text."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxmnist.errors import UsageError

_KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_COMPUTATION = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s.*\{\s*$")
# Shape, opcode, rest. A tuple shape holds spaces, and a TPU layout such as {1,0:T(8,128)} brackets,
# but only the opcode is a word between a space and a bracket.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT\s+)?%?[\w.\-]+ = (.*?) ([a-z][\w\-]*)(\(.*)$")
_REFERENCE = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation|branch_computations"
    r"|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_ARRAY = re.compile(r"\b([a-z]+(\d*)[a-z0-9]*)\[([\d,<=]*)\]")


class HasText(Protocol):
    """A program that can show its text: `jax.stages.Compiled`, or `Lowered` (compiled first)."""

    def as_text(self) -> str | None:
        """The program's text."""


Program = str | HasText | Sequence[str | HasText]


@dataclass(frozen=True)
class Collective:
    """One collective instruction of a compiled program.

    Attributes:
      kind: such as "all-reduce"; an asynchronous pair counts once, under the same name.
      bytes: size of its result on one device, for one execution.
      count: executions in one call of the program; None where a loop's trip count is not known.
      in_loop: whether it lies in a loop.
      computation: name of the HLO computation that holds it.
    """

    kind: str
    bytes: int
    count: int | None
    in_loop: bool
    computation: str


def audit(program: Program, *, unknown_trips: int | None = None) -> list[Collective]:
    """Lists the collectives that one call of a program executes, from its compiled HLO.

    Computations reached by calls, fusions, loops and conditionals are walked into; both branches
    of a conditional are counted.

    Args:
      program: compiled, lowered (it is compiled here), HLO text, or a list of these that together
        are one step.
      unknown_trips: the trip count to take for loops whose count is decided at run time (a loop
        over steps, say, of which one is audited); by default their count is None.

    Raises:
      UsageError: the text is not that of a compiled program.
    """
    if isinstance(program, str):
        return _audit_text(program, unknown_trips)
    if isinstance(program, Sequence):
        return [found for part in program for found in audit(part, unknown_trips=unknown_trips)]
    compiled = program.compile() if hasattr(program, "compile") else program
    return _audit_text(compiled.as_text() or "", unknown_trips)


def _audit_text(text: str, unknown_trips: int | None) -> list[Collective]:
    computations: dict[str, list[tuple[str, str, str]]] = {}
    entry = name = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            name = header[2]
            computations[name] = []
            entry = name if header[1] else entry
        elif name and (found := _INSTRUCTION.match(line)):
            computations[name].append((found[1], found[2], found[3]))
    if not entry:
        raise UsageError(
            f"the text that starts with {text[:40]!r} is no compiled HLO: pass "
            "jax.jit(step).lower(...).compile()"
        )

    def walk(name: str, count: int | None, in_loop: bool) -> Iterator[Collective]:
        for shape, opcode, rest in computations.get(name, []):
            kind = opcode.removesuffix("-start")
            if kind in _KINDS:
                yield Collective(kind, _result_bytes(shape, opcode), count, in_loop, name)
            elif not opcode.endswith(("-done", "-update")):  # their start has been counted
                trips = _trips(rest, unknown_trips) if opcode == "while" else 1
                for role, targets in _REFERENCE.findall(rest):
                    times = trips + 1 if trips is not None and role == "condition" else trips
                    inner = None if count is None or times is None else count * times
                    for target in re.findall(r"[\w.\-]+", targets):
                        yield from walk(target, inner, in_loop or opcode == "while")

    return list(walk(entry, 1, False))


def _trips(text: str, unknown_trips: int | None) -> int | None:
    known = _TRIP_COUNT.search(text)
    return int(known[1]) if known else unknown_trips


def _result_bytes(shape: str, opcode: str) -> int:
    # Except for all-reduce, the shape of a start is (operands, results, ...).
    if opcode.endswith("-start") and opcode != "all-reduce-start":
        shape = (*_elements(shape), shape)[1]
    return sum(_array_bytes(*array) for array in _ARRAY.findall(shape))


def _elements(shape: str) -> list[str]:
    """Splits a tuple shape at its outer commas."""
    parts, depth = [""], 0
    for letter in shape[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _array_bytes(dtype: str, bits: str, dimensions: str) -> int:
    size = math.prod(int(part) for part in dimensions.replace("<=", "").split(",") if part)
    width = 8 if dtype == "pred" else int(bits or 0)
    return math.ceil(size * width / 8)
