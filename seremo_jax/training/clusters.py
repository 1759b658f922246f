"""Groups of training speakers who sound alike, where no column names groups: k-means of their mean features."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.features import normalisation
from seremo_jax.training import balance, speakers
from seremo_jax.training.balance import GroupTables
from seremo_jax.training.dataset import Data, Fold

NUM_STARTS, MOST_ROUNDS, SEED = 20, 300, 0


def kmeans(points: Float[np.ndarray, "n D"], num: int) -> tuple[Int[np.ndarray, " n"], float]:
    """Points in `num` clusters, the best of `NUM_STARTS` seeded starts: the same for the same points.

    Args:
      points: The points, n of them at least `num`.
      num: Clusters. Where fewer points differ, some have none.

    Returns:
      Cluster of each point, numbered in the order of their first points, and the sum of squared distances from the
      centres.

    Source: KNOWN: S. Lloyd 1982; starts by D. Arthur, S. Vassilvitskii, k-means++, 2007.
    """
    rng, best = np.random.default_rng(SEED), (np.zeros(len(points), int), np.inf)
    for _ in range(NUM_STARTS):
        centres = _start(points, num, rng)
        label = _distances(points, centres).argmin(axis=1)
        for _ in range(MOST_ROUNDS):
            # A cluster without points keeps its centre, and may have some in the next round.
            centres = np.stack([points[label == c].mean(axis=0) if (label == c).any() else centres[c]
                                for c in range(num)])  # fmt: skip
            before, label = label, _distances(points, centres).argmin(axis=1)
            if (before == label).all():
                break
        inertia = float(_distances(points, centres).min(axis=1).sum())
        if inertia < best[1]:
            best = label, inertia
    number = {c: i for i, c in enumerate(dict.fromkeys(best[0].tolist()))}
    return np.array([number[c] for c in best[0].tolist()], np.int32), best[1]


def _start(points: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """Points drawn with probabilities by the square of the distance from the nearest of those before."""
    chosen = [int(rng.integers(len(points)))]
    while len(chosen) < num:
        far = _distances(points, points[chosen]).min(axis=1)
        total = far.sum()
        chosen.append(int(rng.choice(len(points), p=far / total if total > 0 else None)))
    return points[chosen].copy()


def _distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """[n, K] squared distances, exactly 0 between equal points."""
    return np.stack([np.square(points - centre).sum(axis=1) for centre in centres], axis=1)


def ways(
    data: Data, members: Sequence[ensemble.Member]
) -> tuple[list[tuple[Fold, tuple[int, ...]]], Int[np.ndarray, " E"]]:
    """Fold and layers of each way in which members cluster speakers, and which is that of each; no way without k-means.

    Members that do not read groups are pointed at the first.
    """
    if vocab.num_clusters(data.config.train.group_by) is None:
        return [], np.zeros(len(members), np.int32)
    keys = [(member.fold, data.layers_of(member)) for member in members]
    own = list(dict.fromkeys(key for key, member in zip(keys, members, strict=True) if balance.reads_groups(member)))
    return own, np.array([own.index(key) if key in own else 0 for key in keys], np.int32)


def tables(data: Data, members: Sequence[ensemble.Member]) -> GroupTables:
    """The groups that each member trains by: a column of the table, or clusters of speakers.

    Clusters are of the speakers of the training split of the member's own fold, by the layer that it reads (all layers
    side by side where it sums them). A speaker is the mean of all frames, each feature brought to mean 0 and standard
    deviation 1 over all frames of these speakers, and counts once however much there is of it.

    Raises:
      ArtefactError: A training split names fewer speakers than there are to be clusters.
    """
    own, slot = ways(data, members)
    if not own:
        return GroupTables.of_columns(data.groups, len(members))
    num = vocab.num_clusters(data.config.train.group_by)
    rows = [_clustered(data, fold, layers, num) for fold, layers in own]
    return GroupTables(data.groups, np.stack(rows), slot)


def _clustered(data: Data, fold: Fold, layers: tuple[int, ...], num: int) -> Int[np.ndarray, " N"]:
    """[N] cluster of every training utterance of a fold with a known speaker; -1 for all else."""
    rows = data.rows(fold, vocab.TRAIN)
    rows_of = speakers.by_speaker(data.groups.speaker, rows)
    if len(rows_of) < num:
        where = "" if fold is None else f" of fold {fold}"
        raise ArtefactError(
            f"train.group_by = {data.config.train.group_by}: the training split{where} names {len(rows_of)} speakers, "
            "fewer than there are to be groups"
        )
    frames = speakers.stored(data, layers, np.sort(np.concatenate(rows_of)))
    states = speakers.states(rows_of, frames)
    whole = states[0]
    for state in states[1:]:
        whole = normalisation.merge(whole, state)
    sd = np.sqrt(whole.moment / whole.count)
    scaled = [(state.mean - whole.mean) / np.where(sd < normalisation.MIN_SD, 1, sd) for state in states]
    kept = [data.columns.get(layer, slice(None)) for layer in layers]
    points = np.stack(
        [np.concatenate([of_layers[k][columns] for k, columns in enumerate(kept)]) for of_layers in scaled]
    )
    code = np.full(len(data.groups.speaker), -1, np.int32)
    for own, cluster in zip(rows_of, kmeans(points, num)[0], strict=True):
        code[own] = cluster
    return code
