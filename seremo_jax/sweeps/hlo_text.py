"""What a compiled program does, read from its text: kernels, loops, collectives, matrix products, padded arrays.

XLA prints the optimised module of any device, also of one that is not there (`compiled.as_text()`). The counts follow
the calls from the entry computation, and what stands in a loop counts once a trip, so nested loops multiply.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-$]+) \(.*\{$")
_OPERANDS = re.compile(r"%?([A-Za-z_][\w.\-$]*)\s*(?=,|$)")
"""Names in a list, each at its end: types may stand before them."""
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_LAID_OUT = re.compile(r"\b[a-z]+\d*\w*\[([\d,]+)\]\{([\d,]+):T\(([\d,]+)\)([^}]*)\}")
"""An array in tiles: sizes, axes from the fastest on, sizes of a tile, and the rest, with its memory where that is not
the main one."""
_TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
_CALLED = re.compile(r"\b(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-$]+)")
_LISTED = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_BITS = re.compile(r"\d+")

_COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier",
    "optimization-barrier", "add-dependency", "domain", "get-dimension-size",
}  # fmt: skip
_FREE_CUSTOM_CALLS = {"AllocateBuffer", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "CreateBuffer"}
_SAME_VALUE = {"copy", "bitcast", "convert", "reshape"}
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
    """Matrix products and convolutions of one kind of operands and result, such as `bf16`: how often they run."""

    operands: tuple[str, ...]
    result: str
    num_runs: int


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
      padded: Arrays that are kept between kernels in whole tiles and do not fill them, the largest loss first.
    """

    kernels: int
    loops: tuple[Loop, ...]
    command_buffers: tuple[CommandBuffer, ...]
    collectives: tuple[Collective, ...]
    products: tuple[Product, ...]
    padded: tuple[Padded, ...]

    @property
    def loops_of_unknown_trips(self) -> tuple[str, ...]:
        """Names of the loops that were counted with one trip for want of a number."""
        return tuple(loop.name for loop in self.loops if loop.num_trips is None)


class _Instruction(NamedTuple):
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool


_Computation = Mapping[str, _Instruction]


def read(text: str) -> Program:
    """Counts of the program that this text describes.

    Args:
      text: Optimised HLO of one module, as `jax.stages.Compiled.as_text` gives it.

    Raises:
      ValueError: The text has no entry computation.
    """
    computations, entry = _computations(text)
    if entry is None:
        raise ValueError(
            "the text of a compiled program has no ENTRY computation; give the whole of compiled.as_text()"
        )
    count = _Count(computations)
    kernels = count.computation(entry, 1)
    return Program(
        kernels,
        tuple(count.loops),
        tuple(count.command_buffers),
        tuple(Collective(kind, *numbers) for kind, numbers in sorted(count.collectives.items())),
        tuple(Product(*key, number) for key, number in sorted(count.products.items())),
        tuple(sorted(count.padded.values(), key=lambda array: (array.num_bytes - array.held_bytes, array.type))),
    )


def num_bytes(type_: str) -> int:
    """Bytes of the arrays in a type as HLO writes it, `(f32[16,256]{1,0}, s32[])` for example, without padding."""
    total_bits = 0
    for name, sizes in _ARRAY.findall(type_):
        bits = _BITS.search(name)
        size = math.prod(int(size) for size in sizes.split(",") if size)
        total_bits += size * (int(bits.group()) if bits else 8 if name == "pred" else 0)
    return -(-total_bits // 8)


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
        held = num_bytes(f"{match.group().partition('[')[0]}[{','.join(map(str, sizes))}]")
        arrays.append(Padded(match.group(), num_bytes(match.group()), held))
    return arrays


class _Count:
    """The walk from a computation through what it calls."""

    def __init__(self, computations: Mapping[str, _Computation]):
        self._computations = computations
        self.loops: list[Loop] = []
        self.command_buffers: list[CommandBuffer] = []
        self.collectives: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
        self.products: collections.Counter[tuple[tuple[str, ...], str]] = collections.Counter()
        self.padded: dict[str, Padded] = {}

    def computation(self, name: str, num_runs: int, is_fused: bool = False) -> int:
        """Kernels of one run of a computation, which the program runs `num_runs` times."""
        inside = self._computations[name]
        if not is_fused:
            arrays = [array for instruction in inside.values() for array in tiled(instruction.type)]
            self.padded |= {array.type: array for array in arrays if array.held_bytes > array.num_bytes}
        return sum(self._instruction(instruction, inside, num_runs, is_fused) for instruction in inside.values())

    def _instruction(self, instruction: _Instruction, inside: _Computation, num_runs: int, is_fused: bool) -> int:
        opcode, attributes = instruction.opcode, instruction.attributes
        if opcode in _FREE or opcode.endswith(("-done", "-update")):
            return 0
        opcode = opcode.removesuffix("-start")
        if opcode == "while":
            return self._loop(instruction, inside, num_runs)
        called = _CALLED.findall(attributes)
        called += [name for names in _LISTED.findall(attributes) for name in _OPERANDS.findall(names)]
        if opcode in ("call", "async"):
            return sum(self._call(name, num_runs) for name in called)
        if opcode == "conditional":
            return max(self.computation(name, num_runs) for name in called)
        self._note(opcode, instruction, inside, num_runs)
        if opcode == "fusion":
            for name in called:
                self.computation(name, num_runs, is_fused=True)
        is_free = opcode == "custom-call" and _attribute(instruction, "custom_call_target") in _FREE_CUSTOM_CALLS
        return 0 if is_fused or is_free else 1

    def _loop(self, instruction: _Instruction, inside: _Computation, num_runs: int) -> int:
        place, num_trips = len(self.loops), _num_trips(instruction, inside, self._computations)
        factor = 1 if num_trips is None else num_trips
        # Its place among the loops is taken before those inside it take theirs.
        self.loops.append(Loop(instruction.name, num_trips, 0, num_runs))
        kernels = self.computation(_attribute(instruction, "body"), num_runs * factor)
        self.loops[place] = self.loops[place]._replace(kernels=kernels)
        return kernels * factor

    def _call(self, name: str, num_runs: int) -> int:
        kernels = self.computation(name, num_runs)
        if not name.startswith(_COMMAND_BUFFER):
            return kernels
        self.command_buffers.append(CommandBuffer(name, kernels, num_runs))
        return 1

    def _note(self, opcode: str, instruction: _Instruction, inside: _Computation, num_runs: int) -> None:
        types = [inside[name].type for name in instruction.operands if name in inside]
        if opcode in _COLLECTIVES:
            self.collectives[opcode][0] += num_runs
            self.collectives[opcode][1] += num_runs * sum(map(num_bytes, types))
        target = _attribute(instruction, "custom_call_target") if opcode == "custom-call" else ""
        if opcode in ("dot", "convolution") or target.startswith(("__cublas", "__cudnn$conv")):
            operands = tuple(_ARRAY.search(type_).group(1) for type_ in types[:2])
            self.products[operands, _ARRAY.search(instruction.type).group(1)] += num_runs


def _computations(text: str) -> tuple[dict[str, dict[str, _Instruction]], str | None]:
    """The computations by name, their instructions by name, and the name of the entry."""
    computations, entry, inside = {}, None, None
    for line in text.splitlines():
        if not line.startswith(" "):
            header = _HEADER.match(line)
            inside = computations.setdefault(header.group(2), {}) if header else None
            entry = header.group(2) if header and header.group(1) else entry
        elif inside is not None and " = " in line:
            instruction = _instruction(line.strip())
            inside[instruction.name] = instruction
    return computations, entry


def _instruction(line: str) -> _Instruction:
    """`ROOT %name = type opcode(operands), attributes`; types and operands may have parentheses inside."""
    name, rest = line.removeprefix("ROOT ").split(" = ", 1)
    stop = _stop(rest, 0) if rest.startswith("(") else rest.index(" ")
    type_, rest = rest[:stop], rest[stop:].lstrip()
    opening = rest.index("(")
    stop = _stop(rest, opening)
    arguments, attributes = rest[opening + 1 : stop - 1], rest[stop:]
    # Operands may be written with their types before their names.
    operands = tuple(_OPERANDS.findall(arguments))
    return _Instruction(
        name.lstrip("%"), type_, rest[:opening], operands, arguments, attributes, line.startswith("ROOT ")
    )


def _stop(text: str, opening: int) -> int:
    """Position behind the parenthesis that closes the one at `opening`."""
    depth = 0
    for position in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if not depth:
            return position + 1
    raise ValueError(f"a line of the compiled program has no closing parenthesis: {text[:80]}")


def _attribute(instruction: _Instruction, name: str) -> str:
    match = re.search(rf'\b{name}=[%"]?([^,"\s}}]+)', instruction.attributes)
    return match.group(1) if match else ""


def _num_trips(loop: _Instruction, inside: _Computation, computations: Mapping[str, _Computation]) -> int | None:
    """Trips of a while loop: the compiler's number, else that of a counter from 0 by steps of 1 to below a constant."""
    if known := _TRIPS.search(loop.attributes):
        return int(known.group(1))
    condition, body = (computations[_attribute(loop, name)] for name in ("condition", "body"))
    initial = inside.get(loop.operands[0])
    test, new = _root(condition), _root(body)
    if test.opcode != "compare" or _attribute(test, "direction") != "LT" or new.opcode != "tuple":
        return None
    place, limit = _element(test.operands[0], condition), _constant(test.operands[1], condition)
    if place is None or limit is None or initial is None or initial.opcode != "tuple":
        return None
    step = body[new.operands[place]]
    counts = (
        step.opcode == "add" and _element(step.operands[0], body) == place and _constant(step.operands[1], body) == 1
    )
    return limit if counts and _constant(initial.operands[place], inside) == 0 else None


def _root(computation: _Computation) -> _Instruction:
    return next(instruction for instruction in computation.values() if instruction.is_root)


def _value(name: str, computation: _Computation) -> _Instruction:
    """The instruction that a value comes from, through copies of it."""
    instruction = computation[name]
    while instruction.opcode in _SAME_VALUE:
        instruction = computation[instruction.operands[0]]
    return instruction


def _constant(name: str, computation: _Computation) -> int | None:
    value = _value(name, computation)
    return int(value.arguments) if value.opcode == "constant" and value.arguments.isdigit() else None


def _element(name: str, computation: _Computation) -> int | None:
    """Number of the element of the loop's state that a value is."""
    value = _value(name, computation)
    return int(_attribute(value, "index")) if value.opcode == "get-tuple-element" else None
