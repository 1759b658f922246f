"""Targets of several corpora: each one's by its own rating scales and raters' choices, in one set of classes.

A corpus offers its raters some classes of the set. No vote of it for one of the others says anything, so targets carry
which classes each utterance was offered. Source: METHOD.md, section 3.4 (OURS).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Int, Shaped

from seremo_jax.core import vocab
from seremo_jax.data import votes
from seremo_jax.data.parts import Part
from seremo_jax.data.policies import TargetPolicies, TargetsError

_BY_CLASS = ("votes", "distribution", "consensus")
_BY_ATTRIBUTE = ("attributes", "has_attribute", "attribute_variance", "has_variance")
_BY_ROW = ("has_votes", "has_consensus")
_LEAST = 2


class Own(NamedTuple):
    """How the targets of one corpus are made.

    Attributes:
      policies: Its label policies; its class set has the classes that its raters could choose.
      columns: [c] columns of the joint class set that its classes are, in order.
      num_classes: C, with `other` where that is a class.
    """

    policies: TargetPolicies
    columns: Int[np.ndarray, " c"]
    num_classes: int


def offered(ratings: pa.Table, own_set: str, class_set: str, policies: TargetPolicies) -> tuple[list[str], bool]:
    """Classes of a set that raters of a corpus could choose, and whether they could answer with something else.

    These are the classes of the corpus's own class set, and all that some rater chose.

    Args:
      ratings: Ratings of the corpus.
      own_set: Its own class set.
      class_set: The set asked about.
      policies: Which ratings count.
    """
    names, word_map = vocab.classes_of(class_set), votes.read_map(policies.ratings.other_map, class_set)
    frame = pl.DataFrame(pl.from_arrow(ratings.select(["modality", "primary", "also_primary"])))
    frame = frame.filter(pl.col("modality") == policies.ratings.modality)
    words = {*frame["primary"].drop_nulls().unique(), *frame["also_primary"].explode().drop_nulls().unique()}
    chosen = {votes.column_of(word, class_set, word_map) for word in words}
    known = {votes.column_of(word, class_set, word_map) for word in vocab.classes_of(own_set)}
    return [name for c, name in enumerate(names) if c in chosen | known], len(names) in chosen | known


def own(part: Part, policies: TargetPolicies) -> Own:
    """How the targets of a corpus are made under the policies of an experiment.

    Args:
      part: The corpus with its ratings.
      policies: Those of the experiment.

    Raises:
      TargetsError: The raters could choose fewer than two classes of the set, so that no vote tells anything.
    """
    named = {name: value for name, value in part.settings.items() if name in ("modality", "self_reports")}
    ratings = dataclasses.replace(policies.ratings, **named)
    policies = dataclasses.replace(policies, ratings=ratings)
    names = vocab.classes_of(policies.class_set)
    there, has_other = offered(part.ratings, part.info.class_set, policies.class_set, policies)
    if len(there) < _LEAST:
        raise TargetsError(
            f"targets.class_set = {policies.class_set!r}: raters of {part.info.corpus} could choose "
            f"{' and '.join(there) or 'none'} of its classes, and {_LEAST} are needed. Its own classes are "
            f"{', '.join(vocab.classes_of(part.info.class_set))}: take a union, e.g. "
            f"{policies.class_set}+{part.info.class_set}, or leave the corpus out of corpus.also"
        )
    columns = [names.index(name) for name in there]
    num_classes = len(names)
    other_votes = policies.other_votes
    if other_votes == "class":
        num_classes += 1
        columns += [len(names)] * has_other
        other_votes = "class" if has_other else "drop"
    # Words that the class set counts as a class stay that class in the smaller set, which has no name.
    kept = [text for text in ratings.other_map if text.rpartition("=")[2].strip().lower() in there]
    merged = [f"{word}={name}" for word, name in vocab.merged_words(policies.class_set).items() if name in there]
    # Tables may have several attribute scales of different steps; a corpus without the attributes has none.
    has_levels = policies.has_levels and any(name in part.info.attribute_ranges for name in policies.attributes)
    return Own(
        dataclasses.replace(
            policies,
            class_set=",".join(there),
            other_votes=other_votes,
            has_levels=has_levels,
            ratings=dataclasses.replace(ratings, other_map=(*kept, *merged)),
        ),
        np.array(columns),
        num_classes,
    )


def joined(
    num_rows: int, class_names: Sequence[str], parts: Sequence[Part], owns: Sequence[Own], built: Sequence[Any]
) -> dict[str, Any]:
    """Fields of the targets of all corpora, by name, from those of each.

    Args:
      num_rows: N utterances of all corpora.
      class_names: Classes of the joint set, `other` last where it is one.
      parts: The corpora.
      owns: How the targets of each were made.
      built: The targets of each (`targets.Targets`).

    Raises:
      TargetsError: Attributes as distributions over steps whose numbers differ.
    """
    num_classes = len(class_names)
    fields: dict[str, Any] = {"is_offered": np.zeros((num_rows, num_classes), bool)}
    for part, how in zip(parts, owns, strict=True):
        fields["is_offered"][np.ix_(part.rows, how.columns)] = True
    for name in _BY_CLASS:
        fields[name] = _placed(name, (num_rows, num_classes), parts, owns, built)
    for name in (*_BY_ATTRIBUTE, *_BY_ROW):
        values = [getattr(one, name) for one in built]
        fields[name] = np.zeros((num_rows, *values[0].shape[1:]), values[0].dtype)
        for part, value in zip(parts, values, strict=True):
            fields[name][part.rows] = value
    fields["consensus_index"] = np.full(num_rows, -1, np.int32)
    outside = np.zeros(num_rows)
    for part, how, one in zip(parts, owns, built, strict=True):
        index = one.consensus_index
        fields["consensus_index"][part.rows] = np.where(index >= 0, how.columns[np.maximum(index, 0)], -1)
        outside[part.rows] = 0 if one.votes_outside is None else one.votes_outside
    ranges: dict[str, tuple[float, float]] = {}
    for one in built:
        ranges = one.attribute_ranges | ranges
    if fields["is_offered"].all():
        # All raters could choose all classes: the targets are those of one corpus.
        fields["is_offered"] = None
    return fields | {
        "votes_outside": outside,
        "attribute_ranges": ranges,
        "counts": _counts([one.counts for one in built], class_names),
    } | _levels(num_rows, parts, built)  # fmt: skip


def _placed(
    name: str, shape: tuple[int, int], parts: Sequence[Part], owns: Sequence[Own], built: Sequence[Any]
) -> Shaped[np.ndarray, "N C"]:
    values = [getattr(one, name) for one in built]
    placed = np.zeros(shape, np.result_type(*values))
    for part, how, value in zip(parts, owns, values, strict=True):
        placed[np.ix_(part.rows, how.columns)] = value
    return placed


def _levels(num_rows: int, parts: Sequence[Part], built: Sequence[Any]) -> dict[str, Any]:
    steps = {part.info.corpus: one.levels for part, one in zip(parts, built, strict=True) if one.levels}
    if not steps:
        return {}
    levels = next(iter(steps.values()))
    if len({len(of_corpus) for of_corpus in steps.values()}) > 1:
        there = ", ".join(f"{len(of_corpus)} in {name}" for name, of_corpus in steps.items())
        raise TargetsError(
            f"loss.attribute_kind = 'emd' needs one number of steps of the rating scale, and there are {there}: choose "
            "loss.attribute_kind = 'ccc', or leave a corpus out of corpus.also"
        )
    shares = np.zeros((num_rows, built[0].attributes.shape[1], len(levels)), np.float32)
    for part, one in zip(parts, built, strict=True):
        if one.attribute_shares is not None:
            shares[part.rows] = one.attribute_shares
    return {"levels": levels, "attribute_shares": shares}


def _counts(counts: Sequence[dict[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    """Counts of all corpora added up; those by class in the order of the classes."""
    total: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in counts for name in one):
        values = [one[name] for one in counts if name in one]
        if not isinstance(values[0], dict):
            total[name] = sum(values)
            continue
        keys = list(dict.fromkeys(key for value in values for key in value))
        if name in ("num_votes", "num_consensus"):
            keys = [key for key in class_names if name == "num_consensus" or key != vocab.OTHER or key in keys]
        total[name] = {key: sum(value.get(key, 0) for value in values) for key in keys}
    return total
