"""The text of a compiled program as data: its computations, their instructions, and what their types and loops say.

XLA prints the optimised module of any device, also of one that is not there (`compiled.as_text()`).
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-$]+) (?:\(.*)?\{$")
_OPERANDS = re.compile(r"%?([A-Za-z_][\w.\-$]*)\s*(?=,|$)")
"""Names in a list, each at its end: types may stand before them."""
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
_CALLED = re.compile(r"\b(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-$]+)")
_LISTED = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_BITS = re.compile(r"\d+")
_ELSEWHERE = "S("
"""Marks arrays that do not lie in the main memory, but in one on the chip for example."""

FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier",
    "optimization-barrier", "add-dependency", "domain", "get-dimension-size",
}  # fmt: skip
"""Instructions that compute no array."""
_FREE_CUSTOM_CALLS = {
    "AllocateBuffer", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "CreateBuffer", "ConcatBitcast",
}  # fmt: skip
_SAME_VALUE = {"copy", "bitcast", "convert", "reshape"}


class Array(NamedTuple):
    """An array in a type: the type of its numbers, its sizes, and whether it lies in the main memory."""

    dtype: str
    sizes: tuple[int, ...]
    is_in_main_memory: bool

    @property
    def num_elements(self) -> int:
        """Numbers in it."""
        return math.prod(self.sizes)

    @property
    def bits(self) -> int:
        """Bits of a number; 0 of what holds none."""
        bits = _BITS.search(self.dtype)
        return int(bits.group()) if bits else 8 if self.dtype == "pred" else 0


class Instruction(NamedTuple):
    """A line of a computation. `type` is as HLO writes it, `arguments` and `attributes` are the rest of the line."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool


Computation = Mapping[str, Instruction]
"""Instructions by name, operands before those that read them."""


def computations_of(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """The computations by name, their instructions by name, and the name of the entry.

    Args:
      text: Optimised HLO of one module, as `jax.stages.Compiled.as_text` gives it.

    Raises:
      ValueError: The text has no entry computation.
    """
    computations, entry, inside = {}, None, None
    for line in text.splitlines():
        if not line.startswith(" "):
            header = _HEADER.match(line)
            inside = computations.setdefault(header.group(2), {}) if header else None
            entry = header.group(2) if header and header.group(1) else entry
        elif inside is not None and " = " in line:
            instruction = _instruction(line.strip())
            inside[instruction.name] = instruction
    if entry is None:
        raise ValueError(
            "the text of a compiled program has no ENTRY computation; give the whole of compiled.as_text()"
        )
    return computations, entry


def arrays(type_: str) -> list[Array]:
    """The arrays in a type as HLO writes it, `(f32[16,256]{1,0}, s32[])` for example."""
    return [
        Array(name, tuple(int(size) for size in sizes.split(",") if size), _ELSEWHERE not in layout)
        for name, sizes, layout in _ARRAY.findall(type_)
    ]


def elements(type_: str) -> list[str]:
    """Types of the elements of a tuple type."""
    inside, parts, depth = type_[1:-1], [""], 0
    for character in inside:
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def num_bytes(type_: str) -> int:
    """Bytes of the arrays in a type, without padding."""
    return -(-sum(array.num_elements * array.bits for array in arrays(type_)) // 8)


def called(instruction: Instruction) -> list[str]:
    """Names of the computations that an instruction calls, those of a loop apart."""
    listed = _LISTED.findall(instruction.attributes)
    return _CALLED.findall(instruction.attributes) + [name for names in listed for name in _OPERANDS.findall(names)]


def is_free_call(instruction: Instruction) -> bool:
    """Whether it is a custom call that computes nothing."""
    return instruction.opcode == "custom-call" and attribute(instruction, "custom_call_target") in _FREE_CUSTOM_CALLS


def attribute(instruction: Instruction, name: str) -> str:
    """Value of an attribute; empty where the instruction has none of this name."""
    match = re.search(rf'\b{name}=[%"]?([^,"\s}}]+)', instruction.attributes)
    return match.group(1) if match else ""


def root(computation: Computation) -> Instruction:
    """The instruction whose value a computation gives."""
    return next(instruction for instruction in computation.values() if instruction.is_root)


def num_trips(loop: Instruction, inside: Computation, computations: Mapping[str, Computation]) -> int | None:
    """Trips of a while loop: the compiler's number, else that of a counter from 0 by steps of 1 to below a constant."""
    if known := _TRIPS.search(loop.attributes):
        return int(known.group(1))
    condition, body = (computations[attribute(loop, name)] for name in ("condition", "body"))
    initial = inside.get(loop.operands[0])
    test, new = root(condition), root(body)
    if test.opcode != "compare" or attribute(test, "direction") != "LT" or new.opcode != "tuple":
        return None
    place, limit = _element(test.operands[0], condition), _constant(test.operands[1], condition)
    if place is None or limit is None or initial is None or initial.opcode != "tuple":
        return None
    step = body[new.operands[place]]
    counts = (
        step.opcode == "add" and _element(step.operands[0], body) == place and _constant(step.operands[1], body) == 1
    )
    return limit if counts and _constant(initial.operands[place], inside) == 0 else None


def _instruction(line: str) -> Instruction:
    """`ROOT %name = type opcode(operands), attributes`; types and operands may have parentheses inside."""
    name, rest = line.removeprefix("ROOT ").split(" = ", 1)
    stop = _stop(rest, 0) if rest.startswith("(") else rest.index(" ")
    type_, rest = rest[:stop], rest[stop:].lstrip()
    opening = rest.index("(")
    stop = _stop(rest, opening)
    arguments, attributes = rest[opening + 1 : stop - 1], rest[stop:]
    # Operands may be written with their types before their names.
    operands = tuple(_OPERANDS.findall(arguments))
    return Instruction(
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


def _value(name: str, computation: Computation) -> Instruction:
    """The instruction that a value comes from, through copies of it."""
    instruction = computation[name]
    while instruction.opcode in _SAME_VALUE:
        instruction = computation[instruction.operands[0]]
    return instruction


def _constant(name: str, computation: Computation) -> int | None:
    value = _value(name, computation)
    return int(value.arguments) if value.opcode == "constant" and value.arguments.isdigit() else None


def _element(name: str, computation: Computation) -> int | None:
    """Number of the element of the loop's state that a value is."""
    value = _value(name, computation)
    return int(attribute(value, "index")) if value.opcode == "get-tuple-element" else None
