"""Losses: differentiable CCC over the global batch, for attributes and for vote distributions.

Plain reductions over the utterance axis, so that under `jit` on any mesh the statistics span the whole batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

DISTRIBUTION_KINDS = ("soft_ce", "kl", "jsd", "balanced_soft_ce", "hard_ce")
"""Class losses that are means over utterances; `ccc` (`class_loss`) is not."""


def ccc(
    pred: Float[Array, "B *columns"],
    target: Float[Array, "B *columns"],
    mask: Bool[Array, "B *columns"],
    eps: float = 1e-8,
) -> Float[Array, "*columns"]:
    """Concordance correlation coefficient of each column over the masked-in rows, with population moments.

    0 with exactly zero gradient where the target is constant over those rows or fewer than two rows are left. Values
    of masked-out rows, NaN included, change nothing.

    Args:
      pred: Predictions.
      target: Targets.
      mask: False leaves the row out of that column.
      eps: Added to the denominator.

    Returns:
      CCC in [-1, 1] of each column.

    Source: KNOWN formula, method.md section 5.1; the zero-variance rule is OURS.
    """
    weight = mask.astype(pred.dtype)
    pred, target = jnp.where(mask, pred, 0), jnp.where(mask, target, 0)
    has_signal = varies(target, mask)
    # Multiplied by, not divided by: XLA rewrites divisions by a broadcast, and not in the same way on every mesh.
    share = 1 / jnp.maximum(weight.sum(0), 1)
    mean_pred, mean_target = pred.sum(0) * share, target.sum(0) * share
    d_pred = (pred - mean_pred[None]) * weight
    d_target = (target - mean_target[None]) * weight
    covariance = (d_pred * d_target).sum(0) * share
    spread = (d_pred**2).sum(0) * share + (d_target**2).sum(0) * share + (mean_pred - mean_target) ** 2 + eps
    # Guarded before dividing: a masked quotient would still send NaN into the gradient.
    return 2 * jnp.where(has_signal, covariance, 0) / jnp.where(has_signal, spread, 1)


def varies(target: Float[Array, "B *columns"], mask: Bool[Array, "B *columns"]) -> Bool[Array, "*columns"]:
    """Whether a column's target takes two different values among at least two masked-in rows."""
    highest = jnp.where(mask, target, -jnp.inf).max(0)
    lowest = jnp.where(mask, target, jnp.inf).min(0)
    return highest > lowest


def attribute_loss(
    pred: Float[Array, "B A"],
    target: Float[Array, "B A"],
    mask: Bool[Array, "B A"],
    weights: Float[Array, "A"],
    eps: float = 1e-8,
) -> Float[Array, ""]:
    """`1 - sum_d w_d CCC_d`; 0 with zero gradient where no row of the batch is rated.

    An attribute caught by the zero-variance rule counts as CCC 0, the weights are not renormalised.

    Source: KNOWN/2nd, method.md section 5.2.
    """
    return jnp.where(mask.any(), 1 - (weights * ccc(pred, target, mask, eps)).sum(), 0)


def class_loss(
    pred: Float[Array, "B C"], target: Float[Array, "B C"], mask: Bool[Array, "B"], eps: float = 1e-8
) -> Float[Array, ""]:
    """`1 - mean CCC` over the classes whose target varies in this batch; 0 with zero gradient if none does.

    Args:
      pred: Predicted distribution q.
      target: Vote distribution p, or one-hot consensus.
      mask: False leaves the utterance out.
      eps: Added to the denominator of CCC.

    Source: INFERRED, method.md section 5.3.
    """
    mask = jnp.broadcast_to(mask[:, None], pred.shape)
    is_present = varies(target, mask)
    num_present = is_present.sum()
    total = jnp.where(is_present, ccc(pred, target, mask, eps), 0).sum()
    return jnp.where(num_present > 0, 1 - total / jnp.maximum(num_present, 1), 0)


def smoothed(target: Float[Array, "B C"], share: Float[Array, ""] | float) -> Float[Array, "B C"]:
    """A class target of which `share` is spread evenly over the classes."""
    return (1 - share) * target + share / target.shape[1]


def distribution_loss(
    logits: Float[Array, "B C"],
    target: Float[Array, "B C"],
    mask: Bool[Array, "B"],
    kind: str,
    class_weights: Float[Array, "C"] | None = None,
) -> Float[Array, ""]:
    """Mean loss of the utterances between a target distribution p and q = softmax(logits); 0 where none is left.

    `soft_ce` is -sum p ln q, `hard_ce` the same (its target is the consensus), `kl` is KL(p || q), `jsd` the
    Jensen-Shannon divergence in bits, `balanced_soft_ce` weighs each class's term by `class_weights`.

    Args:
      logits: What softmax makes q of.
      target: p, rows summing to 1; anything finite where `mask` is False.
      mask: False leaves the utterance out.
      kind: One of `DISTRIBUTION_KINDS`.
      class_weights: Of each class; read by `balanced_soft_ce`.

    Source: method.md section 5.3 (KNOWN: soft cross-entropy of EMO-SUPERB, KL of SAIL).
    """
    log_q, p = jax.nn.log_softmax(logits, axis=-1), target
    # 0 ln 0 = 0, with a gradient that is 0 too.
    entropy_terms = jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0)
    if kind == "jsd":
        log_m = jnp.log(jnp.maximum((p + jnp.exp(log_q)) / 2, 1e-30))
        to_p, to_q = entropy_terms - p * log_m, jnp.exp(log_q) * (log_q - log_m)
        terms = (to_p + to_q) / (2 * jnp.log(2.0))
    elif kind == "kl":
        terms = entropy_terms - p * log_q
    else:
        terms = -p * log_q
    if kind == "balanced_soft_ce":
        terms = terms * class_weights[None, :]
    share = 1 / jnp.maximum(mask.sum(), 1)
    return jnp.where(mask, terms.sum(axis=1), 0).sum() * share


def earth_mover_loss(
    logits: Float[Array, "B A L"],
    shares: Float[Array, "B A L"],
    mask: Bool[Array, "B A"],
    weights: Float[Array, "A"],
) -> Float[Array, ""]:
    """Squared earth mover's distance between ordinal distributions, weighted over attributes; 0 where none is rated.

    For each rated attribute the mean over levels of the squared difference of the cumulative distributions, then the
    mean over utterances.

    Args:
      logits: What softmax over the L levels makes the predicted distribution of.
      shares: Shares of the raters at each level, in rising order; anything finite where `mask` is False.
      mask: False leaves the utterance's attribute out.
      weights: Weight of each attribute.

    Source: KNOWN: L. Hou, C.-P. Yu, D. Samaras, Squared earth mover's distance-based loss, 2016; OURS: its use here.
    """
    difference = jnp.cumsum(jax.nn.softmax(logits, axis=-1) - shares, axis=-1)
    distance = jnp.where(mask, jnp.square(difference).mean(axis=-1), 0)
    return (weights * distance.sum(axis=0) / jnp.maximum(mask.sum(axis=0), 1)).sum()


def balanced_weights(counts: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    """Class weights (1 - b) / (1 - b^n_c) with b = (n - 1) / n, scaled to a mean of 1; a class without votes gets 0.

    Args:
      counts: n_c, votes of each class in the training split (shares summed over utterances).

    Source: KNOWN, method.md section 5.3 (EMO-SUPERB, after Y. Cui et al., CVPR 2019).
    """
    total = counts.sum()
    b = (total - 1) / total
    weights = np.where(counts > 0, (1 - b) / np.maximum(1 - b**counts, 1e-300), 0.0)
    return (weights * np.count_nonzero(counts) / weights.sum()).astype(np.float32)
