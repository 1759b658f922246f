"""What an estimate of scale is given and gives: figures of accelerators, assumptions, terms, and which one binds."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One device, by its maker's figures.

    Attributes:
      peak_flops_per_s: Of dense bfloat16 products (of float32 on the CPU).
      memory_bytes: Its own memory.
      bandwidth_bytes_per_s: Of that memory.
      share: Of the peak that large products reach.
      is_measured: Peak and share were measured here; else they are assumed.
    """

    peak_flops_per_s: float
    memory_bytes: float
    bandwidth_bytes_per_s: float
    share: float = 0.4
    is_measured: bool = False


ACCELERATORS = {
    "h100": Accelerator(989e12, 80e9, 3.35e12),
    "a100": Accelerator(312e12, 80e9, 2.04e12),
    "tpu-v5e": Accelerator(197e12, 16e9, 0.82e12),
    "tpu-v6e": Accelerator(918e12, 32e9, 1.64e12),
    "cpu": Accelerator(0.45e12, 64e9, 0.05e12, share=0.82, is_measured=True),
}
"""H100 and A100 with 80 GB on SXM. `cpu`: 2 cores of an AMD EPYC, WavLM large, see Speed in launch/README.md."""


def _field(default: Any, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What is not known before a run: every field, its default and its meaning."""

    goal_s: float = _field(3_600.0, "seconds in which all audio is wanted through the backbone")
    devices_per_host: int = _field(8, "devices of a host, at most")
    devices_per_process: int = _field(1, "devices of a process, at most")
    disk_bytes_per_s: float = _field(2e9, "bytes a second that a host reads, and that it writes, at once")
    host_memory_bytes: float = _field(1e12, "memory of a host, of which half keeps frames that were read")
    loader_bytes_per_s: float = _field(2.25e9, "bytes a second of the loader of one process (measured, 2 CPU cores)")
    decode_speed: float = _field(1_500.0, "times real time that one thread decodes (measured, FLAC of CREMA-D)")
    train_part: float = _field(169_190 / 264_705, "of the utterances, those that are trained on")
    epochs: int = _field(30, "epochs of a training")
    scan_step_s: float = _field(1e-5, "seconds that one step of the scan over frames takes at least")


@dataclasses.dataclass(frozen=True)
class Extraction:
    """One pass over the audio, every layer stored.

    Attributes:
      expected_h_per_s: Hours of audio that one device gets through a second, padding included.
      needed_h_per_s: What each device must, for the goal.
      fill: Share of the operations that is no padding.
      balance: Mean load of a process over that of the fullest.
      read_bytes_per_s: Audio that a host reads, were no device to wait.
      write_bytes_per_s: Frames that a host writes, likewise.
      seconds: Term -> seconds on the fullest process; the terms overlap.
    """

    expected_h_per_s: float
    needed_h_per_s: float
    fill: float
    balance: float
    read_bytes_per_s: float
    write_bytes_per_s: float
    seconds: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Training:
    """Heads on every layer.

    Attributes:
      fitting: Members whose training fits into one device's memory.
      per_device: Members of the fullest device, all runs together.
      num_runs: Trainings one after another, where not all members fit at once.
      frames_per_s: Frames that the heads of all devices get through a second, were no device to wait.
      read_bytes_per_s: Frames that a host feeds its devices, likewise.
      seconds: Term -> seconds; `compute` and `recurrence` follow one another, `input` overlaps them.
    """

    fitting: int
    per_device: int
    num_runs: int
    frames_per_s: float
    read_bytes_per_s: float
    seconds: dict[str, float]


def wall_s(seconds: dict[str, float]) -> float:
    """Seconds of the whole: what follows one another is added, what overlaps is not."""
    device_s = seconds["compute"] + seconds.get("recurrence", 0.0)
    return max(device_s, *(value for term, value in seconds.items() if term not in ("compute", "recurrence")))


def dominant(seconds: dict[str, float]) -> str:
    """The term that binds."""
    bound_s = wall_s(seconds)
    waiting = [term for term, value in seconds.items() if value >= bound_s]
    return waiting[0] if waiting else max(("compute", "recurrence"), key=seconds.__getitem__)
