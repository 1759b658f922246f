"""Ratings to vote distributions, consensus, attribute means and variances, each with its mask.

Every label policy is applied here, from one record (`policies.TargetPolicies`), so that whoever asks for the targets of
a config sees the same ones. The rules are those of METHOD.md, sections 3.1 to 3.3. There is no JAX: labels are made on
a login node.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Bool, Float, Int, Num

from seremo_jax.core import vocab
from seremo_jax.core.config import CHOICES
from seremo_jax.data import attribute_means, joint_targets, reliability, votes
from seremo_jax.data.parts import Part, apart
from seremo_jax.data.policies import TargetPolicies, TargetsError, require_choice
from seremo_jax.data.tables import in_split, info_of


@dataclasses.dataclass(frozen=True)
class Targets:
    """What the heads are trained on and scored against; rows follow the utterance table.

    Attributes:
      ids: [N] utterance ids.
      votes: [N, C] votes of each class, before smoothing and without the votes outside the class set; int32, or
        float64 where policies make parts of votes.
      distribution: [N, C] float32 vote shares; rows sum to 1, and are 0 where `has_votes` is False.
      has_votes: [N] bool, there is a vote distribution: at least one kept vote, and a consensus where
        `keep_no_agreement` asks for one.
      consensus_index: [N] int32 plurality class, the one that metrics use; -1 where a word outside the class set won,
        where the vote is tied (unless `tie_rule` is `first`) and where nobody voted.
      consensus: [N, C] float32 one-hot plurality; equal shares of the tied classes where `tie_rule` is `share`.
      has_consensus: [N] bool, `consensus` can be trained on.
      attributes: [N, A] float32 scaled means of the ratings, 0 where masked.
      has_attribute: [N, A] bool, at least one rating.
      attribute_variance: [N, A] float32 variance of the scaled ratings (divided by R - 1), 0 where masked.
      has_variance: [N, A] bool, at least two ratings.
      class_names: Words of the class set, in order; `other` behind them where `other_votes` is `class`.
      attribute_names: Attributes, in order.
      attribute_ranges: Attribute -> (lowest, highest) of its rating scale, for those the corpus names.
      counts: What the policies kept, pooled and dropped, by name.
      levels: The L steps of the rating scale, on the scale of `attributes`; empty unless asked for.
      attribute_shares: [N, A, L] float32 shares of the ratings at each step, 0 where masked; None unless asked for.
      votes_outside: [N] votes for words outside the class set; None where there are none.
      is_offered: [N, C] bool, the raters of the utterance could choose the class; None where all could choose all, or
        where that is not known, as in tables of one corpus.
    """

    ids: np.ndarray
    votes: np.ndarray
    distribution: np.ndarray
    has_votes: np.ndarray
    consensus_index: np.ndarray
    consensus: np.ndarray
    has_consensus: np.ndarray
    attributes: np.ndarray
    has_attribute: np.ndarray
    attribute_variance: np.ndarray
    has_variance: np.ndarray
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    attribute_ranges: dict[str, tuple[float, float]]
    counts: dict[str, Any]
    levels: tuple[float, ...] = ()
    attribute_shares: np.ndarray | None = None
    votes_outside: np.ndarray | None = None
    is_offered: np.ndarray | None = None


def vote_distribution(
    counts: Num[np.ndarray, "N C"], smoothing: float = 0.0
) -> tuple[Float[np.ndarray, "N C"], Bool[np.ndarray, " N"]]:
    """Shares of the votes.

    Args:
      counts: [N, C] votes of each class, at least 0 (fractions are allowed: spread votes).
      smoothing: Added to every class count before dividing.

    Returns:
      [N, C] float32 shares in [0, 1], rows summing to 1, and [N] bool, True where there is a vote. Rows without a
      vote are masked and 0, whatever the smoothing.

    Raises:
      TargetsError: A count or the smoothing is negative or not finite.

    Source: METHOD.md, section 3.1 (KNOWN: the vote distribution is the target; INFERRED formula).
    """
    counts = np.asarray(counts, np.float64)
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise TargetsError("vote counts must be finite and at least 0")
    if not 0 <= smoothing < np.inf:
        raise TargetsError(f"smoothing must be at least 0, is {smoothing}")
    has_votes = counts.sum(axis=1) > 0
    smoothed = np.where(has_votes[:, None], counts + smoothing, 0.0)
    total = np.where(has_votes, smoothed.sum(axis=1), 1.0)
    return (smoothed / total[:, None]).astype(np.float32), has_votes


def plurality(
    votes: Num[np.ndarray, "N C"], other: Num[np.ndarray, " N"], tie_rule: str = "no_agreement"
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, "N C"], Bool[np.ndarray, " N"]]:
    """Consensus by plurality over the full vote vocabulary, votes outside the class set pooled as one word O.

    Args:
      votes: [N, C] votes of each class.
      other: [N] votes for O.
      tie_rule: `no_agreement` leaves a tie without consensus, `first` takes the earliest tied class of the class set,
        `share` gives the tied classes equal shares to train on while metrics see no agreement. O never gets a share.

    Returns:
      consensus_index [N] int32, consensus [N, C] float32 and is_tied [N] bool; see `Targets`.

    Source: METHOD.md, section 3.2 (KNOWN: the corpus's own rule; OURS: O among the tied under `share` and `first`).
    """
    require_choice("tie_rule", tie_rule, CHOICES["targets.tie_rule"])
    # O takes part, so that a class with fewer votes than all other words together is no consensus.
    full = np.concatenate([votes, other[:, None]], axis=1)
    largest = full.max(axis=1, keepdims=True)
    is_top = (full == largest) & (largest > 0)
    num_top = is_top.sum(axis=1)
    is_tied = num_top > 1
    in_set = is_top[:, :-1]
    has_class = in_set.any(axis=1) & ((num_top == 1) | (tie_rule == "first"))
    index = np.where(has_class, in_set.argmax(axis=1), -1).astype(np.int32)
    consensus = (np.arange(votes.shape[1])[None, :] == index[:, None]).astype(np.float32)
    if tie_rule == "share":
        shares = in_set / np.maximum(in_set.sum(axis=1, keepdims=True), 1)
        consensus = np.where(is_tied[:, None], shares, consensus).astype(np.float32)
    return index, consensus, is_tied


def build(utterances: pa.Table, ratings: pa.Table, policies: TargetPolicies) -> Targets:
    """Applies every label policy.

    Args:
      utterances: Utterance table; the result's rows follow it. Its column `split` is read where a policy asks for it.
      ratings: Ratings table, one row a rating; its metadata gives the range of each attribute.
      policies: Which ratings count, and how they become targets.

    Raises:
      TargetsError: A primary word is in no class set, an attribute lies outside its range or has none, no rating has
        the modality, or an utterance id occurs twice.
      ArtefactError: The ratings table says nothing of its corpus.
    """
    if corpora := apart(utterances, ratings):
        return _of_several(corpora, utterances, policies)
    frame, counts = _kept_ratings(utterances, ratings, policies)
    voted = _voted(frame, utterances.num_rows, policies, counts, info_of(ratings).class_set)
    distribution, has_votes = vote_distribution(voted.shared, policies.smoothing)
    if policies.distribution_of == "dawid_skene":
        distribution, has_votes = reliability.posterior(voted.single, utterances.num_rows, len(voted.class_names))
    counts["num_no_votes"] = int((~has_votes).sum())
    has_consensus = voted.consensus.sum(axis=1) > 0
    scale = _attribute_scale(ratings, policies)
    if policies.ratings.repeated_rater == "average":
        frame = attribute_means.average_repeated(frame, scale.names)
    is_train = in_split(utterances, vocab.TRAIN) if policies.attribute_scale == "minmax" else None
    rated = attribute_means.describe(frame, utterances.num_rows, scale, is_train)
    counts["num_rated"] = {name: int(rated.has_attribute[:, i].sum()) for i, name in enumerate(scale.names)}
    levels, shares = (), None
    if policies.has_levels:
        levels, shares = attribute_means.level_shares(frame, utterances.num_rows, scale)
    built = Targets(
        ids=np.asarray(utterances["id"].to_pylist(), dtype=object),
        votes=voted.votes.astype(np.int32) if (voted.votes % 1 == 0).all() else voted.votes,
        distribution=distribution,
        has_votes=has_votes,
        consensus_index=voted.index,
        consensus=voted.consensus,
        has_consensus=has_consensus,
        **rated._asdict(),
        class_names=voted.class_names,
        attribute_names=scale.names,
        attribute_ranges=scale.ranges,
        counts=counts,
        levels=levels,
        attribute_shares=shares,
        votes_outside=voted.outside,
    )
    is_train = in_split(utterances, vocab.TRAIN) if policies.keep_no_agreement == "train_only" else None
    return without_no_agreement(built, policies.keep_no_agreement, is_train)


def _of_several(corpora: Sequence[Part], utterances: pa.Table, policies: TargetPolicies) -> Targets:
    """Targets of each corpus by itself, in one set of classes."""
    owns = [joint_targets.own(part, policies) for part in corpora]
    built = [build(part.utterances, part.ratings, own.policies) for part, own in zip(corpora, owns, strict=True)]
    names = vocab.classes_of(policies.class_set)
    names = (*names, vocab.OTHER) if policies.other_votes == "class" else names
    return Targets(
        ids=np.asarray(utterances["id"].to_pylist(), dtype=object),
        class_names=names,
        attribute_names=built[0].attribute_names,
        **joint_targets.joined(utterances.num_rows, names, corpora, owns, built),
    )


def without_no_agreement(targets: Targets, keep_no_agreement: str, is_train: Bool[np.ndarray, " N"] | None) -> Targets:
    """The targets without the vote distributions that `data.keep_no_agreement` leaves out, which it counts.

    Args:
      targets: Targets with all vote distributions.
      keep_no_agreement: `keep` leaves none out, `drop` those of utterances without a consensus, and `train_only` these
        where they are not trained on.
      is_train: Which utterances are trained on, another part in each fold; only `train_only` reads it.
    """
    if keep_no_agreement == "keep":
        return targets
    is_left_out = ~targets.has_consensus
    if keep_no_agreement == "train_only":
        is_left_out &= ~is_train
    return dataclasses.replace(
        targets,
        distribution=np.where(is_left_out[:, None], np.float32(0), targets.distribution),
        has_votes=targets.has_votes & ~is_left_out,
        counts=targets.counts | {"num_no_agreement_left_out": int((is_left_out & targets.has_votes).sum())},
    )


class _Voted(NamedTuple):
    """What the votes of N utterances come to.

    Attributes:
      votes: [N, C] votes of each class, those outside the class set left out.
      outside: [N] those outside the class set.
      shared: [N, C] the same with votes outside the class set spread over the classes, where a policy says so.
      index: [N] plurality class, see `Targets.consensus_index`.
      consensus: [N, C] see `Targets.consensus`.
      class_names: Names of the C classes.
      single: One row a vote, see `votes.count`.
    """

    votes: np.ndarray
    outside: np.ndarray
    shared: np.ndarray
    index: np.ndarray
    consensus: np.ndarray
    class_names: tuple[str, ...]
    single: pl.DataFrame


def _voted(
    frame: pl.DataFrame, num_rows: int, policies: TargetPolicies, counts: dict[str, Any], corpus_set: str
) -> _Voted:
    """Counts the votes, adding what was done with them to `counts`; words of the corpus's own class set are known."""
    class_names = vocab.classes_of(policies.class_set)
    known = vocab.CLASS_WORDS | set(vocab.classes_of(corpus_set))
    full, single, counted = votes.count(frame, num_rows, policies.class_set, policies.ratings, known)
    counts |= counted
    if policies.other_votes == "class":
        # The pooled column becomes the last class, and nothing is left outside the class set.
        class_names, full = (*class_names, vocab.OTHER), np.pad(full, ((0, 0), (0, 1)))
    by_class, other = full[:, :-1], full[:, -1]
    spread = other[:, None] / len(class_names) if policies.other_votes == "spread" else 0.0
    index, consensus, is_tied = plurality(by_class, other, policies.tie_rule)
    counts |= {
        "num_ties": int(is_tied.sum()),
        "num_consensus": {name: int((index == c).sum()) for c, name in enumerate(class_names)},
        "num_consensus_other": int((by_class.max(axis=1, initial=0) < other).sum()),
    }
    return _Voted(by_class, other, by_class + spread, index, consensus, class_names, single)


def _kept_ratings(
    utterances: pa.Table, ratings: pa.Table, policies: TargetPolicies
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Ratings of the modality and of known utterances that count, with the utterance's `row`, and what was left out."""
    modality = policies.ratings.modality
    ids = pl.DataFrame({"utterance": pl.Series(utterances["id"].to_pylist(), dtype=pl.String)})
    if ids["utterance"].n_unique() != ids.height:
        twice = ids.filter(ids["utterance"].is_duplicated())["utterance"].unique(maintain_order=True).head(5).to_list()
        raise TargetsError(f"utterance table: ids occur twice ({', '.join(twice)} ...); ingest the corpus again")
    frame = pl.DataFrame(pl.from_arrow(ratings))
    in_modality = frame.filter(pl.col("modality") == modality)
    if frame.height and not in_modality.height:
        there = ", ".join(sorted(frame["modality"].unique().to_list()))
        raise TargetsError(f"ratings table: no rating has modality {modality!r} (there: {there}); set data.modality")
    kept = in_modality.join(ids.with_row_index("row"), on="utterance", how="inner", maintain_order="left")
    counting, selected = votes.select(kept, policies.ratings)
    return counting, {
        **selected,
        "num_utterances": ids.height,
        "num_ratings": frame.height,
        "num_ratings_used": counting.height,
        "num_ratings_other_modality": frame.height - in_modality.height,
        "num_ratings_no_utterance": in_modality.height - kept.height,
        "num_ratings_no_primary": int(kept["primary"].null_count()),
        "num_no_ratings": ids.height - kept["row"].n_unique(),
    }


def _attribute_scale(ratings: pa.Table, policies: TargetPolicies) -> attribute_means.AttributeScale:
    """The attributes asked for, with the ranges that the table's metadata names."""
    names = tuple(vocab.ATTRIBUTE_SYNONYMS.get(name, name) for name in policies.attributes)
    ranges = {
        vocab.ATTRIBUTE_SYNONYMS.get(name, name): bounds for name, bounds in info_of(ratings).attribute_ranges.items()
    }
    ranges = {name: ranges[name] for name in names if name in ranges}
    return attribute_means.AttributeScale(names, ranges, policies.attribute_scale)
