"""The wall time of a stage by phases: every moment in one of them, compilation wherever it happens."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from seremo_jax.core.compiling import CompileTime

COMPILE, REST = "compile", "rest"
"""Phases that every clock has."""


class Clock:
    """Divides wall time among phases. Every moment since the clock was made belongs to exactly one of them.

    It is the time of the thread that drives the devices. A phase that waits, say for batches, counts what this thread
    waits, even while the devices are busy with earlier steps. Tracing, lowering, compiling and reading compiled
    programs back count as `compile`, in whichever phase they happen.

    Args:
      phases: Names of the phases; `compile`, and `rest` for what is in none of them, come behind.
    """

    def __init__(self, phases: Sequence[str]) -> None:
        self._seconds = dict.fromkeys((*phases, COMPILE, REST), 0.0)
        self._phase, self._since_s = REST, time.monotonic()
        self._compiling = CompileTime()

    def _account(self) -> None:
        now_s = time.monotonic()
        compiling_s = self._compiling.take(now_s)
        self._seconds[COMPILE] += compiling_s
        self._seconds[self._phase] += now_s - self._since_s - compiling_s
        self._since_s = now_s

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time inside the block as this phase, except the time of inner blocks."""
        self._account()
        outer, self._phase = self._phase, name
        try:
            yield
        finally:
            self._account()
            self._phase = outer

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase since the clock was made."""
        self._account()
        return dict(self._seconds)

    def close(self) -> None:
        """Stops listening for compilations."""
        self._compiling.close()


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """Each phase's share of the wall time; they sum to 1."""
    total_s = sum(seconds.values())
    return {name: part_s / total_s if total_s > 0 else float(name == REST) for name, part_s in seconds.items()}


def entries(seconds: dict[str, float]) -> dict[str, float]:
    """Entries of a line of the log: the share `goodput_PHASE` of each phase, and the wall time `wall_s`."""
    return {f"goodput_{name}": share for name, share in shares(seconds).items()} | {"wall_s": sum(seconds.values())}


def sentence(seconds: dict[str, float]) -> str:
    """A line that people read, with the share of each phase in %."""
    parts = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares(seconds).items())
    return f"goodput: {parts} of {sum(seconds.values()):.1f} s"
