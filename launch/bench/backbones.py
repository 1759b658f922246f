"""Extraction of hidden states, beside transformers' PyTorch models and beside the machine's peak."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from launch.bench import torch_peers
from launch.bench.timing import Options, Row, interleave, peak_gflops
from seremo_jax import backbones
from seremo_jax.backbones import costs
from seremo_jax.data import audio_batches

RATE_HZ, NUM_BUCKETS = 16_000, 8
SHAPES = {
    "wav2vec2 base": ("Wav2Vec2", costs.PUBLISHED["facebook/wav2vec2-base"][1], (8, 5.0)),
    "WavLM large": ("WavLM", costs.PUBLISHED["microsoft/wavlm-large"][1], (4, 6.0)),
}
"""Name -> transformers' class, what its config says, and (utterances, seconds) of a batch."""
QUICK = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
QUICK |= {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}

_call = jax.jit(lambda backbone, waveforms, num_samples: backbone(waveforms, num_samples))


def run(options: Options) -> list[Row]:
    """All rows."""
    rows, peak = [], peak_gflops(1 if options.is_quick else 7)
    rows.append(Row("peak of XLA's float32 matrix product", {"GFLOP/s": peak}))
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, settings, (batch, seconds)) in SHAPES.items():
            if not torch_peers.is_there():
                rows.append(Row(name, note=torch_peers.NO_PEER))
                continue
            settings = {**settings, **QUICK} if options.is_quick else settings
            checkpoint = Path(folder) / name.replace(" ", "-")
            model = torch_peers.random_model(kind, settings, checkpoint)
            rows += _passes(name, model, checkpoint, batch, seconds, peak, options)
            shutil.rmtree(checkpoint)
    rows += _whisper(options)
    rows += _end_to_end(options)
    rows += _memory(options)
    rows.append(Row("bfloat16 on a GPU against PyTorch's, audio hours per second, MFU", note="not measured"))
    return rows


def ours(backbone: backbones.Backbone, waveforms: np.ndarray) -> Callable[[], Any]:
    """A call on a full batch, waited for."""
    num_samples = np.full(len(waveforms), waveforms.shape[1], np.int32)
    return lambda: jax.block_until_ready(_call(backbone, waveforms, num_samples))


def _passes(
    name: str, model: Any, checkpoint: Path, batch: int, seconds: float, peak: float, options: Options
) -> list[Row]:
    """The bare pass, half of it, and utterances of many lengths against one file at a time."""
    everything = backbones.load(checkpoint)
    half = backbones.load(checkpoint, layers=((everything.num_layers - 1) // 2,))
    rng = np.random.default_rng(0)
    waveforms = (0.1 * rng.standard_normal((batch, int(seconds * RATE_HZ)))).astype(np.float32)
    lengths = np.clip(rng.gamma(5.9, 0.97, 6 if options.is_quick else 24), 1.9, 11.9)
    waves = [(0.1 * rng.standard_normal(int(length * RATE_HZ))).astype(np.float32) for length in lengths]
    num_samples = np.array([len(wave) for wave in waves])
    # Planned as an extraction plans the utterances of a shard, with the default number of buckets.
    bucketings = [backbones.bucket_lengths(num_samples, NUM_BUCKETS)]
    (planned,) = audio_batches.plan([range(len(waves))], num_samples, bucketings, int(batch * seconds * RATE_HZ))
    cases = {
        "ours": ours(everything, waveforms),
        "PyTorch": lambda: torch_peers.hidden_states(model, waveforms),
        "ours, half depth": ours(half, waveforms),
    }
    timed = interleave(cases, options.rounds)
    flops = _forward_flops(model.config, waveforms.shape) / 1e9
    s = timed.seconds
    share = flops / s["ours"] / peak
    audio_s = batch * seconds
    rows = [
        Row(f"{name}, {batch} x {seconds:g} s, all layers", _pick(s, "ours", "PyTorch")
            | {"share of peak": share, "x real time": audio_s / s["ours"]}, s["PyTorch"] / s["ours"], 0.95, timed.note),
        Row(f"{name}, highest layer at half depth against all", _pick(s, "ours", "ours, half depth")
            | {"bound by operations": flops / (_forward_flops(half_config(model.config), waveforms.shape) / 1e9)},
            s["ours"] / s["ours, half depth"], 1.8, timed.note),
    ]  # fmt: skip
    cases = {
        "ours, in buckets": lambda: in_buckets(everything, waves, planned),
        "PyTorch, one at a time": lambda: [torch_peers.hidden_states(model, wave[None]) for wave in waves],
    }
    timed = interleave(cases, options.rounds)
    s = timed.seconds
    rows.append(
        Row(f"{name}, {len(waves)} utterances of 1.9-11.9 s", s, s["PyTorch, one at a time"] / s["ours, in buckets"],
            1.5, timed.note)
    )  # fmt: skip
    return rows


def _pick(seconds: dict[str, float], *names: str) -> dict[str, float]:
    return {f"{name} s": seconds[name] for name in names}


def in_buckets(
    backbone: backbones.Backbone, waves: list[np.ndarray], planned: Sequence[audio_batches.Planned]
) -> list[np.ndarray]:
    """Hidden states of every utterance on the host, batched with those of like length."""
    hidden: list[Any] = [None] * len(waves)
    for item in planned:
        batch = np.zeros((item.num_slots, item.num_samples), np.float32)
        num_samples = np.zeros(item.num_slots, np.int32)
        for slot, row in enumerate(item.rows):
            batch[slot, : len(waves[row])], num_samples[slot] = waves[row], len(waves[row])
        states, num_frames = jax.device_get(_call(backbone, batch, num_samples))
        for slot, row in enumerate(item.rows):
            hidden[row] = states[:, slot, : num_frames[slot]]
    return hidden


def half_config(config: Any) -> Any:
    """The config with half the blocks."""
    return type(config)(**{**config.to_dict(), "num_hidden_layers": config.num_hidden_layers // 2})


def _forward_flops(config: Any, shape: tuple[int, int]) -> float:
    """As the peer computes it: its convolution over positions is direct; ours takes far fewer operations."""
    return shape[0] * float(costs.forward_flops(config, shape[1], is_direct=True))


def _whisper(options: Options) -> list[Row]:
    """Real weights: the exact 30 s and windows cut to the audio, beside PyTorch's exact pass."""
    if options.shared is None:
        return [Row("Whisper base, real weights", note="no shared weights here: not measured")]
    folder = options.shared / "weights" / "whisper-base-encoder"
    padded, cut = backbones.load(folder), backbones.load(folder, window="cut")
    waveforms = (0.1 * np.random.default_rng(0).standard_normal((2, int(2.56 * RATE_HZ)))).astype(np.float32)
    cases = {"ours, 30 s": ours(padded, waveforms), "ours, cut": ours(cut, waveforms)}
    if torch_peers.is_there():
        model = torch_peers.whisper_encoder(folder)
        cases["PyTorch, 30 s"] = lambda: torch_peers.whisper_states(model, folder, waveforms)
    timed = interleave(cases, options.rounds)
    s = timed.seconds
    rows = [Row("Whisper base, 2 x 2.56 s: windows cut to the audio against 30 s", _pick(s, "ours, 30 s", "ours, cut"),
                s["ours, 30 s"] / s["ours, cut"], None, timed.note)]  # fmt: skip
    if "PyTorch, 30 s" in s:
        rows.append(Row("Whisper base, 2 x 30 s, log-mel and all layers", _pick(s, "ours, 30 s", "PyTorch, 30 s"),
                        s["PyTorch, 30 s"] / s["ours, 30 s"], 0.95, timed.note))  # fmt: skip
    return rows


def _end_to_end(options: Options) -> list[Row]:
    """From audio files to saliency sums and one stored layer, against the bare pass over the same padded batches."""
    if options.shared is None:
        return [Row("audio files to saliency and a stored layer", note="no shared data here: not measured")]
    from launch.bench import extraction

    shares = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1 if options.is_quick else 3):
            shares.append(extraction.end_to_end(options, Path(folder) / str(number)))
    whole, bare = (statistics.median(values) for values in zip(*shares, strict=True))
    name = "CREMA-D, audio files to saliency and one stored layer, against the bare pass"
    return [Row(name, {"whole s": whole, "bare s": bare}, bare / whole, 0.9, "ratio: bare / whole")]


def _memory(options: Options) -> list[Row]:
    """Resident memory while extraction runs over many utterances, in a process of its own."""
    number = 200 if options.is_quick else 10_000
    code = "import sys; from launch.bench import extraction; extraction.memory(int(sys.argv[1]))"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(number)], capture_output=True, text=True, check=True, env=environment
    )
    peak_mb, slope, seconds = map(float, done.stdout.split()[-3:])
    figures = {"peak MB": peak_mb, "slope MB per 1,000 utterances": slope, "s": seconds}
    return [
        Row(f"extraction of {number:,} utterances, memory", figures, None, None, "slope over the last three quarters")
    ]
