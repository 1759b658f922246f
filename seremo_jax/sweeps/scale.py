"""What a corpus takes on how many accelerators, estimated before anything runs: operations, bytes, seconds, what binds.

What the code decides is asked of the code: shards and who writes them, padded batches, packed rows, members a device,
the layers that each device reads. Speeds of hardware are figures that are given (`scale_terms`).
"""

import dataclasses
import functools
import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from seremo_jax.backbones import costs
from seremo_jax.core import ensemble, sharding, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import Config, from_config_dict
from seremo_jax.data import audio, audio_batches, tables
from seremo_jax.features import forward
from seremo_jax.features.manifest import DTYPES, shards_of, shards_of_process
from seremo_jax.sweeps.scale_terms import Accelerator, Assumptions, Extraction, Training
from seremo_jax.training import arrangement, feed, loader, roofline
from seremo_jax.training.state import Settings, member_bytes

LEFT_FREE = 0.3
"""Of a device's memory: for what else the compiler asks."""
AUDIO_BYTES_PER_S = 2 * audio.SAMPLE_RATE_HZ
"""16-bit PCM; FLAC takes about half."""
_BATCHES_IN_FLIGHT = 3


def lengths_of(workdir: str | os.PathLike) -> Int[np.ndarray, " N"]:
    """Samples of the utterances that `ingest` found.

    Raises:
      ArtefactError: The workdir has no tables.
    """
    return audio_batches.Recordings.of(tables.read_tables(workdir)[0], "").num_samples


def config_of(num_seeds: int) -> Config:
    """What the table trains: bfloat16 products, both targets, so many seeds, members at once."""
    return from_config_dict(
        {
            "targets": {"class_set": "msp8"},
            "extract": {"layers": "all"},
            "model": {"dtype": "bfloat16", "layer": 0},
            "train": {"member_map": "vmap"},
            "ensemble": {"seeds": tuple(range(num_seeds)), "class_targets": vocab.CLASS_TARGETS},
        }
    )


def store_bytes(num_frames: Int[np.ndarray, " N"], num_features: int, dtype: str) -> int:
    """Bytes of one stored layer of these utterances, without the store's own records of them."""
    return int(num_frames.sum()) * num_features * np.dtype(DTYPES[dtype]).itemsize


class Corpus:
    """Utterances as a config extracts and trains on them.

    Args:
      config: Settings of extraction and training.
      backbone: Published config of the backbone.
      num_samples: Samples of every utterance.
      assumptions: What else is needed.
    """

    def __init__(
        self,
        config: Config,
        backbone: Any,
        num_samples: Int[np.ndarray, " N"],
        assumptions: Assumptions,
    ):
        self.config, self.backbone, self.num_samples, self.assumptions = config, backbone, num_samples, assumptions
        self.num_layers, self.num_features = backbone.num_hidden_layers + 1, backbone.hidden_size
        self.audio_s = float(num_samples.sum()) / audio.SAMPLE_RATE_HZ
        self.num_frames = costs.num_frames(backbone, num_samples)
        self.layer_bytes = store_bytes(self.num_frames, self.num_features, config.extract.dtype)
        self.flops = float(costs.forward_flops(backbone, num_samples).sum())
        self._shard_flops: dict[int, np.ndarray] = {}

    @functools.cached_property
    def shards(self) -> list[range]:
        """Rows of each shard."""
        return shards_of(len(self.num_samples), self.config.extract.shard_utterances)

    def shard_flops(self, num_devices: int) -> np.ndarray:
        """[n] operations of each shard on one of the devices of a process that share its batches, padding included."""
        if num_devices in self._shard_flops:
            return self._shard_flops[num_devices]
        planned = forward.plan_batches(self.config.extract, self.shards, self.num_samples, num_devices=num_devices)
        slots, lengths = (
            np.array([getattr(batch, name) for shard in planned for batch in shard])
            for name in ("num_slots", "num_samples")
        )
        flops = slots * costs.forward_flops(self.backbone, lengths) / num_devices
        self._shard_flops[num_devices] = np.add.reduceat(flops, np.cumsum([0, *map(len, planned[:-1])]))
        return self._shard_flops[num_devices]

    def extraction(self, device: Accelerator, num_devices: int) -> Extraction:
        """The pass over the audio on so many devices."""
        a = self.assumptions
        per_process, per_host = (min(n, num_devices) for n in (a.devices_per_process, a.devices_per_host))
        num_processes, num_hosts = -(-num_devices // per_process), -(-num_devices // per_host)
        shard_flops = self.shard_flops(per_process)
        loads = [
            shard_flops[list(shards_of_process(len(self.shards), process, num_processes))].sum()
            for process in range(num_processes)
        ]
        balance = float(np.mean(loads) / np.max(loads))
        flops_per_s = device.peak_flops_per_s * device.share
        compute_s = float(np.max(loads)) / flops_per_s
        audio_bytes, num_bytes = self.audio_s * AUDIO_BYTES_PER_S, self.layer_bytes * self.num_layers
        decode_s = self.audio_s / (num_processes * self.config.extract.num_threads * a.decode_speed)
        fill = self.flops / (float(shard_flops.sum()) * per_process)
        return Extraction(
            expected_h_per_s=flops_per_s * fill / (self.flops / self.audio_s) / 3_600,
            needed_h_per_s=self.audio_s / 3_600 / a.goal_s / num_devices,
            fill=fill,
            balance=balance,
            read_bytes_per_s=audio_bytes / num_hosts / compute_s,
            write_bytes_per_s=num_bytes / num_hosts / compute_s,
            seconds={
                "compute": compute_s,
                "input": max(audio_bytes / num_hosts / a.disk_bytes_per_s, decode_s) / balance,
                "storage": num_bytes / num_hosts / a.disk_bytes_per_s / balance,
            },
        )

    @functools.cached_property
    def _packing(self) -> tuple[loader.Shape, float, int]:
        """Rows of a training batch, batches of an epoch, and frames of the training split."""
        num = max(1, round(len(self.num_frames) * self.assumptions.train_part))
        places = np.arange(num) * len(self.num_frames) // num  # evenly over the table, whatever its order
        lengths, t = self.num_frames[places], self.config.train
        gap = loader.gap_of(self.config.model.conv_kernel)
        shape = loader.plan_shape(lengths, t.batch_size, t.frames_per_row, t.data_seed, gap)
        sample = lengths[:: -(-num // 20_000)]
        planned = loader.plan_epoch(sample, shape, t.data_seed, 0)
        return shape, len(planned) * num / len(sample), int(lengths.sum())

    @property
    def batch_frames(self) -> int:
        """Frames of a training batch, gaps and all."""
        return self._packing[0].num_frames * self._packing[0].num_rows

    @functools.cached_property
    def members(self) -> list[ensemble.Member]:
        """The members of the config, on every layer."""
        layers = {"layers": tuple(range(self.num_layers))}
        config = dataclasses.replace(self.config, ensemble=dataclasses.replace(self.config.ensemble, **layers))
        return ensemble.members(config, None)

    @functools.cached_property
    def settings(self) -> Settings:
        """Static settings of the training."""
        t = self.config.targets
        num_classes = len(vocab.classes_of(t.class_set)) + (t.other_votes == "class")
        return Settings.of(self.config, self.num_features, num_classes)

    def training(self, device: Accelerator, num_devices: int) -> Training:
        """All members, each on its layer, on so many devices.

        Raises:
          ArtefactError: Not one member fits.
        """
        a, (shape, num_batches, num_frames) = self.assumptions, self._packing
        batch_frames = self.batch_frames
        itemsize = np.dtype(DTYPES[self.config.extract.dtype]).itemsize
        view_bytes = _BATCHES_IN_FLIGHT * batch_frames * self.num_features * itemsize
        each = sum(member_bytes(self.settings, batch_frames)) + view_bytes
        fitting = int(device.memory_bytes * (1 - LEFT_FREE) // each)
        if not fitting:
            raise ArtefactError(
                f"one member takes {each / 1e9:.1f} GB, the device has {device.memory_bytes / 1e9:.0f}: raise "
                "train.micro_batches or lower train.batch_size"
            )
        seconds, read_bytes, num_runs, per_device = {"compute": 0.0, "recurrence": 0.0, "input": 0.0}, 0.0, 0, 0
        num_processes = -(-num_devices // min(num_devices, a.devices_per_process))
        for start in range(0, len(self.members), fitting * num_devices):
            run = self.members[start : start + fitting * num_devices]
            num_shards = sharding.num_member_shards(len(run), num_devices, num_processes)
            spread = arrangement.arrange(len(run), num_shards)
            views, _ = arrangement.share_out(spread, [((0, member.layer),) for member in run])
            free = device.memory_bytes - spread.per_shard * each
            one_epoch = len(views[0]) * num_frames * self.num_features * itemsize
            is_cached = one_epoch <= feed.CACHE_SHARE * free and num_frames < 2**31
            updates = a.epochs * num_batches
            flops = spread.per_shard * updates * batch_frames * roofline.head_flops(self.settings.sizes)
            seconds["compute"] += flops / (device.peak_flops_per_s * device.share)
            seconds["recurrence"] += updates * self._scan_s(device, shape.num_frames, spread.per_shard)
            epochs = 1 if is_cached else a.epochs
            fed, on_disk = (one_epoch / len(views[0]) * number for number in _views_of_host(views, a.devices_per_host))
            seconds["input"] += self._input_s(fed, on_disk, epochs, min(num_shards, num_processes))
            read_bytes += fed * epochs
            num_runs, per_device = num_runs + 1, per_device + spread.per_shard
        device_s = seconds["compute"] + seconds["recurrence"]
        frames = len(self.members) * a.epochs * num_frames
        return Training(fitting, per_device, num_runs, frames / device_s, read_bytes / device_s, seconds)

    def _scan_s(self, device: Accelerator, num_steps: int, num_members: int) -> float:
        """Seconds that the scans of one update take, forward and back: weights are read anew for every frame."""
        m = self.config.model
        weight_bytes = num_members * 3 * m.gru_units**2 * (2 if m.dtype == "bfloat16" else 4)
        step_s = max(self.assumptions.scan_step_s, weight_bytes / device.bandwidth_bytes_per_s)
        return 2 * m.gru_layers * num_steps * step_s

    def _input_s(self, fed_bytes: float, file_bytes: float, epochs: int, num_processes: int) -> float:
        """Seconds in which a host feeds its devices; files that fit into half of its memory are read once.

        Args:
          fed_bytes: What its processes make of the files in an epoch, each for its own devices.
          file_bytes: The files.
          epochs: How often.
          num_processes: Of all hosts.
        """
        a = self.assumptions
        on_host = min(num_processes, max(1, a.devices_per_host // a.devices_per_process))
        loaded_s, disk_s = fed_bytes / (on_host * a.loader_bytes_per_s), file_bytes / a.disk_bytes_per_s
        later_s = loaded_s if 2 * file_bytes <= a.host_memory_bytes else max(loaded_s, disk_s)
        return max(loaded_s, disk_s) + (epochs - 1) * later_s


def _views_of_host(views: Sequence[Sequence[Hashable]], devices_per_host: int) -> tuple[int, int]:
    """Views that the fullest host feeds, and layers that it reads for them."""
    hosts = [views[start : start + devices_per_host] for start in range(0, len(views), devices_per_host)]
    return max(sum(map(len, host)) for host in hosts), max(
        len({view for shard in host for view in shard}) for host in hosts
    )
