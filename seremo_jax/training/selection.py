"""The score of the development split that picks the epoch of a head, and the penalty of a regression."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from seremo_jax.core import vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.schema import Labels
from seremo_jax.data.targets import Targets
from seremo_jax.metrics.confusions import class_scores
from seremo_jax.metrics.moments import AnyArray
from seremo_jax.training import losses, objectives
from seremo_jax.training.model import Raw

LOSS = "loss"
WORST = "worst_speakers"
_AGAINST_CONSENSUS = ("uar", "macro_f1", WORST)
_WORST_SHARE = 0.2
"""Of the speakers, who are the worst served."""
_LEAST_SHARE = 1e-30
"""Predicted shares count as at least this under a logarithm."""


class Predicted(NamedTuple):
    """Predictions of some members for the utterances of their stream.

    Attributes:
      members: [m] numbers of the members.
      rows: [N] rows of the utterance table, ascending.
      attributes: [m, N, A] float32, on the scale of the targets.
      distribution: [m, N, C] float32, rows sum to 1.
      levels: [m, N, A, L] float32 logits of the levels of the rating scale, where the loss is computed of them.
      variances: [m, N, A] float32 variances of the raters, where the loss is computed of them.
      embedding: [m, N, embedding_size] float32, where it is asked for.
    """

    members: Int[np.ndarray, " m"]
    rows: Int[np.ndarray, " N"]
    attributes: Float[np.ndarray, "m N A"]
    distribution: Float[np.ndarray, "m N C"]
    levels: Float[np.ndarray, "m N A L"] | None = None
    variances: Float[np.ndarray, "m N A"] | None = None
    embedding: Float[np.ndarray, "m N I"] | None = None


def require_labels(
    score: str, targets: Targets, rows: Mapping[int | None, np.ndarray], speaker: Int[np.ndarray, " N"]
) -> None:
    """Refuses a development split of which the score would say nothing.

    Args:
      score: One of `vocab.SELECTION_SCORES`.
      targets: Targets of the utterance table.
      rows: Fold -> rows of its development split.
      speaker: Speaker of each utterance of the table, -1 where it is not known.

    Raises:
      ArtefactError: No utterance of a fold has the labels that the score is taken from.
    """
    is_against_consensus = score in _AGAINST_CONSENSUS
    if not is_against_consensus and score != "class_ccc":
        return
    is_there = targets.consensus_index >= 0 if is_against_consensus else targets.has_votes
    for fold, own in rows.items():
        if not is_there[own].any():
            where = "" if fold is None else f" of fold {fold}"
            raise ArtefactError(
                f"train.selection = {score!r}: no utterance of the development split{where} has "
                f"{'a consensus' if is_against_consensus else 'votes'} to score against; choose another score"
            )
        if score == WORST and not (is_there & (speaker >= 0))[own].any():
            where = "" if fold is None else f" of fold {fold}"
            raise ArtefactError(
                f"train.selection = {score!r}: no scored utterance of the development split{where} has a known "
                "speaker; choose another score"
            )


def development_scores(
    score: str,
    predicted: Sequence[Predicted],
    targets: Targets,
    class_targets: Sequence[str],
    speaker: Int[np.ndarray, " N"],
) -> Float[np.ndarray, "E"]:
    """Score that selects epochs, over the whole split at once; larger is better.

    Args:
      score: One of `vocab.SELECTION_SCORES` but `loss`.
      predicted: Predictions for each stream.
      targets: Targets of the utterance table.
      class_targets: `votes` or `consensus`, for each member.
      speaker: Speaker of each utterance of the table, -1 where it is not known.

    Returns:
      [E] float32 scores; NaN for members without predictions.

    Source: OURS, METHOD.md, section 6.
    """
    scores = np.full(len(class_targets), np.nan, np.float32)
    for members, rows, attributes, distribution, *_ in predicted:
        if not len(members):
            continue
        scores[members] = score_of_attributes(attributes, rows, targets) if score == "ccc" else 0
        for kind in vocab.CLASS_TARGETS:
            is_kind = np.array([class_targets[m] == kind for m in members])
            if is_kind.any():
                scores[members[is_kind]] += score_of_classes(score, distribution[is_kind], rows, targets, kind, speaker)
    return scores


def score_of_attributes(
    attributes: Float[np.ndarray, "m N A"], rows: Int[np.ndarray, " N"], targets: Targets
) -> Float[np.ndarray, " m"]:
    """Mean CCC of the attributes whose CCC is defined; 0 where none is."""
    return np.asarray(_mean_ccc(attributes, targets.attributes[rows], targets.has_attribute[rows]))


def score_of_classes(
    score: str,
    distribution: Float[np.ndarray, "m N C"],
    rows: Int[np.ndarray, " N"],
    targets: Targets,
    class_target: str,
    speaker: Int[np.ndarray, " R"],
) -> Float[np.ndarray, " m"]:
    """Score of predicted distributions of some utterances: that of `vocab.SELECTION_SCORES` but `loss`.

    CCC is against `class_target`, vote shares or the one-hot consensus; its mean is over the classes of which it is
    defined. UAR and macro-F1 are those of the 1-best class against the consensus, over the classes that occur there.
    Of the worst speakers it is the mean UAR of those known speakers, a speaker at the limit in part.
    """
    if score in _AGAINST_CONSENSUS:
        consensus = targets.consensus_index[rows]
        is_scored = consensus >= 0
        is_class = consensus[is_scored, None] == np.arange(distribution.shape[-1])[None, :]
        is_best = distribution[:, is_scored].argmax(-1)[..., None] == np.arange(distribution.shape[-1])[None, None, :]
        if score == WORST:
            return _worst_speakers(is_best & is_class[None], is_class, speaker[rows[is_scored]])
        right, predicted = (is_best & is_class[None]).sum(axis=1), is_best.sum(axis=1)
        values = class_scores(right, is_class.sum(axis=0)[None], predicted)
        return np.asarray(getattr(values, score), np.float32)
    is_votes = class_target == "votes"
    classes = (targets.distribution if is_votes else targets.consensus)[rows]
    has_class = (targets.has_votes if is_votes else targets.has_consensus)[rows]
    mask = np.broadcast_to(has_class[:, None], classes.shape)
    if targets.is_offered is not None:
        mask = mask & targets.is_offered[rows]
    return np.asarray(_mean_ccc(distribution, classes, mask))


def _worst_speakers(
    is_right: Bool[np.ndarray, "m R C"], is_class: Bool[np.ndarray, "R C"], speaker: Int[np.ndarray, " R"]
) -> Float[np.ndarray, " m"]:
    """[m] mean UAR of the fifth of the known speakers with the lowest (CVaR), each over its own classes."""
    is_of = speaker[:, None] == np.unique(speaker[speaker >= 0])[None, :]
    right = np.einsum("mrc,rs->msc", is_right.astype(np.float64), is_of.astype(np.float64))
    support = np.einsum("rc,rs->sc", is_class.astype(np.float64), is_of.astype(np.float64))
    uar = np.sort(class_scores(right, support[None], support[None]).uar, axis=1)
    wanted = _WORST_SHARE * uar.shape[1]
    part = np.clip(wanted - np.arange(uar.shape[1]), 0, 1)
    return ((uar * part[None]).sum(axis=1) / wanted).astype(np.float32)


@jax.jit
def _mean_ccc(pred: Float[AnyArray, "m N Y"], target: Float[AnyArray, "N Y"], mask: Bool[AnyArray, "N Y"]) -> Array:
    """[m] mean over the columns whose target varies; 0 where none does."""
    is_defined = losses.varies(target, mask)
    ccc = jax.lax.map(lambda of_member: losses.ccc(of_member, target, mask, eps=0.0), pred)
    return jnp.where(is_defined[None, :], ccc, 0).sum(1) / jnp.maximum(is_defined.sum(), 1)


def development_losses(
    fixed: objectives.Fixed, predicted: Sequence[Predicted], labels: Labels, values: objectives.Values
) -> Float[np.ndarray, "E"]:
    """Each member's own loss over the whole development split at once, without dropout and learned task weights.

    Args:
      fixed: Settings of the losses.
      predicted: Predictions for each stream.
      labels: Labels of every utterance of the table, those that are scored.
      values: Values of the members, [E] arrays.

    Returns:
      [E] float32; NaN for members without predictions.
    """
    result = np.full(len(values.seed), np.nan, np.float32)
    for members, rows, attributes, distribution, levels, variances, _ in predicted:
        if len(members):
            raw = Raw(attributes, levels, variances, np.log(np.maximum(distribution, _LEAST_SHARE)), None)
            of_rows, of_members = (
                jax.tree.map(lambda table, index=index: table[index], tree)
                for tree, index in ((labels, rows), (values, members))
            )
            result[members] = _losses(fixed, raw, of_rows, of_members)
    return result


@jax.jit(static_argnums=0)
def _losses(fixed: objectives.Fixed, raw: Raw, labels: Labels, values: objectives.Values) -> Array:
    is_used = jnp.ones(labels.has_votes.shape[0], bool)
    return jax.lax.map(lambda item: objectives.total(fixed, item[0], labels, is_used, item[1], None)[0], (raw, values))
