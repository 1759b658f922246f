"""The head: a TC-GRU (time-convolution GRU) over the frames of one backbone layer, several utterances packed in a row.

Modules hold parameters only. Above `init` and `apply` everything is plain JAX on nested dicts of arrays, so that any
transformation applies to a head, and no random state or graph is carried from step to step.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from seremo_jax.training import initial
from seremo_jax.training.gru import dot, gru_beside
from seremo_jax.training.pooling import first_frames, known, num_widths, pool

Tree = Any
"""Nested dict of parameter arrays."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes and options of a head. Hashable, so that compiled steps are cached by them.

    Attributes:
      num_features: D, width of the backbone layer.
      num_attributes: A.
      num_classes: C.
      num_layers: Layers in a learned weighted sum; 0 where the head reads one layer.
      conv_kernel: Frames under the convolution; 0 leaves the branch out.
      conv_kind: Kind of the convolution, one of `vocab.CONVOLUTIONS`.
      conv_filters: Filters of a dense convolution.
      gru_units: H.
      gru_layers: GRUs on top of each other.
      bidirectional: A second GRU of each layer reads every utterance backwards.
      pooling: Summary of an utterance, one of `vocab.POOLINGS`.
      embedding_size: Width of the embedding.
      embedding_activation: Its activation, one of `vocab.ACTIVATIONS`.
      levels: Values of the L levels of the rating scale. The attributes are then the means of predicted distributions
        over these levels. Empty where the head puts the attributes out directly.
      predicts_variance: The attribute head puts out the raters' variances, too.
      dtype: Dtype of the matrix products.
    """

    num_features: int
    num_attributes: int
    num_classes: int
    num_layers: int = 0
    conv_kernel: int = 3
    conv_kind: str = "depthwise"
    conv_filters: int = 200
    gru_units: int = 256
    gru_layers: int = 2
    bidirectional: bool = False
    pooling: str = "last_valid"
    embedding_size: int = 128
    embedding_activation: str = "none"
    levels: tuple[float, ...] = ()
    predicts_variance: bool = False
    dtype: str = "float32"

    @property
    def convolved(self) -> int:
        """Features that the convolution puts out; 0 without one."""
        if not self.conv_kernel:
            return 0
        return self.conv_filters if self.conv_kind == "dense" else self.num_features


class Raw(NamedTuple):
    """Outputs of the head for the utterance in each of B slots, float32.

    Attributes:
      attributes: [B, A] on the scale of the targets.
      levels: [B, A, L] logits of the levels of the rating scale; None unless the head has them.
      variances: [B, A] variance of the raters; None unless the head has it.
      logits: [B, C] logits of the class distribution.
      embedding: [B, embedding_size].
    """

    attributes: Array
    levels: Array | None
    variances: Array | None
    logits: Array
    embedding: Array

    @property
    def distribution(self) -> Array:
        """[B, C] class distribution; rows sum to 1."""
        return jax.nn.softmax(self.logits, axis=-1)


class Dropout(NamedTuple):
    """Dropout whose masks depend on the number of a row in the whole batch.

    A batch that is computed in parts, or on several devices, then drops what it would drop as a whole.

    Attributes:
      key: Random key of the step.
      rate: [] probability of dropping; 0 drops nothing.
      rows: [R] number of each row in the whole batch.
    """

    key: Array
    rate: Array
    rows: Array

    def of_rows(self, x: Float[Array, "T R H"], salt: int) -> Float[Array, "T R H"]:
        """Frames with features dropped. `salt` tells the calls of a step apart."""
        key = jax.random.fold_in(self.key, salt)

        def keeps(row: Array) -> Array:
            return jax.random.bernoulli(jax.random.fold_in(key, row), 1 - self.rate, (x.shape[0], x.shape[2]))

        return self._dropped(x, lambda: jnp.swapaxes(jax.vmap(keeps)(self.rows), 0, 1))

    def of_slots(self, x: Float[Array, "B I"]) -> Float[Array, "B I"]:
        """Embeddings with features dropped. Slots are those of the whole batch in every part."""
        return self._dropped(x, lambda: jax.random.bernoulli(self.key, 1 - self.rate, x.shape))

    def _dropped(self, x: Array, keeps: Callable[[], Array]) -> Array:
        def drop(x: Array) -> Array:
            return jnp.where(keeps(), x / (1 - self.rate).astype(x.dtype), 0)

        # Where members run one after the other, a member without dropout draws no numbers.
        return jax.lax.cond(self.rate > 0, drop, lambda x: x, x)


BEHIND_SUMMARY = ("embedding", "attribute_head", "class_head")
"""Parameters of a head that are applied to the summary of an utterance."""


class DepthwiseConv(nnx.Module):
    """Convolution over time of each feature by itself. It is centred, and zeros stand beyond the row."""

    def __init__(self, sizes: Sizes, draw: initial.Draw):
        kernel, num_features = sizes.conv_kernel, sizes.num_features
        bound = kernel**-0.5
        self.w, self.b = nnx.Param(draw((kernel, num_features), bound)), nnx.Param(draw((num_features,), bound))

    def __call__(self, x: Float[Array, "T R D"]) -> Float[Array, "T R D"]:
        """The convolved frames, of the same shape and dtype."""
        w, b = self.w[...].astype(x.dtype), self.b[...].astype(x.dtype)
        reach = w.shape[0] // 2
        padded = jnp.pad(x, ((reach, reach), (0, 0), (0, 0)))
        # A sum of shifted products. XLA's depthwise convolution is slower on CPU by an order of magnitude.
        shifted = (padded[o : o + x.shape[0]] * w[o][None, None, :] for o in range(w.shape[0]))
        return functools.reduce(jnp.add, shifted) + b[None, None, :]


class DenseConv(nnx.Module):
    """Convolution over time of all features by several filters, initialised as torch.nn.Conv1d; likewise centred."""

    def __init__(self, sizes: Sizes, draw: initial.Draw):
        kernel, num_features, num_filters = sizes.conv_kernel, sizes.num_features, sizes.conv_filters
        bound = (kernel * num_features) ** -0.5
        self.w = nnx.Param(draw((kernel, num_features, num_filters), bound))
        self.b = nnx.Param(draw((num_filters,), bound))

    def __call__(self, x: Float[Array, "T R D"]) -> Float[Array, "T R F"]:
        """The convolved frames, of the same dtype."""
        (num_frames, num_rows, num_features), (kernel, _, num_filters) = x.shape, self.w[...].shape
        w = jnp.moveaxis(self.w[...], 0, 1).reshape(num_features, -1).astype(x.dtype)
        # One product for all offsets, whose results are then shifted: they are narrower than the features.
        products = dot(x.reshape(num_frames * num_rows, -1), w)
        products = products.reshape(num_frames, num_rows, kernel, num_filters)
        reach = kernel // 2
        padded = jnp.pad(products, ((reach, reach), (0, 0), (0, 0), (0, 0)))
        shifted = (padded[o : o + num_frames, :, o] for o in range(kernel))
        return (functools.reduce(jnp.add, shifted) + self.b[...][None, None, :]).astype(x.dtype)


CONVOLUTIONS: dict[str, type[nnx.Module]] = {"depthwise": DepthwiseConv, "dense": DenseConv}
"""Convolution by its name in `vocab.CONVOLUTIONS`."""

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}
"""Activation by its name in `vocab.ACTIVATIONS`."""


class GRULayer(nnx.Module):
    """Weights of one GRU, initialised as torch.nn.GRU does."""

    def __init__(self, num_features: int, units: int, draw: initial.Draw):
        def uniform(*shape: int) -> nnx.Param:
            return nnx.Param(draw(shape, units**-0.5))

        self.w_i, self.w_h = uniform(num_features, 3 * units), uniform(units, 3 * units)
        self.b_i, self.b_h = uniform(3 * units), uniform(3 * units)

    def __call__(
        self, parts: Sequence[Float[Array, "T R _"]], reset: Bool[Array, "T R"], is_reverse: bool = False
    ) -> Float[Array, "T R H"]:
        """States after every frame, see `gru_beside`. The features of a frame come in parts."""
        params = {"w_i": self.w_i[...], "w_h": self.w_h[...], "b_i": self.b_i[...], "b_h": self.b_h[...]}
        return gru_beside(params, parts, reset, is_reverse)


class Linear(nnx.Module):
    """Affine map, initialised as torch.nn.Linear does."""

    def __init__(self, num_in: int, num_out: int, draw: initial.Draw):
        bound = num_in**-0.5
        self.w, self.b = nnx.Param(draw((num_in, num_out), bound)), nnx.Param(draw((num_out,), bound))

    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
        """The affine map of every row."""
        return x @ self.w[...] + self.b[...][None, :]


class TCGRU(nnx.Module):
    """Convolution branch beside the features, GRUs, summary of the states, embedding, two heads.

    Args:
      sizes: Sizes and options.
      draw: Source of the initial parameters.

    Source: INFERRED, METHOD.md, section 4 (2,204,171 parameters at D = 1024, A = 3, C = 8).
    """

    def __init__(self, sizes: Sizes, draw: initial.Draw):
        num_features, units = sizes.num_features, sizes.gru_units
        self.sizes = sizes
        # The order of these lines is the order in which initial parameters are drawn.
        self.layer_weights = nnx.Param(jnp.zeros(sizes.num_layers)) if sizes.num_layers else None
        conv = known(CONVOLUTIONS, sizes.conv_kind, "convolution")
        self.conv = conv(sizes, draw) if sizes.conv_kernel else None
        wide = 2 * units if sizes.bidirectional else units
        widths = [sizes.convolved + num_features] + [wide] * (sizes.gru_layers - 1)
        self.grus = nnx.List([GRULayer(width, units, draw) for width in widths])
        is_both = sizes.bidirectional
        self.backward_grus = nnx.List([GRULayer(width, units, draw) for width in widths]) if is_both else None
        self.embedding = Linear(wide * num_widths(sizes.pooling), sizes.embedding_size, draw)
        num_outputs = sizes.num_attributes * (max(len(sizes.levels), 1) + sizes.predicts_variance)
        self.attribute_head = Linear(sizes.embedding_size, num_outputs, draw)
        self.class_head = Linear(sizes.embedding_size, sizes.num_classes, draw)
        known(ACTIVATIONS, sizes.embedding_activation, "activation")

    def __call__(
        self,
        features: Float[Array, "*K T R D"],
        reset: Bool[Array, "T R"],
        slot: Int[Array, "T R"],
        last_frame: Int[Array, "B"],
        dropout: Dropout | None = None,
    ) -> Raw:
        """Predictions for the utterances that are packed into the rows.

        Args:
          features: Normalised frames, zero in gaps. Where the head sums layers, those of each layer.
          reset: True on the first frame of an utterance.
          slot: Slot of the utterance each frame belongs to, -1 in gaps and padding.
          last_frame: Index `t * R + r` of the last frame of the utterance in each slot.
          dropout: None switches it off.
        """
        return self.outputs(self.summaries(features, reset, slot, last_frame, dropout), dropout)

    def summaries(
        self,
        features: Float[Array, "*K T R D"],
        reset: Bool[Array, "T R"],
        slot: Int[Array, "T R"],
        last_frame: Int[Array, "B"],
        dropout: Dropout | None = None,
    ) -> Float[Array, "B P"]:
        """Summaries of the states of the utterances that are packed into the rows, see `__call__`."""
        sizes, is_valid = self.sizes, slot >= 0
        if self.layer_weights is not None:
            features = jnp.einsum("k,ktrd->trd", jax.nn.softmax(self.layer_weights[...]), features)
        x = features.astype(sizes.dtype)
        parts = (x,)
        if self.conv is not None:
            # Gaps stay zero, although the convolution reaches into them from both sides.
            parts = (jnp.where(is_valid[:, :, None], jax.nn.relu(self.conv(x)), 0), x)
        for depth, layer in enumerate(self.grus):
            inputs = parts if depth == 0 else (x if dropout is None else dropout.of_rows(x, depth),)
            x = layer(inputs, reset)
            if self.backward_grus is not None:
                x = jnp.concatenate([x, self.backward_grus[depth](inputs, _ends(slot), is_reverse=True)], axis=-1)
        return self._summary(x.astype(jnp.float32), slot, last_frame)

    def outputs(self, summary: Float[Array, "B P"], dropout: Dropout | None = None) -> Raw:
        """Predictions from summaries of states. They read the parameters `BEHIND_SUMMARY` alone."""
        embedding = ACTIVATIONS[self.sizes.embedding_activation](self.embedding(summary))
        if dropout is not None:
            embedding = dropout.of_slots(embedding)
        return self._heads(embedding)

    def _summary(self, x: Array, slot: Array, last_frame: Array) -> Float[Array, "B P"]:
        if self.backward_grus is None:
            return pool(x, slot, last_frame, self.sizes.pooling)
        # What is read backwards ends at the first frame.
        units, first_frame = self.sizes.gru_units, first_frames(slot, last_frame)
        both = ((x[..., :units], last_frame), (x[..., units:], first_frame))
        return jnp.concatenate([pool(states, slot, last, self.sizes.pooling) for states, last in both], axis=-1)

    def _heads(self, embedding: Float[Array, "B I"]) -> Raw:
        num, num_attributes, values = embedding.shape[0], self.sizes.num_attributes, self.sizes.levels
        outputs, levels, variances = self.attribute_head(embedding), None, None
        if self.sizes.predicts_variance:
            outputs, variances = outputs[:, :-num_attributes], outputs[:, -num_attributes:]
        if values:
            levels = outputs.reshape(num, num_attributes, len(values))
            outputs = jnp.einsum("bal,l->ba", jax.nn.softmax(levels, axis=-1), jnp.asarray(values, jnp.float32))
        return Raw(outputs, levels, variances, self.class_head(embedding), embedding)


def _ends(slot: Int[Array, "T R"]) -> Bool[Array, "T R"]:
    """True on the last frame of each utterance."""
    behind = jnp.concatenate([slot[1:], jnp.full_like(slot[:1], -1)])
    return (slot >= 0) & (slot != behind)


def init(sizes: Sizes, key: Array) -> Tree:
    """Initial parameters of `TCGRU(sizes)` as a plain nested dict of float32 arrays; see `initial.drawn`."""
    _, state = nnx.split(initial.drawn(functools.partial(TCGRU, sizes), key))
    return nnx.to_pure_dict(state)


@functools.cache
def _abstract(sizes: Sizes) -> tuple[Any, Any]:
    # Graph and shapes of the parameters.
    return nnx.split(nnx.eval_shape(lambda: TCGRU(sizes, initial.zeros)))


def apply(sizes: Sizes, params: Tree, *inputs: Array, dropout: Dropout | None = None) -> Raw:
    """Runs `TCGRU(sizes)` with `params` on `inputs` (features, reset, slot, last_frame)."""
    return module(sizes, params)(*inputs, dropout=dropout)


def module(sizes: Sizes, params: Tree) -> TCGRU:
    """`TCGRU(sizes)` with `params`."""
    # The module is rebuilt from its sizes without computing anything: only the parameters are ever kept.
    graph, shapes = _abstract(sizes)
    state = jax.tree.map(lambda shape: shape, shapes)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)


def count_parameters(params: Tree) -> int:
    """Number of trainable scalars."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
