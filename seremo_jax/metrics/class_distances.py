"""Scores that know which confusions are near: distances between classes, their cost, transport between distributions.

Fear taken for sadness is a smaller mistake than fear taken for joy. How far two classes are apart is read from the
corpus itself: from where its ratings place them in valence, activation and dominance or, where it has no such ratings,
from how often two raters of one utterance vote for both (`ground_of`). Then

    cost = expected_cost(counts, ground.distance)                   # of confusion counts, a state of `metrics`
    uar = confusion_scores(merge_classes(counts, ground.groups)).uar  # classes that raters mix up made one
    state = Transport.empty(num_speakers).update(speaker, q, p, mask, ground.potentials)

All of it is OURS; it follows the first open question of the paper: confusions within a group of classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.cluster.hierarchy
import scipy.sparse.csgraph
import scipy.spatial
import scipy.spatial.distance
from jaxtyping import Bool, Float, Int, Num

from seremo_jax.metrics.moments import AnyArray, namespace_of

MOST_CLASSES = 10
"""Classes up to which the potentials are listed: their number grows as binomial(2 C - 2, C - 1)."""

_LEAST_DISTANCE = 1e-3
"""Of two different classes, as a part of the largest distance: a ground metric tells all classes apart."""

_BLOCK_ROWS = 1024
"""Rows whose potentials are evaluated at once."""


class Ground(NamedTuple):
    """How far classes are apart in one corpus.

    Attributes:
      distance: [C, C] float64 metric, the largest distance is 1.
      source: `attributes` or `co-votes`: what it was read from.
      groups: Group of each class, numbered by first member; empty where no two votes were ever compared.
      potentials: [V, C] float32 as of `potentials_of`; V = 0 with more than `MOST_CLASSES` classes.
    """

    distance: np.ndarray
    source: str
    groups: tuple[int, ...]
    potentials: np.ndarray


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
        potentials_of(distance),
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
    pairs = votes.T @ votes - np.diag(votes.sum(axis=0))
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
    distance = scipy.sparse.csgraph.shortest_path(distance, method="FW", directed=False)
    return distance / distance.max()


def co_vote_groups(distance: Float[np.ndarray, "C C"]) -> tuple[int, ...]:
    """Groups of classes that raters mix up: average linkage, half as many groups as classes, rounded up.

    Returns:
      Group of each class, numbered by their first members.
    """
    tree = scipy.cluster.hierarchy.linkage(scipy.spatial.distance.squareform(distance, checks=False), "average")
    labels = scipy.cluster.hierarchy.fcluster(tree, -(-len(distance) // 2), "maxclust")
    order = {label: i for i, label in enumerate(dict.fromkeys(labels.tolist()))}
    return tuple(order[label] for label in labels.tolist())


def expected_cost(counts: Num[AnyArray, "*batch C C"], distance: Num[AnyArray, "... C C"]) -> Float[AnyArray, "*batch"]:
    """Mean distance between consensus (rows) and prediction over the rows counted; 0 where there is none."""
    xp = namespace_of(counts)
    return (counts * distance).sum(axis=(-1, -2)) / xp.maximum(counts.sum(axis=(-1, -2)), 1)


def merge_classes(counts: Num[AnyArray, "*batch C C"], groups: tuple[int, ...]) -> Num[AnyArray, "*batch G G"]:
    """Confusion counts with each group of classes as one class."""
    xp = namespace_of(counts)
    is_in = xp.asarray(np.asarray(groups)[:, None] == np.arange(max(groups) + 1)[None, :], counts.dtype)
    return xp.einsum("ag,...ab,bh->...gh", is_in, counts, is_in)


def potentials_of(distance: Float[np.ndarray, "C C"]) -> Float[np.ndarray, "V C"]:
    """The functions on the classes that decide a transport: vertices of { f : f(a) - f(b) <= distance(a, b) }.

    The cost of moving q to p is the largest sum of f (q - p) over them (Kantorovich and Rubinstein), so that transport
    of any number of rows is one matrix product. With d symmetric f and -f come together, and one of them is listed.

    Returns:
      [V, C] float32, f(0) = 0; V = 0 with more than `MOST_CLASSES` classes.
    """
    C = len(distance)
    if C > MOST_CLASSES:
        return np.zeros((0, C), np.float32)
    if C == 2:
        return np.asarray([[0, distance[0, 1]]], np.float32)
    first, second = np.nonzero(~np.eye(C, dtype=bool))
    # The polytope's polar has the corners (e_a - e_b) / d(a, b), without coordinate 0; its facets are our vertices.
    corners = (np.eye(C)[first] - np.eye(C)[second])[:, 1:] / distance[first, second][:, None]
    facets = scipy.spatial.ConvexHull(corners).equations
    vertices = np.concatenate([np.zeros((len(facets), 1)), -facets[:, :-1] / facets[:, -1:]], axis=1)
    slope = ((vertices[:, first] - vertices[:, second]) / distance[first, second]).max(axis=1)
    vertices /= slope[:, None]
    leading = vertices[np.arange(len(vertices)), (np.abs(vertices) > 1e-9).argmax(axis=1)]
    return np.unique((vertices * np.sign(leading)[:, None]).round(9), axis=0).astype(np.float32)


def wasserstein(
    prediction: Float[AnyArray, "B C"], target: Float[AnyArray, "B C"], potentials: Float[AnyArray, "V C"]
) -> Float[AnyArray, " B"]:
    """[B] cost of the cheapest transport between two distributions, exact; in [0, 1] for a `Ground`'s potentials."""
    potentials = jnp.asarray(potentials)

    def dearest(difference: AnyArray) -> AnyArray:
        return jnp.abs(jnp.dot(potentials, difference, precision="highest")).max()

    return jax.lax.map(dearest, jnp.asarray(prediction) - jnp.asarray(target), batch_size=_BLOCK_ROWS)


class Transport(NamedTuple):
    """Mergeable state of the mean Wasserstein distance: [U] float32 rows, and their summed distance."""

    num_rows: AnyArray
    distance: AnyArray

    @classmethod
    def empty(cls, num_units: int) -> "Transport":
        """State of no rows."""
        return cls(jnp.zeros(num_units, jnp.float32), jnp.zeros(num_units, jnp.float32))

    def update(
        self,
        unit: Int[AnyArray, " B"],
        prediction: Float[AnyArray, "B C"],
        target: Float[AnyArray, "B C"],
        mask: Bool[AnyArray, " B"],
        potentials: Float[AnyArray, "V C"],
    ) -> "Transport":
        """Adds a batch.

        Args:
          unit: [B] unit of each row.
          prediction: [B, C] predicted shares, rows sum to 1.
          target: [B, C] shares of the votes, rows sum to 1.
          mask: [B] bool; False leaves the row out.
          potentials: [V, C] of the ground metric; without any, nothing is counted.
        """
        if not potentials.shape[0]:
            return self
        num_units, mask = self.num_rows.shape[0], jnp.asarray(mask)
        q, p = (jnp.where(mask[:, None], shares, 0) for shares in (prediction, target))
        found = wasserstein(q, p, potentials)
        return self.merge(
            Transport(
                *(jax.ops.segment_sum(v, jnp.asarray(unit), num_units) for v in (mask.astype(found.dtype), found))
            )
        )

    def merge(self, other: "Transport") -> "Transport":
        """Both states as one."""
        return Transport(self.num_rows + other.num_rows, self.distance + other.distance)

    def pool(self) -> "Transport":
        """All units merged into one."""
        return Transport(self.num_rows.sum(axis=0), self.distance.sum(axis=0))

    def compute(self) -> Float[AnyArray, "..."]:
        """Mean distance; 0 where there is no row."""
        return self.distance / namespace_of(self.num_rows).maximum(self.num_rows, 1)
