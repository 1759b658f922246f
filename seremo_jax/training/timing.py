"""Where the wall time of a training goes, phase by phase, and a profiler trace of a few of its steps."""

import contextlib
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import TypeVar

import jax
from jax import monitoring

from seremo_jax.core.artefacts import atomic_path

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


T = TypeVar("T")
FIRST, LAST = 10, 20
"""Steps traced, counted from 1 in this process: the first ones compile."""


class StepTrace:
    """Counts steps and traces those from `FIRST` to `LAST`.

    Args:
      folder: What to write, once the last of them is through; None traces nothing.
    """

    def __init__(self, folder: PurePath | None):
        self._folder, self._number, self._temporary = folder, 0, ""

    def step(self, run: Callable[[], T]) -> T:
        """Does a step and returns what it gives; waits for the devices after the last traced one only."""
        self._number += 1
        if self._folder is None:
            return run()
        if self._number == FIRST:
            self._temporary = tempfile.mkdtemp(prefix="seremo_jax-trace-")
            jax.profiler.start_trace(self._temporary)
        if not self._temporary:
            return run()
        with jax.profiler.StepTraceAnnotation("train", step_num=self._number):
            made = run()
        if self._number == LAST:
            jax.block_until_ready(made)
            self._write()
        return made

    def _write(self) -> None:
        jax.profiler.stop_trace()
        with atomic_path(self._folder) as path:
            shutil.copytree(self._temporary, path)
        shutil.rmtree(self._temporary)
        self._temporary = ""

    def close(self) -> None:
        """Writes a trace that the end of training cut short; warns where there is none."""
        if self._folder is None:
            return
        if self._temporary:
            self._write()
        if self._number < LAST:
            found = f"steps {FIRST} to {self._number}" if self._number >= FIRST else "nothing"
            warnings.warn(
                f"{self._folder}: there were {self._number} steps, so {found} of steps {FIRST} to {LAST} was traced",
                stacklevel=2,
            )
