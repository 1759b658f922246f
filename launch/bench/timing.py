"""Interleaved timing: rounds that are free of other jobs, as many as fit into the time there is."""

import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from launch.cores import num_cores
from seremo_jax.core.progress import Progress

MOST_FOREIGN_SHARE = 0.15
"""Of the cores' time, used by other processes during a round; a round with more is run again."""
MOST_TRIES = 4
"""For a round without such others."""


class TimeIsUp(Exception):  # noqa: N818 - it is a notice and no error
    """The time of a suite was spent before a row had its first round."""


class Timed(NamedTuple):
    """Medians by case, and how disturbed the rounds were.

    Attributes:
      seconds: Case -> median.
      spread: Case -> (least, most).
      num_rounds: Rounds counted.
      num_wanted: Rounds asked for; fewer were counted where the time was up.
      num_disturbed: Rounds thrown away because other processes held the cores.
      is_disturbed: Whether a round that is counted was disturbed, too, for want of a quiet one.
    """

    seconds: dict[str, float]
    spread: dict[str, tuple[float, float]]
    num_rounds: int
    num_wanted: int
    num_disturbed: int
    is_disturbed: bool

    @property
    def note(self) -> str:
        """What the table says of it."""
        notes = []
        if self.num_rounds < self.num_wanted:
            notes.append(f"{self.num_rounds} of {self.num_wanted} rounds, then the time was up")
        if self.is_disturbed:
            notes.append("disturbed: other jobs held the cores")
        elif self.num_disturbed:
            notes.append(f"{self.num_disturbed} disturbed rounds repeated")
        return join(*notes)


def join(*notes: str) -> str:
    """Notes of one row, without those that are empty."""
    return "; ".join(filter(None, notes))


def interleave(
    cases: Mapping[str, Callable[[], Any]],
    rounds: int,
    pids: Sequence[int] = (),
    deadline_s: float = math.inf,
    label: str = "",
    most_tries: int = MOST_TRIES,
) -> Timed:
    """Times every case once a round, in turn, after one round to warm up.

    A round during which other processes used more than `MOST_FOREIGN_SHARE` of the cores is run again, a few times. A
    round is not begun where the longest so far says that it would end after the deadline.

    Args:
      cases: Name -> what to time.
      rounds: Rounds wanted.
      pids: Processes that work for a case; what they use is no disturbance.
      deadline_s: When to end, on the clock of `time.monotonic`.
      label: What progress shows; it is quiet without one.
      most_tries: How often a round is run at most, to find one without other jobs.

    Raises:
      TimeIsUp: The deadline came before the first round.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    num_disturbed, num_rounds, is_disturbed, longest_s = 0, 0, False, 0.0
    with Progress(rounds, label, "rounds", is_quiet=not label) as progress:
        for name, case in cases.items():
            progress.update(0, f"warming up {name}")
            case()
        if time.monotonic() >= deadline_s:
            raise TimeIsUp
        while num_rounds < rounds and (not num_rounds or time.monotonic() + longest_s < deadline_s):
            for attempt in range(most_tries):
                began_s, foreign_before_s = time.monotonic(), _foreign_s(pids)
                taken = {name: _seconds(case) for name, case in cases.items()}
                elapsed_s = time.monotonic() - began_s
                longest_s = max(longest_s, elapsed_s)
                if _foreign_s(pids) - foreign_before_s <= MOST_FOREIGN_SHARE * elapsed_s * num_cores():
                    break
                if attempt == most_tries - 1 or time.monotonic() + longest_s >= deadline_s:
                    is_disturbed = True
                    break
                num_disturbed += 1
                progress.update(0, "disturbed by other jobs, run again")
            num_rounds += 1
            for name, seconds in taken.items():
                times[name].append(seconds)
            progress.update(1, ", ".join(f"{name} {seconds:.3g}" for name, seconds in taken.items()))
    medians = {name: statistics.median(values) for name, values in times.items()}
    spread = {name: (min(values), max(values)) for name, values in times.items()}
    return Timed(medians, spread, num_rounds, rounds, num_disturbed, is_disturbed)


def _seconds(case: Callable[[], Any]) -> float:
    start = time.perf_counter()
    case()
    return time.perf_counter() - start


def _foreign_s(pids: Sequence[int]) -> float:
    """Core seconds that processes other than this and `pids` have used so far; 0 where that cannot be told."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    except (OSError, IndexError):
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    ticks = user + nice + system + irq + softirq + steal
    for pid in pids:
        # Fields 14 and 15 are its user and system time; the second one, its name, may hold spaces.
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks -= int(after_name[11]) + int(after_name[12])
    busy_s = ticks / os.sysconf("SC_CLK_TCK")
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy_s - sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
