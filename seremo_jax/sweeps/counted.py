"""Operations of a compiled program by the compiler's own count, with the trips of its loops.

XLA's cost analysis counts the body of a loop once. Here the body of each loop is made the entry of a module of its own,
which the same analysis counts, and counts once more for every further trip that `hlo_text` reads from the program.
"""

import functools
import re
from typing import Any

import jax

from seremo_jax.sweeps import hlo_text

_BLOCK = re.compile(r"\n(?=(?:ENTRY )?%?[\w.\-$]+ \([^\n]*\{\n)")
_NAME = re.compile(r"(ENTRY )?%?([\w.\-$]+) \(")
_WHILE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-$]+) = [^\n]* while\([^\n]*body=%?([\w.\-$]+)", re.MULTILINE)
_HEADER = "HloModule counted"
"""Without the layouts and aliases of the whole module, which are those of another entry."""
_FRAMES = re.compile(r" stack_frame_id=\d+")


def flops(text: str, loops: tuple[hlo_text.Loop, ...]) -> float:
    """Operations of one run on one device, without those of products that a library computes.

    Args:
      text: Optimised HLO of the module.
      loops: Its loops, from `hlo_text.read`. One of unknown trips counts with one.

    Source: OURS.
    """
    _, *blocks = _BLOCK.split(_FRAMES.sub("", text))
    computations = {_NAME.match(block).group(2): block.removeprefix("ENTRY ") for block in blocks}
    entry = next(_NAME.match(block).group(2) for block in blocks if block.startswith("ENTRY "))
    trips = {loop.name: loop.num_trips or 1 for loop in loops}
    bodies = {name: body for block in computations.values() for name, body in _WHILE.findall(block)}
    once = functools.cache(functools.partial(_analysed, computations))

    @functools.cache
    def with_trips(name: str) -> float:
        below = [(trips.get(loop, 1), bodies[loop]) for loop in _loops_below(name, computations)]
        return once(name) + sum(num_trips * with_trips(body) - once(body) for num_trips, body in below)

    return with_trips(entry)


def _loops_below(name: str, computations: dict[str, str]) -> list[str]:
    """Loops of a computation, also those in what it calls, but not those inside these loops."""
    loops, waiting, seen = [], [name], set()
    while waiting:
        block = computations[waiting.pop()]
        loops += [loop for loop, _ in _WHILE.findall(block)]
        for line in block.splitlines()[1:]:
            if " while(" not in line:
                called = set(re.findall(r"(?:calls|to_apply|_computation)=%?([\w.\-$]+)", line)) & computations.keys()
                waiting += called - seen
                seen |= called
    return loops


def _analysed(computations: dict[str, str], name: str) -> float:
    from jaxlib import _hlo, _jax

    blocks = [("ENTRY " if other == name else "") + block for other, block in computations.items()]
    module = _hlo.hlo_module_from_text("\n\n".join([_HEADER, *blocks]))
    analysed: dict[str, Any] = _jax.hlo_module_cost_analysis(jax.devices("cpu")[0].client, module)
    return float(analysed.get("flops", 0.0))
