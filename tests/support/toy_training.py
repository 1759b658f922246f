"""Trainings on features that tests make: a store in memory, targets, the loop over them."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from seremo_jax.core import ensemble
from seremo_jax.core.config import from_config_dict
from seremo_jax.core.preemption import Notice
from seremo_jax.core.progress import Progress
from seremo_jax.data.targets import Targets
from seremo_jax.features.store import Reader
from seremo_jax.training.balance import Groups
from seremo_jax.training.checkpoint import Position
from seremo_jax.training.dataset import Data
from seremo_jax.training.loop import Loop

LAYERS, FEATURES, CLASSES, ATTRIBUTES, NUM = (2, 5), 3, 4, 3, 40

GROUPS = Groups(
    np.where(np.arange(NUM) % 11 == 5, -1, np.minimum(np.arange(NUM) // 3, 6)).astype(np.int32),
    np.where(np.arange(NUM) % 13 == 6, -1, np.arange(NUM) % 5 // 3).astype(np.int32),
    np.zeros(NUM, np.int32),
)
"""Speakers of unlike numbers of utterances, two groups, and some that are not known; one corpus."""


class ToyStore(Reader):
    """Hidden states in memory, in which the votes can be heard."""

    def __init__(self, targets: Targets, layers=LAYERS, path=Path("store")):
        rng = np.random.default_rng(0)
        self.layers, self.path = layers, path
        self.utterances = list(targets.ids)
        self.num_frames = rng.integers(3, 9, len(self.utterances))
        self.manifest = {"num_features": FEATURES, "dtype": "float16", "frame_rate_hz": 50.0}
        code = rng.normal(size=(len(layers), CLASSES, FEATURES))
        self._frames = {
            layer: [
                (targets.distribution[i] @ code[k] + 0.1 * rng.normal(size=(n, FEATURES))).astype(np.float16)
                for i, n in enumerate(self.num_frames)
            ]
            for k, layer in enumerate(layers)
        }
        self.num_reads = 0

    def read(self, layer, rows):
        """Frames of these rows."""
        self.num_reads += len(rows)
        return [self._frames[layer][row] for row in rows]

    def poison(self, layer):
        """NaN in one frame of a layer, of an utterance of the training split."""
        self._frames[layer][1][0, 0] = np.nan

    def arrays(self, name):
        """Feature statistics."""
        assert name == "norm"
        frames = [np.concatenate(self._frames[layer]).astype(np.float32) for layer in self.layers]
        return {"mean": np.array([f.mean(0) for f in frames]), "sd": np.array([f.std(0) for f in frames])}


def targets(num=NUM, seed=0):
    """Random targets of every kind, some of them missing."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(CLASSES), num).astype(np.float32)
    shares = rng.dirichlet(np.ones(5), (num, ATTRIBUTES)).astype(np.float32)
    has_consensus = np.arange(num) % 7 != 3
    return Targets(
        ids=np.array([f"u{i}" for i in range(num)], dtype=object),
        votes=np.round(6 * p).astype(np.int32),
        distribution=p,
        has_votes=np.ones(num, bool),
        consensus_index=np.where(has_consensus, p.argmax(1), -1).astype(np.int32),
        consensus=np.eye(CLASSES, dtype=np.float32)[p.argmax(1)] * has_consensus[:, None],
        has_consensus=has_consensus,
        attributes=rng.normal(size=(num, ATTRIBUTES)).astype(np.float32),
        has_attribute=rng.random((num, ATTRIBUTES)) > 0.1,
        attribute_variance=rng.random((num, ATTRIBUTES)).astype(np.float32),
        has_variance=np.ones((num, ATTRIBUTES), bool),
        attribute_shares=shares,
        levels=(-1.0, -0.5, 0.0, 0.5, 1.0),
        class_names=tuple("abcd"),
        attribute_names=("valence", "activation", "dominance"),
        attribute_ranges={},
        counts={},
    )


def config(**sections):
    """A config for small heads; `section={...}` overrides.

    One GRU compiles faster than two; `test_loop` trains two of them in one of its options.
    """
    tree = {
        "extract": {"layers": "all"},
        "model": {"gru_units": 6, "gru_layers": 1, "embedding_size": 5, "layer": LAYERS[0]},
        "optim": {"learning_rate": 1e-3},
        "train": {"batch_size": 8, "member_map": "map", "device_cache": "off", "max_epochs": 3},
        "ensemble": {"layers": LAYERS, "class_targets": ("votes", "consensus"), "seeds": (0, 1)},
    }
    for section, values in sections.items():
        tree[section] = tree.get(section, {}) | values
    return from_config_dict(tree)


def mesh(num_member, num_data=1):
    """A mesh over the first devices."""
    devices = np.array(jax.devices()[: num_member * num_data]).reshape(num_member, num_data)
    return jax.sharding.Mesh(devices, ("member", "data"))


def data_of(config, store=None, splits=None):
    """What members read; every fourth utterance is of the development split."""
    drawn = targets()
    store = store or ToyStore(drawn)
    own = np.where(np.arange(NUM) % 4 == 0, "development", "train")
    drawn = drawn if config.loss.attribute_kind == "emd" else dataclasses.replace(drawn, levels=())
    return Data(
        config=config,
        store=store,
        targets=drawn,
        training_targets=drawn,
        splits=splits or {None: own},
        frames=store,
        num_frames=store.num_frames,
        store_rows=np.arange(NUM),
        columns={},
        groups=GROUPS,
    )


def loop(config, mesh, members=None, store=None, splits=None):
    """A loop before its first epoch."""
    members = ensemble.members(config, None) if members is None else members
    data = data_of(config, store, splits)
    return Loop(config, data, members, mesh, is_cached=config.train.device_cache != "off")


def run(config, mesh, num_epochs=1, *, first=0, loop=None, **options):
    """The loop after some epochs, and its lines."""
    loop = loop if loop is not None else globals()["loop"](config, mesh, **options)
    lines = []
    with Notice() as notice, Progress(num_epochs, "toy", "epochs", is_quiet=True) as progress:
        for number in range(first, first + num_epochs):
            lines.append(loop.epoch(Position(number), notice, lambda position: None, progress))
    return loop, lines


def relative_statistics(store, layer, row, kappa_s, word="development"):
    """Mean and standard deviation [D] that the features of an utterance have relative to its speaker, in float64."""
    plain = store.arrays("norm")
    mean, sd = (plain[name][store.layers.index(layer)].astype(np.float64) for name in ("mean", "sd"))
    speaker, is_development = GROUPS.speaker, np.arange(NUM) % 4 == 0
    if speaker[row] < 0 or np.isinf(kappa_s):
        return mean, sd
    own = np.flatnonzero((speaker == speaker[row]) & (is_development == (word == "development")))
    frames = np.concatenate(store.read(layer, own)).astype(np.float64)
    seconds = len(frames) / 50
    mean = (seconds * frames.mean(0) + kappa_s * mean) / (seconds + kappa_s)
    return mean, np.sqrt((seconds * frames.var(0) + kappa_s * sd**2) / (seconds + kappa_s))


def params_of(loop):
    """Parameters, as a list of NumPy arrays [E, ...] in the order of the members."""
    return [np.asarray(x)[: len(loop.members)] for x in jax.tree.leaves(loop.canonical_state().params)]
