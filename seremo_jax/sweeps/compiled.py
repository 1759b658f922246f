"""One program compiled for one target, and what the compiler says of it: memory, operations, collectives, kernels.

Nothing is run. What a device would need at least is a bound by its maker's peaks, and the largest of the bounds binds.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from seremo_jax.sweeps import counted, hlo_text, traffic
from seremo_jax.sweeps.programs import Program
from seremo_jax.sweeps.targets import GPU, Target, compiler_version
from seremo_jax.training import memory
from seremo_jax.training.memory import Memory, Records

KERNEL_LAUNCH_S = 2e-6
"""ASSUMED: seconds between two kernels on a GPU that wait for each other, launched one by one."""

PADDING, LARGE = 0.2, 0.01
"""Share of an array that is lost to padding, and its share of the program's memory, above which it is named."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program. Bytes, operations and kernels are of one run on one device.

    Attributes:
      target: Name of the target.
      program: Name of the program.
      shape: What it is called with.
      num_runs: How often it runs; see `Program`.
      details: Numbers about it.
      memory: What it takes of a device.
      usable_bytes: Memory of a device that programs can have.
      flops: Operations, those of libraries among them.
      accessed_bytes: Bytes read and written in main memory; see `traffic`.
      collectives: Kind -> number of runs and bytes that a device puts in.
      products: Operands and result of matrix products -> number of runs and operations.
      bfloat16_share: Share of these operations that are in bfloat16.
      kernels: Kernels; None on a TPU.
      loops: Of each loop its trips, kernels a trip, and how often it runs.
      padded: Arrays of which more than `PADDING` is lost to the tiles of a TPU, and which take more than `LARGE` of the
        program's memory; the largest loss first.
      seconds: Name of a bound -> seconds.
      compile_s: Seconds that compiling took here.
      compiler: Its version.
      key: Its key in the records of what programs take.
    """

    target: str
    program: str
    shape: str
    num_runs: float
    details: dict[str, Any]
    memory: Memory
    usable_bytes: float
    compile_s: float
    compiler: str
    key: str
    flops: float = 0.0
    accessed_bytes: float = 0.0
    collectives: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    products: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    bfloat16_share: float = 0.0
    kernels: int | None = None
    loops: tuple[tuple[int | None, int, int], ...] = ()
    padded: tuple[hlo_text.Padded, ...] = ()
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether a device holds it: the compiler's word on a TPU, its figure against the memory on a GPU."""
        return not self.memory.refusal and self.memory.num_bytes <= self.usable_bytes

    @property
    def binds(self) -> str:
        """Name of the largest bound; empty where the program was refused."""
        return max(self.seconds, key=self.seconds.__getitem__) if self.seconds else ""


class Compilers(Records):
    """Compiles programs for devices elsewhere, each once, and keeps the executables in this process."""

    def __init__(self) -> None:
        super().__init__()
        self._executables: dict[str, tuple[Any, Memory, float]] = {}

    def __call__(self, lowered: Any, device: Any) -> Memory:
        """What a lowered program takes of a device."""
        return self.compiled(lowered, device)[1]

    def compiled(self, lowered: Any, device: Any) -> tuple[Any, Memory, float]:
        """The executable, None where the compiler refuses it, what it takes, and the seconds of compiling it.

        Raises:
          RuntimeError: The compiler fails for another reason than memory.
        """
        key = self.key_of(lowered, device)
        if key not in self._executables:
            began_s = time.monotonic()
            self._executables[key] = *memory.compiled(lowered), time.monotonic() - began_s
        return self._executables[key]


def compile_program(program: Program, target: Target, device: Any, compilers: Compilers) -> Compiled:
    """Compiles a program and reads what the compiler says of it.

    Args:
      program: The program.
      target: The devices.
      device: One of them.
      compilers: Compiles it, or has done so.

    Raises:
      RuntimeError: The compiler fails for another reason than memory.
    """
    lowered = program.lower()
    executable, takes, compile_s = compilers.compiled(lowered, device)
    common = {
        "target": target.name, "program": program.name, "shape": program.shape, "num_runs": program.num_runs,
        "details": program.details, "memory": takes, "usable_bytes": target.usable_bytes, "compile_s": compile_s,
        "compiler": compiler_version(target), "key": compilers.key_of(lowered, device),
    }  # fmt: skip
    if executable is None:
        return Compiled(**common)
    text = executable.as_text()
    read = hlo_text.read(text)
    flops, accessed_bytes = counted.flops(text, read.loops) + read.called_flops, traffic.moved_bytes(text)
    collectives = {entry.kind: (entry.num_runs, entry.num_bytes) for entry in read.collectives}
    kernels = read.kernels if target.platform == GPU else None
    return Compiled(
        **common,
        flops=flops,
        accessed_bytes=accessed_bytes,
        collectives=collectives,
        products={entry.name: (entry.num_runs, entry.flops) for entry in read.products},
        bfloat16_share=bfloat16_share(read.products),
        kernels=kernels,
        loops=tuple((loop.num_trips, loop.kernels, loop.num_runs) for loop in read.loops),
        padded=tuple(array for array in read.padded if is_lost(array, takes.num_bytes)),
        seconds=bounds(target, flops, accessed_bytes, sum(n for _, n in collectives.values()), kernels),
    )


def is_lost(array: hlo_text.Padded, program_bytes: int) -> bool:
    """Whether an array loses so much to padding that it is named; see `PADDING`."""
    lost = array.held_bytes - array.num_bytes
    return lost > PADDING * array.held_bytes and array.held_bytes > LARGE * program_bytes


def bfloat16_share(products: Sequence[hlo_text.Product]) -> float:
    """Share of the operations of products that are in bfloat16; 0 where there is none."""
    total = sum(product.flops for product in products)
    return sum(product.flops for product in products if product.is_bfloat16) / max(total, 1)


def bounds(
    target: Target, flops: float, accessed_bytes: float, moved_bytes: float, kernels: int | None
) -> dict[str, float]:
    """Least seconds by the device's peaks, of operations, memory and links, and of kernel launches on a GPU.

    All of them are bounds from below but that of launches, which is an assumption (`KERNEL_LAUNCH_S`).
    """
    figures = target.figures
    seconds = {
        "operations": flops / figures.flops_per_s,
        "memory": accessed_bytes / figures.bytes_per_s,
        "links": moved_bytes / figures.link_bytes_per_s,
    }
    return seconds if kernels is None else seconds | {"launches (assumed)": kernels * KERNEL_LAUNCH_S}
