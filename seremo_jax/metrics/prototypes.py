"""Mean embeddings of classes, those of a speaker from a few labelled utterances, and what they change in predictions.

Numeric only: NumPy arrays in, NumPy arrays out.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class ClassMeans(NamedTuple):
    """What is known of the embeddings of one member's training utterances.

    Attributes:
      mean: [C, I] float64 mean of each class; 0 for a class without utterances.
      count: [C] float64 utterances behind it.
      precision: [I, I] float64 inverse of the covariance within classes.
    """

    mean: np.ndarray
    count: np.ndarray
    precision: np.ndarray


def class_means(embedding: Float[np.ndarray, "n I"], shares: Float[np.ndarray, "n C"]) -> ClassMeans:
    """Means of classes and the covariance within them, `S`, shrunk for few utterances: `(1 - a) S + a tr(S) / I`.

    Args:
      embedding: Of the training utterances.
      shares: How much of each utterance belongs to each class: its consensus, one-hot. Rows of zeros take no part.

    Source: OURS: `a = I / (n + I)`, METHOD.md, section 8.15.
    """
    x, shares = np.asarray(embedding, np.float64), np.asarray(shares, np.float64)
    count = shares.sum(axis=0)
    mean = shares.T @ x / np.where(count > 0, count, 1)[:, None]
    size, total = x.shape[1], max(count.sum(), 1.0)
    weight = shares.sum(axis=1)
    # The sum over classes of p (x - mean)(x - mean)^T without an array [n, C, I].
    second = (x * weight[:, None]).T @ x - (mean * count[:, None]).T @ mean
    within = second / total
    a = size / (total + size)
    scale = max(np.trace(within) / size, np.finfo(np.float64).tiny ** 0.5)
    return ClassMeans(mean, count, np.linalg.inv((1 - a) * within + a * scale * np.eye(size)))


def enrolled(
    means: ClassMeans, embedding: Float[np.ndarray, "k I"], label: Int[np.ndarray, " k"], kappa: float
) -> Float[np.ndarray, "C I"]:
    """Means of a speaker: `mu_c^s = ( n_c m_c + kappa mu_c ) / ( n_c + kappa )`, m_c that of the n_c enrolled ones.

    A class without training utterances has no mean to begin from, and none here.

    Args:
      means: Of the training.
      embedding: Of the speaker's labelled utterances.
      label: Class of each.
      kappa: Utterances that the mean of the training counts as, above 0.

    Source: KNOWN/2nd (arXiv:2406.06665 personalises by enrolment); the form is that of a normal prior, METHOD.md, 8.15.
    """
    own = means.mean.copy()
    for c in np.unique(label):
        if means.count[c] > 0:
            here = np.asarray(embedding, np.float64)[label == c]
            own[c] = (here.sum(axis=0) + kappa * means.mean[c]) / (len(here) + kappa)
    return own


def evidence(
    embedding: Float[np.ndarray, "n I"], means: ClassMeans, own: Float[np.ndarray, "C I"]
) -> Float[np.ndarray, "n C"]:
    """`ln N(e; mu_c^s, W) - ln N(e; mu_c, W)`, float64: how much better each class of the speaker fits than the class.

    It is 0 where the speaker's mean is that of the training: what the head has heard already is not counted again.

    Args:
      embedding: Of the utterances to predict.
      means: Of the training, W among them as its inverse.
      own: Of the speaker.
    """
    step = own - means.mean
    towards = step @ means.precision
    # Exact where a step is 0, unlike the difference of two squared distances.
    return np.asarray(embedding, np.float64) @ towards.T - ((own + means.mean) / 2 * towards).sum(axis=1)[None]


def mixed(
    distribution: Float[np.ndarray, "n C"], evidence_: Float[np.ndarray, "n C"], weight: float
) -> Float[np.ndarray, "n C"]:
    """`q_c' ~ q_c exp( weight * evidence_c )`, float64, rows sum to 1."""
    logits = np.log(np.maximum(np.asarray(distribution, np.float64), np.finfo(float).tiny)) + weight * evidence_
    power = np.exp(logits - logits.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)
