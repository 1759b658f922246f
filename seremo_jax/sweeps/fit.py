"""The largest number of members, and the largest batch of an extraction, that the compiler lets a device hold."""

from collections.abc import Callable
from typing import Any

from seremo_jax.sweeps import compiled, programs
from seremo_jax.sweeps.compiled import Compiled
from seremo_jax.sweeps.targets import Target
from seremo_jax.sweeps.workload import Workload

SEARCHED = (programs.EXTRACT, programs.TRAIN)
"""Programs whose sizes are searched."""
_MOST = 1 << 14
_FIRST = {programs.TRAIN: 8, programs.EXTRACT: 4}
_NEAR = 0.1
"""Share of the largest size up to which the two ends of the search come together."""


def search(workload: Workload, target: Target, devices: list[Any], name: str) -> dict[str, Any]:
    """The largest size of a program that fits, and the smallest tried that does not.

    Args:
      workload: What it works on.
      target: The devices.
      devices: They, from `Target.devices`.
      name: `train` for members a device, `extract` for utterances of a batch on a device.
    """
    if name == programs.TRAIN:
        what, size = "members a device", lambda n: programs.training(workload, target, devices, n)[name]
    else:
        what, size = "utterances a device in a batch", lambda n: programs.extraction(workload, target, devices, n)
    tried: dict[int, Compiled] = {}

    def fits(n: int) -> bool:
        if n not in tried:
            tried[n] = compiled.compile_program(size(n), target)
        return tried[n].fits

    largest, too_many = bisect(fits, _FIRST[name])
    refused = tried.get(too_many)
    return {
        "target": target.name, "program": name, "what": f"{what} ({_unit(name, tried)})",
        "largest": _described(tried.get(largest), largest), "too_many": _described(refused, too_many),
        "refusal": refused.refusal[:160] if refused else "", "compilations": len(tried),
    }  # fmt: skip


def bisect(fits: Callable[[int], bool], guess: int) -> tuple[int, int]:
    """The largest size that fits, 0 where none does, and a larger one near it that does not, 0 where all do.

    Args:
      fits: Whether a size fits; sizes above one that does not fit do not either.
      guess: Where the search begins.
    """
    low, high, size = 0, 0, max(1, guess)
    while not high and size <= _MOST:
        if fits(size):
            low, size = size, 2 * size
        else:
            high = size
    while high - low > max(1, int(_NEAR * low)):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, high


def _unit(name: str, tried: dict[int, Compiled]) -> str:
    details = next(iter(tried.values())).details
    if name == programs.TRAIN:
        return f"{details['num_rows']} rows of {details['num_frames']} frames"
    return f"{details['num_samples'] / 16_000:.1f} s each"


def _described(found: Compiled | None, number: int) -> str:
    if found is None or not number:
        return ""
    return str(number) if found.refusal else f"{number} ({found.num_bytes / 1e9:.1f} GB)"
