"""Backbones in ONNX operators, from waveforms of any length to hidden states: `logmel`, and the encoder of Whisper.

Both hear bands of the power of short frames. The transform to them is a product with its matrix in float64, because in
float32 quiet bands beside loud ones would differ from those of a fast transform in their fourth digit.
"""

from typing import Any, NamedTuple

import numpy as np

from seremo_jax.backbones import logmel, whisper
from seremo_jax.backbones.layers import ACTIVATIONS, MASKED
from seremo_jax.backbones.logmel import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from seremo_jax.backbones.windows import Windowed
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data import level
from seremo_jax.data.level import Hearing
from seremo_jax.predict.onnx_graph import Graph

_BLOCK = HOP_SAMPLES // 2
"""Frames are cut from blocks of this many samples."""


class Heard(NamedTuple):
    """Hidden states [K, B, T, D] of the layers of a backbone, and valid frames [B] int32."""

    hidden: str
    num_frames: str


def add(graph: Graph, backbone: Any, hearing: Hearing, waveforms: str, num_samples: str) -> Heard:
    """Adds a backbone to a graph.

    Args:
      graph: The graph.
      backbone: From `backbones.load`. One that hears long audio in windows hears it whole here.
      hearing: At which level it hears.
      waveforms: [B, S] in [-1, 1] at 16 kHz, anything beyond each length.
      num_samples: [B] int32 valid samples.

    Raises:
      ArtefactError: It is none of those that have a form here, or does not compute in float32.
    """
    backbone = backbone.params if isinstance(backbone, Windowed) else backbone
    if not isinstance(backbone, logmel.LogMel | whisper.Whisper):
        raise ArtefactError(
            f"the backbone {backbone.name} ({type(backbone).__name__}) has no form in ONNX here; logmel and whisper "
            "have. Leave --with_backbone out: head.onnx takes the hidden states of any backbone"
        )
    if backbone.dtype != "float32":
        raise ArtefactError(
            f"backbone.dtype = {backbone.dtype!r}: an ONNX file hears in float32, whose states differ from those that "
            "the heads were trained on; extract and train with --config.backbone.dtype=float32"
        )
    waveforms = graph("Where", graph.is_within(waveforms, 1, num_samples), waveforms, 0.0)
    if hearing.level == "rms":
        waveforms = graph("Mul", waveforms, _gain(graph, waveforms, num_samples, hearing.target_dbfs))
    if isinstance(backbone, logmel.LogMel):
        return _logmel(graph, backbone, waveforms, num_samples)
    return _Whisper(graph, backbone).heard(waveforms, num_samples)


def _gain(graph: Graph, waveforms: str, num_samples: str, target_dbfs: float) -> str:
    """[B, 1] factor that brings the active speech of each row to a level; see `data.level.Level`."""
    size = round(level.FRAME_S * SAMPLE_RATE_HZ)
    whole = graph("Mul", graph("Add", graph("Div", graph.size(waveforms, 1), size), 1), size)
    frames = graph("Reshape", _padded(graph, waveforms, whole), np.array([0, -1, size]))
    frames = graph.cast(frames, "float64")
    energies = graph.total(graph("Mul", frames, frames), 2)
    starts = graph("Mul", graph.positions(energies, 1), np.int32(size))
    left = graph("Sub", graph.spread(num_samples, 1), starts)
    sizes = graph.cast(graph("Max", graph("Min", left, np.int32(size)), np.int32(0)), "float64")
    powers = graph("Div", energies, graph("Max", sizes, np.float64(1)))
    least = graph("Mul", graph("ReduceMax", powers, axes=[1]), np.float64(10 ** (-level.ACTIVE_DB / 10)))
    # In digital silence every frame is as loud as the loudest one, but none is active.
    is_active = graph("And", graph("Greater", powers, np.float64(0)), graph("GreaterOrEqual", powers, least))
    energy, samples = (graph.total(graph("Where", is_active, x, np.float64(0)), 1) for x in (energies, sizes))
    power = graph.spread(graph("Div", energy, graph("Max", samples, np.float64(1))), 1)
    # Silence has no level, and stays silence.
    is_silent = graph("Equal", power, np.float64(0))
    root = graph("Sqrt", graph("Where", is_silent, np.float64(1), power))
    gain = graph("Div", np.float64(10 ** (target_dbfs / 20)), root)
    return graph.cast(graph("Where", is_silent, np.float64(1), gain), "float32")


def _padded(graph: Graph, waveforms: str, num_samples: str) -> str:
    """Waveforms with zeros behind, up to a number of samples; longer ones as they are."""
    missing = graph("Max", graph("Sub", num_samples, graph.size(waveforms, 1)), 0)
    return graph(
        "Pad", waveforms, graph("Concat", np.zeros(3, np.int64), graph("Reshape", missing, np.array([1])), axis=0)
    )


def _log_power(graph: Graph, waveforms: str, num_frames: str, num_bands: int, floor: float) -> str:
    """[B, F, bands] float64 log of the power in frames of 400 samples every 160; see `logmel.mel_power`.

    Args:
      graph: The graph.
      waveforms: [B, S], S a multiple of 80.
      num_frames: F, an int64 scalar.
      num_bands: Mel bands.
      floor: Least power.
    """
    blocks, twice = graph("Reshape", waveforms, np.array([0, -1, _BLOCK])), graph("Mul", num_frames, 2)
    # Frame f starts at sample 160 f: five blocks of 80 samples from block 2 f on.
    parts = [graph.span(blocks, graph("Add", twice, i), start=i, step=2) for i in range(WINDOW_SAMPLES // _BLOCK)]
    frames = graph.cast(graph("Concat", *parts, axis=2), "float64")
    sample = np.arange(WINDOW_SAMPLES)
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * sample / WINDOW_SAMPLES)).astype(np.float32)
    # Of the exponent only the rest by a whole turn matters, which keeps the angles exact.
    turns = np.outer(sample, np.arange(WINDOW_SAMPLES // 2 + 1)) % WINDOW_SAMPLES
    waves = np.exp(2j * np.pi / WINDOW_SAMPLES * turns)
    spectrum = graph("MatMul", frames, hann[:, None] * np.concatenate([waves.real, waves.imag], axis=1))
    # Real and imaginary parts lie side by side, and a band sums the squares of both.
    filters = np.tile(logmel.mel_filters(num_bands).T.astype(np.float64), (2, 1))
    power = graph("MatMul", graph("Mul", spectrum, spectrum), filters)
    return graph("Log", graph("Max", power, np.float64(floor)))


def _logmel(graph: Graph, backbone: logmel.LogMel, waveforms: str, num_samples: str) -> Heard:
    """`logmel.LogMel.__call__`."""

    def number(samples: str, hop_samples: int, dtype: type) -> str:
        """Frames in a number of samples; see `LogMel.num_frames`."""
        over = graph("Max", graph("Sub", samples, dtype(WINDOW_SAMPLES)), dtype(0))
        return graph("Add", graph("Div", over, dtype(hop_samples)), graph("Min", samples, dtype(1)))

    length = graph("Max", graph.size(waveforms, 1), WINDOW_SAMPLES)
    whole = graph("Mul", graph("Div", graph("Add", length, _BLOCK - 1), _BLOCK), _BLOCK)
    waveforms = _padded(graph, waveforms, whole)
    bands = _log_power(graph, waveforms, number(length, HOP_SAMPLES, np.int64), logmel.NUM_BANDS, logmel.POWER_FLOOR)
    bands = graph.cast(bands, "float32")
    # Beyond its last frame an utterance goes on at that level, so that filters see no padding.
    num_fine = number(num_samples, HOP_SAMPLES, np.int32)
    last = graph.cast(graph("Max", graph("Sub", num_fine, np.int32(1)), np.int32(0)), "int64")
    held = graph("GatherND", bands, graph.spread(last, 1), batch_dims=1)
    is_fine = graph.spread(graph.is_within(bands, 1, num_fine), 2)
    bands = graph("Where", is_fine, bands, graph.spread(held, 1))
    hidden = graph.stack([_modulation(graph, bands, layer) for layer in backbone.layers])
    return Heard(hidden, number(num_samples, 2 * HOP_SAMPLES, np.int32))


def _modulation(graph: Graph, bands: str, layer: int) -> str:
    """[B, T, bands] of a layer, at half the rate of the bands; see `logmel.modulation_depth`."""
    if layer == 0:
        return graph.span(bands, graph.size(bands, 1), step=2)
    filters = logmel.modulation_filters(logmel.SCALES_S[layer - 1])
    reach = filters.shape[1] // 2
    alone = graph("Reshape", graph("Transpose", bands, perm=[0, 2, 1]), np.array([-1, 1, 0]))
    padded = graph("Pad", alone, np.array([0, 0, reach, 0, 0, reach]), mode="edge")
    filtered = graph("Conv", padded, filters[:, None].astype(np.float32), strides=[2])
    depth = graph("Sqrt", graph("ReduceSum", graph("Mul", filtered, filtered), np.array([1])))
    return graph("Transpose", graph("Reshape", depth, np.array([-1, logmel.NUM_BANDS, 0])), perm=[0, 2, 1])


class _Whisper:
    """`whisper.Whisper.__call__`."""

    def __init__(self, graph: Graph, backbone: whisper.Whisper):
        self.graph, self.backbone = graph, backbone
        self.module = backbone.module()

    def heard(self, waveforms: str, num_samples: str) -> Heard:
        """Hidden states. More audio than the window holds is refused when the graph runs, by unequal lengths."""
        graph, backbone, hop = self.graph, self.backbone, whisper.FRAME_SAMPLES
        table, mask = _array(self.module.embed_positions.table), None
        num_frames = graph("Div", graph("Add", num_samples, np.int32(hop - 1)), np.int32(hop))
        kept = graph("Div", graph("Add", graph.size(waveforms, 1), hop - 1), hop)
        if backbone.is_padded:
            x = self._convolved(waveforms, np.int64(len(table)))
        else:
            t = graph("Min", graph("Add", kept, backbone.silence_frames), len(table))
            x = graph.span(self._convolved(waveforms, graph("Add", t, whisper.REACH_FRAMES)), t)
            table = graph.span(table, t, axis=0)
            # Nothing is attended to beyond the silence behind an utterance.
            attended = graph.is_within(x, 1, graph("Add", num_frames, np.int32(backbone.silence_frames)))
            mask = graph.spread(graph("Where", attended, 0.0, MASKED), 1, 2)
        states = self._states(graph("Add", x, table), mask, kept)
        return Heard(graph.stack(states), num_frames)

    def _convolved(self, waveforms: str, num_frames: Any) -> str:
        """[B, T, D] behind both convolutions, of waveforms padded to T frames; see `whisper.log_mel`."""
        graph, reach = self.graph, WINDOW_SAMPLES // 2
        waveforms = _padded(graph, waveforms, graph("Mul", num_frames, whisper.FRAME_SAMPLES))
        padded = graph("Pad", waveforms, np.array([0, reach, 0, reach]), mode="reflect")
        log = _log_power(graph, padded, graph("Mul", num_frames, 2), self.backbone.num_bands, whisper.POWER_FLOOR)
        log = graph("Mul", log, np.float64(1 / np.log(10)))
        least = graph("Sub", graph("ReduceMax", log, axes=[1, 2]), np.float64(whisper.RANGE_LOG10))
        scaled = graph("Mul", graph("Add", graph("Max", log, least), np.float64(4)), np.float64(0.25))
        x = graph("Transpose", graph.cast(scaled, "float32"), perm=[0, 2, 1])
        for conv in (self.module.conv1, self.module.conv2):
            w, pads = _array(conv.w).transpose(2, 1, 0), [conv.padding] * 2
            x = graph.activated(graph("Conv", x, w, _array(conv.b), strides=[conv.stride], pads=pads), "gelu")
        return graph("Transpose", x, perm=[0, 2, 1])

    def _states(self, x: str, mask: str | None, kept: str) -> list[str]:
        """[B, U, D] of each layer, the U first frames."""
        graph, top = self.graph, max(self.backbone.layers)
        states = {0: graph.span(x, kept)}
        for number in range(top):
            # Nobody reads what the highest block would make of the frames that are not kept.
            x = self._block(number, x, mask, kept if number == top - 1 else None)
            states[number + 1] = x if number == top - 1 else graph.span(x, kept)
        norm, last = self.module.layer_norm, self.backbone.num_layers - 1
        if norm is not None and last in states:
            states[last] = self._norm(states[last], norm, None)
        return [states[layer] for layer in self.backbone.layers]

    def _block(self, number: int, x: str, mask: str | None, kept: str | None) -> str:
        """A pre-norm block; see `blocks.Block`."""
        graph, block = self.graph, self.module.layers.module
        normed = self._norm(x, block.layer_norm, number)
        queries = normed if kept is None else graph.span(normed, kept)
        x = x if kept is None else graph.span(x, kept)
        y = graph("Add", x, self._attention(number, queries, normed, mask))
        inner = self._norm(y, block.final_layer_norm, number)
        inner = self._affine(inner, block.feed_forward.intermediate_dense, number)
        (activation, *_) = (name for name, known in ACTIVATIONS.items() if known is block.feed_forward.activation)
        inner = graph.activated(inner, activation)
        return graph("Add", y, self._affine(inner, block.feed_forward.output_dense, number))

    def _attention(self, number: int, queries: str, x: str, mask: str | None) -> str:
        """[B, U, D] of queries [B, U, D], from the frames x [B, T, D]; see `layers.Attention`."""
        graph, attention, width = self.graph, self.module.layers.module.attention, self.backbone.num_features
        size = width // attention.num_heads

        def heads(source: str, place: int, perm: list[int]) -> str:
            y = self._affine(source, attention.qkv, number, slice(place * width, (place + 1) * width))
            return graph("Transpose", graph("Reshape", y, np.array([0, 0, -1, size])), perm=perm)

        q = graph("Mul", heads(queries, 0, [0, 2, 1, 3]), float(size**-0.5))
        scores = graph("MatMul", q, heads(x, 1, [0, 2, 3, 1]))
        scores = scores if mask is None else graph("Add", scores, mask)
        mixed = graph("MatMul", graph("Softmax", scores, axis=-1), heads(x, 2, [0, 2, 1, 3]))
        joined = graph("Reshape", graph("Transpose", mixed, perm=[0, 2, 1, 3]), np.array([0, 0, width]))
        return self._affine(joined, attention.out_proj, number)

    def _norm(self, x: str, norm: Any, number: int | None) -> str:
        scale, bias = _array(norm.scale, number), _array(norm.bias, number)
        return self.graph("LayerNormalization", x, scale, bias, axis=-1, epsilon=float(norm.eps))

    def _affine(self, x: str, linear: Any, number: int, columns: slice = slice(None)) -> str:
        return self.graph.affine(x, _array(linear.w, number)[:, columns], _array(linear.b, number)[columns])


def _array(param: Any, number: int | None = None) -> np.ndarray:
    """The numbers of a parameter, or of that of one block of a stack."""
    array = np.asarray(param[...], np.float32)
    return array if number is None else array[number]
