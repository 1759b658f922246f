"""A corpus of 22 short sounds and a backbone of a few lines, for the tests of extraction."""

import dataclasses
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
import soundfile

from seremo_jax import backbones
from seremo_jax.core.artefacts import write_json
from seremo_jax.core.config import Config, from_config_dict
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data import audio, tables
from seremo_jax.features import extract
from seremo_jax.features.store import Reader

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad")
NUM_UTTERANCES, NUM_LAYERS, NUM_FEATURES, HOP = 22, 4, 6, 320
SPLITS = ("train", "train", "development", "train", "test")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Toy:
    """Frames of 320 samples through a fixed matrix a layer: few enough lines to write again in NumPy."""

    layers: tuple[int, ...]
    name: str = "toy"
    num_layers: int = NUM_LAYERS
    num_features: int = NUM_FEATURES
    sample_rate_hz: int = 16_000
    frame_rate_hz: float = 50.0
    revision: str = "1"
    dtype: str = "float32"
    least_samples: int = 0
    final_norm: bool = False
    scale: float = 1.0

    def num_frames(self, num_samples: Any) -> Any:
        return -(-num_samples // HOP)

    def __call__(self, waveforms, num_samples):
        TRACES.append(waveforms.shape)
        num_frames = self.num_frames(num_samples)
        frames = waveforms.reshape(len(waveforms), -1, HOP)
        hidden = jnp.stack([jnp.abs(frames @ matrix(layer)) * self.scale for layer in self.layers])
        is_valid = jnp.arange(frames.shape[1])[None, :] < num_frames[:, None]
        return jnp.where(is_valid[None, :, :, None], hidden, 0), num_frames


TRACES: list[tuple[int, int]] = []


def matrix(layer: int) -> np.ndarray:
    """Whole numbers, so that products with samples of 16 bits are exact, whatever order a processor adds them in."""
    return np.random.default_rng(layer).integers(-2, 3, (HOP, NUM_FEATURES)).astype(np.float32)


def expected_frames(waveform: np.ndarray) -> np.ndarray:
    padded = np.pad(waveform, (0, -len(waveform) % HOP)).reshape(-1, HOP).astype(np.float64)
    return np.stack([np.abs(padded @ matrix(layer)) for layer in range(NUM_LAYERS)])


def install_toy(**fields: Any) -> None:
    def load(name, layers, dtype):
        return Toy(backbones.pick_layers(layers, fields.get("num_layers", NUM_LAYERS)), **fields)

    backbones.LOADERS["toy"] = load


def make_corpus(folder: Path) -> Path:
    """Writes `workdir/` as ingest leaves it and `audio/` beside it; level and votes go together."""
    rng = np.random.default_rng(0)
    ids = [f"u{i:02d}" for i in range(NUM_UTTERANCES)]
    lengths = rng.integers(3_000, 20_000, NUM_UTTERANCES)
    level = rng.uniform(0.05, 0.6, NUM_UTTERANCES)
    (folder / "audio").mkdir()
    for name, length, peak in zip(ids, lengths, level, strict=True):
        tone = np.sin(np.arange(length) * rng.uniform(0.05, 0.5)) + 0.3 * rng.standard_normal(length)
        soundfile.write(folder / "audio" / f"{name}.wav", tone * peak / 2, 16_000)
    info = CorpusInfo("toy", "1", "crema6", dict.fromkeys(("valence", "activation", "dominance"), (1.0, 7.0)))
    columns = {
        "id": ids,
        "audio": [f"{name}.wav" for name in ids],
        "corpus": ["toy"] * NUM_UTTERANCES,
        "release": ["1"] * NUM_UTTERANCES,
        "split": [SPLITS[i % len(SPLITS)] for i in range(NUM_UTTERANCES)],
        "speaker": [f"s{i % 5}" for i in range(NUM_UTTERANCES)],
        "gender": ["female"] * NUM_UTTERANCES,
        "duration_s": lengths / 16_000,
        "audio_sha256": [audio.check(folder / "audio" / f"{name}.wav", 0.1, 60.0).sha256 for name in ids],
    }
    utterances = tables.make_table(columns, UTTERANCE_SCHEMA, info)
    rated = np.repeat(np.arange(NUM_UTTERANCES), 4)
    votes = [CLASSES[int(c)] for c in np.clip(level[rated] * 8 + rng.normal(0, 1, len(rated)), 0, 5)]
    attributes = np.clip(np.round(1 + 9 * level[rated] + rng.normal(0, 1, len(rated))), 1, 7)
    columns = {
        "utterance": [ids[row] for row in rated],
        "rater": [f"r{i % 4}" for i in range(len(rated))],
        "modality": ["voice"] * len(rated),
        "primary": votes,
        "secondary": [[] for _ in rated],
        "valence": attributes.tolist(),
        "activation": [value if row % 3 else None for value, row in zip(attributes, rated, strict=True)],
        "dominance": [None] * len(rated),
    }
    ratings = tables.make_table(columns, RATING_SCHEMA, info)
    write_tables(folder / "workdir", utterances, ratings)
    return folder


def write_tables(workdir: Path, utterances: pa.Table, ratings: pa.Table) -> None:
    tables.write_table(workdir / tables.UTTERANCES_FILE, utterances)
    tables.write_table(workdir / tables.RATINGS_FILE, ratings)
    stamp = tables.stamp(config_of(workdir), utterances, ratings)
    write_json(workdir / tables.STAMP_FILE, stamp | {"split_hash": "s"})


def config_of(corpus: Path, **changes: Any) -> Config:
    fields = {
        "corpus.name": "crema_d",
        "corpus.root": str(corpus / "audio"),
        "backbone.name": "toy",
        "extract.layers": "all",
        "extract.dtype": "float32",
        "extract.shard_utterances": 5,
        "extract.num_buckets": 3,
        "extract.batch_seconds": 4.0,
        "extract.num_threads": 2,
    }
    tree: dict[str, dict[str, Any]] = {}
    for path, value in (fields | {name.replace("__", "."): value for name, value in changes.items()}).items():
        section, name = path.split(".")
        tree.setdefault(section, {})[name] = value
    return from_config_dict(tree)


def fresh(corpus: Path, tmp_path: Path, name: str = "workdir", source: Path | None = None) -> Path:
    return Path(shutil.copytree(source or corpus / "workdir", tmp_path / name))


def extracted(corpus: Path, workdir: Path, **changes: Any) -> Reader:
    return Reader(extract.run(config_of(corpus, **changes), workdir, is_quiet=True))


def contents(workdir: Path) -> dict[str, bytes]:
    """Every artefact; compiled programs are none."""
    files = [file.relative_to(workdir) for file in sorted(workdir.rglob("*")) if file.is_file()]
    return {str(file): (workdir / file).read_bytes() for file in files if file.parts[0] != "compiled"}


def read_waveform(corpus: Path, utterance: str) -> np.ndarray:
    return soundfile.read(corpus / "audio" / f"{utterance}.wav", dtype="float32")[0]


RESUMED = {"extract__batch_seconds": 1.0, "extract__shard_utterances": 3, "extract__num_threads": 1}


def interrupting(monkeypatch: pytest.MonkeyPatch, after: int, interrupt: Callable[[], None]) -> list[str]:
    """Paths decoded from now on; calls `interrupt` once more than `after` were."""
    decode, decoded = audio.decode, []

    def count(path, **options):
        decoded.append(path)
        if len(decoded) > after:
            interrupt()
        return decode(path, **options)

    monkeypatch.setattr(audio, "decode", count)
    return decoded


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
