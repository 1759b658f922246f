"""Transformer blocks, and the scan over a stack of them that keeps the states asked for and no others."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from seremo_jax.backbones.layers import ACTIVATIONS, Attention, LayerNorm, Linear, Source, Stack, empty


class BlockSpec(NamedTuple):
    """Sizes and variant of a block.

    Attributes:
      width: D.
      num_heads: H.
      hidden_width: Width inside the feed-forward part.
      activation: Name in `ACTIVATIONS`.
      norm_eps: Epsilon of the layer norms.
      is_pre_norm: Norms stand before attention and feed-forward (stable layer norm, Whisper), not after.
      has_key_bias: The key map has a bias.
      has_gate: Attention has a gated relative position bias (WavLM).
      adapter_width: Width of the adapter behind the block (fine-tuned MMS); 0 for none.
    """

    width: int
    num_heads: int
    hidden_width: int
    activation: str = "gelu"
    norm_eps: float = 1e-5
    is_pre_norm: bool = True
    has_key_bias: bool = True
    has_gate: bool = False
    adapter_width: int = 0


class FeedForward(nnx.Module):
    """Two affine maps with an activation between them."""

    def __init__(self, width: int, hidden_width: int, activation: str):
        self.activation = ACTIVATIONS[activation]
        self.intermediate_dense = Linear(width, hidden_width)
        self.output_dense = Linear(hidden_width, width)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The map, frame by frame."""
        return self.output_dense(self.activation(self.intermediate_dense(x)))


class Gate(nnx.Module):
    """WavLM's gate: how strongly each query of each head weighs the relative position bias.

    Source: KNOWN: S. Chen et al., WavLM, IEEE JSTSP 16(6), 2022, section III-A.
    """

    def __init__(self, width: int, num_heads: int):
        self.num_heads = num_heads
        self.gru_rel_pos_linear = Linear(width // num_heads, 8)
        self.constant = empty(num_heads)

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Where `constant` comes from."""
        yield "constant", Source({"gru_rel_pos_const": (1, self.num_heads, 1, 1)}, lambda arrays: arrays[0].reshape(-1))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B H T"]:
        """The factors, float32."""
        b, t, d = x.shape
        projected = self.gru_rel_pos_linear(x.reshape(b, t, self.num_heads, d // self.num_heads))
        # Eight numbers a head, in two groups of four whose sums are the two gates, as published.
        halves = projected.astype(jnp.float32).reshape(b, t, self.num_heads, 2, 4).sum(axis=-1)
        update, reset = jnp.moveaxis(jax.nn.sigmoid(halves), (3, 2), (0, 2))
        constant = self.constant[...].astype(jnp.float32)[None, :, None]
        return update * (reset * constant - 1.0) + 2.0


class Adapter(nnx.Module):
    """The small map that fine-tuned MMS models add to the output of a block."""

    def __init__(self, width: int, adapter_width: int):
        self.norm = LayerNorm(width)
        self.linear_1, self.linear_2 = Linear(width, adapter_width), Linear(adapter_width, width)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What is added."""
        return self.linear_2(jax.nn.relu(self.linear_1(self.norm(x))))


class Block(nnx.Module):
    """Self-attention and a feed-forward part, each with a residual and a layer norm."""

    def __init__(self, spec: BlockSpec):
        self.is_pre_norm = spec.is_pre_norm
        self.attention = Attention(spec.width, spec.num_heads, spec.has_key_bias)
        self.gate = Gate(spec.width, spec.num_heads) if spec.has_gate else None
        self.layer_norm = LayerNorm(spec.width, spec.norm_eps)
        self.feed_forward = FeedForward(spec.width, spec.hidden_width, spec.activation)
        self.final_layer_norm = LayerNorm(spec.width, spec.norm_eps)
        self.adapter_layer = Adapter(spec.width, spec.adapter_width) if spec.adapter_width else None

    def __call__(
        self,
        x: Float[Array, "B T D"],
        is_valid: Bool[Array, "B T"] | None,
        bias: Float[Array, "H T T"] | None,
        num_kept: int | None = None,
    ) -> Float[Array, "B U D"]:
        """The next hidden state of the first `num_kept` frames, or of all; see `Attention` for the arguments."""
        if self.is_pre_norm:
            y = x[:, :num_kept] + self._attend(self.layer_norm(x), is_valid, bias, num_kept)
            y = y + self.feed_forward(self.final_layer_norm(y))
        else:
            y = self.layer_norm(x[:, :num_kept] + self._attend(x, is_valid, bias, num_kept))
            y = self.final_layer_norm(y + self.feed_forward(y))
        return y if self.adapter_layer is None else y + self.adapter_layer(y)

    def _attend(self, x: Array, is_valid: Array | None, bias: Array | None, num_kept: int | None) -> Array:
        gate = None if self.gate is None else self.gate(x[:, :num_kept])
        return self.attention(x, is_valid, None if bias is None else bias[:, :num_kept], gate, num_kept)


def is_above(name: str, depth: int) -> bool:
    """Whether a published name is that of a tensor in a block beyond the first `depth` ones, which is never read."""
    number = re.match(r"encoder\.layers\.(\d{1,9})\.", name)
    return number is not None and int(number[1]) >= depth


def hidden_states(
    stack: Stack | None,
    x: Float[Array, "B T D"],
    layers: Sequence[int],
    is_kept: Bool[Array, "B T"],
    is_valid: Bool[Array, "B T"] | None = None,
    positions: Any = None,
    num_kept_frames: int | None = None,
) -> Float[Array, "K B U D"]:
    """States of some layers, by one scan over the blocks up to the highest.

    Args:
      stack: Blocks; None where only layer 0 is wanted.
      x: What enters the first block: layer 0.
      layers: Numbers of the layers wanted, none above the depth of the stack, in any order.
      is_kept: Frames that are not set to 0 in the output.
      is_valid: Frames that may be attended to; None means all.
      positions: What all blocks are told of positions: a relative bias [H, T, T], or what `ConformerSpec` gives.
      num_kept_frames: U, frames of the output; None means T.

    Returns:
      [K, B, U, D] in the order of `layers`, in the dtype of `x`.
    """
    ascending, u = sorted(layers), num_kept_frames or x.shape[1]

    def keep(kept: Array, state: Array, slot: Array | int) -> Array:
        state = jnp.where(is_kept[:, :u, None], state[:, :u], jnp.zeros((), state.dtype))
        return jax.lax.dynamic_update_index_in_dim(kept, state, slot, 0)

    def block(number: Array | int, state: Array, num_kept: int | None = None) -> Array:
        # Weights are picked block by block, and not cut to the blocks in use, which would copy nearly all of them.
        picked = jax.tree.map(lambda array: jax.lax.dynamic_index_in_dim(array, number, keepdims=False), params)
        return nnx.merge(graphdef, picked)(state, is_valid, positions, num_kept)

    def one_block(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        state, kept = carry
        number, slot = inputs
        state = block(number, state)
        return (state, keep(kept, state, slot)), None

    # A layer that is not wanted is written where the next wanted one overwrites it: one buffer, no branch.
    slots = np.searchsorted(ascending, np.arange(ascending[-1] + 1))
    kept = keep(jnp.zeros((len(ascending), x.shape[0], u, x.shape[2]), x.dtype), x, int(slots[0]))
    if stack is not None and ascending[-1] > 0:
        graphdef, params = nnx.split(stack.module)
        # Nobody reads what the highest block would make of the frames that are not kept, so there it is left out.
        num_whole = ascending[-1] - (u < x.shape[1])
        if num_whole:
            (x, kept), _ = jax.lax.scan(
                one_block, (x, kept), (jnp.arange(num_whole), jnp.asarray(slots[1 : num_whole + 1]))
            )
        if num_whole < ascending[-1]:
            kept = keep(kept, block(num_whole, x, u), int(slots[-1]))
    # The scan writes them in ascending order; only here do they come into that of the caller.
    if list(layers) != ascending:
        kept = kept[np.searchsorted(ascending, layers)]
    return kept
