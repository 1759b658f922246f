"""Whole extractions, from audio files to store and saliency: beside a naive loop, beside the bare pass, and memory."""

import concurrent.futures
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import soundfile

from launch.bench import naive_loop, torch_peers
from launch.bench.suite import Part, Row, Session
from launch.bench.timing import join
from launch.cores import num_cores
from seremo_jax.backbones import costs
from seremo_jax.core import sharding
from seremo_jax.core.artefacts import write_json
from seremo_jax.core.config import Config, from_config_dict
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data import audio_batches, ingest, roots, tables
from seremo_jax.features import extract, forward

USES_A_DEVICE_A_CORE = True
"""As `launch.extract` runs."""

RATE_HZ = 16_000
NUM_SPEAKERS, QUICK_SPEAKERS = 6, 3
QUICK_SECONDS = 2.0
"""Longer recordings are left out where all is small, so that few shapes are compiled."""
MEMORY_UTTERANCES, QUICK_MEMORY_UTTERANCES = 3_000, 200
SMALL = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL |= {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
"""What makes a model of the wav2vec 2.0 family small, to show that everything runs."""
_SAMPLE_S = 0.05


def parts(session: Session) -> list[Part]:
    """All rows."""
    return [_against_naive_loop("Whisper base", session), _against_naive_loop("wav2vec2 base", session),
            _against_bare_pass(session), _memory(session)]  # fmt: skip


def _against_naive_loop(backbone: str, session: Session) -> Part:
    """From audio files to store and saliency sums, beside a loop that hears file after file and keeps means."""
    name = f"CREMA-D, {backbone}: audio files to store and saliency, against a loop one file at a time"

    def rows() -> Iterator[Row]:
        if session.shared is None or not torch_peers.is_there():
            why = "no shared data here: not measured" if session.shared is None else torch_peers.NO_PEER
            yield Row(name, note=why)
            return
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            checkpoint = folder / "checkpoint"
            if backbone == "Whisper base":
                checkpoint = session.shared / "weights" / f"whisper-{'tiny.en' if session.is_quick else 'base'}-encoder"
            else:
                settings = costs.PUBLISHED["facebook/wav2vec2-base"][1] | (SMALL if session.is_quick else {})
                torch_peers.random_model("Wav2Vec2", settings, checkpoint)
            extraction = _Extraction(session, checkpoint, folder)
            loop = naive_loop.Loop(checkpoint, extraction.paths)
            try:
                cases = {"ours": extraction, "PyTorch, one at a time": loop}
                timed = session.interleave(name, cases, 3, loop.pids)
            finally:
                loop.close()
        s, number = timed.seconds, len(extraction.paths)
        speeds = {f"{case}, utterances/s": number / seconds for case, seconds in s.items()}
        yield Row(name, speeds, s["PyTorch, one at a time"] / s["ours"], 1.3, timed.note)

    return Part((name,), rows)


class _Extraction:
    """Extracts a part of CREMA-D into a new workdir at each call, as `launch.extract` does.

    Attributes:
      config: The experiment.
      paths: Its recordings.
    """

    def __init__(self, session: Session, backbone: str | Path, folder: Path):
        self.config = from_config_dict(
            {
                "corpus": {"name": "crema_d", "root": str(session.shared / "data" / "crema_d")},
                "data": {"max_speakers": QUICK_SPEAKERS, "max_seconds": QUICK_SECONDS}
                if session.is_quick
                else {"max_speakers": NUM_SPEAKERS},
                **_backbone(backbone),
                "saliency": {"targets": "votes"},
            }
        )
        self._folder, self._number = folder, 0
        (folder / "tables").mkdir()
        ingest.run(self.config, folder / "tables", is_quiet=True)
        utterances, *_ = tables.read_tables(folder / "tables")
        root = roots.audio_root(self.config, folder / "tables")
        self.paths = [Path(root) / name for name in utterances["audio"].to_pylist()]

    def __call__(self) -> None:
        """One extraction."""
        self._number += 1
        workdir = self._folder / str(self._number)
        workdir.mkdir()
        for name in (tables.UTTERANCES_FILE, tables.RATINGS_FILE, tables.STAMP_FILE):
            shutil.copy(self._folder / "tables" / name, workdir / name)
        extract.run(self.config, workdir, is_quiet=True, mesh=sharding.make_data_mesh())


def _against_bare_pass(session: Session) -> Part:
    """The same work against the backbone alone, called on the very batches, decoded beforehand."""
    name = "CREMA-D, audio files to store and saliency, against the bare pass"

    def rows() -> Iterator[Row]:
        if session.shared is None:
            yield Row(name, note="no shared data here: not measured")
            return
        backbone = "logmel" if session.is_quick else session.shared / "weights" / "whisper-base-encoder"
        with tempfile.TemporaryDirectory() as folder:
            extraction = _Extraction(session, backbone, Path(folder))
            cases = {"whole": extraction, "bare": _bare_pass(extraction)}
            timed = session.interleave(name, cases, 3)
        s = timed.seconds
        figures = {f"{case} s": seconds for case, seconds in s.items()}
        yield Row(name, figures, s["bare"] / s["whole"], 0.9, join("ratio: bare / whole", timed.note))

    return Part((name,), rows)


def _bare_pass(extraction: _Extraction) -> Callable[[], Any]:
    """The backbone on all batches that an extraction makes, decoded before, a batch a core at once."""
    heard, decode = [], audio_batches.stream

    def keep(*arguments: Any) -> Iterator[Any]:
        for batch in decode(*arguments):
            heard.append(batch)
            yield batch

    audio_batches.stream = keep
    try:
        extraction()
    finally:
        audio_batches.stream = decode
    backbone = forward.load_backbone(extraction.config)
    call = jax.jit(lambda backbone, waveforms, num_samples: backbone(waveforms, num_samples))

    def hear(batch: Any) -> None:
        jax.block_until_ready(call(backbone, batch.waveforms, batch.num_samples))

    def hear_all() -> None:
        with concurrent.futures.ThreadPoolExecutor(num_cores()) as pool:
            list(pool.map(hear, heard))

    return hear_all


def _memory(session: Session) -> Part:
    """Resident memory while extraction runs over many utterances, in a process of its own."""
    number = QUICK_MEMORY_UTTERANCES if session.is_quick else MEMORY_UTTERANCES
    name = f"extraction of {number:,} utterances, memory"

    def rows() -> Iterator[Row]:
        has_weights = session.shared is not None and not session.is_quick
        backbone = str(session.shared / "weights" / "whisper-tiny.en-encoder") if has_weights else "logmel"
        peak_mb, slope, seconds = session.in_own_process("extraction.memory", number, backbone, on_cpu=True)
        figures = {"peak MB": peak_mb, "slope MB per 1,000 utterances": slope, "s": seconds}
        yield Row(name, figures, None, None, "slope over the last three quarters")

    return Part((name,), rows)


def _backbone(name: str | Path) -> dict[str, Any]:
    """Sections of a config that take layer 2 of a backbone, windows cut to the audio, or log-mel bands."""
    if name == "logmel":
        return {"backbone": {"name": "logmel"}, "model": {"layer": 0}}
    window = {"window": "cut"} if "whisper" in Path(name).name else {}
    return {"backbone": {"name": str(name), **window}, "model": {"layer": 2}}


def memory(num_utterances: int, backbone: str) -> list[float]:
    """Extracts `num_utterances` short utterances; returns peak MB, MB gained per 1,000 utterances, and seconds."""
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
