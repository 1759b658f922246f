"""Our training engine as the suites call it: the one file of the benchmark that knows the engine's signatures."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from seremo_jax import ensemble, loader, sharding, steps
from seremo_jax.config import from_config_dict
from seremo_jax.schema import Batch
from seremo_jax.store import Reader
from seremo_jax.targets import Targets

CLASS_NAMES = tuple("abcdefgh")
ATTRIBUTE_NAMES = ("valence", "activation", "dominance")
FRAME_RATE_HZ = 50


class Frames:
    """Utterances in memory, float32, the same at every layer; reads like a store."""

    def __init__(self, lengths: Sequence[int], num_features: int):
        rng = np.random.default_rng(0)
        bank = rng.standard_normal((max(lengths) + 997, num_features), np.float32)
        starts = rng.integers(0, 997, len(lengths))
        self.lengths = np.asarray(lengths)
        self.frames = [bank[start : start + length] for start, length in zip(starts, lengths, strict=True)]

    def read(self, layer: int, rows: Sequence[int]) -> list[np.ndarray]:
        """Frames [T, D] of the given rows."""
        return [self.frames[row] for row in rows]


def podcast_lengths(num: int, seed: int = 0) -> np.ndarray:
    """[num] frames of utterances of 1.9 to 11.9 s, 5.7 s on average: about what MSP-Podcast has."""
    seconds = np.clip(np.random.default_rng(seed).gamma((5.7 / 2.35) ** 2, 2.35**2 / 5.7, num), 1.9, 11.9)
    return (seconds * FRAME_RATE_HZ).astype(int)


def random_targets(num: int) -> Targets:
    """Vote distributions and attributes of `num` utterances, all labelled."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(len(CLASS_NAMES)), num).astype(np.float32)
    shape = (num, len(ATTRIBUTE_NAMES))
    return Targets(
        ids=np.array([f"u{row}" for row in range(num)]),
        votes=np.ones(p.shape, np.int32),
        distribution=p,
        has_votes=np.ones(num, bool),
        consensus_index=p.argmax(1).astype(np.int32),
        consensus=np.eye(len(CLASS_NAMES), dtype=np.float32)[p.argmax(1)],
        has_consensus=np.ones(num, bool),
        attributes=rng.uniform(-1, 1, shape).astype(np.float32),
        has_attribute=np.ones(shape, bool),
        attribute_variance=np.zeros(shape, np.float32),
        has_variance=np.zeros(shape, bool),
        class_names=CLASS_NAMES,
        attribute_names=ATTRIBUTE_NAMES,
        attribute_ranges={},
        counts={},
    )


def packed_plan(lengths: np.ndarray, batch_size: int) -> tuple[list[loader.Placed], loader.Shape]:
    """Our batches of an epoch, and their shape."""
    shape = loader.plan_shape(lengths, batch_size)
    return loader.plan_epoch(lengths, shape, 0, 1), shape


def padded_plan(lengths: np.ndarray, batch_size: int) -> tuple[list[loader.Placed], loader.Shape]:
    """Batches of the same shuffle with one utterance a row, whole ones only; every row as long as the longest."""
    order = np.random.default_rng([0, 1]).permutation(len(lengths))
    rows = np.arange(batch_size)
    starts = range(0, len(order) - batch_size + 1, batch_size)
    plan = [loader.Placed(order[start : start + batch_size], rows, 0 * rows) for start in starts]
    return plan, loader.Shape(int(max(lengths)), batch_size, batch_size)


def source(
    store: Any, layers: Sequence[int], targets: Targets, plan: Sequence[loader.Placed], shape: loader.Shape
) -> loader.BatchSource:
    """Batches of an epoch over every utterance of a store, whose rows are those of the targets."""
    rows = np.arange(len(targets.ids))
    return loader.BatchSource(store, layers, rows, rows, targets, plan, shape)


def epoch(reader: Reader, targets: Targets, batch_size: int, number: int) -> Iterator[Batch]:
    """The batches of one epoch as training reads them: through Grain, from the store."""
    shape = loader.plan_shape(reader.num_frames, batch_size)
    plan = loader.plan_epoch(reader.num_frames, shape, 0, number)
    yield from loader.batches(source(reader, reader.layers, targets, plan, shape))


class Trainer:
    """Members of the published head, trained in one program.

    Args:
      num_members: E.
      num_features: D.
      num_layers: Layers they read, as evenly as it goes.
      sizes: Fields of `model`, other than the published ones.

    Attributes:
      num_spare: Members beyond E, trained as well where E does not divide over the devices.
    """

    def __init__(self, num_members: int, num_features: int, num_layers: int = 1, sizes: dict[str, Any] | None = None):
        # One head alone has all cores for itself; several are spread over the cores.
        num_devices = 1 if num_members == 1 else len(jax.devices())
        self.num_spare = -num_members % num_devices
        total = num_members + self.num_spare
        members = [ensemble.Member(number % num_layers, "votes", number) for number in range(total)]
        config = from_config_dict({"model": sizes or {}})
        settings = steps.Settings.of(config, num_features, len(CLASS_NAMES))
        mesh = sharding.make_mesh(total)
        self._members = steps.Members.of(members)
        self._norm = steps.Normalisation(
            np.zeros((num_layers, num_features), np.float32), np.ones((num_layers, num_features), np.float32)
        )
        self._state = jax.device_put(steps.init(settings, self._members), sharding.by_member(mesh))
        self._compiled = steps.compile_steps(settings, mesh)
        self._same = sharding.replicated(mesh)

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the first member."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[0], self._state.params)

    def place(self, batch: Batch) -> Batch:
        """The batch on the devices, as a training finds it ready."""
        return jax.device_put(batch, self._same)

    def step(self, batch: Batch) -> np.ndarray:
        """One update of every member, waited for; the loss of each."""
        self._state, terms = self._compiled.train(self._state, self._members, batch, self._norm)
        jax.block_until_ready(self._state)
        return np.asarray(terms["loss"])
