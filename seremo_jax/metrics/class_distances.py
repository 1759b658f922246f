"""How far classes are apart, and which of them raters mix up: what scores need that know near confusions from far ones.

Fear taken for sadness is a smaller mistake than fear taken for joy. How far two classes are apart is read from the
corpus itself: from where its ratings place them in valence, activation and dominance or, where it has no such ratings,
from how often two raters of one utterance vote for both (`ground_of`). The expected cost is the mean distance between
consensus and prediction, and the merged UAR that of counts in which classes that raters mix up are one.

All of it is OURS; it follows the first open question of the paper: confusions within a group of classes.
"""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int, Num

_LEAST_DISTANCE = 1e-3
"""Of two different classes, as a part of the largest distance: a ground metric tells all classes apart."""


class Ground(NamedTuple):
    """How far classes are apart in one corpus.

    Attributes:
      distance: [C, C] float64 metric, the largest distance is 1.
      source: `attributes` or `co-votes`: what it was read from.
      groups: Group of each class, numbered by first member; empty where no two votes were ever compared.
    """

    distance: np.ndarray
    source: str
    groups: tuple[int, ...]


def ground_of(
    votes: Num[np.ndarray, "N C"],
    consensus: Int[np.ndarray, " N"],
    attributes: Float[np.ndarray, "N A"],
    has_attribute: Bool[np.ndarray, "N A"],
) -> Ground | None:
    """Reads the distances of classes from a whole corpus, so that they depend on no system and on no split.

    Args:
      votes: [N, C] votes of each class.
      consensus: [N] class, -1 where there is none.
      attributes: [N, A] mean ratings on one scale.
      has_attribute: [N, A] bool.

    Returns:
      Distances by attributes where at least two of them are rated and place every class, by co-votes otherwise; None
      where there is neither.
    """
    by_votes = co_vote_distance(votes)
    by_attributes = attribute_distance(attributes, has_attribute, consensus, votes.shape[1])
    distance = by_votes if by_attributes is None else by_attributes
    if distance is None:
        return None
    return Ground(
        distance,
        "co-votes" if by_attributes is None else "attributes",
        () if by_votes is None else co_vote_groups(by_votes),
    )


def attribute_distance(
    attributes: Float[np.ndarray, "N A"],
    has_attribute: Bool[np.ndarray, "N A"],
    consensus: Int[np.ndarray, " N"],
    num_classes: int,
) -> Float[np.ndarray, "C C"] | None:
    """[C, C] Euclidean distance between the classes' centroids, the largest 1.

    A centroid is the mean over the utterances whose consensus is the class and that are rated in every attribute that
    the corpus rates. None where fewer than two attributes are rated, or a class has no such utterance.
    """
    is_rated = has_attribute.any(axis=0)
    # Whole rows only, so that all coordinates of a centroid are of the same utterances.
    rows = (consensus >= 0) & has_attribute[:, is_rated].all(axis=1)
    num_rows = np.bincount(consensus[rows], minlength=num_classes)
    if is_rated.sum() < 2 or num_classes < 2 or not num_rows.all():
        return None
    centroids = np.zeros((num_classes, int(is_rated.sum())))
    np.add.at(centroids, consensus[rows], attributes[rows][:, is_rated].astype(np.float64))
    centroids /= num_rows[:, None]
    return _metric(scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(centroids)))


def co_vote_distance(votes: Num[np.ndarray, "N C"]) -> Float[np.ndarray, "C C"] | None:
    """[C, C] distance between classes by how often raters of one utterance vote for both, the largest 1.

    With K(a, b) the number of pairs of raters of one utterance who voted a and b, two classes are as similar as
    K(a, b) / sqrt(K(a, a) K(b, b)): 1 where raters tell them apart no better than by chance, 0 where nobody mixes them
    up. The distance is 1 minus that, and no longer than any detour over other classes. None where no utterance has two
    votes.
    """
    votes = np.asarray(votes, np.float64)
    # A rater does not pair with himself: the diagonal would else count every vote once more.
    pairs = votes.T @ votes - np.diag(votes.sum(axis=0))
    # Parts of votes may make the number of pairs negative.
    alike = np.maximum(np.diag(pairs), 0.0)
    if votes.shape[1] < 2 or not (pairs > 0).any():
        return None
    scale = np.sqrt(alike[:, None] * alike[None, :])
    # A class that no two raters agreed on is as far from the others as can be, unless it is only ever mixed up.
    similarity = np.where(scale > 0, pairs / np.where(scale > 0, scale, 1), pairs > 0)
    return _metric(1 - np.clip(similarity, 0, 1))


def _metric(distance: Float[np.ndarray, "C C"]) -> Float[np.ndarray, "C C"] | None:
    """Shortest ways, the largest of length 1, and different classes never at the same place; None if all are."""
    distance = distance.copy()
    np.fill_diagonal(distance, 0)
    if not distance.max() > 0:
        return None
    least = _LEAST_DISTANCE * distance.max()
    distance = np.where(np.eye(len(distance), dtype=bool), 0, np.maximum(distance, least))
    # Co-votes need not obey the triangle inequality, and a distance that does not is no metric. The way over other
    # classes is taken where it is shorter.
    distance = scipy.sparse.csgraph.shortest_path(distance, method="FW", directed=False)
    return distance / distance.max()


def co_vote_groups(distance: Float[np.ndarray, "C C"]) -> tuple[int, ...]:
    """Groups of classes that raters mix up: average linkage, half as many groups as classes, rounded up.

    Returns:
      Group of each class, numbered by their first members.
    """
    tree = scipy.cluster.hierarchy.linkage(scipy.spatial.distance.squareform(distance, checks=False), "average")
    labels = scipy.cluster.hierarchy.fcluster(tree, -(-len(distance) // 2), "maxclust")
    # SciPy numbers its clusters in no particular order; by first member they are the same whatever the version.
    order = {label: i for i, label in enumerate(dict.fromkeys(labels.tolist()))}
    return tuple(order[label] for label in labels.tolist())


def merge_classes(counts: Num[np.ndarray, "*batch C C"], groups: tuple[int, ...]) -> Num[np.ndarray, "*batch G G"]:
    """Confusion counts with each group of classes as one class."""
    is_in = (np.asarray(groups)[:, None] == np.arange(max(groups) + 1)[None, :]).astype(counts.dtype)
    return np.einsum("ag,...ab,bh->...gh", is_in, counts, is_in)
