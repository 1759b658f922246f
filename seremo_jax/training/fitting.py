"""Whether devices hold a training, and whether they hold its frames, too: by the compiler's word on its very steps.

Devices that do not say how much memory they have, such as processors, which share that of their host, are not judged:
frames then live there where they fill at most half of what is free.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from seremo_jax.core import ensemble, sharding
from seremo_jax.core.config import ConfigError
from seremo_jax.training import lowering
from seremo_jax.training.cache import cache_of
from seremo_jax.training.dataset import Data
from seremo_jax.training.feed import STEPS_AHEAD, rows_of
from seremo_jax.training.lowering import Training
from seremo_jax.training.memory import Memory, Records

_SHARE_OF_HOST = 0.5
"""Largest share of the memory that is free on a host that frames fill."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Says whether a device holds a training.

    Attributes:
      records: What programs take.
      room_bytes: Memory of a device that the training can have.
      device: One of the devices.
      host_bytes: Memory of their host for the frames that go to all of its devices; None where it is not known.
    """

    records: Records
    room_bytes: float
    device: Any
    host_bytes: float | None = None

    def needed(self, training: Training) -> Memory:
        """What the training takes of a device at most; of a step that does not fit by itself, what that takes."""
        lower = training.lower()
        step = self.records(lower["train"](), self.device)
        if not self.fits(step):
            return step
        predict = self.records(lower["predict"](), self.device)
        if predict.refusal:
            return predict
        # While the development split is predicted, and while members change their places, the state stays where it is.
        besides = max(
            step.num_bytes - step.argument_bytes, predict.temporary_bytes + predict.output_bytes, training.state_bytes
        )
        # Batches without frames go to the device all at once, others a few steps ahead.
        batches = STEPS_AHEAD
        if training.cache is not None:
            batches = training.num_batches + training.num_development_batches
        return Memory(step.argument_bytes + batches * training.batch_bytes, besides)

    def fits(self, memory: Memory) -> bool:
        """Whether a device has so much."""
        return not memory.refusal and memory.num_bytes <= self.room_bytes


def judge_here(folder: str | os.PathLike | None) -> Judge | None:
    """A judge of the devices of this process, by what is free there now; None where they do not say it.

    Args:
      folder: Folder of the records (`Records`).
    """
    devices = jax.local_devices()
    stats = [device.memory_stats() for device in devices]
    if not all(entry and "bytes_limit" in entry for entry in stats):
        return None
    free = min(entry["bytes_limit"] - entry.get("bytes_in_use", 0) for entry in stats)
    return Judge(Records(folder), sharding.least(free), devices[0], _free_on_host())


def keeps_frames(
    data: Data, members: Sequence[ensemble.Member], mesh: Mesh, platform: str, judge: Judge | None
) -> bool:
    """Whether the frames live in device memory, as `train.device_cache` says.

    Args:
      data: The data. Its store needs no frames.
      members: The members.
      mesh: Mesh with the axes `("member", "data")`.
      platform: `cpu`, `gpu` or `tpu`, that of the mesh.
      judge: Judges the devices of the mesh; None asks the memory of this host.
    """
    wanted = data.config.train.device_cache
    if wanted != "auto":
        return wanted == "on"
    cache = cache_of(data, rows_of(data))
    if not cache.has_places:
        return False
    if judge is None:
        num_bytes = cache.num_bytes(len({layer for member in members for layer in data.layers_of(member)}))
        return num_bytes <= _SHARE_OF_HOST * _free_on_host() / len(jax.local_devices())
    training = lowering.training_on(data, members, mesh, platform, is_cached=True)
    num_bytes = cache.num_bytes(training.train.inputs.frames.shape[0])
    on_host = num_bytes / len({device.process_index for device in mesh.devices.flat})
    if num_bytes / mesh.shape[sharding.MEMBER] > judge.room_bytes or on_host > (judge.host_bytes or on_host):
        return False
    return judge.fits(judge.needed(training))


def _free_on_host() -> float:
    """Bytes of memory that are free on the host of this process, or on that of another one with less."""
    return sharding.least(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def require_room(
    data: Data, members: Sequence[ensemble.Member], mesh: Mesh, platform: str, judge: Judge, is_cached: bool
) -> None:
    """Refuses a training that the devices do not hold.

    Raises:
      ConfigError: They do not; the message says what it takes and what to change.
    """
    needed = judge.needed(lowering.training_on(data, members, mesh, platform, is_cached))
    if judge.fits(needed):
        return
    takes = "more than that" if needed.refusal else f"{needed.num_bytes / 1e9:,.1f} GB"
    per_device = -(-len(members) // mesh.shape[sharding.MEMBER])
    raise ConfigError(
        f"{per_device} members a device do not fit: {judge.device.device_kind} has {judge.room_bytes / 1e9:,.1f} GB "
        f"free, and the training takes {takes} by the compiler's count. Raise train.micro_batches, set "
        f"train.member_map=map{' or train.device_cache=auto' * is_cached}, or train fewer members at once"
    )
