"""The total loss of one member: what the head puts out for the utterances of a batch, against their labels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from seremo_jax.core import vocab
from seremo_jax.core.schema import Labels
from seremo_jax.training import losses
from seremo_jax.training.model import Raw

VOTES = vocab.CLASS_TARGETS.index("votes")
"""Code of vote distributions in `Values.class_target`; the other code is the consensus."""


class Values(NamedTuple):
    """What tells members apart besides their layer, one value each.

    Attributes:
      seed: [E] uint32, seed of initial parameters and dropout.
      class_target: [E] int32, index into `vocab.CLASS_TARGETS`.
      class_kind: [E] int32, index into `vocab.CLASS_KINDS`.
      class_weight: [E, C] weight of each class in `balanced_soft_ce`.
      label_smoothing: [E] share of the class target spread evenly.
      attribute_task_weight: [E].
      class_task_weight: [E].
      learning_rate: [E].
      weight_decay: [E] decoupled.
      dropout: [E] probability of dropping.
    """

    seed: Array
    class_target: Array
    class_kind: Array
    class_weight: Array
    label_smoothing: Array
    attribute_task_weight: Array
    class_task_weight: Array
    learning_rate: Array
    weight_decay: Array
    dropout: Array


class Fixed(NamedTuple):
    """What all members share. Hashable.

    Attributes:
      attribute_weights: Weight of each attribute; empty means equal.
      attribute_kind: `ccc` or `emd`.
      variance_task_weight: Weight of the loss of predicted variances.
      ccc_eps: Added to the denominator of CCC.
      class_kinds: Class losses that some member has.
    """

    attribute_weights: tuple[float, ...]
    attribute_kind: str
    variance_task_weight: float
    ccc_eps: float
    class_kinds: tuple[str, ...]


def class_targets(labels: Labels, class_target: Array) -> tuple[Float[Array, "B C"], Bool[Array, " B"]]:
    """Target [B, C] and mask [B] for a member's kind of class target."""
    is_votes = class_target == VOTES
    target = jnp.where(is_votes, labels.distribution, labels.consensus)
    return target, jnp.where(is_votes, labels.has_votes, labels.has_consensus)


def total(
    fixed: Fixed, raw: Raw, labels: Labels, is_used: Bool[Array, " B"], member: Values, task_scales: Array | None
) -> tuple[Array, dict[str, Array]]:
    """Loss of one member on one batch.

    Args:
      fixed: What all members share.
      raw: What the head puts out.
      labels: Of the utterance in each slot.
      is_used: [B] bool, False on slots without an utterance.
      member: The member's values.
      task_scales: [2] learned log variances of the attribute and the class task, or None for fixed weights.

    Returns:
      Total loss, and the terms by name.

    Source: method.md section 5.4; learned weights: KNOWN, A. Kendall, Y. Gal, R. Cipolla, CVPR 2018 (OURS here).
    """
    attribute = _attribute_loss(fixed, raw, labels, is_used)
    target, mask = class_targets(labels, member.class_target)
    target, mask = losses.smoothed(target, member.label_smoothing), mask & is_used

    def of_kind(kind: str) -> Any:
        if kind == "ccc":
            return lambda: losses.class_loss(jax.nn.softmax(raw.logits, axis=-1), target, mask, fixed.ccc_eps)
        return lambda: losses.distribution_loss(raw.logits, target, mask, kind, member.class_weight)

    # A choice even where there is one kind: a member's bits must not depend on which kinds its company has.
    kinds = fixed.class_kinds if len(fixed.class_kinds) > 1 else fixed.class_kinds * 2
    place = jnp.asarray([kinds.index(kind) if kind in kinds else 0 for kind in vocab.CLASS_KINDS])
    class_ = jax.lax.switch(place[member.class_kind], [of_kind(kind) for kind in kinds])
    terms = {"attribute_loss": attribute, "class_loss": class_}
    loss = _weighted((member.attribute_task_weight, member.class_task_weight), (attribute, class_), task_scales)
    if raw.variances is not None:
        has = labels.has_variance & is_used[:, None]
        terms["variance_loss"] = losses.attribute_loss(
            raw.variances, labels.attribute_variance, has, _equal(fixed.attribute_weights, has.shape[1]), fixed.ccc_eps
        )
        loss += fixed.variance_task_weight * terms["variance_loss"]
    return loss, {"loss": loss, **terms}


def _attribute_loss(fixed: Fixed, raw: Raw, labels: Labels, is_used: Array) -> Array:
    rated = labels.has_attribute & is_used[:, None]
    weights = _equal(fixed.attribute_weights, rated.shape[1])
    if fixed.attribute_kind == "emd":
        return losses.earth_mover_loss(raw.levels, labels.attribute_shares, rated, weights)
    return losses.attribute_loss(raw.attributes, labels.attributes, rated, weights, fixed.ccc_eps)


def _equal(weights: Sequence[float], num_attributes: int) -> Float[Array, " A"]:
    return jnp.asarray(weights or (1 / num_attributes,) * num_attributes, jnp.float32)


def _weighted(weights: Sequence[Array], terms: Sequence[Array], scales: Array | None) -> Array:
    if scales is None:
        return sum(weight * term for weight, term in zip(weights, terms, strict=True))
    pairs = enumerate(zip(weights, terms, strict=True))
    return sum(weight * (jnp.exp(-scales[i]) * term + scales[i]) for i, (weight, term) in pairs)
