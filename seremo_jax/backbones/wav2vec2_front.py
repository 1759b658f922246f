"""From waveform to what enters the first Transformer block of the wav2vec 2.0 family."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from seremo_jax.backbones.layers import ACTIVATIONS, BatchNorm, Conv, LayerNorm, Linear, Source, empty, standardise

CONV_NORM_EPS = 1e-5
"""Epsilon of the norms inside the convolutional feature encoder; the config gives that of the others."""


class ConvLayer(nnx.Module):
    """A strided convolution, a norm where there is one, an activation.

    Args:
      norm: `layer` over the features of each frame, `group` over the valid frames of each feature, or `none`.
    """

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int, has_bias: bool, norm: str, activation: str):
        self.norm, self.activation = norm, ACTIVATIONS[activation]
        self.conv = Conv(num_in, num_out, kernel, stride=stride, has_bias=has_bias)
        self.layer_norm = None if norm == "none" else LayerNorm(num_out, CONV_NORM_EPS)

    def __call__(self, x: Float[Array, "B T I"], num_frames: Int[Array, " B"]) -> Float[Array, "B U O"]:
        """Output frames; those beyond `num_frames` hold anything finite."""
        x = self.conv(x)
        if self.norm == "layer":
            x = self.layer_norm(x)
        elif self.norm == "group":
            x = self._group_normed(x, num_frames)
        return self.activation(x)

    def _group_normed(self, x: Float[Array, "B T D"], num_frames: Int[Array, " B"]) -> Float[Array, "B T D"]:
        """Group norm of one feature a group, statistics over valid frames only, in float32."""
        weight = (jnp.arange(x.shape[1])[None, :] < num_frames[:, None]).astype(jnp.float32)
        count = jnp.maximum(num_frames, 1).astype(jnp.float32)[:, None]
        wide = x.astype(jnp.float32)

        def mean_over_frames(x: Array) -> Array:
            # As a product: XLA's sum over an axis that is not the last is slower by an order of magnitude on CPU.
            return (jnp.einsum("bt,btd->bd", weight, x, precision=jax.lax.Precision.HIGHEST) / count)[:, None]

        centred = wide - mean_over_frames(wide)
        variance = mean_over_frames(jnp.square(centred))
        factor = jax.lax.rsqrt(variance + CONV_NORM_EPS) * self.layer_norm.scale[...][None, None, :]
        # No valid frame depends on the padding, but a statistic of few frames could make it infinite.
        normed = jnp.where(weight[..., None] > 0, centred * factor, 0.0) + self.layer_norm.bias[...][None, None, :]
        return normed.astype(x.dtype)


class FeatureProjection(nnx.Module):
    """Layer norm, which distilHuBERT lacks, and an affine map to the width of the blocks, which SEW may lack."""

    def __init__(self, num_in: int, width: int, norm_eps: float, has_norm: bool, has_map: bool = True):
        self.layer_norm = LayerNorm(num_in, norm_eps) if has_norm else None
        self.projection = Linear(num_in, width) if has_map else None

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B T D"]:
        """The projected frames."""
        x = x if self.layer_norm is None else self.layer_norm(x)
        return x if self.projection is None else self.projection(x)


class SpectralConv(nnx.Module):
    """Grouped convolution over time, same length, done in blocks of a Fourier transform.

    A kernel of 128 frames costs 30x fewer operations this way than directly; the weights are kept as spectra.

    Args:
      width: D.
      kernel: Frames under the kernel; frame t reaches from `t - kernel // 2`.
      num_groups: Groups that see only their own features.
      norm: `weight` where the kernel is published as direction and size (weight norm), else `none`.
    """

    STAYS_FLOAT32 = True

    def __init__(self, width: int, kernel: int, num_groups: int, norm: str):
        self.width, self.kernel, self.num_groups, self.norm = width, kernel, num_groups, norm
        # A power of two of at least twice the kernel: over half of each block is output, and its transform is fast.
        self.size = 1 << (2 * kernel - 1).bit_length()
        per_group = width // num_groups
        self.spectrum = empty(self.size // 2 + 1, num_groups, per_group, per_group, dtype=jnp.complex64)
        self.b = empty(width)

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `spectrum` and `b` come from."""
        shape = (self.width, self.width // self.num_groups, self.kernel)
        if self.norm == "weight":
            names = {"conv.weight_g": (1, 1, self.kernel), "conv.weight_v": shape}
        else:
            names = {"conv.weight": shape}
        yield "spectrum", Source(names, self._spectrum_of)
        yield "b", Source({"conv.bias": (self.width,)}, lambda arrays: arrays[0])

    def _spectrum_of(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        per_group, num_groups = self.width // self.num_groups, self.num_groups
        grouped = arrays[-1].reshape(num_groups, per_group, per_group, self.kernel)
        factor = 1.0
        if self.norm == "weight":
            squares = sum(np.square(group.astype(np.float64)).sum(axis=(0, 1)) for group in grouped)
            # Weight norm is resolved once: size over length of the direction, for each place under the kernel.
            factor = arrays[0].astype(np.float64).reshape(-1) / np.sqrt(squares)
        spectrum = np.empty((self.size // 2 + 1, num_groups, per_group, per_group), np.complex64)
        # Group by group: in double precision all of them would take several times the memory of what is kept.
        for number, group in enumerate(grouped):
            # Convolution networks correlate: the kernel is turned round, and circular index 0 is its last tap.
            turned = (group.astype(np.float64) * factor)[..., ::-1]
            spectrum[:, number] = np.fft.rfft(turned, self.size).transpose(2, 1, 0)
        return spectrum

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The convolution; zeros beyond both ends, in the dtype of `x`."""
        b, t, d = x.shape
        hop = self.size - self.kernel + 1
        num_blocks = -(-t // hop)
        before = self.kernel // 2
        padded = jnp.pad(
            x.astype(jnp.float32), ((0, 0), (before, num_blocks * hop + self.kernel - 1 - before - t), (0, 0))
        )
        blocks = jnp.stack([padded[:, i * hop : i * hop + self.size] for i in range(num_blocks)], axis=1)
        spectra = jnp.fft.rfft(blocks, axis=2).reshape(b * num_blocks, -1, self.num_groups, d // self.num_groups)
        product = jnp.einsum("nfgi,fgio->nfgo", spectra, self.spectrum[...], precision=jax.lax.Precision.HIGHEST)
        filtered = jnp.fft.irfft(product.reshape(b, num_blocks, -1, d), self.size, axis=2)
        # Overlap-save: neighbouring blocks share kernel - 1 inputs, so that what is cut off here is in the one before.
        # The first kernel - 1 outputs of a block are wrapped round.
        joined = filtered[:, :, self.kernel - 1 :].reshape(b, num_blocks * hop, d)[:, :t]
        return (joined + self.b[...].astype(jnp.float32)[None, None, :]).astype(x.dtype)


class PositionalConv(nnx.Module):
    """Convolutions over the frames that are added to them, so that the blocks know where a frame stands."""

    def __init__(
        self, width: int, kernel: int, num_groups: int, norm: str, activation: str, num_layers: int, eps: float
    ):
        self.norm, self.eps, self.activation = norm, eps, ACTIVATIONS[activation]
        self.batch_norm = BatchNorm(width) if norm == "batch" else None
        self.layers = nnx.List(SpectralConv(width, kernel, num_groups, norm) for _ in range(num_layers))

    def __call__(self, x: Float[Array, "B T D"], is_valid: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        """What is added; `x` is 0 on frames that are not valid."""
        for layer in self.layers:
            x = x if self.batch_norm is None else self.batch_norm(x)
            x = layer(jnp.where(is_valid[..., None], x, jnp.zeros((), x.dtype)))
            if self.norm == "layer":
                x = standardise(x.astype(jnp.float32), self.eps).astype(x.dtype)
            x = self.activation(x)
        return x


class RelativeBias(nnx.Module):
    """WavLM's bias of attention scores by the distance between frames, shared by all blocks.

    Source: KNOWN: S. Chen et al., WavLM, IEEE JSTSP 16(6), 2022, section III-A (buckets as in T5).
    """

    STAYS_FLOAT32 = True

    def __init__(self, num_buckets: int, max_distance: int, num_heads: int):
        self.num_buckets, self.max_distance, self.num_heads = num_buckets, max_distance, num_heads
        self.table = empty(num_buckets, num_heads)

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `table` comes from."""
        yield "table", Source({"weight": (self.num_buckets, self.num_heads)}, lambda arrays: arrays[0])

    def buckets(self, num_frames: int) -> Int[np.ndarray, " distances"]:
        """Bucket of each distance key - query, from -(T - 1) to T - 1."""
        per_side = self.num_buckets // 2
        exact = per_side // 2
        distance = np.arange(-(num_frames - 1), num_frames)
        far = np.abs(distance).astype(np.float32)
        # float32 as published: the buckets of the boundaries depend on it.
        log = np.log(np.maximum(far, 1) / np.float32(exact)) / np.float32(np.log(self.max_distance / exact))
        coarse = np.minimum((exact + log * (per_side - exact)).astype(np.int64), per_side - 1)
        return (distance > 0) * per_side + np.where(far < exact, np.abs(distance), coarse)

    def __call__(self, num_frames: int) -> Float[Array, "H T T"]:
        """The bias of every query and key, float32."""
        # One row a distance and not a pair of frames: a number of rows that grows with T and not with its square.
        by_distance = self.table[...].astype(jnp.float32)[self.buckets(num_frames)]
        index = np.arange(num_frames)[None, :] - np.arange(num_frames)[:, None] + num_frames - 1
        return jnp.moveaxis(by_distance[index], 2, 0)


def normalised(waveforms: Float[Array, "B S"], num_samples: Int[Array, " B"]) -> Float[Array, "B S"]:
    """Zero mean and unit variance over the valid samples of each row, 0 beyond; float32."""
    is_valid = jnp.arange(waveforms.shape[1])[None, :] < num_samples[:, None]
    count = jnp.maximum(num_samples, 1).astype(jnp.float32)[:, None]
    mean = jnp.where(is_valid, waveforms, 0.0).sum(axis=1, keepdims=True) / count
    centred = jnp.where(is_valid, waveforms - mean, 0.0)
    variance = jnp.square(centred).sum(axis=1, keepdims=True) / count
    return centred * jax.lax.rsqrt(variance + 1e-7)
