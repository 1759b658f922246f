"""The total loss of one member: outputs of the head for the utterances of a batch against their labels."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from seremo_jax.core import vocab
from seremo_jax.core.schema import Labels
from seremo_jax.training import distance_losses, losses
from seremo_jax.training.model import Raw

VOTES = vocab.CLASS_TARGETS.index("votes")
"""Code of vote distributions in `Values.class_target`. The other code is that of the consensus."""


class Values(NamedTuple):
    """Values that tell members apart besides their layer.

    They are arrays and not static settings, so that members with different values run in one compiled program.

    Attributes:
      seed: [E] uint32, seed of initial parameters and dropout.
      class_target: [E] int32, index into `vocab.CLASS_TARGETS`.
      class_kind: [E] int32, index into `vocab.CLASS_LOSSES`.
      class_weight: [E, C] weight of each class in balanced losses.
      label_smoothing: [E] share of the class target spread evenly.
      attribute_task_weight: [E] weight of the attribute loss.
      class_task_weight: [E] weight of the class loss.
      learning_rate: [E] step size.
      weight_decay: [E] decoupled weight decay.
      dropout: [E] probability of dropping.
      num_steps: [E] int32, updates over which the learning rate falls to 0, where it does.
      weight_slot: [E] int32, row of the weights of utterances, where these differ.
      closeness_weight: [E] weight of the expected distance between target and prediction.
      class_distance: [E, C, C] distance between classes.
      objective: [E] int32, index into `vocab.OBJECTIVES`.
      objective_group: [E] int32, row of `Inputs.groups`: 0 are speakers.
      mixup: [E] a of Beta(a, a), by which utterances are mixed; 0 mixes none.
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
    num_steps: Array
    weight_slot: Array
    closeness_weight: Array
    class_distance: Array
    objective: Array
    objective_group: Array
    mixup: Array


class Fixed(NamedTuple):
    """Settings of the losses that all members share. Hashable.

    Attributes:
      attribute_weights: Weight of each attribute; empty means equal weights.
      attribute_kind: `ccc` or `emd`.
      variance_task_weight: Weight of the loss of predicted variances.
      ccc_eps: Added to the denominator of CCC.
      class_kinds: Class losses that some member has.
      has_closeness: Some member has a weight of the distance between classes.
    """

    attribute_weights: tuple[float, ...]
    attribute_kind: str
    variance_task_weight: float
    ccc_eps: float
    class_kinds: tuple[str, ...]
    has_closeness: bool = False


def class_targets(labels: Labels, class_target: Array) -> tuple[Float[Array, "B C"], Bool[Array, " B"]]:
    """Target [B, C] and mask [B] for a member's kind of class target."""
    is_votes = class_target == VOTES
    target = jnp.where(is_votes, labels.distribution, labels.consensus)
    return target, jnp.where(is_votes, labels.has_votes, labels.has_consensus)


def total(
    fixed: Fixed,
    raw: Raw,
    labels: Labels,
    is_used: Bool[Array, " B"],
    member: Values,
    task_scales: Array | None,
    weight: Float[Array, " B"] | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Loss of one member on one batch.

    Args:
      fixed: Settings that all members share.
      raw: Outputs of the head.
      labels: Labels of the utterance in each slot.
      is_used: [B] bool, False on slots without an utterance.
      member: The member's values.
      task_scales: [2] learned log variances of the attribute and the class task, or None for fixed weights.
      weight: Weight of the utterance in each slot; None weighs all the same.

    Returns:
      Total loss, and its terms by name.

    Source: METHOD.md, section 5.4; learned weights: KNOWN, A. Kendall, Y. Gal, R. Cipolla, CVPR 2018 (OURS here).
    """
    attribute = _attribute_loss(fixed, raw, labels, is_used, weight)
    target, mask = class_targets(labels, member.class_target)
    target, mask = losses.smoothed(target, member.label_smoothing, labels.is_offered), mask & is_used

    class_ = _by_kind(
        fixed,
        member,
        lambda kind: losses.class_loss(
            kind, raw.logits, target, mask, member.class_weight, fixed.ccc_eps, weight, labels.is_offered
        ),
    )
    if fixed.has_closeness:
        class_ += member.closeness_weight * distance_losses.closeness(
            _distribution(raw, labels), target, mask, member.class_distance, weight
        )
    terms = {"attribute_loss": attribute, "class_loss": class_}
    loss = _weighted((member.attribute_task_weight, member.class_task_weight), (attribute, class_), task_scales)
    if raw.variances is not None:
        rated = labels.has_variance & is_used[:, None]
        weights = _attribute_weights(fixed, rated.shape[1])
        terms["variance_loss"] = losses.attribute_loss(
            raw.variances, labels.attribute_variance, rated, weights, fixed.ccc_eps, weight
        )
        loss += fixed.variance_task_weight * terms["variance_loss"]
    return loss, {"loss": loss, **terms}


def by_row(
    fixed: Fixed, raw: Raw, labels: Labels, is_used: Bool[Array, " B"], member: Values, weight: Float[Array, " B"]
) -> Float[Array, " B"]:
    """What each utterance has of the class and the attribute loss, each by its given weight; see `total`.

    An utterance's attributes count as the mean of those that are rated, which is its part of the whole where all are.
    """
    rated = labels.has_attribute & is_used[:, None]
    by_attribute = jnp.broadcast_to(_attribute_weights(fixed, rated.shape[1])[None], rated.shape) * rated
    if fixed.attribute_kind == "emd":
        parts = distance_losses.earth_mover_by_row(raw.levels, labels.attribute_shares)
    else:
        parts = losses.ccc_by_row(raw.attributes, labels.attributes, rated, fixed.ccc_eps, weight)
    of_all = by_attribute.sum(axis=1)
    attribute = (jnp.where(rated, parts, 0) * by_attribute).sum(axis=1) / jnp.where(of_all > 0, of_all, 1)
    target, mask = class_targets(labels, member.class_target)
    target, mask = losses.smoothed(target, member.label_smoothing, labels.is_offered), mask & is_used
    class_ = _by_kind(
        fixed,
        member,
        lambda kind: losses.class_loss_by_row(
            kind, raw.logits, target, mask, member.class_weight, fixed.ccc_eps, weight, labels.is_offered
        ),
    )
    if fixed.has_closeness:
        apart = distance_losses.closeness_by_row(_distribution(raw, labels), target, member.class_distance)
        class_ += member.closeness_weight * jnp.where(mask, apart, 0)
    return member.attribute_task_weight * attribute + member.class_task_weight * class_


def _distribution(raw: Raw, labels: Labels) -> Array:
    """Predicted distribution, among the classes that raters could choose."""
    if labels.is_offered is None:
        return raw.distribution
    return jax.nn.softmax(losses.among_offered(raw.logits, labels.is_offered), axis=-1)


def _by_kind(fixed: Fixed, member: Values, function: Callable[[str], Array]) -> Array:
    """What a function gives for the member's class loss."""
    # There is a choice even where all members have one kind. Without it, the program of a member alone would be another
    # one than that in company with other kinds, and its bits could differ.
    kinds = fixed.class_kinds if len(fixed.class_kinds) > 1 else fixed.class_kinds * 2
    place = jnp.asarray([kinds.index(kind) if kind in kinds else 0 for kind in vocab.CLASS_LOSSES])
    branches = [functools.partial(function, kind) for kind in kinds]
    return jax.lax.switch(place[member.class_kind], branches)


def _attribute_loss(fixed: Fixed, raw: Raw, labels: Labels, is_used: Array, weight: Array | None) -> Array:
    rated = labels.has_attribute & is_used[:, None]
    weights = _attribute_weights(fixed, rated.shape[1])
    if fixed.attribute_kind == "emd":
        return distance_losses.earth_mover_loss(raw.levels, labels.attribute_shares, rated, weights, weight)
    return losses.attribute_loss(raw.attributes, labels.attributes, rated, weights, fixed.ccc_eps, weight)


def _attribute_weights(fixed: Fixed, num_attributes: int) -> Float[Array, " A"]:
    return jnp.asarray(fixed.attribute_weights or (1 / num_attributes,) * num_attributes, jnp.float32)


def _weighted(weights: Sequence[Array], terms: Sequence[Array], scales: Array | None) -> Array:
    if scales is None:
        return sum(weight * term for weight, term in zip(weights, terms, strict=True))
    # exp(-s) L + s has its minimum at s = ln L: a task with a larger loss gets a smaller weight, and s keeps all
    # weights from going to 0.
    pairs = enumerate(zip(weights, terms, strict=True))
    return sum(weight * (jnp.exp(-scales[i]) * term + scales[i]) for i, (weight, term) in pairs)
