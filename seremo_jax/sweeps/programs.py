"""The programs of a config, lowered for devices that need not be here: extraction, training step, prediction, finish.

They are the jitted functions that extraction and training call, reached through `BackbonePass.lower` and
`training.lowering`; no program is written a second time here.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh

from seremo_jax.core import ensemble, sharding
from seremo_jax.features import forward, manifest
from seremo_jax.sweeps.workload import Workload
from seremo_jax.training import fitting, lowering
from seremo_jax.training.fitting import Judge

EXTRACT, TRAIN, PREDICT, FINISH = PROGRAMS = ("extract", "train", "predict", "finish")
_SEEDS_APART = 1_000_003


@dataclasses.dataclass(frozen=True)
class Program:
    """A program, ready to be lowered.

    Attributes:
      name: One of `PROGRAMS`.
      shape: What it is called with, in words.
      num_runs: How often it runs: in the whole extraction, or in an epoch.
      lower: Gives the lowered program, `jax.stages.Lowered`.
      details: Numbers about it: members a device, rows, frames and so on.
    """

    name: str
    shape: str
    num_runs: float
    lower: Callable[[], Any]
    details: dict[str, Any]


def extraction(workload: Workload, platform: str, devices: list[Any], num_slots: int | None = None) -> Program:
    """The pass over audio, for the batches that take the most memory.

    Args:
      workload: What is extracted.
      platform: `cpu`, `gpu` or `tpu`, that of the devices.
      devices: Devices, of all processes, which need not be here.
      num_slots: Utterances of a batch on each device; None takes those of the plan.
    """
    mesh, config = _data_mesh(devices), workload.config
    backbone = workload.backbone(platform)
    layers = workload.stored_layers(backbone)
    one_pass = forward.BackbonePass(config, backbone, layers, keeps_means=True, mesh=mesh)
    shards = [list(shard) for shard in manifest.shards_of(len(workload.num_samples), config.extract.shard_utterances)]
    planned = [batch for shard in one_pass.plan(shards, workload.num_samples) for batch in shard]
    sizes = np.array([[batch.num_slots, batch.num_samples] for batch in planned], np.int64)
    heard = sizes[:, 0] * np.maximum(sizes[:, 1], backbone.least_samples)
    slots, samples = sizes[np.argmax(heard)].tolist()
    if num_slots is not None:
        slots, samples = num_slots * mesh.size, int(sizes[:, 1].max())
    this = slots * max(samples, backbone.least_samples)
    num_processes = len({device.process_index for device in devices})
    return Program(
        EXTRACT,
        f"{slots} utterances of {samples / 16_000:.1f} s on {mesh.size} device{'s' * (mesh.size > 1)}, "
        f"{len(layers)} of {backbone.num_layers} layers stored",
        # Batches of other lengths count by their padded audio.
        float(heard.sum()) / this / num_processes,
        functools.partial(one_pass.lower, slots, samples),
        {"num_slots": slots, "num_samples": samples, "num_devices": mesh.size, "dtype": backbone.dtype},
    )


def training(workload: Workload, platform: str, devices: list[Any], judge: Judge) -> dict[str, Program]:
    """The programs of the training by name.

    Args:
      workload: What is trained.
      platform: `cpu`, `gpu` or `tpu`, that of the devices.
      devices: Devices, of all processes, which need not be here.
      judge: Says whether they hold the frames, too.
    """
    members, mesh = _members_on(workload, devices, None)
    is_cached = fitting.keeps_frames(workload.data(platform), members, mesh, platform, judge)
    planned = lowering.training_on(workload.data(platform), members, mesh, platform, is_cached)
    per_device = -(-len(members) // mesh.shape[sharding.MEMBER])
    shape = (
        f"{len(members)} members, {per_device} a device, {planned.shape.num_rows} rows of {planned.shape.num_frames} "
        f"frames, {'frames in device memory' if is_cached else 'frames from the host'}"
    )
    details = {
        "members": len(members), "members_per_device": per_device, "num_rows": planned.shape.num_rows,
        "num_frames": planned.shape.num_frames, "is_cached": is_cached, "mesh": dict(mesh.shape),
        "member_map": planned.settings.member_map, "dtype": planned.settings.sizes.dtype,
    }  # fmt: skip
    runs = {TRAIN: planned.num_batches, PREDICT: planned.num_development_batches, FINISH: 1}
    return {name: Program(name, shape, float(runs[name]), lower, details) for name, lower in planned.lower().items()}


def training_of(workload: Workload, platform: str, devices: list[Any], num_members: int) -> lowering.Training:
    """The training of so many members on each device of the member axis; frames come from the host where they may.

    More than the members of the config are more seeds of them.
    """
    members, mesh = _members_on(workload, devices, num_members)
    is_cached = workload.config.train.device_cache == "on"
    return lowering.training_on(workload.data(platform), members, mesh, platform, is_cached)


def _members_on(workload: Workload, devices: list[Any], num: int | None) -> tuple[list[ensemble.Member], Mesh]:
    """The members, or so many a device, and the mesh for them."""
    num_data, members = workload.config.train.data_shards, list(workload.members)
    if num is not None:
        members = _members_of(members, num * max(1, len(devices) // num_data))
    return members, sharding.make_mesh(len(members), num_data, devices)


def _members_of(members: list[ensemble.Member], num: int) -> list[ensemble.Member]:
    """So many members: those there are, and copies of them with other seeds, layers outermost as before."""
    copies = range(-(-num // len(members)))
    return [
        dataclasses.replace(member, seed=member.seed + _SEEDS_APART * copy) for member in members for copy in copies
    ][:num]


def _data_mesh(devices: list[Any]) -> Any:
    first = min(device.process_index for device in devices)
    return sharding.make_data_mesh([device for device in devices if device.process_index == first])
