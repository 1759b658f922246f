"""What members know of the classes of their training: embeddings of whole splits, means of classes, priors."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from seremo_jax.core import ensemble, sharding, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.evaluation.speaker_priors import TrainingPriors
from seremo_jax.metrics.prototypes import ClassMeans, class_means
from seremo_jax.training import speakers, steps
from seremo_jax.training.arrangement import arrange
from seremo_jax.training.dataset import Data
from seremo_jax.training.feed import Feed, Placement, shape_of
from seremo_jax.training.predictions import predict, settings_of
from seremo_jax.training.selection import Predicted


@dataclasses.dataclass(frozen=True)
class Prototypes:
    """Of each of E members what adapting it to a speaker takes.

    Attributes:
      prior: [E, C] float64 shares of the classes in what it learned from.
      means: Of each member the means of its classes.
    """

    prior: np.ndarray
    means: tuple[ClassMeans, ...]

    def arrays(self) -> dict[str, np.ndarray]:
        """Name -> array [E, ...], float64."""
        stacked = {name: np.stack([getattr(own, name) for own in self.means]) for name in ClassMeans._fields}
        return {"prior": np.asarray(self.prior, np.float64), **stacked}

    def of_members(self, numbers: Sequence[int]) -> "Prototypes":
        """Those of some members, in this order."""
        return Prototypes(self.prior[list(numbers)], tuple(self.means[e] for e in numbers))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], shape: tuple[int, int, int]) -> "Prototypes":
        """What `arrays` gave.

        Args:
          arrays: Name -> array.
          shape: E, C and the size of the embedding.

        Raises:
          ValueError: An array is missing, of another shape, or not finite.
        """
        num, num_classes, size = shape
        expected = {"prior": (num, num_classes), "mean": shape, "count": (num, num_classes),
                    "precision": (num, size, size)}  # fmt: skip
        for name, wanted in expected.items():
            if name not in arrays or arrays[name].shape != wanted or not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} is no finite array of shape {wanted}")
        means = zip(*(arrays[name] for name in ClassMeans._fields), strict=True)
        return cls(arrays["prior"], tuple(ClassMeans(*own) for own in means))


def with_embeddings(
    data: Data, members: Sequence[ensemble.Member], params: Any, mesh: Mesh, rows: Mapping[int | None, np.ndarray]
) -> list[Predicted]:
    """Predictions with embeddings.

    Args:
      data: What the members read.
      members: All members of the training.
      params: Their parameters, spread over the member axis of the mesh.
      mesh: The mesh.
      rows: Fold -> rows of the utterance table.
    """
    current = arrange(len(members), mesh.shape[sharding.MEMBER])
    settings = settings_of(data.config, data)._replace(gives_embedding=True)
    step = steps.compile_steps(settings, mesh, num_running=current.num_running).predict
    words = dict.fromkeys(word for fold, own in rows.items() for word in data.splits[fold][own].tolist())
    heard = speakers.of_store(data, members, words)
    placement = Placement(list(members), mesh, current, data.normalisation(list(data.splits)), speakers=heard)
    feed = Feed(data, placement, shape_of(data, dict(rows), dict(rows)), dict(rows), has_own_order=False)
    return predict(step, params, feed, current)


def of_training(data: Data, priors: TrainingPriors, params: Any, mesh: Mesh) -> Prototypes:
    """Prototypes of every member over the training split of its fold.

    Args:
      data: What the members read.
      priors: Theirs, and so all members of the training.
      params: See `with_embeddings`.
      mesh: The mesh.

    Raises:
      ArtefactError: No utterance of a training split has a consensus.
    """
    rows = {fold: data.labelled_rows(fold, vocab.TRAIN) for fold in data.splits}
    learned, means = data.training_targets, {}
    for part in with_embeddings(data, priors.members, params, mesh, rows):
        shares = learned.consensus[part.rows] * learned.has_consensus[part.rows, None]
        if len(part.members) and not shares.any():
            raise ArtefactError("no utterance of a training split has a consensus, so that its classes have no means")
        for e, embedding in zip(part.members.tolist(), part.embedding, strict=True):
            means[e] = class_means(embedding, shares)
    return Prototypes(priors.shares, tuple(means[e] for e in range(len(priors.members))))
