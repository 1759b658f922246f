"""The wall time of a training by phases, and a profiler trace of a few of its steps."""

import contextlib
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import TypeVar

import jax

from seremo_jax.core.artefacts import atomic_path
from seremo_jax.core.compiling import CompileTime

PHASES = ("steps", "input", "evaluation", "checkpoint", "compile", "rest")


class Clock:
    """Divides wall time among `PHASES`. Every moment since the clock was made belongs to exactly one of them.

    It is the time of the thread that drives the devices. `input` is the time that this thread waits for batches, even
    while the devices are busy with earlier steps. Tracing, lowering, compiling and reading compiled programs back count
    as `compile`, in whichever phase they happen.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since_s = "rest", time.monotonic()
        self._compiling = CompileTime()

    def _account(self) -> None:
        now_s = time.monotonic()
        compiling_s = self._compiling.take(now_s)
        self._seconds["compile"] += compiling_s
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
    return {name: seconds[name] / total_s if total_s > 0 else float(name == "rest") for name in PHASES}


def entries(seconds: dict[str, float]) -> dict[str, float]:
    """Entries of a line of the log: the share `goodput_PHASE` of each phase, and the wall time `wall_s`."""
    return {f"goodput_{name}": share for name, share in shares(seconds).items()} | {"wall_s": sum(seconds.values())}


def sentence(seconds: dict[str, float]) -> str:
    """A line that people read, with the share of each phase in %."""
    parts = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares(seconds).items())
    return f"goodput: {parts} of {sum(seconds.values()):.1f} s"


T = TypeVar("T")
FIRST, LAST = 10, 20
"""First and last step that is traced, counted from 1 in this process. The very first steps compile."""


class StepTrace:
    """Counts steps and traces those from `FIRST` to `LAST`.

    Args:
      folder: Folder that the trace is written to after the last of these steps; None traces nothing.
    """

    def __init__(self, folder: PurePath | None):
        self._folder, self._number, self._temporary = folder, 0, ""

    def step(self, run: Callable[[], T]) -> T:
        """Runs a step and returns its result. It waits for the devices after the last traced step only."""
        self._number += 1
        if self._folder is None:
            return run()
        if self._number == FIRST:
            self._temporary = tempfile.mkdtemp(prefix="seremo_jax-trace-")
            jax.profiler.start_trace(self._temporary)
        if not self._temporary:
            return run()
        with jax.profiler.StepTraceAnnotation("train", step_num=self._number):
            result = run()
        if self._number == LAST:
            # Steps run later than they are dispatched, and the trace is to hold the last one whole.
            jax.block_until_ready(result)
            self._write()
        return result

    def _write(self) -> None:
        jax.profiler.stop_trace()
        with atomic_path(self._folder) as path:
            shutil.copytree(self._temporary, path)
        shutil.rmtree(self._temporary)
        self._temporary = ""

    def close(self) -> None:
        """Writes a trace that the end of the training cut short, and warns where it is not whole."""
        if self._folder is None:
            return
        if self._temporary:
            self._write()
        if self._number < LAST:
            traced = f"steps {FIRST} to {self._number}" if self._number >= FIRST else "nothing"
            warnings.warn(
                f"{self._folder}: there were {self._number} steps, so {traced} of steps {FIRST} to {LAST} was traced",
                stacklevel=2,
            )
