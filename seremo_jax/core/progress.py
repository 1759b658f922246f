"""Progress of long work: a bar with rate and time left on a terminal, and a line now and then elsewhere.

Rate and time left leave out the seconds that JAX compiled: what comes after the first steps compiles little or nothing.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from seremo_jax.core.compiling import CompileTime

T = TypeVar("T")
_LINE_EVERY_S = 15.0


class _Bar(tqdm):
    """A bar whose rate, and with it the time left, is what `work_rate` says; 0 leaves the time left open."""

    work_rate = 0.0

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the bar is drawn from."""
        return {**super().format_dict, "rate": self.work_rate}


class Progress:
    """Counts units of work, e.g. utterances or epochs.

    Args:
      total: Units in all.
      label: What is being done.
      unit: Name of a unit, in the plural.
      done: Units finished before this process began (resumed work).
      is_quiet: Prints nothing.
    """

    def __init__(self, total: int, label: str, unit: str, done: int = 0, is_quiet: bool = False):
        self._total, self._label, self._unit = total, label, unit
        self._done, self._first, self._said = done, done, done
        self._note = ""
        self._started_s = self._said_s = time.monotonic()
        self._compiling, self._compiled_s = CompileTime(), 0.0
        self._bar = None
        self._is_quiet = is_quiet
        if not is_quiet and sys.stderr.isatty():
            self._bar = _Bar(total=total, initial=done, desc=label, unit=f" {unit}", dynamic_ncols=True)

    def update(self, units: int = 1, note: str = "") -> None:
        """Adds finished units; `note` is shown beside the bar or at the end of the line."""
        self._done += units
        self._note = note or self._note
        if self._is_quiet:
            return
        if self._bar is not None:
            self._bar.work_rate = self._rate()
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(units) if units else self._bar.refresh()
        elif time.monotonic() - self._said_s >= _LINE_EVERY_S:
            self._say()

    def _rate(self) -> float:
        """Units a second of work, which leaves out what JAX compiled."""
        now_s = time.monotonic()
        self._compiled_s += self._compiling.take(now_s)
        return (self._done - self._first) / max(now_s - self._started_s - self._compiled_s, 1e-9)

    def _say(self) -> None:
        rate = self._rate()
        self._said_s, self._said = time.monotonic(), self._done
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate > 0 else "time left unknown"
        note = f", {self._note}" if self._note else ""
        line = f"{self._label}: {self._done}/{self._total} {self._unit}, {rate:.3g} {self._unit}/s, {left}{note}"
        print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._compiling.close()
        if self._bar is not None:
            self._bar.close()
        elif not self._is_quiet and self._done > self._said:
            self._say()


def track(items: Iterable[T], total: int, label: str, unit: str, is_quiet: bool = False) -> Iterator[T]:
    """Yields the items while showing progress, one unit an item."""
    with Progress(total, label, unit, is_quiet=is_quiet) as progress:
        for item in items:
            yield item
            progress.update()
