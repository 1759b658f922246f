"""What a compiled program does, read from its text: kernels, loops, collectives, matrix products, padded arrays.

XLA prints the optimised module of any device, also of one that is not there (`compiled.as_text()`). The counts follow
the calls from the entry computation, and what stands in a loop counts once a trip, so nested loops multiply.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import NamedTuple

from seremo_jax.sweeps import hlo, hlo_products

_LAID_OUT = re.compile(r"\b[a-z]+\d*\w*\[([\d,]+)\]\{([\d,]+):T\(([\d,]+)\)([^}]*)\}")
"""An array in tiles: sizes, axes from the fastest on, sizes of a tile, and the rest, with its memory where that is not
the main one."""
_COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
_COMMAND_BUFFER = "command_buffer"
_ELSEWHERE = "S("
"""Marks arrays that lie in a memory on the chip."""


class Loop(NamedTuple):
    """A while loop.

    Attributes:
      name: Name of the instruction.
      num_trips: Trips each time that the loop runs; None where neither the compiler nor the condition tells.
      kernels: Kernels a trip, those of loops inside it multiplied by their trips.
      num_runs: How often the program runs the loop.
    """

    name: str
    num_trips: int | None
    kernels: int
    num_runs: int


class CommandBuffer(NamedTuple):
    """Kernels that are launched together, as one CUDA graph: their number, and how often it runs."""

    name: str
    kernels: int
    num_runs: int


class Collective(NamedTuple):
    """Collectives of one kind: how often they run, and the bytes that each device puts in, in all runs together."""

    kind: str
    num_runs: int
    num_bytes: int


class Product(NamedTuple):
    """Matrix products and convolutions of one kind.

    Attributes:
      operands: Types of the operands, such as `bf16`.
      result: Type of the result.
      num_runs: How often they run.
      flops: Operations of all runs together. A multiplication and an addition are two.
      precision: `high` or `highest` where the program asks for more than the device does by itself.
    """

    operands: tuple[str, ...]
    result: str
    num_runs: int
    flops: int = 0
    precision: str = ""

    @property
    def name(self) -> str:
        """The kind, as `bf16 x bf16 -> f32`."""
        return f"{' x '.join(self.operands)} -> {self.result}" + (f" ({self.precision})" if self.precision else "")

    @property
    def is_bfloat16(self) -> bool:
        """Whether it multiplies in bfloat16: a device rounds the other operand where only one is written so."""
        return "bf16" in self.operands and not self.precision


class Padded(NamedTuple):
    """Arrays of one type in the main memory of a TPU, whose tiles reach beyond them.

    Attributes:
      type: Their type with its layout, such as `f32[600,14,6]{2,1,0:T(8,128)}`.
      num_bytes: Bytes of the numbers of one.
      held_bytes: Bytes that it takes in whole tiles.
    """

    type: str
    num_bytes: int
    held_bytes: int


@dataclasses.dataclass(frozen=True)
class Program:
    """Counts of one run of a compiled program on one device.

    Attributes:
      kernels: Kernels launched. One each: a fusion (a constant that is only filled in is one, too), a custom call such
        as a product by cuBLAS, a copy, a collective, a command buffer as a whole, and every other instruction that
        computes an array by itself. Nothing counts for parameters, constants, tuples, bitcasts, and the second half of
        what starts and ends by two instructions. Of the branches of a condition the largest counts. A loop of unknown
        trips counts with one trip. The condition of a loop is not counted: a GPU does not compute it where it knows
        the trips.
      loops: The loops, outer ones first.
      command_buffers: Those that the text shows. Where the runtime makes them after the text, there are none here.
      collectives: Collectives by kind.
      products: Matrix products and convolutions by the types of operands and result, inside fusions, too.
      called_flops: Operations of those products that a library computes, which XLA does not count.
      padded: Arrays that are kept between kernels in whole tiles and do not fill them, the largest loss first.
    """

    kernels: int
    loops: tuple[Loop, ...]
    command_buffers: tuple[CommandBuffer, ...]
    collectives: tuple[Collective, ...]
    products: tuple[Product, ...]
    called_flops: int
    padded: tuple[Padded, ...]

    @property
    def loops_of_unknown_trips(self) -> tuple[str, ...]:
        """Names of the loops that were counted with one trip for want of a number."""
        return tuple(loop.name for loop in self.loops if loop.num_trips is None)


def read(text: str) -> Program:
    """Counts of the program that this text describes.

    Args:
      text: Optimised HLO of one module, as `jax.stages.Compiled.as_text` gives it.

    Raises:
      ValueError: The text has no entry computation.
    """
    computations, entry = hlo.computations_of(text)
    count = _Count(computations)
    kernels = count.computation(entry, 1)
    return Program(
        kernels,
        tuple(count.loops),
        tuple(count.command_buffers),
        tuple(Collective(kind, *numbers) for kind, numbers in sorted(count.collectives.items())),
        tuple(Product(*key[:2], *numbers, key[2]) for key, numbers in sorted(count.products.items())),
        count.called_flops,
        tuple(sorted(count.padded.values(), key=lambda array: (array.num_bytes - array.held_bytes, array.type))),
    )


def tiled(type_: str) -> list[Padded]:
    """The arrays in a type that lie in tiles in the main memory, with the bytes that they have and take."""
    arrays = []
    for match in _LAID_OUT.finditer(type_):
        sizes, axes, tile = ([int(number) for number in match.group(i).split(",")] for i in (1, 2, 3))
        if _ELSEWHERE in match.group(4):
            continue
        # The sizes of a tile are those of the fastest axes. Tiles inside tiles are filled by the same numbers.
        for size, axis in zip(reversed(tile), axes, strict=False):
            sizes[axis] = -(-sizes[axis] // size) * size
        held = hlo.num_bytes(f"{match.group().partition('[')[0]}[{','.join(map(str, sizes))}]")
        arrays.append(Padded(match.group(), hlo.num_bytes(match.group()), held))
    return arrays


class _Count:
    """The walk from a computation through what it calls."""

    def __init__(self, computations: Mapping[str, hlo.Computation]):
        self._computations = computations
        self.loops: list[Loop] = []
        self.command_buffers: list[CommandBuffer] = []
        self.collectives: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
        self.products: dict[tuple[tuple[str, ...], str, str], list[int]] = collections.defaultdict(lambda: [0, 0])
        self.called_flops = 0
        self.padded: dict[str, Padded] = {}

    def computation(self, name: str, num_runs: int, is_fused: bool = False) -> int:
        """Kernels of one run of a computation, which the program runs `num_runs` times."""
        inside = self._computations[name]
        if not is_fused:
            arrays = [array for instruction in inside.values() for array in tiled(instruction.type)]
            self.padded |= {array.type: array for array in arrays if array.held_bytes > array.num_bytes}
        return sum(self._instruction(instruction, inside, num_runs, is_fused) for instruction in inside.values())

    def _instruction(self, instruction: hlo.Instruction, inside: hlo.Computation, num_runs: int, is_fused: bool) -> int:
        opcode = instruction.opcode
        if opcode in hlo.FREE or opcode.endswith(("-done", "-update")):
            return 0
        opcode = opcode.removesuffix("-start")
        if opcode == "while":
            return self._loop(instruction, inside, num_runs)
        called = hlo.called(instruction)
        if opcode in ("call", "async"):
            return sum(self._call(name, num_runs) for name in called)
        if opcode == "conditional":
            return max(self.computation(name, num_runs) for name in called)
        self._note(opcode, instruction, inside, num_runs)
        if opcode == "fusion":
            for name in called:
                self.computation(name, num_runs, is_fused=True)
        return 0 if is_fused or hlo.is_free_call(instruction) else 1

    def _loop(self, instruction: hlo.Instruction, inside: hlo.Computation, num_runs: int) -> int:
        place, num_trips = len(self.loops), hlo.num_trips(instruction, inside, self._computations)
        factor = 1 if num_trips is None else num_trips
        # Its place among the loops is taken before those inside it take theirs.
        self.loops.append(Loop(instruction.name, num_trips, 0, num_runs))
        kernels = self.computation(hlo.attribute(instruction, "body"), num_runs * factor)
        self.loops[place] = self.loops[place]._replace(kernels=kernels)
        return kernels * factor

    def _call(self, name: str, num_runs: int) -> int:
        kernels = self.computation(name, num_runs)
        if not name.startswith(_COMMAND_BUFFER):
            return kernels
        self.command_buffers.append(CommandBuffer(name, kernels, num_runs))
        return 1

    def _note(self, opcode: str, instruction: hlo.Instruction, inside: hlo.Computation, num_runs: int) -> None:
        types = [inside[name].type for name in instruction.operands if name in inside]
        if opcode in _COLLECTIVES:
            self.collectives[opcode][0] += num_runs
            self.collectives[opcode][1] += num_runs * sum(map(hlo.num_bytes, types))
        if hlo_products.is_product(instruction):
            operands = tuple(hlo.arrays(type_)[0].dtype for type_ in types[:2])
            key = (operands, hlo.arrays(instruction.type)[0].dtype, hlo_products.precision(instruction))
            num_flops = num_runs * hlo_products.flops(instruction, types)
            self.products[key][0] += num_runs
            self.products[key][1] += num_flops
            self.called_flops += num_flops * hlo_products.is_call(instruction)
