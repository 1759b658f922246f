"""The largest number of members, and the largest batch of an extraction, that the compiler lets a device hold."""

import textwrap
from collections.abc import Callable
from typing import Any

from seremo_jax.sweeps import programs
from seremo_jax.sweeps.targets import Target
from seremo_jax.sweeps.workload import Workload
from seremo_jax.training.fitting import Judge
from seremo_jax.training.memory import Memory

SEARCHED = (programs.EXTRACT, programs.TRAIN)
"""Programs whose sizes are searched."""
MOST = 1 << 14
_FIRST = {programs.TRAIN: 8, programs.EXTRACT: 4}
_WORDS = 240
"""Characters of a refusal that are kept."""
_NEAR = 0.1
"""Share of the largest size up to which the two ends of the search come together."""


def search(workload: Workload, target: Target, devices: list[Any], judge: Judge, name: str) -> dict[str, Any]:
    """The largest size of a program that fits, and the smallest tried that does not.

    Args:
      workload: What it works on.
      target: The devices.
      devices: They, from `Target.devices`.
      judge: Says whether they hold it.
      name: `train` for members a device, `extract` for utterances of a batch on a device.
    """
    if name == programs.TRAIN:
        what, needed = "members a device", lambda n: members_need(workload, target.platform, devices, judge, n)
    else:
        what, needed = "utterances a device in a batch", lambda n: _batch_needs(workload, target, devices, judge, n)
    tried: dict[int, Memory] = {}

    def noted(n: int) -> Memory:
        tried[n] = needed(n)
        return tried[n]

    largest, too_many = largest_that_fits(noted, judge, _FIRST[name])
    refusal = tried[too_many].refusal if too_many else ""
    return {
        "target": target.name, "program": name, "what": what, "largest": _described(tried, largest),
        "too_many": _described(tried, too_many), "refusal": textwrap.shorten(refusal, _WORDS, placeholder=" ..."),
        "sizes": len(tried),
    }  # fmt: skip


def members_need(workload: Workload, platform: str, devices: list[Any], judge: Judge, num_members: int) -> Memory:
    """What a training of so many members a device takes, with frames from the host where they may come from there."""
    return judge.needed(programs.training_of(workload, platform, devices, num_members))


def _batch_needs(workload: Workload, target: Target, devices: list[Any], judge: Judge, num_slots: int) -> Memory:
    return judge.records(programs.extraction(workload, target.platform, devices, num_slots).lower(), devices[0])


def largest_that_fits(needed: Callable[[int], Memory], judge: Judge, guess: int, most: int = MOST) -> tuple[int, int]:
    """The largest size that fits, 0 where none does, and a larger one near it that does not, 0 where `most` fits.

    What a size takes is close to a straight line, so the next size is where the line through the last two meets the
    room; each answer is still the compiler's.

    Args:
      needed: What a size takes; sizes above one that does not fit do not either.
      judge: Says whether that fits.
      guess: Size where the search begins.
      most: Largest size of interest.
    """
    low, high, size = 0, 0, min(max(1, guess), most)
    points: list[tuple[int, int]] = []
    while True:
        takes = needed(size)
        low, high = (size, high) if judge.fits(takes) else (low, size)
        points += [(size, takes.num_bytes)] * (not takes.refusal)
        near = max(1, int(_NEAR * low))
        if low == most or (high and high - low <= near):
            return low, high
        size = (low + high) // 2 if high else 2 * size
        if len(points) > 1:
            (first, at_first), (second, at_second) = sorted(points[-2:])
            slope = max((at_second - at_first) / (second - first), 1.0)
            predicted = int(first + (judge.room_bytes - at_first) / slope)
            size = max(predicted, low + near) if not high or predicted < high else size
        size = min(size, high - 1) if high else min(size, most)


def _described(tried: dict[int, Memory], size: int) -> str:
    if not size:
        return ""
    return str(size) if tried[size].refusal else f"{size} ({tried[size].num_bytes / 1e9:.1f} GB)"
