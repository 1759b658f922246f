"""The phases of the wall time of a training, and a profiler trace of a few of its steps."""

import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import PurePath
from typing import TypeVar

import jax

from seremo_jax.core.artefacts import atomic_path

PHASES = ("steps", "input", "evaluation", "checkpoint")
"""Those of `goodput.Clock`. `input` is the time that the driving thread waits for batches."""

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
