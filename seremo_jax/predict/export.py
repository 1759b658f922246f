"""Trained heads applied to hidden states as a backbone gives them, and the same as a StableHLO module."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, Int

from seremo_jax.core import ensemble
from seremo_jax.training import model, zscore
from seremo_jax.training.arrangement import over_members

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
      kappa_s: [E] seconds of a speaker that the training split counts as; None where no member is relative to speakers.
    """

    params: Any
    layer_slot: Any
    norm_slot: Any
    mean: Any
    sd: Any
    columns: Any
    kappa_s: Any = None


class Speakers(NamedTuple):
    """What is known of the speaker of each of B utterances, see `training.speakers`.

    Attributes:
      mean: [K, B, D] mean of the features over all that is known of the speaker.
      variance: [K, B, D] likewise.
      seconds: [B] how much that is; 0 where the speaker is not known.
    """

    mean: Any
    variance: Any
    seconds: Any


def kappas_s(members: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """[E] float32 seconds of a speaker that the training split counts as; None where no member is relative to speakers.

    Args:
      members: Fields of the members, as a model records them; earlier versions lack some.

    Raises:
      ValueError: One is no such number.
    """
    if not any(map(ensemble.is_transductive, members)):
        return None
    values = np.array([float((ensemble.SINCE | dict(member))["speaker_kappa_s"]) for member in members], np.float32)
    if not (values >= 0).all():
        raise ValueError("speaker_kappa_s of a member is below 0")
    return values


def apply(
    sizes: model.Sizes,
    heads: Heads,
    hidden: Float[Array, "K B T D"],
    num_frames: Int[Array, " B"],
    member_map: str = "vmap",
    speakers: Speakers | None = None,
) -> model.Raw:
    """Outputs of every member for each utterance of a batch, one utterance a row.

    Args:
      sizes: Sizes of the heads.
      heads: The members.
      hidden: Frames of the layers, not normalised, any floating-point dtype; anything beyond each length.
      num_frames: Valid frames of each utterance; the outputs of a row of 0 mean nothing.
      member_map: `vmap`, or `map` for one member after the other (see `arrangement.over_members`).
      speakers: Who speaks. Heads that are relative to speakers need it.

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
    frames, own = jnp.moveaxis(hidden, 2, 1), ()
    if heads.kappa_s is not None:
        own = tuple(_columns_of(jnp.asarray(table), heads.columns) for table in (speakers.mean, speakers.variance))

    def apply_member(member: tuple[Any, Array, Array, Array | None]) -> model.Raw:
        params, layer, place, kappa_s = member

        def of_layers(table: Array) -> Array:
            return table if sizes.num_layers else jax.lax.dynamic_index_in_dim(table, layer, keepdims=False)

        if sizes.num_layers:
            plain = tuple(jax.lax.dynamic_slice_in_dim(table, place, num_layers) for table in (heads.mean, heads.sd))
        else:
            plain = heads.mean[place], heads.sd[place]
        if kappa_s is None:
            features = zscore.normalise(of_layers(frames), is_valid, *plain)
        else:
            spoken = tuple(map(of_layers, own))
            by_slot = zscore.drawn_together(plain, spoken, jnp.asarray(speakers.seconds), kappa_s)
            features = zscore.normalise_by_slot(of_layers(frames), slot, *by_slot)
        return model.apply(sizes, params, features, reset, slot, last)

    return over_members(member_map, apply_member, (heads.params, heads.layer_slot, heads.norm_slot, heads.kappa_s))


def _columns_of(table: Float[Array, "K B D"], columns: Int[Array, "K M"]) -> Float[Array, "K B M"]:
    """The features of each layer that heads read."""
    if columns.shape[1] == table.shape[2]:
        return table
    return jnp.take_along_axis(table, columns[:, None, :], axis=2)


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
    `attributes` [E, B, A] of those that were trained, on the corpus's own scale. Heads that are relative to speakers
    take three arrays more, float32: mean and variance [K, B, D] of the speaker of each utterance over all of its hidden
    states that there are, and the seconds [B] of them, 0 for a speaker who is not known.

    Args:
      sizes: Sizes of the heads.
      heads: The members.
      num_features: D of the hidden states.
      units: Offset and factor of each attribute: what is predicted times the factor plus the offset is on that scale.
      has_units: Whether each attribute was trained; the others are left out.
    """
    kept = np.flatnonzero(has_units)
    offset, factor = np.asarray(units, np.float32).reshape(-1, 2)[kept].T

    def run(hidden: Array, num_frames: Array, *of_speakers: Array) -> dict[str, Array]:
        speakers = Speakers(*of_speakers) if of_speakers else None
        out = apply(sizes, heads, hidden, num_frames, speakers=speakers)
        attributes = out.attributes[:, :, kept] * factor[None, None, :] + offset[None, None, :]
        return {"distribution": out.distribution, "attributes": attributes}

    batch, frames = export.symbolic_shape("batch, frames")
    shape = (heads.columns.shape[0], batch, frames, num_features)
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)]
    if heads.kappa_s is not None:
        inputs += [jax.ShapeDtypeStruct((shape[0], batch, num_features), jnp.float32)] * 2
        inputs += [jax.ShapeDtypeStruct((batch,), jnp.float32)]
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
