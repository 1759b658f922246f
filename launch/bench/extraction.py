"""Whole extractions: from audio files to store and saliency, timed and with memory watched."""

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from launch.bench.suite import Session
from seremo_jax.core.artefacts import write_json
from seremo_jax.core.config import Config, from_config_dict
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data import tables

RATE_HZ = 16_000
NUM_SPEAKERS, QUICK_SPEAKERS = 12, 3
_SAMPLE_S = 0.05


def end_to_end(session: Session, folder: Path) -> tuple[float, float]:
    """Seconds of a whole extraction of a part of CREMA-D, and of the bare passes over the same padded batches.

    Compilation is left out of both: an extraction into another folder goes before, whose batches are kept.
    """
    import jax

    from seremo_jax.data import audio_batches, ingest
    from seremo_jax.features import extract, forward

    config = from_config_dict(
        {
            "corpus": {"name": "crema_d", "root": str(session.shared / "data" / "crema_d")},
            "data": {"max_speakers": QUICK_SPEAKERS if session.is_quick else NUM_SPEAKERS},
            **_backbone("logmel" if session.is_quick else session.shared / "weights" / "whisper-tiny.en-encoder"),
            "saliency": {"targets": "votes"},
        }
    )
    heard, decode = [], audio_batches.stream

    def keep(*arguments):
        for batch in decode(*arguments):
            heard.append(batch)
            yield batch

    for name in ("warm", "timed"):
        (folder / name).mkdir()
    ingest.run(config, folder / "warm", is_quiet=True)
    audio_batches.stream = keep
    try:
        extract.run(config, folder / "warm", is_quiet=True)
    finally:
        audio_batches.stream = decode
    for name in (tables.UTTERANCES_FILE, tables.RATINGS_FILE, tables.STAMP_FILE):
        shutil.copy(folder / "warm" / name, folder / "timed" / name)
    start = time.perf_counter()
    extract.run(config, folder / "timed", is_quiet=True)
    whole_s = time.perf_counter() - start
    backbone = forward.load_backbone(config)
    call = jax.jit(lambda backbone, waveforms, num_samples: backbone(waveforms, num_samples))
    for batch in {batch.waveforms.shape: batch for batch in heard}.values():
        jax.block_until_ready(call(backbone, batch.waveforms, batch.num_samples))
    start = time.perf_counter()
    for batch in heard:
        jax.block_until_ready(call(backbone, batch.waveforms, batch.num_samples))
    return whole_s, time.perf_counter() - start


def _backbone(name: str | Path) -> dict[str, Any]:
    """Sections of a config that take layer 2 of a Whisper, its windows cut to the audio, or log-mel bands."""
    if name == "logmel":
        return {"backbone": {"name": "logmel"}, "model": {"layer": 0}}
    return {"backbone": {"name": str(name), "window": "cut"}, "model": {"layer": 2}}


def memory(num_utterances: int, backbone: str) -> list[float]:
    """Extracts `num_utterances` short utterances; returns peak MB, MB gained per 1,000 utterances, and seconds."""
    import tempfile

    from seremo_jax.features import extract

    with tempfile.TemporaryDirectory() as folder:
        config = _write_corpus(Path(folder), num_utterances, backbone)
        samples_mb: list[float] = []
        is_done = threading.Event()

        def watch() -> None:
            page_mb = os.sysconf("SC_PAGE_SIZE") / 1e6
            while not is_done.wait(_SAMPLE_S):
                samples_mb.append(int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * page_mb)

        watcher, start = threading.Thread(target=watch), time.perf_counter()
        watcher.start()
        try:
            extract.run(config, folder, is_quiet=True)
        finally:
            is_done.set()
            watcher.join()
        seconds = time.perf_counter() - start
    late = np.array(samples_mb[len(samples_mb) // 4 :])
    done = np.linspace(num_utterances / 4, num_utterances, len(late)) / 1_000
    return [max(samples_mb), float(np.polyfit(done, late, 1)[0]), seconds]


def _write_corpus(folder: Path, num_utterances: int, backbone: str) -> Config:
    """Tables of many utterances that share a few short recordings."""
    rng, num_files = np.random.default_rng(0), 40
    (folder / "audio").mkdir()
    lengths = rng.integers(RATE_HZ // 4, RATE_HZ // 2, num_files)
    for number, length in enumerate(lengths):
        soundfile.write(folder / "audio" / f"{number}.flac", 0.1 * rng.standard_normal(length), RATE_HZ)
    file = np.arange(num_utterances) % num_files
    ids = [f"u{number:06d}" for number in range(num_utterances)]
    info = CorpusInfo("bench", "1", "crema6", dict.fromkeys(("valence", "activation", "dominance"), (1.0, 7.0)))
    utterances = {field.name: [None] * num_utterances for field in UTTERANCE_SCHEMA if field.nullable} | {
        "id": ids,
        "audio": [f"{number}.flac" for number in file],
        "corpus": ["bench"] * num_utterances,
        "release": ["1"] * num_utterances,
        "split": ["train"] * num_utterances,
        "speaker": [f"s{number % 50}" for number in range(num_utterances)],
        "gender": ["female"] * num_utterances,
        "duration_s": lengths[file] / RATE_HZ,
        "audio_sha256": [""] * num_utterances,
    }
    ratings = {field.name: [None] * num_utterances for field in RATING_SCHEMA if field.nullable} | {
        "utterance": ids,
        "rater": ["r"] * num_utterances,
        "modality": ["voice"] * num_utterances,
        "primary": ["neutral"] * num_utterances,
        "secondary": [[] for _ in ids],
        "valence": rng.integers(1, 8, num_utterances).tolist(),
    }
    both = tables.make_table(utterances, UTTERANCE_SCHEMA, info), tables.make_table(ratings, RATING_SCHEMA, info)
    for name, table in zip((tables.UTTERANCES_FILE, tables.RATINGS_FILE), both, strict=True):
        tables.write_table(folder / name, table)
    config = from_config_dict({"corpus": {"name": "crema_d", "root": str(folder / "audio")}, **_backbone(backbone)})
    write_json(folder / tables.STAMP_FILE, tables.stamp(config, *both))
    return config
