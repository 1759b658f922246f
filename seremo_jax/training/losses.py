"""Losses: CCC over the whole batch as a differentiable function, for attributes and for vote distributions.

CCC of a batch is not the mean of the CCCs of its parts, so its moments are taken over all utterances at once. The
functions here see the outputs for the whole batch; `gradients` brings them together from devices and parts.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def ccc(
    pred: Float[Array, "B *columns"],
    target: Float[Array, "B *columns"],
    mask: Bool[Array, "B *columns"],
    eps: float = 1e-8,
    weight: Float[Array, "B"] | None = None,
) -> Float[Array, "*columns"]:
    """Concordance correlation coefficient of each column over the rows where `mask` is True, with population moments.

    It is 0 with a gradient of exactly zero where the target is constant over those rows, or where fewer than two rows
    are left. Values of other rows change nothing, not even NaN.

    Args:
      pred: Predictions.
      target: Targets.
      mask: False leaves the row out of that column.
      eps: Added to the denominator.
      weight: Weight of each row in all moments, at least 0; None weighs all the same.

    Returns:
      CCC in [-1, 1] of each column.

    Source: KNOWN formula, METHOD.md, section 5.1; the zero-variance rule is OURS.
    """
    covariance, spread, has_signal = _moments(pred, target, mask, eps, weight)
    # The guard stands before the division. A quotient that is masked afterwards would still send NaN into the gradient.
    return 2 * jnp.where(has_signal, covariance, 0) / jnp.where(has_signal, spread, 1)


def _moments(pred: Array, target: Array, mask: Array, eps: float, weight: Array | None) -> tuple[Array, Array, Array]:
    """Covariance, denominator of CCC and whether the target varies, of each column."""
    # Set to 0 first: 0 times NaN is NaN, so a weight of 0 alone would let it through.
    mask = _weighing(mask, weight)
    pred, target = jnp.where(mask, pred, 0), jnp.where(mask, target, 0)
    has_signal, is_in = varies(target, mask), mask.astype(pred.dtype)
    mean_pred, mean_target = _mean(pred, is_in, weight), _mean(target, is_in, weight)
    # Moments are centred. The difference of a raw mean of squares and a squared mean loses digits where means are
    # large.
    d_pred, d_target = (pred - mean_pred[None]) * is_in, (target - mean_target[None]) * is_in
    covariance = _mean(d_pred * d_target, is_in, weight)
    spread = _mean(d_pred**2, is_in, weight) + _mean(d_target**2, is_in, weight) + (mean_pred - mean_target) ** 2 + eps
    return covariance, spread, has_signal


def ccc_by_row(
    pred: Float[Array, "B *columns"],
    target: Float[Array, "B *columns"],
    mask: Bool[Array, "B *columns"],
    eps: float = 1e-8,
    weight: Float[Array, "B"] | None = None,
) -> Float[Array, "B *columns"]:
    """What each row has of `1 - ccc`, which is the weighted mean of these numbers over the rows of the mask.

    Since `v_x + v_y - 2 c + (m_x - m_y)^2` is the mean of `(x_i - y_i)^2`, a row has `((x_i - y_i)^2 + eps)` over the
    denominator of CCC; 1 where the target is constant, and 0 outside of the mask.

    Source: OURS, METHOD.md, section 5.5.
    """
    _, spread, has_signal = _moments(pred, target, mask, eps, weight)
    part = (jnp.where(mask, pred - target, 0) ** 2 + eps) / jnp.where(has_signal, spread, 1)[None]
    return jnp.where(mask, jnp.where(has_signal[None], part, 1), 0)


def weighted_mean(
    values: Float[Array, "B *columns"], mask: Bool[Array, "B *columns"], weight: Float[Array, "B"] | None
) -> Float[Array, "*columns"]:
    """Mean over the rows where `mask` is True, by their weights; 0 with zero gradient where none weighs anything."""
    mask = _weighing(mask, weight)
    return _mean(jnp.where(mask, values, 0), mask.astype(values.dtype), weight)


def _mean(values: Array, is_in: Array, weight: Array | None) -> Array:
    """Weighted mean of values that are 0 where `is_in` is 0."""
    # The sum is multiplied by this share and not divided by the count, since XLA rewrites divisions by a broadcast, and
    # not in the same way on every mesh.
    if weight is None:
        return values.sum(0) * (1 / jnp.maximum(is_in.sum(0), 1))
    weight = _as_rows(weight, is_in) * is_in
    total = weight.sum(0)
    return (values * weight).sum(0) * (1 / jnp.where(total > 0, total, 1))


def _weighing(mask: Array, weight: Array | None) -> Array:
    """The rows that weigh anything."""
    return mask if weight is None else mask & (_as_rows(weight, mask) > 0)


def _as_rows(weight: Array, mask: Array) -> Array:
    return jnp.broadcast_to(weight.reshape(-1, *[1] * (mask.ndim - 1)), mask.shape)


def varies(target: Float[Array, "B *columns"], mask: Bool[Array, "B *columns"]) -> Bool[Array, "*columns"]:
    """Whether the target of a column takes two different values among the rows where `mask` is True."""
    highest = jnp.where(mask, target, -jnp.inf).max(0)
    lowest = jnp.where(mask, target, jnp.inf).min(0)
    return highest > lowest


def attribute_loss(
    pred: Float[Array, "B A"],
    target: Float[Array, "B A"],
    mask: Bool[Array, "B A"],
    weights: Float[Array, "A"],
    eps: float = 1e-8,
    row_weight: Float[Array, "B"] | None = None,
) -> Float[Array, ""]:
    """`1 - sum_d w_d CCC_d` over attributes d; 0 with zero gradient where no row of the batch is rated.

    An attribute whose target is constant in the batch counts as CCC 0, and the weights are not renormalised. Rows may
    have a weight of their own, see `ccc`.

    Source: KNOWN/2nd, METHOD.md, section 5.2.
    """
    is_rated = _weighing(mask, row_weight).any()
    return jnp.where(is_rated, 1 - (weights * ccc(pred, target, mask, eps, row_weight)).sum(), 0)


def class_ccc_loss(
    pred: Float[Array, "B C"],
    target: Float[Array, "B C"],
    mask: Bool[Array, "B"],
    eps: float = 1e-8,
    weight: Float[Array, "B"] | None = None,
    is_offered: Bool[Array, "B C"] | None = None,
) -> Float[Array, ""]:
    """`1 - mean CCC` over the classes whose target varies in this batch; 0 with zero gradient if none does.

    A class that is absent from the batch would add a term without a gradient, so the mean leaves it out.

    Args:
      pred: Predicted distribution q.
      target: Vote distribution p, or one-hot consensus.
      mask: False leaves the utterance out.
      eps: Added to the denominator of CCC.
      weight: Weight of each utterance, see `ccc`.
      is_offered: False leaves the utterance out of a class that its raters could not choose; None where they could
        choose all.

    Source: INFERRED, METHOD.md, section 5.3.
    """
    mask = _by_class(mask, pred, is_offered)
    is_present = varies(target, _weighing(mask, weight))
    num_present = is_present.sum()
    total = jnp.where(is_present, ccc(pred, target, mask, eps, weight), 0).sum()
    return jnp.where(num_present > 0, 1 - total / jnp.maximum(num_present, 1), 0)


def _by_class(mask: Array, pred: Array, is_offered: Array | None) -> Array:
    """Mask [B, C] of a mask [B], without the classes that raters could not choose."""
    mask = jnp.broadcast_to(mask[:, None], pred.shape)
    return mask if is_offered is None else mask & is_offered


def smoothed(
    target: Float[Array, "B C"], share: Float[Array, ""] | float, is_offered: Bool[Array, "B C"] | None = None
) -> Float[Array, "B C"]:
    """The class target with `share` of it spread evenly over the classes, those that raters could choose."""
    if is_offered is None:
        return (1 - share) * target + share / target.shape[1]
    return (1 - share) * target + share * is_offered / jnp.maximum(is_offered.sum(axis=1, keepdims=True), 1)


def among_offered(logits: Float[Array, "B C"], is_offered: Bool[Array, "B C"] | None) -> Float[Array, "B C"]:
    """Logits of the distribution over the classes that raters could choose, which is q renormalised over them.

    Source: OURS, METHOD.md, section 3.4.
    """
    return logits if is_offered is None else jnp.where(is_offered, logits, NEVER)


NEVER = -1e9
"""Logit of a class that could not be chosen. Finite, so that a share of 0 times its logarithm is 0."""


def class_loss(
    kind: str,
    logits: Float[Array, "B C"],
    target: Float[Array, "B C"],
    mask: Bool[Array, "B"],
    class_weights: Float[Array, "C"],
    eps: float = 1e-8,
    weight: Float[Array, "B"] | None = None,
    is_offered: Bool[Array, "B C"] | None = None,
) -> Float[Array, ""]:
    """Loss between target distributions p and q = softmax(logits); 0 with zero gradient where no utterance is left.

    Args:
      kind: Name of the loss, see `vocab.CLASS_LOSSES`.
      logits: Logits of q.
      target: p, rows summing to 1; any finite values where `mask` is False.
      mask: False leaves the utterance out.
      class_weights: Weight of each class; only balanced losses read them.
      eps: Added to the denominator of CCC.
      weight: Weight of each utterance, at least 0; None weighs all the same.
      is_offered: Classes that the raters of each utterance could choose, among which q is then; None where all.

    Raises:
      ValueError: No loss of this name.

    Source: METHOD.md, section 5.3 (KNOWN: soft cross-entropy of EMO-SUPERB, KL of SAIL).
    """
    if kind not in CLASS_LOSSES:
        raise ValueError(f"training.losses computes no class loss {kind!r}; it has {', '.join(CLASS_LOSSES)}")
    logits = among_offered(logits, is_offered)
    return CLASS_LOSSES[kind](logits, target, mask, class_weights, eps, weight, is_offered)


def _cross_entropy(log_q: Array, p: Array, class_weights: Array) -> Array:
    return -p * log_q


def _balanced_cross_entropy(log_q: Array, p: Array, class_weights: Array) -> Array:
    return -p * log_q * class_weights[None, :]


def _kl(log_q: Array, p: Array, class_weights: Array) -> Array:
    return _p_log_p(p) - p * log_q


def _jsd(log_q: Array, p: Array, class_weights: Array) -> Array:
    """In bits."""
    log_m = jnp.log(jnp.maximum((p + jnp.exp(log_q)) / 2, 1e-30))
    to_p, to_q = _p_log_p(p) - p * log_m, jnp.exp(log_q) * (log_q - log_m)
    return (to_p + to_q) / (2 * jnp.log(2.0))


def _p_log_p(p: Array) -> Array:
    # 0 ln 0 counts as 0. The inner `where` keeps the logarithm finite, so that the gradient is finite, too.
    return jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0)


def _mean_of(terms_of: Callable[[Array, Array, Array], Array]) -> Callable[..., Array]:
    """The loss that is the mean over utterances of the sum of these terms [B, C] over classes."""

    def loss(
        logits: Array, target: Array, mask: Array, class_weights: Array, eps: float, weight: Array | None,
        is_offered: Array | None,
    ) -> Array:  # fmt: skip
        return weighted_mean(_summed(terms_of, logits, target, class_weights), mask, weight)

    return loss


def _summed(terms_of: Callable[[Array, Array, Array], Array], logits: Array, p: Array, class_weights: Array) -> Array:
    """Sum over classes of the terms of each utterance, [B]."""
    return terms_of(jax.nn.log_softmax(logits, axis=-1), p, class_weights).sum(axis=1)


_TERMS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "soft_ce": _cross_entropy,
    "kl": _kl,
    "jsd": _jsd,
    "balanced_soft_ce": _balanced_cross_entropy,
    "hard_ce": _cross_entropy,
}
CLASS_LOSSES: dict[str, Callable[..., Array]] = {
    "ccc": lambda logits, p, mask, _, eps, weight, is_offered: class_ccc_loss(
        jax.nn.softmax(logits, axis=-1), p, mask, eps, weight, is_offered
    ),
    **{kind: _mean_of(terms_of) for kind, terms_of in _TERMS.items()},
}
"""Loss by its name in `vocab.CLASS_LOSSES`, of logits, target, mask, class weights, eps, weights of utterances, and the
classes that their raters could choose."""


def class_loss_by_row(
    kind: str,
    logits: Float[Array, "B C"],
    target: Float[Array, "B C"],
    mask: Bool[Array, "B"],
    class_weights: Float[Array, "C"],
    eps: float = 1e-8,
    weight: Float[Array, "B"] | None = None,
    is_offered: Bool[Array, "B C"] | None = None,
) -> Float[Array, "B"]:
    """What each utterance has of `class_loss`, which is the weighted mean of these numbers; 0 outside of the mask."""
    logits = among_offered(logits, is_offered)
    if kind in _TERMS:
        return jnp.where(mask, _summed(_TERMS[kind], logits, target, class_weights), 0)
    of_class = _by_class(mask, target, is_offered)
    is_present = varies(target, _weighing(of_class, weight))
    parts = ccc_by_row(jax.nn.softmax(logits, axis=-1), target, of_class, eps, weight)
    if is_offered is not None:
        # A class is a mean over fewer utterances than there are, of which each has the more of it.
        one = jnp.ones(mask.shape) if weight is None else weight
        there = jnp.maximum((one[:, None] * of_class).sum(axis=0), 1e-30)
        parts = parts * (jnp.where(mask, one, 0).sum() / there)[None]
    return jnp.where(is_present[None], parts, 0).sum(axis=1) / jnp.maximum(is_present.sum(), 1)


def balanced_weights(counts: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    """Class weights (1 - b) / (1 - b^n_c) with b = (n - 1) / n, scaled to a mean of 1. A class without votes gets 0.

    Args:
      counts: n_c, votes of each class in the training split (shares summed over utterances).

    Source: KNOWN, METHOD.md, section 5.3 (EMO-SUPERB, after Y. Cui et al., CVPR 2019).
    """
    total = counts.sum()
    b = (total - 1) / total
    weights = np.where(counts > 0, (1 - b) / np.maximum(1 - b**counts, 1e-300), 0.0)
    return (weights * np.count_nonzero(counts) / weights.sum()).astype(np.float32)
