"""Conformer blocks: half a feed-forward part, self-attention, a depthwise convolution, the other half, a norm.

wav2vec2-conformer and w2v-BERT 2.0 are stacks of them. They differ in how a block knows the distance between two
frames, in whether its convolution sees frames that come later, and in the norm inside the convolution.

Source: KNOWN: A. Gulati et al., Conformer, Interspeech 2020. Distances: Z. Dai et al., Transformer-XL, ACL 2019,
section 3.3 (`relative`); P. Shaw et al., NAACL 2018 (`relative_key`); J. Su et al., RoFormer, 2021 (`rotary`).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from seremo_jax.backbones.blocks import FeedForward
from seremo_jax.backbones.layers import (
    ACTIVATIONS,
    MASKED,
    BatchNorm,
    LayerNorm,
    Linear,
    Source,
    Table,
    empty,
    precision_of,
)


class ConformerSpec(NamedTuple):
    """Sizes and variant of a Conformer block.

    Attributes:
      width: D.
      num_heads: H.
      hidden_width: Width inside each feed-forward part.
      activation: Name in `ACTIVATIONS`, of the feed-forward parts and behind the convolution's norm.
      norm_eps: Epsilon of the layer norms.
      kernel: Frames under the depthwise convolution, an odd number.
      distances: `relative`, `relative_key`, `rotary`, or `none`.
      reach: With `relative_key`, how many frames back and ahead distances are told apart.
      rotary_base: With `rotary`, the base of its wavelengths.
      is_causal: The convolution sees no later frames, and a layer norm follows it in place of a batch norm.
    """

    width: int
    num_heads: int
    hidden_width: int
    activation: str
    norm_eps: float
    kernel: int
    distances: str
    reach: tuple[int, int] = (0, 0)
    rotary_base: int = 10_000
    is_causal: bool = False

    @property
    def is_pre_norm(self) -> bool:
        """What comes before the first block is not normed, and a norm behind the last block is not part of it."""
        return True

    def positions(self, num_frames: int) -> Any:
        """What all blocks know of positions: angles, sinusoids, or nothing; constants of the program, float32."""
        if self.distances == "rotary":
            return rotation(num_frames, self.width // self.num_heads, self.rotary_base)
        return sinusoids(num_frames, self.width) if self.distances == "relative" else None


def sinusoids(num_frames: int, width: int) -> Float[np.ndarray, "R D"]:
    """Sine and cosine, in turn, of every distance key - query from -(T - 1) to T - 1, at D / 2 wavelengths."""
    # float32 as published: at a distance of a thousand frames the angle has lost three digits by it.
    rates = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10_000.0) / width))
    angles = -np.arange(-(num_frames - 1), num_frames, dtype=np.float32)[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(angles), -1)[:, :width]


def rotation(num_frames: int, head_width: int, base: int) -> Float[np.ndarray, "2 T d"]:
    """Cosine and sine of the angle by which each feature of a head is turned at each frame."""
    rates = np.float32(1.0) / np.float32(base) ** (np.arange(0, head_width, 2, dtype=np.float32) / head_width)
    angles = np.tile(np.arange(num_frames, dtype=np.float32)[:, None] * rates, 2)
    return np.stack([np.cos(angles), np.sin(angles)])


def turned(x: Float[Array, "B T D"], angles: Float[np.ndarray, "2 T d"], num_heads: int) -> Float[Array, "B T D"]:
    """The features of each head, turned by the angles of their frame; computed in the dtype of `x`."""
    b, t, d = x.shape
    cosine, sine = jnp.asarray(angles, x.dtype)[:, None, :, None]
    heads = x.reshape(b, t, num_heads, d // num_heads)
    first, second = jnp.split(heads, 2, axis=-1)
    return (heads * cosine + jnp.concatenate([-second, first], axis=-1) * sine).reshape(b, t, d)


class DistanceAttention(nnx.Module):
    """Multi-head self-attention whose scores know the distance between query and key."""

    def __init__(self, spec: ConformerSpec):
        self.spec = spec
        width, head_width = spec.width, spec.width // spec.num_heads
        # Two products and not one for all three: `rotary` turns the input of queries and keys, not that of values.
        self.qk = Linear(width, width, ("linear_q", "linear_k"))
        self.linear_v, self.linear_out = Linear(width, width), Linear(width, width)
        is_relative = spec.distances == "relative"
        self.linear_pos = Linear(width, width, has_bias=(False,)) if is_relative else None
        self.pos_bias = PositionBias(spec.num_heads, head_width) if is_relative else None
        has_table = spec.distances == "relative_key"
        self.distance_embedding = Table(sum(spec.reach) + 1, head_width) if has_table else None

    def __call__(self, x: Float[Array, "B T D"], is_valid: Bool[Array, "B T"], positions: Any) -> Float[Array, "B T D"]:
        """Attention of every frame to the valid ones; `positions` are those of the spec."""
        b, t, d = x.shape
        num_heads, distances = self.spec.num_heads, self.spec.distances
        asked = turned(x, positions, num_heads) if distances == "rotary" else x
        q, k = jnp.moveaxis(self.qk(asked).reshape(b, t, 2, num_heads, -1), (2, 3), (0, 2))
        v = jnp.moveaxis(self.linear_v(x).reshape(b, t, num_heads, -1), 2, 1)
        by_distance, table, reach = q, None, (t - 1, t - 1)
        if distances == "relative":
            projected = self.linear_pos(jnp.asarray(positions)).reshape(2 * t - 1, num_heads, -1)
            table, (content, place) = jnp.moveaxis(projected, 1, 0), self.pos_bias.both(q.dtype)
            q, by_distance = q + content[None, :, None], q + place[None, :, None]
        elif distances == "relative_key":
            table, reach = self.distance_embedding.table[...][None], self.spec.reach
            # The same for all heads: one view of it, no copy.
            table = jnp.broadcast_to(table, (num_heads, *table.shape[1:]))
        scale = jnp.asarray((d // num_heads) ** -0.5, q.dtype)
        mask = jnp.where(is_valid, 0.0, MASKED)
        inputs = (q * scale, by_distance * scale, k, v, table, mask)
        by_head = jax.lax.platform_dependent(
            *inputs,
            cpu=lambda *inputs: _head_by_head(*inputs, reach),
            default=lambda *inputs: _all_heads(*inputs, reach),
        )
        return self.linear_out(jnp.moveaxis(by_head, 1, 2).reshape(b, t, d))


class PositionBias(nnx.Module):
    """What queries get added before they meet keys, and before they meet distances."""

    def __init__(self, num_heads: int, head_width: int):
        self.shape = (num_heads, head_width)
        self.content, self.place = empty(*self.shape), empty(*self.shape)

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `content` and `place` come from."""
        yield "content", Source({"pos_bias_u": self.shape}, lambda arrays: arrays[0])
        yield "place", Source({"pos_bias_v": self.shape}, lambda arrays: arrays[0])

    def both(self, dtype: Any) -> tuple[Float[Array, "H d"], Float[Array, "H d"]]:
        """Both of them in a dtype."""
        return self.content[...].astype(dtype), self.place[...].astype(dtype)


def by_key(scores: Float[Array, "*S T R"], num_frames: int, reach: tuple[int, int]) -> Float[Array, "*S T T"]:
    """Scores of queries by distance -> scores of queries by key.

    Args:
      scores: For each query, of the distances key - query from `-reach[0]` to `reach[1]`.
      num_frames: T.
      reach: Further distances score as the furthest does.
    """
    t, (back, ahead) = num_frames, reach
    if t == 1:
        return scores[..., back : back + 1]
    kept = scores[..., max(0, back - (t - 1)) : back + 1 + min(ahead, t - 1)]
    outside = [(0, 0)] * (scores.ndim - 1) + [(max(0, t - 1 - back), max(0, t - 1 - ahead))]
    whole = jnp.pad(kept, outside, mode="edge")
    # Key k of query q has the distance k - q: each row begins one column before the one above it. In the flat array
    # that is a shorter row, so no gather is needed.
    flat = whole.reshape(*whole.shape[:-2], -1)[..., t - 1 : t - 1 + t * (2 * t - 2)]
    return flat.reshape(*flat.shape[:-1], t, 2 * t - 2)[..., :t]


def _all_heads(
    q: Array, by_distance: Array, k: Array, v: Array, table: Array | None, mask: Array, reach: tuple[int, int]
) -> Float[Array, "B H T d"]:
    precision = precision_of(q.dtype)
    scores = jnp.einsum("bhtd,bhsd->bhts", q, k, precision=precision, preferred_element_type=jnp.float32)
    if table is not None:
        placed = jnp.einsum(
            "bhtd,hrd->bhtr", by_distance, table, precision=precision, preferred_element_type=jnp.float32
        )
        scores = scores + by_key(placed, q.shape[2], reach)
    scores = jax.nn.softmax(scores + mask[:, None, None, :], axis=-1)
    return jnp.einsum("bhts,bhsd->bhtd", scores.astype(v.dtype), v, precision=precision)


def _head_by_head(
    q: Array, by_distance: Array, k: Array, v: Array, table: Array | None, mask: Array, reach: tuple[int, int]
) -> Float[Array, "B H T d"]:
    """The same, one head of one utterance at a time, so that the scores stay in the cache of a processor."""
    b, h, t, d = q.shape

    def attend(inputs: tuple) -> Array:
        q, by_distance, k, v, number = inputs
        scores = jax.lax.dot_general(q, k, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
        if table is not None:
            rows = table[number % h]
            placed = jax.lax.dot_general(
                by_distance, rows, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
            )
            scores = scores + by_key(placed, t, reach)
        return jax.nn.softmax(scores + mask[number // h][None], axis=-1).astype(v.dtype) @ v

    flat = (x.reshape(b * h, t, d) for x in (q, by_distance, k, v))
    return jax.lax.map(attend, (*flat, jnp.arange(b * h))).reshape(b, h, t, d)


class Pointwise(nnx.Module):
    """Linear map of each frame without a bias, published as a convolution of one frame."""

    def __init__(self, num_in: int, num_out: int):
        self.num_in, self.num_out = num_in, num_out
        self.w = empty(num_in, num_out)

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `w` comes from."""
        yield "w", Source({"weight": (self.num_out, self.num_in, 1)}, lambda arrays: arrays[0][..., 0].T)

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B T O"]:
        """The map, in the dtype of the weight."""
        w = self.w[...]
        return jax.lax.dot_general(x.astype(w.dtype), w, (((2,), (0,)), ((), ())))


class Depthwise(nnx.Module):
    """Convolution over time of each feature alone, same length, zeros beyond both ends."""

    STAYS_FLOAT32 = True

    def __init__(self, width: int, kernel: int, is_causal: bool):
        self.width, self.kernel, self.num_before = width, kernel, kernel - 1 if is_causal else kernel // 2
        self.w = empty(kernel, width)

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `w` comes from."""
        yield "w", Source({"weight": (self.width, 1, self.kernel)}, lambda arrays: arrays[0][:, 0].T)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The convolution, summed in float32 and given in the dtype of `x`."""
        t = x.shape[1]
        padded = jnp.pad(x, ((0, 0), (self.num_before, self.kernel - 1 - self.num_before), (0, 0)))
        padded, w = padded.astype(jnp.float32), self.w[...]
        # A sum of shifted rows, which XLA makes one loop of: its convolution of many groups is far slower on CPU.
        return sum(padded[:, i : i + t] * w[None, i : i + 1] for i in range(self.kernel)).astype(x.dtype)


class ConvolutionModule(nnx.Module):
    """The convolution of a block, between two maps of each frame."""

    def __init__(self, spec: ConformerSpec):
        self.activation = ACTIVATIONS[spec.activation]
        self.layer_norm = LayerNorm(spec.width, spec.norm_eps)
        self.pointwise_conv1 = Pointwise(spec.width, 2 * spec.width)
        self.depthwise_conv = Depthwise(spec.width, spec.kernel, spec.is_causal)
        self.batch_norm = None if spec.is_causal else BatchNorm(spec.width)
        self.depthwise_layer_norm = LayerNorm(spec.width, spec.norm_eps) if spec.is_causal else None
        self.pointwise_conv2 = Pointwise(spec.width, spec.width)

    def __call__(self, x: Float[Array, "B T D"], is_valid: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        """What is added to the frames; frames that are not valid are 0 to the convolution, as beyond the ends."""
        x = self.layer_norm(x)
        value, gate = jnp.split(self.pointwise_conv1(x), 2, axis=-1)
        x = jnp.where(is_valid[..., None], value * jax.nn.sigmoid(gate), jnp.zeros((), value.dtype))
        x = self.depthwise_conv(x)
        x = self.depthwise_layer_norm(x) if self.batch_norm is None else self.batch_norm(x)
        return self.pointwise_conv2(self.activation(x))


class ConformerBlock(nnx.Module):
    """Two halves of a feed-forward part around attention and convolution, each with a residual; a norm at the end."""

    def __init__(self, spec: ConformerSpec):
        width, eps = spec.width, spec.norm_eps
        self.ffn1_layer_norm, self.ffn2_layer_norm = LayerNorm(width, eps), LayerNorm(width, eps)
        self.ffn1, self.ffn2 = (FeedForward(width, spec.hidden_width, spec.activation) for _ in range(2))
        self.self_attn_layer_norm = LayerNorm(width, eps)
        self.self_attn = DistanceAttention(spec)
        self.conv_module = ConvolutionModule(spec)
        self.final_layer_norm = LayerNorm(width, eps)

    def __call__(
        self, x: Float[Array, "B T D"], is_valid: Bool[Array, "B T"], positions: Any, num_kept: int | None = None
    ) -> Float[Array, "B U D"]:
        """The next hidden state of the first `num_kept` frames, or of all.

        Args:
          x: The state, zero or not where frames are not valid.
          is_valid: Frames that are attended to and heard by the convolution.
          positions: Those of the spec.
          num_kept: U; None means T.
        """
        half = jnp.asarray(0.5, x.dtype)
        x = x + half * self.ffn1(self.ffn1_layer_norm(x))
        x = x + self.self_attn(self.self_attn_layer_norm(x), is_valid, positions)
        x = (x + self.conv_module(x, is_valid))[:, :num_kept]
        x = x + half * self.ffn2(self.ffn2_layer_norm(x))
        return self.final_layer_norm(x)
