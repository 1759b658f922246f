"""Trained heads applied to hidden states as a backbone gives them, and the same as a StableHLO module."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, Int

from seremo_jax.training import model
from seremo_jax.training.arrangement import over_members
from seremo_jax.training.gradients import normalise

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""What a StableHLO module is lowered for."""


class Heads(NamedTuple):
    """Trained members.

    Attributes:
      params: Parameters, leading axis E on every leaf.
      layer_slot: [E] int32, which of the K layers each member reads; 0 where it sums them all.
      norm_slot: [E] int32, first entry of the feature statistics that a member reads.
      mean: [n, M] mean of each feature over a training split.
      sd: [n, M] its standard deviation.
      columns: [K, M] int32, features of each layer that heads read.
    """

    params: Any
    layer_slot: Any
    norm_slot: Any
    mean: Any
    sd: Any
    columns: Any


def apply(
    sizes: model.Sizes,
    heads: Heads,
    hidden: Float[Array, "K B T D"],
    num_frames: Int[Array, " B"],
    member_map: str = "vmap",
) -> model.Raw:
    """Outputs of every member for each utterance of a batch, one utterance a row.

    Args:
      sizes: Sizes of the heads.
      heads: The members.
      hidden: Frames of the layers, not normalised, any floating-point dtype; anything beyond each length.
      num_frames: Valid frames of each utterance; the outputs of a row of 0 mean nothing.
      member_map: `vmap`, or `map` for one member after the other (see `arrangement.over_members`).

    Returns:
      Outputs with a leading axis E: attributes [E, B, A], distribution [E, B, C], logits and embedding.
    """
    heads, (num_layers, num_rows, longest, num_features) = jax.tree.map(jnp.asarray, heads), hidden.shape
    frame = jnp.arange(longest)[:, None]
    is_valid = frame < num_frames[None, :]
    reset = jnp.broadcast_to(frame == 0, is_valid.shape)
    slot = jnp.where(is_valid, jnp.arange(num_rows)[None, :], -1)
    last = (jnp.maximum(num_frames, 1) - 1) * num_rows + jnp.arange(num_rows)
    if heads.columns.shape[1] < num_features:
        hidden = jnp.take_along_axis(hidden, heads.columns[:, None, None, :], axis=3)
    frames = jnp.moveaxis(hidden, 2, 1)

    def apply_member(member: tuple[Any, Array, Array]) -> model.Raw:
        params, layer, place = member
        if sizes.num_layers:
            tables = (jax.lax.dynamic_slice_in_dim(table, place, num_layers) for table in (heads.mean, heads.sd))
            features = normalise(frames, is_valid, *tables)
        else:
            features = jax.lax.dynamic_index_in_dim(frames, layer, keepdims=False)
            features = normalise(features, is_valid, heads.mean[place], heads.sd[place])
        return model.apply(sizes, params, features, reset, slot, last)

    return over_members(member_map, apply_member, (heads.params, heads.layer_slot, heads.norm_slot))


def to_stablehlo(
    sizes: model.Sizes,
    heads: Heads,
    num_features: int,
    units: Sequence[tuple[float, float]],
    has_units: Sequence[bool],
) -> bytes:
    """The members as a serialised `jax.export` module, weights inside: nothing of this package is needed to run it.

    `jax.export.deserialize(module).call(hidden, num_frames)` takes hidden states [K, B, T, D] float32, not normalised,
    and valid frames [B] int32, for any B and T, and gives a dict: `distribution` [E, B, C], not calibrated, and
    `attributes` [E, B, A] of those that were trained, on the corpus's own scale.

    Args:
      sizes: Sizes of the heads.
      heads: The members.
      num_features: D of the hidden states.
      units: Offset and factor of each attribute: what is predicted times the factor plus the offset is on that scale.
      has_units: Whether each attribute was trained; the others are left out.
    """
    kept = np.flatnonzero(has_units)
    offset, factor = np.asarray(units, np.float32).reshape(-1, 2)[kept].T

    def run(hidden: Array, num_frames: Array) -> dict[str, Array]:
        out = apply(sizes, heads, hidden, num_frames)
        attributes = out.attributes[:, :, kept] * factor[None, None, :] + offset[None, None, :]
        return {"distribution": out.distribution, "attributes": attributes}

    batch, frames = export.symbolic_shape("batch, frames")
    shape = (heads.columns.shape[0], batch, frames, num_features)
    inputs = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    return bytes(export.export(jax.jit(run), platforms=PLATFORMS)(*inputs).serialize())


def flatten(params: Any) -> dict[str, np.ndarray]:
    """Parameters as a flat dict, name (`grus.0.w_i`) -> array."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in flat}


def unflatten(sizes: model.Sizes, arrays: dict[str, np.ndarray], num_members: int) -> Any:
    """Parameters [E, ...] of `model.TCGRU` from what `flatten` gave.

    Raises:
      ValueError: A parameter is missing, unexpected or of another shape; all of them are named.
    """
    like = jax.eval_shape(functools.partial(model.init, sizes), jax.random.key(0))
    flat, tree = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in flat]
    wrong = [f"{name} is missing" for name in names if name not in arrays]
    wrong += [f"{name} is not expected" for name in sorted(arrays.keys() - set(names))]
    for name, (_, leaf) in zip(names, flat, strict=True):
        expected = (num_members, *leaf.shape)
        if name in arrays and arrays[name].shape != expected:
            wrong.append(f"{name} has shape {arrays[name].shape}, should be {expected}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return jax.tree.unflatten(tree, [arrays[name] for name in names])
