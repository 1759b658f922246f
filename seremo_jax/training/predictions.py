"""Predictions of whole splits by every member, the score that selects epochs, and the parameters a training kept."""

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from seremo_jax.core import ensemble, sharding, vocab
from seremo_jax.core.artefacts import place_of, read_json
from seremo_jax.core.config import Config
from seremo_jax.core.schema import Batch
from seremo_jax.data.targets import Targets
from seremo_jax.metrics.moments import AnyArray
from seremo_jax.training import checkpoint, losses, model, steps
from seremo_jax.training.arrangement import Arrangement, arrange
from seremo_jax.training.dataset import Data
from seremo_jax.training.feed import Feed
from seremo_jax.training.state import Settings

STAMP_FILE = "finished.json"
BEST_FOLDER = "best"


class Predicted(NamedTuple):
    """Predictions of some members for the utterances of their stream.

    Attributes:
      members: [m] numbers of the members.
      rows: [N] rows of the utterance table, ascending.
      attributes: [m, N, A] float32, on the scale of the targets.
      distribution: [m, N, C] float32, rows sum to 1.
    """

    members: Int[np.ndarray, " m"]
    rows: Int[np.ndarray, " N"]
    attributes: Float[np.ndarray, "m N A"]
    distribution: Float[np.ndarray, "m N C"]


def predict(predict_step: Callable, params: Any, feed: Feed, current: Arrangement) -> list[Predicted]:
    """Predictions of every member that sits at a trained position, for all utterances of its stream.

    Args:
      predict_step: `steps.Steps.predict`.
      params: Parameters [P, ...].
      feed: Batches of the split.
      current: How members sit.

    Returns:
      An entry for each stream.
    """
    outputs: list[tuple[np.ndarray, ...]] = []
    pending: tuple[Batch, Any] | None = None
    for batch in feed.batches():
        running = predict_step(params, feed.members, batch, feed.inputs)
        # Outputs are fetched one batch late. The device computes this batch while the host copies those of the last
        # one.
        if pending is not None:
            outputs.append(_to_host(*pending))
        pending = (batch, running)
    outputs.append(_to_host(*pending))
    member, stream = current.order[current.running], feed.stream[current.running]
    predicted = []
    for s in range(int(feed.stream.max()) + 1):
        places = np.flatnonzero((stream == s) & (member < current.num_members))
        # A batch has a mask over its slots, and its utterances come in the order of the plan.
        parts = [(utterance[s] >= 0, *rest, utterance[s]) for *rest, utterance in outputs]
        rows = np.concatenate([utterance[is_used] for is_used, _, _, utterance in parts])
        order = np.argsort(rows)
        attributes, distribution = (
            np.concatenate([part[i][places][:, part[0]] for part in parts], axis=1)[:, order] for i in (1, 2)
        )
        predicted.append(Predicted(member[places], rows[order], attributes, distribution))
    return predicted


def _to_host(batch: Batch, outputs: tuple[Array, Array]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    attributes, distribution = sharding.fetch(outputs)
    return attributes, distribution, np.asarray(batch.utterance)


def development_scores(
    predicted: Sequence[Predicted], targets: Targets, class_targets: Sequence[str]
) -> Float[np.ndarray, "E"]:
    """Score that selects epochs: mean CCC of attributes plus mean CCC of classes, over the whole split at once.

    Each mean is over the attributes, or classes, whose CCC is defined. A task that the corpus does not label drops out.
    The class CCC is against the targets that the member is trained on: vote shares, or the one-hot consensus.

    Args:
      predicted: Predictions for each stream.
      targets: Targets of the utterance table.
      class_targets: `votes` or `consensus`, for each member.

    Returns:
      [E] float32 scores; NaN for members without predictions.

    Source: OURS, METHOD.md, section 6.
    """
    scores = np.full(len(class_targets), np.nan, np.float32)
    for members, rows, attributes, distribution in predicted:
        if not len(members):
            continue
        scores[members] = _mean_ccc(attributes, targets.attributes[rows], targets.has_attribute[rows])
        for kind in vocab.CLASS_TARGETS:
            is_kind = np.array([class_targets[m] == kind for m in members])
            if not is_kind.any():
                continue
            is_votes = kind == "votes"
            classes = (targets.distribution if is_votes else targets.consensus)[rows]
            has_class = (targets.has_votes if is_votes else targets.has_consensus)[rows]
            mask = np.broadcast_to(has_class[:, None], classes.shape)
            scores[members[is_kind]] += _mean_ccc(distribution[is_kind], classes, mask)
    return scores


@jax.jit
def _mean_ccc(pred: Float[AnyArray, "m N Y"], target: Float[AnyArray, "N Y"], mask: Bool[AnyArray, "N Y"]) -> Array:
    """[m] mean over the columns whose target varies; 0 where none does."""
    is_defined = losses.varies(target, mask)
    ccc = jax.lax.map(lambda of_member: losses.ccc(of_member, target, mask, eps=0.0), pred)
    return jnp.where(is_defined[None, :], ccc, 0).sum(1) / jnp.maximum(is_defined.sum(), 1)


def settings_of(config: Config, data: Data, platform: str | None = None) -> Settings:
    """Settings that all members of a run share, on a platform; None means that of these devices."""
    num_layers = len(data.store.layers) if ensemble.reads_layer_sum(config) else 0
    targets = data.targets
    return Settings.of(config, data.num_features, len(targets.class_names), num_layers, targets.levels, platform)


def load_members(folder: PurePath, settings: steps.Settings, members: Sequence[ensemble.Member], mesh: Mesh) -> Any:
    """Best parameters [E, ...] of a finished training, spread over the mesh's member axis.

    Raises:
      ArtefactError: The training is not finished, or a file of its parameters is missing or damaged.
    """
    folder = place_of(folder)
    trained = read_json(folder / STAMP_FILE, "run python -m launch.train with this --workdir")
    shapes = jax.eval_shape(lambda: model.init(settings.sizes, jax.random.key(0)))
    where = sharding.replicated(mesh)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(members), *x.shape), x.dtype, sharding=where), shapes)
    params = checkpoint.load_params(folder / BEST_FOLDER, like, trained.get("files"))
    current = arrange(len(members), mesh.shape[sharding.MEMBER])
    return steps.take(params, current.member, sharding.by_member(mesh))
