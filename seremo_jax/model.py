"""The head: a TC-GRU (time-convolution GRU) over the frames of one backbone layer, packed several utterances a row."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from seremo_jax.gru import gru

Tree = Any
"""Nested dict of parameter arrays."""


class Outputs(NamedTuple):
    """Attributes [B, A], class distribution [B, C] (rows sum to 1), its logits, embedding [B, embedding_size]."""

    attributes: Array
    distribution: Array
    logits: Array
    embedding: Array


class DepthwiseConv(nnx.Module):
    """Convolution over time of each feature by itself, centred, zeros beyond the row."""

    def __init__(self, num_features: int, kernel: int, *, rngs: nnx.Rngs):
        bound = kernel**-0.5
        self.w = nnx.Param(jax.random.uniform(rngs.params(), (kernel, num_features), minval=-bound, maxval=bound))
        self.b = nnx.Param(jax.random.uniform(rngs.params(), (num_features,), minval=-bound, maxval=bound))

    def __call__(self, x: Float[Array, "T R D"]) -> Float[Array, "T R D"]:
        """The convolution, same shape."""
        w, b = self.w[...], self.b[...]
        reach = w.shape[0] // 2
        padded = jnp.pad(x, ((reach, reach), (0, 0), (0, 0)))
        # Shifted multiply-adds: XLA's depthwise convolution on CPU is slower than this by an order of magnitude.
        shifted = (padded[o : o + x.shape[0]] * w[o][None, None, :] for o in range(w.shape[0]))
        return functools.reduce(jnp.add, shifted) + b[None, None, :]


class GRULayer(nnx.Module):
    """Weights of one GRU, initialised as torch.nn.GRU does."""

    def __init__(self, num_features: int, units: int, *, rngs: nnx.Rngs):
        def uniform(*shape: int) -> nnx.Param:
            return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-(units**-0.5), maxval=units**-0.5))

        self.w_i, self.w_h = uniform(num_features, 3 * units), uniform(units, 3 * units)
        self.b_i, self.b_h = uniform(3 * units), uniform(3 * units)

    def __call__(self, x: Float[Array, "T R D"], reset: Bool[Array, "T R"]) -> Float[Array, "T R H"]:
        """States after every frame."""
        return gru({"w_i": self.w_i[...], "w_h": self.w_h[...], "b_i": self.b_i[...], "b_h": self.b_h[...]}, x, reset)


class Linear(nnx.Module):
    """Affine map, initialised as torch.nn.Linear does."""

    def __init__(self, num_in: int, num_out: int, *, rngs: nnx.Rngs):
        bound = num_in**-0.5
        self.w = nnx.Param(jax.random.uniform(rngs.params(), (num_in, num_out), minval=-bound, maxval=bound))
        self.b = nnx.Param(jax.random.uniform(rngs.params(), (num_out,), minval=-bound, maxval=bound))

    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
        """The affine map of every row."""
        return x @ self.w[...] + self.b[...][None, :]


class TCGRU(nnx.Module):
    """Convolution branch beside the features, GRUs, last valid state, linear embedding, two heads.

    Args:
      num_features: D, width of the backbone layer.
      num_attributes: A.
      num_classes: C.
      conv_kernel: Frames under the depthwise convolution; 0 leaves the branch out.
      gru_units: H.
      gru_layers: GRUs on top of each other.
      embedding_size: Width of the embedding.
      dropout: Probability of dropping a feature between GRUs and of the embedding, in training.
      rngs: Source of the initial parameters.

    Source: INFERRED, method.md section 4 (2,204,171 parameters at D = 1024, A = 3, C = 8).
    """

    def __init__(
        self,
        num_features: int,
        num_attributes: int,
        num_classes: int,
        *,
        conv_kernel: int = 3,
        gru_units: int = 256,
        gru_layers: int = 2,
        embedding_size: int = 128,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.dropout = dropout
        self.conv = DepthwiseConv(num_features, conv_kernel, rngs=rngs) if conv_kernel else None
        width = 2 * num_features if conv_kernel else num_features
        widths = [width] + [gru_units] * (gru_layers - 1)
        self.grus = nnx.List([GRULayer(width, gru_units, rngs=rngs) for width in widths])
        self.embedding = Linear(gru_units, embedding_size, rngs=rngs)
        self.attribute_head = Linear(embedding_size, num_attributes, rngs=rngs)
        self.class_head = Linear(embedding_size, num_classes, rngs=rngs)

    def __call__(
        self,
        features: Float[Array, "T R D"],
        reset: Bool[Array, "T R"],
        is_valid: Bool[Array, "T R"],
        last_frame: Int[Array, "B"],
        key: Array | None = None,
    ) -> Outputs:
        """Predictions for the utterances packed into the rows.

        Args:
          features: Normalised frames, zero where `is_valid` is False.
          reset: True on the first frame of an utterance.
          is_valid: False on gaps and padding.
          last_frame: Index `t * R + r` of the last valid frame of each utterance.
          key: Random key for dropout; None switches dropout off.
        """
        x = features
        if self.conv is not None:
            u = jnp.where(is_valid[:, :, None], jax.nn.relu(self.conv(x)), 0)
            x = jnp.concatenate([u, x], axis=-1)
        for depth, layer in enumerate(self.grus):
            x = layer(x if depth == 0 else self._drop(x, key, depth), reset)
        last = x.reshape(-1, x.shape[-1])[last_frame]
        embedding = self._drop(self.embedding(last), key, 0)
        logits = self.class_head(embedding)
        return Outputs(self.attribute_head(embedding), jax.nn.softmax(logits, axis=-1), logits, embedding)

    def _drop(self, x: Array, key: Array | None, salt: int) -> Array:
        if key is None or self.dropout == 0:
            return x
        keeps = jax.random.bernoulli(jax.random.fold_in(key, salt), 1 - self.dropout, x.shape)
        return jnp.where(keeps, x / (1 - self.dropout), 0)


def init(sizes: dict[str, Any], key: Array) -> Tree:
    """Initial parameters of `TCGRU(**sizes)` as a plain nested dict of arrays."""
    _, state = nnx.split(TCGRU(**sizes, rngs=nnx.Rngs(params=key)))
    return nnx.to_pure_dict(state)


def apply(sizes: dict[str, Any], params: Tree, *inputs: Array, key: Array | None = None) -> Outputs:
    """Runs `TCGRU(**sizes)` with `params` on `inputs` (features, reset, is_valid, last_frame)."""
    module = nnx.eval_shape(lambda: TCGRU(**sizes, rngs=nnx.Rngs(params=0)))
    graph, state = nnx.split(module)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)(*inputs, key=key)


def count_parameters(params: Tree) -> int:
    """Number of trainable scalars."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
