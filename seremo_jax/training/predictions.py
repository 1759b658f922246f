"""Predictions of whole splits by every member, and the parameters a training kept."""

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from seremo_jax.core import ensemble, sharding, vocab
from seremo_jax.core.artefacts import place_of, read_json
from seremo_jax.core.config import Config
from seremo_jax.core.schema import Batch
from seremo_jax.training import checkpoint, model, steps
from seremo_jax.training.arrangement import Arrangement, arrange
from seremo_jax.training.dataset import Data
from seremo_jax.training.feed import Feed
from seremo_jax.training.selection import Predicted
from seremo_jax.training.state import Settings

STAMP_FILE = "finished.json"
BEST_FOLDER = "best"


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
    outputs: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
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
        is_used = [utterance[s] >= 0 for utterance, _ in outputs]
        rows = np.concatenate([utterance[s][used] for used, (utterance, _) in zip(is_used, outputs, strict=True)])
        order = np.argsort(rows)
        by_name = {
            name: np.concatenate(
                [arrays[name][places][:, used] for used, (_, arrays) in zip(is_used, outputs, strict=True)], axis=1
            )[:, order]
            for name in outputs[0][1]
        }
        predicted.append(Predicted(member[places], rows[order], **by_name))
    return predicted


def _to_host(batch: Batch, outputs: dict[str, Array]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return np.asarray(batch.utterance), sharding.fetch(outputs)


def settings_of(config: Config, data: Data, platform: str | None = None) -> Settings:
    """Settings that all members of a run share, on a platform; None means that of these devices."""
    num_layers = len(data.store.layers) if ensemble.reads_layer_sum(config) else 0
    targets = data.targets
    num_groups = 1 + max(int(codes.max(initial=-1)) for codes in data.groups.of_objectives)
    num_groups = max(num_groups, vocab.num_clusters(config.train.group_by) or 0)
    return Settings.of(
        config, data.num_features, len(targets.class_names), num_layers, targets.levels, platform, num_groups
    )


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
