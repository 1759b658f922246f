"""Extraction of hidden states, beside transformers' PyTorch models and beside the machine's peak."""

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from launch.bench import torch_peers
from launch.bench.extraction import SMALL
from launch.bench.machine import peak_gflops
from launch.bench.suite import Part, Row, Session
from seremo_jax import backbones
from seremo_jax.backbones import costs
from seremo_jax.data import audio_batches

RATE_HZ, NUM_BUCKETS = 16_000, 8
ROUNDS = 3
"""Of what takes seconds a round."""


class Shape(NamedTuple):
    """A backbone of the wav2vec 2.0 family with random weights, and what it hears.

    Attributes:
      name: What the rows call it.
      kind: Prefix of transformers' class.
      settings: What its config says.
      batch_size: Utterances of the full batch.
      seconds: Length of each of them.
      num_mixed: Utterances of many lengths.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    batch_size: int
    seconds: float
    num_mixed: int


SHAPES = (
    Shape("wav2vec2 base", "Wav2Vec2", costs.PUBLISHED["facebook/wav2vec2-base"][1], 8, 5.0, 12),
    Shape("WavLM large", "WavLM", costs.PUBLISHED["microsoft/wavlm-large"][1], 4, 6.0, 6),
)
QUICK_BATCH = {"batch_size": 2, "seconds": 1.0, "num_mixed": 2}
_call = jax.jit(lambda backbone, waveforms, num_samples: backbone(waveforms, num_samples))


def parts(session: Session) -> list[Part]:
    """All rows."""
    peak = functools.cache(lambda: peak_gflops(session.is_quick))
    name, gpu = (
        "peak of XLA's float32 matrix product",
        "bfloat16 on a GPU against PyTorch's, audio hours per second, MFU",
    )
    return [
        Part((name,), lambda: [Row(name, {"GFLOP/s": peak()})]),
        *(_passes(shape, peak, session) for shape in SHAPES),
        _whisper(session),
        Part((gpu,), lambda: [Row(gpu, note="not measured")]),
    ]


def ours(backbone: backbones.Backbone, waveforms: np.ndarray) -> Callable[[], Any]:
    """A call on a full batch, waited for."""
    num_samples = np.full(len(waveforms), waveforms.shape[1], np.int32)
    return lambda: jax.block_until_ready(_call(backbone, waveforms, num_samples))


def _passes(shape: Shape, peak: Callable[[], float], session: Session) -> Part:
    """The bare pass, half of it, and utterances of many lengths against one file at a time."""
    if session.is_quick:
        shape = shape._replace(settings=shape.settings | SMALL, **QUICK_BATCH)
    names = (
        f"{shape.name}, {shape.batch_size} x {shape.seconds:g} s, all layers",
        f"{shape.name}, highest layer at half depth against all",
        f"{shape.name}, {shape.num_mixed} utterances of 1.9-11.9 s",
    )

    def rows() -> Iterator[Row]:
        if not torch_peers.is_there():
            yield from (Row(name, note=torch_peers.NO_PEER) for name in names)
            return
        with tempfile.TemporaryDirectory() as folder:
            model = torch_peers.random_model(shape.kind, shape.settings, Path(folder))
            everything = backbones.load(folder)
            half = backbones.load(folder, layers=((everything.num_layers - 1) // 2,))
        yield from _full_batch(shape, names[:2], model, everything, half, peak(), session)
        waves = _mixed(shape.num_mixed)
        num_samples = np.array([len(wave) for wave in waves])
        # Planned as an extraction plans the utterances of a shard, with the default number of buckets.
        bucketings = [backbones.bucket_lengths(num_samples, NUM_BUCKETS)]
        batch_samples = int(shape.batch_size * shape.seconds * RATE_HZ)
        (planned,) = audio_batches.plan([range(len(waves))], num_samples, bucketings, batch_samples)
        cases = {
            "ours, in buckets": lambda: in_buckets(everything, waves, planned),
            "PyTorch, one at a time": lambda: [torch_peers.hidden_states(model, wave[None]) for wave in waves],
        }
        timed = session.interleave(names[2], cases, ROUNDS)
        s = timed.seconds
        yield Row(names[2], s, s["PyTorch, one at a time"] / s["ours, in buckets"], 1.5, timed.note)

    return Part(names, rows)


def _full_batch(
    shape: Shape,
    names: Sequence[str],
    model: Any,
    everything: backbones.Backbone,
    half: backbones.Backbone,
    peak: float,
    session: Session,
) -> list[Row]:
    """A batch of utterances of one length: all layers, PyTorch's, and half the depth."""
    noise = np.random.default_rng(0).standard_normal((shape.batch_size, int(shape.seconds * RATE_HZ)))
    waveforms = (0.1 * noise).astype(np.float32)
    cases = {
        "ours": ours(everything, waveforms),
        "PyTorch": lambda: torch_peers.hidden_states(model, waveforms),
        "ours, half depth": ours(half, waveforms),
    }
    timed = session.interleave(names[0], cases, ROUNDS)
    s, gflop = timed.seconds, _forward_flops(model.config, waveforms.shape) / 1e9
    speeds = {"share of peak": gflop / s["ours"] / peak, "x real time": shape.batch_size * shape.seconds / s["ours"]}
    bound = {"bound by operations": gflop / (_forward_flops(half_config(model.config), waveforms.shape) / 1e9)}
    return [
        Row(names[0], _pick(s, "ours", "PyTorch") | speeds, s["PyTorch"] / s["ours"], 0.95, timed.note),
        Row(names[1], _pick(s, "ours", "ours, half depth") | bound, s["ours"] / s["ours, half depth"], 1.8, timed.note),
    ]


def _mixed(number: int) -> list[np.ndarray]:
    """Waveforms of 1.9 to 11.9 s."""
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.gamma(5.9, 0.97, number), 1.9, 11.9)
    return [(0.1 * rng.standard_normal(int(length * RATE_HZ))).astype(np.float32) for length in lengths]


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


def _whisper(session: Session) -> Part:
    """Real weights: the exact 30 s and windows cut to the audio, beside PyTorch's exact pass."""
    size = "tiny.en" if session.is_quick else "base"
    names = (
        f"Whisper {size}, 2 x 2.56 s: windows cut to the audio against 30 s",
        f"Whisper {size}, 2 x 30 s, log-mel and all layers",
    )

    def rows() -> Iterator[Row]:
        if session.shared is None:
            yield from (Row(name, note="no shared weights here: not measured") for name in names)
            return
        folder = session.shared / "weights" / f"whisper-{size}-encoder"
        padded, cut = backbones.load(folder), backbones.load(folder, window="cut")
        waveforms = (0.1 * np.random.default_rng(0).standard_normal((2, int(2.56 * RATE_HZ)))).astype(np.float32)
        cases = {"ours, 30 s": ours(padded, waveforms), "ours, cut": ours(cut, waveforms)}
        if torch_peers.is_there():
            model = torch_peers.whisper_encoder(folder)
            cases["PyTorch, 30 s"] = lambda: torch_peers.whisper_states(model, folder, waveforms)
        timed = session.interleave(names[0], cases, ROUNDS)
        s = timed.seconds
        yield Row(names[0], _pick(s, "ours, 30 s", "ours, cut"), s["ours, 30 s"] / s["ours, cut"], None, timed.note)
        if "PyTorch, 30 s" in s:
            figures = _pick(s, "ours, 30 s", "PyTorch, 30 s")
            yield Row(names[1], figures, s["PyTorch, 30 s"] / s["ours, 30 s"], 0.95, timed.note)
        else:
            yield Row(names[1], note=torch_peers.NO_PEER)

    return Part(names, rows)
