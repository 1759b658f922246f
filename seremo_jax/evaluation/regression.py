"""Logistic and ridge regression on pooled frames, fitted at several strengths, and the choice of one.

features = pooled_frames(store, layer, rows)                           # [N, 2 D] float32
predicted = fit_classes(features[train], shares, False, features)      # [S, N, C] for each of `STRENGTHS`
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.data.targets import Targets
from seremo_jax.features.store import Reader
from seremo_jax.training.losses import NEVER
from seremo_jax.training.selection import LOSS, score_of_attributes, score_of_classes

STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""C as in scikit-learn's logistic regression: the inverse of the L2 penalty. One is chosen."""

SOLVER = "L-BFGS-B of scipy"
"""What minimises the loss of the classes."""

_ROWS_AT_ONCE = 256
_MOST_STEPS, _TOLERANCE, _LEAST_SHARE = 2000, 1e-6, 1e-12


def library_version() -> str:
    """Version of scikit-learn.

    Raises:
      ArtefactError: It is not installed.
    """
    try:
        import sklearn
    except ImportError:
        raise ArtefactError(
            "the baseline needs scikit-learn: pip install 'seremo_jax[baseline]', or pip install scikit-learn"
        ) from None
    return sklearn.__version__


def pooled_frames(store: Reader, layer: int, rows: Sequence[int]) -> Float[np.ndarray, "N F"]:
    """Mean and standard deviation of every feature over the frames of each utterance, [N, 2 D] float32."""
    summaries = np.empty((len(rows), 2 * store.manifest["num_features"]), np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = list(rows[start : start + _ROWS_AT_ONCE])
        for i, frames in enumerate(store.read(layer, part), start):
            wide = np.asarray(frames, np.float32)
            summaries[i] = np.concatenate([wide.mean(axis=0), wide.std(axis=0)])
    return summaries


def fit_classes(
    features: Float[np.ndarray, "N F"],
    shares: Float[np.ndarray, "N C"],
    is_balanced: bool,
    heard: Float[np.ndarray, "M F"],
    strengths: Sequence[float] = STRENGTHS,
    is_offered: Bool[np.ndarray, "N C"] | None = None,
) -> Float[np.ndarray, "S M C"]:
    """Fits the regression at every strength and predicts other utterances.

    Args:
      features: Of the training utterances, z-scored.
      shares: Their vote distribution, or one-hot consensus; a class weighs its share.
      is_balanced: Whether each class weighs the same in all.
      heard: Features of the utterances to predict.
      strengths: Values of C, ascending.
      is_offered: Classes that the raters of each training utterance could choose, among which its distribution is
        predicted; None where they could choose all.

    Returns:
      [S, M, C] float32, rows sum to 1. Classes that nobody chose in training get 0.

    Raises:
      ArtefactError: Fewer than two classes are chosen in training.
    """
    there = np.flatnonzero(shares.sum(axis=0))
    if len(there) < 2:
        raise ArtefactError(f"{len(there)} class in the training utterances: a regression needs two or more")
    weight = shares[:, there].astype(np.float64)
    if is_balanced:
        weight *= weight.sum() / len(there) / weight.sum(axis=0)
    num_votes = weight.sum()
    excluded = None if is_offered is None else np.where(is_offered[:, there], 0, NEVER)
    problem = _Problem(features.astype(np.float32), weight / num_votes, excluded)
    coefficients = np.zeros(len(there) * (features.shape[1] + 1))
    predicted = np.zeros((len(strengths), len(heard), shares.shape[1]), np.float32)
    # Each strength starts from the optimum of the one before, which is near. The optimum itself is unique.
    for of_strength, strength in zip(predicted, strengths, strict=True):
        coefficients = problem.solve(coefficients, 1 / (strength * num_votes))
        of_strength[:, there] = np.exp(problem.log_p(coefficients, heard.astype(np.float32)))
    return predicted


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Soft cross-entropy with an L2 penalty on all but the intercepts.

    scikit-learn takes one label a row, so an utterance of votes for three classes is three rows there. Here it is one,
    and a fit takes a fifth of the time. The loss is divided by the number of votes, as it is there.

    Attributes:
      features: [N, F] float32.
      weight: [N, C] float64, what each class of an utterance weighs; sums to 1.
      excluded: [N, C] float64, added to the logits: 0, or `NEVER` where the class could not be chosen; None where all
        could.
    """

    features: np.ndarray
    weight: np.ndarray
    excluded: np.ndarray | None = None

    def log_p(self, coefficients: np.ndarray, features: np.ndarray, excluded: np.ndarray | None = None) -> np.ndarray:
        """Log-probabilities [N, C] float64; coefficients of each class, its intercept last, are flat."""
        from scipy.special import log_softmax

        by_class = coefficients.reshape(self.weight.shape[1], -1)
        # In float32, for features are read from memory at each step; what that loses is far below the tolerance.
        logits = (features @ by_class[:, :-1].T.astype(np.float32)).astype(np.float64) + by_class[:, -1]
        return log_softmax(logits if excluded is None else logits + excluded, axis=1)

    def loss_and_gradient(self, coefficients: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """At these coefficients, with `penalty` times half their squared norm."""
        by_class = coefficients.reshape(self.weight.shape[1], -1)
        log_p = self.log_p(coefficients, self.features, self.excluded)
        excess = self.weight.sum(axis=1, keepdims=True) * np.exp(log_p) - self.weight
        gradient = np.empty_like(by_class)
        gradient[:, :-1] = excess.T.astype(np.float32) @ self.features + penalty * by_class[:, :-1]
        gradient[:, -1] = excess.sum(axis=0)
        loss = 0.5 * penalty * (by_class[:, :-1] ** 2).sum() - (self.weight * log_p).sum()
        return float(loss), gradient.ravel()

    def solve(self, start: np.ndarray, penalty: float) -> np.ndarray:
        """Coefficients of least loss."""
        from scipy.optimize import minimize

        options = {"maxiter": _MOST_STEPS, "gtol": _TOLERANCE, "ftol": 64 * np.finfo(float).eps, "maxls": 50}
        return minimize(self.loss_and_gradient, start, (penalty,), "L-BFGS-B", jac=True, options=options).x


def fit_attributes(
    features: Float[np.ndarray, "N F"],
    targets: Targets,
    rows: np.ndarray,
    heard: Float[np.ndarray, "M F"],
    strengths: Sequence[float] = STRENGTHS,
) -> Float[np.ndarray, "S M A"]:
    """Ridge regression of each attribute on the rows where it's rated, at every strength; 0 if it's rated in none."""
    from sklearn.linear_model import Ridge

    predicted = np.zeros((len(strengths), len(heard), targets.attributes.shape[1]), np.float32)
    for a in range(predicted.shape[2]):
        is_rated = targets.has_attribute[rows, a]
        if is_rated.any():
            for of_strength, strength in zip(predicted, strengths, strict=True):
                model = Ridge(alpha=1 / strength).fit(features[is_rated], targets.attributes[rows[is_rated], a])
                of_strength[:, a] = model.predict(heard)
    return predicted


def best_for_classes(
    distribution: Float[np.ndarray, "S M C"],
    rows: np.ndarray,
    targets: Targets,
    class_target: str,
    *,
    is_balanced: bool,
    score: str,
    speaker: Int[np.ndarray, " N"],
) -> tuple[int, list[float]]:
    """Number of the strength with the largest development score, the smallest of equal ones, and all the scores.

    Args:
      distribution: What each strength says of some utterances.
      rows: Their rows of the targets.
      targets: The targets.
      class_target: `votes` or `consensus`, of the regression.
      is_balanced: Whether each class weighs the same in the loss.
      score: One of `vocab.SELECTION_SCORES`; `loss` is minus the cross-entropy that the regression is fitted by.
      speaker: Speaker of each row of the targets, -1 where it is not known.
    """
    if score != LOSS:
        scores = score_of_classes(score, distribution, rows, targets, class_target, speaker)
        return int(scores.argmax()), scores.tolist()
    is_votes = class_target == "votes"
    shares = (targets.distribution if is_votes else targets.consensus)[rows].astype(np.float64)
    shares = shares * (targets.has_votes if is_votes else targets.has_consensus)[rows][:, None]
    by_class = -(shares[None] * np.log(np.maximum(distribution, _LEAST_SHARE))).sum(axis=1)
    weight = shares.sum(axis=0)
    if is_balanced:
        by_class, weight = by_class / np.where(weight > 0, weight, 1), (weight > 0).astype(np.float64)
    scores = -by_class.sum(axis=1) / max(weight.sum(), 1e-9)
    return int(scores.argmax()), scores.tolist()


def best_for_attributes(attributes: Float[np.ndarray, "S M A"], rows: np.ndarray, targets: Targets, score: str) -> int:
    """Number of the strength of largest mean CCC, or under `loss` of least mean squared error; see `best_for_classes`.

    The other scores say nothing of attributes.
    """
    if score != LOSS:
        return int(score_of_attributes(attributes, rows, targets).argmax())
    is_rated = targets.has_attribute[rows]
    wanted = np.where(is_rated, targets.attributes[rows], 0).astype(np.float64)
    error = np.where(is_rated[None], np.square(attributes - wanted[None]), 0).sum(axis=1)
    return int((error / np.maximum(is_rated.sum(axis=0), 1)[None]).sum(axis=1).argmin())
