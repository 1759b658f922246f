"""A profiler trace of a few training steps, for TensorBoard (XProf) and Perfetto."""

import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import PurePath
from typing import TypeVar

import jax

from seremo_jax.core.artefacts import atomic_path

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
