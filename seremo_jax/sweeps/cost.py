"""What a program of a sweep takes: members that fit into device memory, bytes and seconds.

The compiler decides how many members train at once, by what it says of their very steps (`training.fitting`). Where
devices do not say how much memory they have, as processors, or where there are no tables yet, an estimate from settings
alone decides, with a margin.
"""

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from seremo_jax import backbones
from seremo_jax.backbones import published_config
from seremo_jax.core import sharding, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import Config
from seremo_jax.data import tables
from seremo_jax.sweeps import fit, workload
from seremo_jax.sweeps.plan import Plan, Program
from seremo_jax.training import fitting, lowering, model, roofline, speakers
from seremo_jax.training.memory import Memory
from seremo_jax.training.state import Settings, member_bytes

_MARGIN = 0.3
"""Of the memory, left to frames and what the compiler asks for besides, where it is not asked."""
_WIDEST = 1_920
"""Features of the widest backbone, taken for one whose config is not at hand."""
_FRAME_RATE_HZ, _UTTERANCE_S = 50.0, 6.0
"""Taken until the tables are there: the frame rate of transformers, the mean length in MSP-Podcast."""
_SHARE_OF_PEAK = 0.2
"""Of the measured peak, that training reaches at least."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one member takes.

    Attributes:
      num_parameters: Parameters of its head.
      state_bytes: Bytes of device memory that it takes for as long as the training goes on.
      step_bytes: Bytes that a step takes besides. Members that train side by side each need them; where members take
        turns (`train.member_map` is `map`), they are needed once.
      flops_per_frame: Operations of a step, per frame.
      takes_turns: Whether the members of the program take turns.
    """

    num_parameters: int
    state_bytes: int
    step_bytes: int
    flops_per_frame: int
    takes_turns: bool

    @property
    def member_bytes(self) -> int:
        """Bytes that each member adds to a program."""
        return self.state_bytes + (0 if self.takes_turns else self.step_bytes)

    @property
    def shared_bytes(self) -> int:
        """Bytes that a program takes once, however many members it has."""
        return self.step_bytes if self.takes_turns else 0


def member_cost(config: Config) -> Cost:
    """The cost of a member of a program; a backbone whose width is not at hand counts as the widest there is."""
    num_classes = len(vocab.classes_of(config.targets.class_set)) + (config.targets.other_votes == "class")
    width = config.model.top_features or _num_features(config.backbone.name)
    settings = Settings.of(config, width, num_classes)
    sizes = settings.sizes
    shapes = jax.eval_shape(lambda: model.init(sizes, jax.random.key(0)))
    num_parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    num_frames = int(config.train.batch_size * _FRAME_RATE_HZ * _UTTERANCE_S)
    state_bytes, step_bytes = member_bytes(settings, num_frames, speakers.is_asked_for(config))
    takes_turns = settings.member_map == "map"
    return Cost(num_parameters, state_bytes, step_bytes, roofline.head_flops(sizes), takes_turns)


def most_members(config: Config, workdir: str | os.PathLike, prepare: Callable[[], Any] | None = None) -> int:
    """Members of a program that may train at once on all devices; at least one.

    Args:
      config: Settings of the program, with all of its members.
      workdir: Folder of the sweep, with the records of what programs take.
      prepare: Called to make the tables, without which the compiler cannot be asked; None makes none.
    """
    judge = fitting.judge_here(workdir)
    if judge is not None and prepare is not None and not (Path(workdir) / tables.STAMP_FILE).exists():
        prepare()
    work = None if judge is None else _workload(config, workdir)
    if work is None:
        return _estimated_members(config)
    if judge.fits(_needed(work, judge)):
        return len(work.members)
    devices, platform = jax.devices(), jax.default_backend()
    num_shards = max(1, len(devices) // config.train.data_shards)
    per_device, _ = fit.largest_that_fits(
        lambda n: fit.members_need(work, platform, devices, judge, n), judge,
        guess=_estimated_members(config) // num_shards, most=-(-len(work.members) // num_shards),
    )  # fmt: skip
    return max(per_device, 1) * num_shards


def _workload(config: Config, workdir: str | os.PathLike) -> workload.Workload | None:
    """What a program works on; None where the workdir has no tables, or those of another stage of the sweep."""
    try:
        return workload.of_workdir(config, workdir)
    except ArtefactError:
        return None


def _needed(work: workload.Workload, judge: fitting.Judge) -> Memory:
    """What all members take at once, with frames from the host."""
    mesh = sharding.make_mesh(len(work.members), work.config.train.data_shards)
    platform, is_cached = jax.default_backend(), work.config.train.device_cache == "on"
    return judge.needed(lowering.training_on(work.data(platform), work.members, mesh, platform, is_cached))


def _estimated_members(config: Config) -> int:
    """Members that fit into the memory of all devices by the estimate, with its margin; at least one."""
    cost, devices = member_cost(config), jax.devices()
    if jax.default_backend() == "cpu":
        room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # which all virtual devices share
        num_devices = 1
    else:
        # A device that does not say how much memory it has counts as a small one.
        stats = jax.local_devices()[0].memory_stats() or {}
        room, num_devices = stats.get("bytes_limit", 16 << 30), len(devices) // config.train.data_shards or 1
    room = room * (1 - _MARGIN) - cost.shared_bytes
    return max(int(room // cost.member_bytes), 1) * num_devices


def _num_features(name: str) -> int:
    if name in backbones.LOADERS:
        return backbones.LOADERS[name](name, None, "float32").num_features
    try:
        return published_config.read_config(Path(name)).hidden_size
    except backbones.CheckpointError:
        return _WIDEST


def describe(planned: Plan, workdir: str | os.PathLike) -> str:
    """The plan as text: programs, members, compilations, estimated bytes and time."""
    lines = [
        f"{len(planned.points)} points, {sum(program.num_members for program in planned.programs)} members, "
        f"{len(planned.programs)} program{'s' * (len(planned.programs) > 1)} (3 large compilations each: a "
        "step, predictions while training, predictions after it)",
        f"sweeps over {', '.join(planned.swept)}",
    ]
    peak, total_s, train_s = None, 0.0, _train_s(workdir)
    for index, program in enumerate(planned.programs):
        cost = member_cost(program.config)
        line = (
            f"program {index}: {program.num_members} members of {cost.num_parameters:,} parameters, "
            f"{_memory(program, cost, workdir)}, extraction in "
            f"{'the workdir' if program.stage == '.' else program.stage}, points {_ranges(program.points)}"
        )
        if train_s:
            peak = peak or roofline.peak_flops_per_s(
                sharding.make_mesh(program.num_members), program.config.model.dtype
            )
            frames = train_s * _FRAME_RATE_HZ * program.config.train.max_epochs * program.num_members
            seconds = frames * cost.flops_per_frame / (peak * _SHARE_OF_PEAK)
            total_s += seconds
            line += f", at most {seconds / 60:,.1f} min"
        lines.append(line)
    if train_s:
        lines.append(
            f"trained one after the other: at most {total_s / 60:,.1f} min (all epochs of train.max_epochs, at "
            f"{_SHARE_OF_PEAK:.0%} of the measured peak of these devices); extraction comes on top"
        )
    else:
        lines.append(f"time: not known before python -m launch.ingest has written the tables of {workdir}")
    return "\n".join(lines)


def _memory(program: Program, cost: Cost, workdir: str | os.PathLike) -> str:
    judge = fitting.judge_here(workdir)
    work = None if judge is None else _workload(program.config, workdir)
    if work is None:
        num_bytes = program.num_members * cost.member_bytes + cost.shared_bytes
        return f"about {num_bytes / 2**20:,.0f} MiB of memory"
    needed = _needed(work, judge)
    takes = "more than that" if needed.refusal else f"{needed.num_bytes / 1e9:,.2f} GB"
    return f"{takes} of {judge.room_bytes / 1e9:,.2f} GB of a device by the compiler's count"


def _train_s(workdir: str | os.PathLike) -> float:
    """Seconds of speech in the training split; 0 where there are no tables yet."""
    if not (Path(workdir) / tables.STAMP_FILE).exists():
        return 0.0
    utterances = tables.read_tables(workdir)[0].select(["split", "duration_s"]).to_pylist()
    return sum(row["duration_s"] for row in utterances if row["split"] == vocab.TRAIN)


def _ranges(numbers: tuple[int, ...]) -> str:
    """`0-3, 7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in parts)
