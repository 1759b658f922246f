"""How often a speaker shows each class, estimated from predictions alone, and predictions corrected for it.

A head learned how often each class occurs over its training speakers, and its shares lean towards that. Where a speaker
differs, expectation maximisation finds how from what the head says of the speaker's utterances, without labels. Numeric
only: NumPy arrays in, NumPy arrays out.
"""

import numpy as np
from jaxtyping import Float

from seremo_jax.metrics.calibration import tempered

_TOLERANCE, _MOST_STEPS = 1e-10, 100_000
"""Largest change of a share at which the estimate stands, and steps after which it stands in any case: `fit` converges
at a rate of n / (n + kappa) or faster, so that only thousands of utterances with a tiny kappa come near."""


def fit(
    distribution: Float[np.ndarray, "E n C"],
    prior: Float[np.ndarray, "E C"],
    kappa: float,
    start: Float[np.ndarray, "E C"] | None = None,
) -> Float[np.ndarray, "E C"]:
    """Shares of the classes among a speaker's utterances, float64, rows sum to 1.

    Repeats `r_ic ~ q_ic pi_s(c) / pi(c)`, normalised over c, and `pi_s <- (sum_i r_ic + kappa pi) / (n + kappa)` until
    nothing changes. This is the maximum of a strictly concave function, so neither `start` nor the order of utterances
    decides it, and no utterance is pi itself. Classes that have no share in the prior keep none.

    Args:
      distribution: [E, n, C] predicted by each of E members for the n utterances, calibrated, rows sum to 1.
      prior: [E, C] shares over the training speakers of each member, pi.
      kappa: Utterances that the training prior counts as, above 0.
      start: Where to begin; None is the prior.

    Raises:
      ValueError: `kappa` is not above 0: a single utterance would then decide.

    Source: KNOWN: M. Saerens, P. Latinne, C. Decaestecker (2002), doi:10.1162/089976602753284446; kappa, the
    logarithm of a Dirichlet density around pi, is OURS.
    """
    if not kappa > 0:
        raise ValueError(f"kappa = {kappa}: the training prior must count as more than no utterance")
    prior = np.asarray(prior, np.float64)
    has_prior, num = prior > 0, distribution.shape[1]
    # What is said of classes without a prior says nothing of the others, among which a speaker's shares are sought.
    evidence = _normalised(np.where(has_prior[:, None], np.asarray(distribution, np.float64), 0))
    evidence = evidence / np.where(has_prior, prior, 1)[:, None]
    current = prior.copy() if start is None else np.asarray(start, np.float64).copy()
    if not num:
        return prior
    is_active = np.ones(len(prior), bool)
    for _ in range(_MOST_STEPS):
        # Members that have converged are left out: no member's numbers depend on how long another one takes.
        here = current[is_active]
        responsible = _normalised(evidence[is_active] * here[:, None])
        updated = (responsible.sum(axis=1) + kappa * prior[is_active]) / (num + kappa)
        updated /= updated.sum(axis=1, keepdims=True)
        current[is_active] = updated
        is_active[is_active] = np.abs(updated - here).max(axis=1) > _TOLERANCE
        if not is_active.any():
            break
    return current


def corrected(
    distribution: Float[np.ndarray, "E n C"],
    prior: Float[np.ndarray, "E C"],
    own: Float[np.ndarray, "E _ C"],
    temperature: Float[np.ndarray, " E"],
) -> Float[np.ndarray, "E n C"]:
    """Predictions under the speaker's own prior, float64: `q_ic' ~ q_ic ( pi_s(c) / pi(c) )^T`, rows sum to 1.

    The calibrated prediction, `tempered(q', T)`, is then the calibrated prediction times `pi_s(c) / pi(c)`, normalised.
    A class without a share in the prior keeps its predicted share, and the correction is among the others.

    Args:
      distribution: [E, n, C] as the members predict it, q.
      prior: [E, C] pi.
      own: [E, n or 1, C] pi_s, for each utterance or for all.
      temperature: [E] at which the members are calibrated, T; 1 where they are not.
    """
    q = np.asarray(distribution, np.float64)
    has_prior = (np.asarray(prior) > 0)[:, None]
    ratio = own / np.where(has_prior, np.asarray(prior, np.float64)[:, None], 1)
    kept = np.where(has_prior, q, 0)
    weighed = kept * np.where(has_prior, ratio, 0) ** np.asarray(temperature, np.float64)[:, None, None]
    return np.where(has_prior, _normalised(weighed) * kept.sum(axis=2, keepdims=True), q)


def transductive(
    distribution: Float[np.ndarray, "E n C"],
    prior: Float[np.ndarray, "E C"],
    kappa: float,
    temperature: Float[np.ndarray, " E"],
) -> tuple[Float[np.ndarray, "E n C"], Float[np.ndarray, "E C"]]:
    """The utterances of one speaker, corrected by the prior that all of them show; arguments as in `corrected`.

    Returns:
      What `corrected` gives, and the speaker's prior.
    """
    own = fit(calibrated(distribution, temperature), prior, kappa)
    return corrected(distribution, prior, own[:, None], temperature), own


def online(
    distribution: Float[np.ndarray, "E n C"],
    prior: Float[np.ndarray, "E C"],
    kappa: float,
    temperature: Float[np.ndarray, " E"],
) -> Float[np.ndarray, "E n C"]:
    """The utterances of one speaker in their order, each corrected by the prior that those before it show.

    The first is not corrected. Arguments as in `corrected`.
    """
    heard = calibrated(distribution, temperature)
    own = np.empty(heard.shape)
    own[:, :1] = np.asarray(prior, np.float64)[:, None]
    for i in range(1, heard.shape[1]):
        own[:, i] = fit(heard[:, :i], prior, kappa, start=own[:, i - 1])
    return corrected(distribution, prior, own, temperature)


def calibrated(
    distribution: Float[np.ndarray, "E n C"], temperature: Float[np.ndarray, " E"]
) -> Float[np.ndarray, "E n C"]:
    """`tempered` with the temperature of each member, float64."""
    return np.stack([tempered(q, float(t)) for q, t in zip(distribution, temperature, strict=True)])


def _normalised(shares: Float[np.ndarray, "E n C"]) -> Float[np.ndarray, "E n C"]:
    """Rows that sum to 1; a row of zeros stays one."""
    total = shares.sum(axis=2, keepdims=True)
    return shares / np.where(total > 0, total, 1)
