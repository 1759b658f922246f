"""Bytes that a compiled program moves between main memory and its kernels, read from the program's text.

A kernel reads each operand once and writes its result once. Of an operand that it only takes slices of, it reads these
slices. Where it sets slices of an array in place, it touches nothing else of that array. XLA's own cost analysis knows
this of slices that stand alone, but not of those behind a bitcast in a fusion, and then counts the whole of what a loop
fills once a trip. Arrays in a memory on the chip count nothing, but copies to and from there do.
"""

import collections
import functools
import math
from collections.abc import Mapping, Sequence

from seremo_jax.sweeps import hlo

_TAKES_PARTS = {"slice", "dynamic-slice", "gather"}
_SETS_PARTS = {"dynamic-update-slice", "scatter"}
_READS_ALL = {
    "dot", "convolution", "custom-call", "sort", "fft", "reduce-window", "select-and-scatter", "triangular-solve",
    "cholesky", "rng", "rng-bit-generator", "map", "all-reduce", "all-gather", "reduce-scatter", "all-to-all",
    "ragged-all-to-all", "collective-permute", "collective-broadcast",
}  # fmt: skip
_VIEWS = {"bitcast", "reshape"}
_WORKSPACE = ("u8", "s8")
"""Types of what a library works in, which stands behind its result."""


def moved_bytes(text: str) -> int:
    """Bytes read and written by one run on one device.

    A loop counts with its trips, one of unknown trips with one, and of the branches of a condition the one that moves
    most. Padding does not count, nor does what a cache keeps between two kernels.

    Args:
      text: Optimised HLO of one module, as `jax.stages.Compiled.as_text` gives it.

    Raises:
      ValueError: The text has no entry computation.

    Source: OURS.
    """
    computations, entry = hlo.computations_of(text)
    return -(-_Traffic(computations).bits(entry) // 8)


class _Traffic:
    """Bits that computations move, each computed once."""

    def __init__(self, computations: Mapping[str, hlo.Computation]):
        self._computations = computations
        self.bits = functools.cache(self._bits)
        self._fused = functools.cache(self._read_by)

    def _bits(self, name: str) -> int:
        inside = self._computations[name]
        return sum(self._moved(instruction, inside) for instruction in inside.values())

    def _moved(self, instruction: hlo.Instruction, inside: hlo.Computation) -> int:
        opcode = instruction.opcode
        if opcode in hlo.FREE or opcode.endswith(("-done", "-update")) or hlo.is_free_call(instruction):
            return 0
        called = hlo.called(instruction)
        if opcode == "while":
            num_trips = hlo.num_trips(instruction, inside, self._computations)
            return self.bits(hlo.attribute(instruction, "body")) * (1 if num_trips is None else num_trips)
        if opcode == "conditional":
            return max(self.bits(name) for name in called)
        if opcode in ("call", "async-start"):
            return sum(self.bits(name) for name in called)
        operands = [inside[name] for name in instruction.operands if name in inside]
        if opcode in ("fusion", "fusion-start"):
            read, written = self._fused(called[0])
        else:
            alone = instruction._replace(opcode=opcode.removesuffix("-start"), type=_result(instruction))
            types = [operand.type for operand in operands]
            read, written = _wanted(alone, types, _size(alone.type), is_kept=True), [_set(alone, types)]
        bits = 0
        for operand, elements in zip(operands, read, strict=True):
            bits += _bits_of(hlo.arrays(operand.type), elements)
        results = hlo.arrays(_result(instruction))
        if opcode == "custom-call" and len(results) > 1:
            results = [array for array in results if array.dtype not in _WORKSPACE]
        if len(written) == 1:
            return bits + _bits_of(results, written[0])
        return bits + sum(_bits_of([array], size) for array, size in zip(results, written, strict=True))

    def _read_by(self, name: str) -> tuple[list[int], list[int | None]]:
        """Numbers that a fusion reads of each parameter and writes of each result; None is all of them."""
        inside = self._computations[name]
        last = hlo.root(inside)
        results = [last] if last.opcode != "tuple" else [inside[operand] for operand in last.operands]
        sources = [_source(result, inside) for result in results]
        kept = {source.name for source in sources if source.opcode in _SETS_PARTS}
        whole: collections.Counter[str] = collections.Counter()
        parts: dict[str, dict[object, int]] = collections.defaultdict(dict)
        for result in results:
            whole[result.name] = _size(result.type)
        for instruction in reversed(inside.values()):
            sizes = _size(instruction.type)
            wanted = min(sizes, whole[instruction.name] + sum(parts[instruction.name].values()))
            if not wanted or instruction.opcode in ("parameter", "tuple", "constant", "iota"):
                continue
            types = [inside[operand].type for operand in instruction.operands]
            if instruction.opcode == "fusion":
                read = self._fused(hlo.called(instruction)[0])[0]
            else:
                read = _wanted(instruction, types, wanted, instruction.name in kept)
            for place, (operand, elements) in enumerate(zip(instruction.operands, read, strict=True)):
                if instruction.opcode in _TAKES_PARTS and not place:
                    # Two slices of the same place are one.
                    key = (instruction.opcode, instruction.operands, _without_metadata(instruction))
                    parts[operand][key] = max(elements, parts[operand].get(key, 0))
                else:
                    whole[operand] = max(whole[operand], elements)
        parameters = sorted(
            (instruction for instruction in inside.values() if instruction.opcode == "parameter"),
            key=lambda parameter: int(parameter.arguments),
        )
        read = [min(_size(p.type), whole[p.name] + sum(parts[p.name].values())) for p in parameters]
        written = []
        for result, source in zip(results, sources, strict=True):
            set_ = _set(source, [inside[operand].type for operand in source.operands]) if source.name in kept else None
            # A result may be a tuple itself: the largest number and its place come from one reduction.
            written += [set_] * len(hlo.arrays(result.type))
        return read, written


def _wanted(instruction: hlo.Instruction, types: Sequence[str], wanted: int, is_kept: bool) -> list[int]:
    """Numbers that an instruction reads of each operand for so many of its result; see `moved_bytes`.

    `is_kept` says that its result is an array that stays where it was, of which it sets a part.
    """
    sizes, opcode = [_size(type_) for type_ in types], instruction.opcode
    if opcode in _READS_ALL:
        return sizes
    if opcode in _TAKES_PARTS:
        return [min(wanted, sizes[0]), *sizes[1:]]
    if opcode == "dynamic-update-slice":
        return [0 if is_kept else max(0, wanted - sizes[1]), *sizes[1:]]
    if opcode == "scatter":
        num = len(sizes) // 2
        # What is there already is read where something is added to it.
        return [size if is_kept else max(wanted, size) for size in sizes[num + 1 :]] + sizes[num:]
    result = hlo.arrays(instruction.type)[0].num_elements
    # Reductions read more than they give, and what is repeated is read once.
    return [math.ceil(wanted * size / result) if size > result > 0 else min(size, wanted) for size in sizes]


def _set(instruction: hlo.Instruction, types: Sequence[str]) -> int | None:
    """Numbers that an instruction writes; None is all of its result."""
    if instruction.opcode == "dynamic-update-slice":
        return _size(types[1])
    return _size(types[-1]) if instruction.opcode == "scatter" else None


def _source(result: hlo.Instruction, inside: hlo.Computation) -> hlo.Instruction:
    """What computes a result, behind other views of it."""
    while result.opcode in _VIEWS:
        result = inside[result.operands[0]]
    return result


def _result(instruction: hlo.Instruction) -> str:
    """Type of what an instruction writes. One that only starts has its operands beside it, before or behind."""
    opcode, type_ = instruction.opcode, instruction.type
    if not opcode.endswith("-start") or not type_.startswith("("):
        return type_
    if opcode == "copy-start":
        return hlo.elements(type_)[0]
    return type_ if opcode == "all-reduce-start" else hlo.elements(type_)[1]


def _size(type_: str) -> int:
    return sum(array.num_elements for array in hlo.arrays(type_))


def _bits_of(arrays: Sequence[hlo.Array], elements: int | None) -> int:
    """Bits of so many numbers of arrays, None means all, those that lie elsewhere left out."""
    if elements is None or len(arrays) != 1:
        return sum(array.num_elements * array.bits for array in arrays if array.is_in_main_memory)
    return min(elements, arrays[0].num_elements) * arrays[0].bits if arrays[0].is_in_main_memory else 0


def _without_metadata(instruction: hlo.Instruction) -> str:
    return instruction.attributes.partition(", metadata=")[0]
