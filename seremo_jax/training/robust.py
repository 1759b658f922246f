"""Objectives over groups of utterances: groups that are served worse weigh more.

Most groups have one or two utterances in a batch, if any, so a group's loss is a running mean over batches. From these
means come shares of the groups, by which the utterances of a batch are weighed anew. The means are part of the training
state of each member.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seremo_jax.core import vocab

RATE = 0.1
"""How much a batch counts in the running mean of a group that is in it (OURS)."""


class Standing(NamedTuple):
    """How the G groups stand with a member; G covers the groups of all splits.

    Attributes:
      loss: [G] running mean of the loss.
      log_share: [G] logarithm of the share under group DRO, of mean 0 over the groups seen.
      is_seen: [G] bool, the group has been in a batch.
    """

    loss: Float[Array, "*P G"]
    log_share: Float[Array, "*P G"]
    is_seen: Bool[Array, "*P G"]


class Strengths(NamedTuple):
    """How strong each objective is. Hashable.

    Attributes:
      dro_step: eta of group DRO.
      cvar_share: Share of the groups that CVaR is over.
      vrex_weight: beta of V-REx.
    """

    dro_step: float
    cvar_share: float
    vrex_weight: float


def empty(num_groups: int) -> Standing:
    """Before the first batch."""
    return Standing(jnp.zeros(num_groups), jnp.zeros(num_groups), jnp.zeros(num_groups, bool))


def updated(
    standing: Standing, loss: Float[Array, " B"], weight: Float[Array, " B"], group: Int[Array, " B"], dro_step: float
) -> Standing:
    """The standing after a batch.

    Args:
      standing: The one before.
      loss: Loss of each utterance.
      weight: Weight of each utterance, 0 where the slot does not count.
      group: Group of each utterance, -1 where it is not known.
      dro_step: eta of group DRO.
    """
    num = len(standing.loss)
    total, count = (_by_group(values, group, num)[:-1] for values in (loss * weight, weight))
    is_here = count > 0
    mean = total / jnp.where(is_here, count, 1)
    rate = jnp.where(standing.is_seen, RATE, 1)
    running = jnp.where(is_here, standing.loss + rate * (mean - standing.loss), standing.loss)
    is_seen = standing.is_seen | is_here
    log_share = jnp.where(is_seen, standing.log_share + dro_step * running, 0)
    # Around the mean, so that a group that is first seen late starts as one of mean share.
    log_share = jnp.where(is_seen, log_share - _mean(log_share, is_seen), 0)
    return Standing(running, log_share, is_seen)


def shares(standing: Standing, objective: Int[Array, ""], strengths: Strengths) -> Float[Array, " G"]:
    """Share of each group seen under an objective (a code of `vocab.OBJECTIVES`), up to a common factor.

    Source: METHOD.md, section 5.5 (KNOWN: group DRO, S. Sagawa et al. 2020; V-REx, D. Krueger et al. 2021; CVaR; OURS:
    from running means).
    """
    loss, seen = standing.loss, standing.is_seen
    worst_first = jnp.where(seen, -loss, jnp.inf).argsort().argsort()
    wanted = strengths.cvar_share * seen.sum()
    # In the order of `vocab.OBJECTIVES`.
    by_objective = {
        "mean": jnp.ones_like(loss),
        "group_dro": jnp.exp(standing.log_share),
        "cvar": jnp.clip(wanted - worst_first, 0, 1),
        "vrex": jnp.maximum(1 + 2 * strengths.vrex_weight * (loss - _mean(loss, seen)), 0),
    }
    return jnp.where(seen, jnp.stack([by_objective[name] for name in vocab.OBJECTIVES])[objective], 0)


def reweighed(
    weight: Float[Array, " B"], group: Int[Array, " B"], shares: Float[Array, " G"], is_mean: Bool[Array, ""]
) -> Float[Array, " B"]:
    """Weights whose sums over the groups in the batch are as their shares; their sum over known groups stays.

    Args:
      weight: Weight of each utterance before, 0 where it does not count.
      group: Group of each utterance, -1 where it is not known: it keeps its weight.
      shares: Share of each group.
      is_mean: The objective is the mean, and all keep their weights.
    """
    is_known = group >= 0
    of_group = _by_group(weight, group, len(shares))[group]
    new = jnp.where(is_known & (of_group > 0), weight * shares[group] / jnp.where(of_group > 0, of_group, 1), 0)
    before, after = jnp.where(is_known, weight, 0).sum(), new.sum()
    new = new * (before / jnp.where(after > 0, after, 1))
    return jnp.where(is_mean | ~is_known, weight, new)


def _by_group(values: Float[Array, " B"], group: Int[Array, " B"], num: int) -> Float[Array, " G"]:
    """Sums over groups, and behind them one over those without."""
    return jnp.zeros(num + 1, values.dtype).at[jnp.where(group >= 0, group, num)].add(values)


def _mean(values: Array, is_in: Array) -> Array:
    return jnp.where(is_in, values, 0).sum() / jnp.maximum(is_in.sum(), 1)
