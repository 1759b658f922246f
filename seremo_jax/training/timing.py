"""Where the wall time of a training goes: steps, waiting for input, evaluation, checkpoints, compilation, the rest."""

import contextlib
import time
from collections.abc import Iterator

from jax import monitoring

PHASES = ("steps", "input", "evaluation", "checkpoint", "compile", "rest")
_COMPILING = "/jax/core/compile/"


class Clock:
    """Shares wall time out among `PHASES`: every moment since it was made belongs to exactly one of them.

    It is the time of the thread that drives the devices: `input` is what this thread waits for batches, although the
    devices may still be busy with earlier steps. Tracing, lowering, compiling and reading compiled programs back are
    `compile`, in whichever phase they happen.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since_s = "rest", time.monotonic()
        self._compiling: list[tuple[float, float]] = []
        monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_s: float, **_: object) -> None:
        if not event.startswith(_COMPILING):
            return
        end_s = time.monotonic()
        # Tracing one function traces others: spans inside this one are not counted twice.
        while self._compiling and self._compiling[-1][0] >= end_s - duration_s:
            self._compiling.pop()
        begin_s = max([end_s - duration_s, self._since_s, *(end for _, end in self._compiling[-1:])])
        self._compiling.append((min(begin_s, end_s), end_s))

    def _account(self) -> None:
        now_s = time.monotonic()
        compiling_s = sum(end - begin for begin, end in self._compiling)
        self._seconds["compile"] += compiling_s
        self._seconds[self._phase] += now_s - self._since_s - compiling_s
        self._since_s, self._compiling = now_s, []

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time inside the block belongs to this phase, except what an inner block takes."""
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
        monitoring.unregister_event_duration_listener(self._listen)


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """Each phase's share of the wall time; they sum to 1."""
    total_s = sum(seconds.values())
    return {name: seconds[name] / total_s if total_s > 0 else float(name == "rest") for name in PHASES}


def entries(seconds: dict[str, float]) -> dict[str, float]:
    """What a line of the log says: `goodput_PHASE` for each share, and the wall time they are shares of."""
    return {f"goodput_{name}": share for name, share in shares(seconds).items()} | {"wall_s": sum(seconds.values())}


def sentence(seconds: dict[str, float]) -> str:
    """A line for people: the share of each phase, in %."""
    parts = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares(seconds).items())
    return f"goodput: {parts} of {sum(seconds.values()):.1f} s"
