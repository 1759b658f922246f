"""Losses that know how far apart things are: classes that raters mix up, steps of a rating scale."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from seremo_jax.training import losses


def closeness(
    pred: Float[Array, "B C"],
    target: Float[Array, "B C"],
    mask: Bool[Array, "B"],
    distance: Float[Array, "C C"],
    weight: Float[Array, "B"] | None = None,
) -> Float[Array, ""]:
    """Mean of `sum_ck p_c D_ck q_k`: how far a class drawn from q is from one drawn from p, expected.

    Args:
      pred: Predicted distribution q.
      target: p.
      mask: False leaves the utterance out.
      distance: D, distance between classes.
      weight: Weight of each utterance; None weighs all the same.

    Source: KNOWN idea (H.-C. Chou et al. 2022, doi:10.21437/Interspeech.2022-11041); OURS: this form, METHOD.md, 5.5.
    """
    return losses.weighted_mean(closeness_by_row(pred, target, distance), mask, weight)


def closeness_by_row(
    pred: Float[Array, "B C"], target: Float[Array, "B C"], distance: Float[Array, "C C"]
) -> Float[Array, "B"]:
    """What each utterance has of `closeness`."""
    # Summed and not multiplied as matrices, which some devices round.
    return (target[:, :, None] * distance[None] * pred[:, None, :]).sum(axis=(1, 2))


def earth_mover_loss(
    logits: Float[Array, "B A L"],
    shares: Float[Array, "B A L"],
    mask: Bool[Array, "B A"],
    weights: Float[Array, "A"],
    row_weight: Float[Array, "B"] | None = None,
) -> Float[Array, ""]:
    """Squared earth mover's distance between ordinal distributions, weighted over attributes; 0 where none is rated.

    The distance of one attribute of one utterance is the mean over levels of the squared difference of the cumulative
    distributions. Each attribute's distances are averaged over the utterances where it is rated.

    Args:
      logits: Logits of the predicted distribution over the L levels.
      shares: Shares of the raters at each level, in rising order; any finite values where `mask` is False.
      mask: False leaves the utterance's attribute out.
      weights: Weight of each attribute.
      row_weight: Weight of each utterance; None weighs all the same.

    Source: KNOWN: L. Hou, C.-P. Yu, D. Samaras, Squared earth mover's distance-based loss, 2016; OURS: its use here.
    """
    return (weights * losses.weighted_mean(earth_mover_by_row(logits, shares), mask, row_weight)).sum()


def earth_mover_by_row(logits: Float[Array, "B A L"], shares: Float[Array, "B A L"]) -> Float[Array, "B A"]:
    """Squared earth mover's distance of each attribute of each utterance, see `earth_mover_loss`."""
    difference = jnp.cumsum(jax.nn.softmax(logits, axis=-1) - shares, axis=-1)
    return jnp.square(difference).mean(axis=-1)
