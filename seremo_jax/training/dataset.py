"""What members learn from: the rows of each fold's splits, labels, class weights, feature statistics."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
import pyarrow as pa

from seremo_jax.core import members as ensemble
from seremo_jax.core import vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import Config
from seremo_jax.core.schema import Labels
from seremo_jax.data import partitions
from seremo_jax.data.tables import info_of
from seremo_jax.data.targets import Targets
from seremo_jax.features import normalisation as feature_norm
from seremo_jax.features.store import Reader
from seremo_jax.saliency import ranking
from seremo_jax.training import losses
from seremo_jax.training.loader import FrameSource

_FRAMES_AT_ONCE = 256
Fold = int | None


@dataclasses.dataclass(frozen=True)
class Data:
    """What the members of a run read.

    Attributes:
      config: The experiment.
      store: Hidden states.
      targets: Targets of every utterance of the table.
      splits: Fold -> split of every utterance of the table.
      frames: Where frames are read from: the store, or what was heard just now.
      num_frames: Frames of each utterance in `frames`.
      store_rows: [N] row of `frames` for each utterance of the table, -1 where it is not there.
      columns: Layer -> features the head reads, ascending; empty for all.
    """

    config: Config
    store: Reader
    targets: Targets
    splits: dict[Fold, np.ndarray]
    frames: FrameSource
    num_frames: np.ndarray
    store_rows: np.ndarray
    columns: dict[int, np.ndarray]

    @classmethod
    def of(
        cls, config: Config, store: Reader, utterances: pa.Table, targets: Targets, members: Sequence[ensemble.Member]
    ) -> "Data":
        """The data these members need.

        Raises:
          ArtefactError: `model.top_features` is set, and no saliency was computed.
          SplitError: The utterances cannot be split as asked.
        """
        position = {utterance: row for row, utterance in enumerate(store.utterances)}
        return cls(
            config=config,
            store=store,
            targets=targets,
            splits={fold: split_of(config, utterances, fold) for fold in dict.fromkeys(m.fold for m in members)},
            frames=store,
            num_frames=store.num_frames,
            store_rows=np.array([position.get(utterance, -1) for utterance in targets.ids], np.int64),
            columns=ranking.top_features(store.path.parent, config, ensemble.layers(members)),
        )

    @property
    def num_features(self) -> int:
        """D of the frames as the head reads them."""
        return self.config.model.top_features or self.store.manifest["num_features"]

    def layers_of(self, member: ensemble.Member) -> tuple[int, ...]:
        """Layers a member reads."""
        return tuple(self.store.layers) if member.layer == ensemble.SUM else (member.layer,)

    def rows(self, fold: Fold, split: str) -> np.ndarray:
        """Rows of the utterance table that are in a split of a fold.

        Raises:
          ArtefactError: One of them is not in the store.
        """
        rows = np.flatnonzero(self.splits[fold] == split)
        if (absent := rows[self.store_rows[rows] < 0]).size:
            raise ArtefactError(
                f"{absent.size} utterances of the table, {self.targets.ids[absent[0]]!r} first, are not in the store "
                f"{self.store.path}: delete its folder and run python -m launch.extract again"
            )
        return rows

    def labelled_rows(self, fold: Fold, split: str) -> np.ndarray:
        """Rows with something to learn from.

        Raises:
          ArtefactError: Fewer than two are left.
        """
        rows, t = self.rows(fold, split), self.targets
        kept = rows[(t.has_votes | t.has_attribute.any(1))[rows]]
        if len(kept) < 2:
            where = "" if fold is None else f" of fold {fold}"
            raise ArtefactError(
                f"the {split} split{where} has {len(rows)} utterances, {len(kept)} of them labelled: at least 2 are "
                "needed. Check the splits in ingest.json, data.split_shares and data.max_speakers"
            )
        return kept

    def labels(self) -> Labels:
        """Targets of every utterance, as the head is trained on them."""
        tables = {name: getattr(self.targets, name) for name in Labels._fields}
        if tables["attribute_shares"] is None:
            tables["attribute_shares"] = np.zeros((*self.targets.attributes.shape, 0), np.float32)
        return Labels(**tables)

    def class_weights(self, members: Sequence[ensemble.Member]) -> list[np.ndarray]:
        """[C] weights of each member's classes in `balanced_soft_ce`, from its training split alone."""
        tables = {"votes": self.targets.distribution, "consensus": self.targets.consensus}
        found = {}
        for member in members:
            key = member.fold, member.class_target
            if key not in found:
                rows = self.labelled_rows(member.fold, vocab.TRAIN)
                found[key] = losses.balanced_weights(tables[member.class_target][rows].sum(0))
        return [found[member.fold, member.class_target] for member in members]

    def normalisation(self, folds: Sequence[Fold]) -> dict[tuple[Fold, int], tuple[np.ndarray, np.ndarray]]:
        """(fold, layer) -> mean and sd [D] of the features over the fold's training split, as the head reads them.

        Those of the utterance table's own splits were gathered when the store was written; those of other folds are
        gathered here, in one pass over the store.
        """
        found = {}
        for fold in folds:
            if self.config.model.feature_norm == "none":
                shape = (len(self.store.layers), self.store.manifest["num_features"])
                mean, sd = np.zeros(shape, np.float32), np.ones(shape, np.float32)
            elif fold is None:
                arrays = self.store.arrays("norm")
                mean, sd = arrays["mean"], arrays["sd"]
            else:
                mean, sd = _statistics(self.store, self.store_rows[self.rows(fold, vocab.TRAIN)])
            for slot, layer in enumerate(self.store.layers):
                kept = self.columns.get(layer, slice(None))
                found[fold, layer] = mean[slot][kept].astype(np.float32), sd[slot][kept].astype(np.float32)
        return found


def split_of(config: Config, utterances: pa.Table, fold: Fold) -> np.ndarray:
    """Split of each utterance of the table in a fold; None means the table's own."""
    own = np.array(utterances["split"].to_pylist())
    if fold is None:
        return own
    columns = {name: utterances[name].to_pylist() for name in ("speaker", "gender", "session")}
    people = partitions.People(
        info_of(utterances).corpus,
        columns["speaker"],
        columns["gender"],
        [""] * len(own),
        columns["session"],
        np.full(len(own), -1),
    )
    data = config.data
    assigned = partitions.assign(
        data.split_kind, people, shares=data.split_shares, seed=data.split_seed, fold=fold, num_folds=data.num_folds
    )
    return np.array(assigned)


def _statistics(store: Reader, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd [K, D] of every stored layer over all frames of these rows of the store."""
    state = feature_norm.empty(len(store.layers), store.manifest["num_features"])
    update, rows = jax.jit(feature_norm.update), rows[np.argsort(store.num_frames[rows], kind="stable")]
    for start in range(0, len(rows), _FRAMES_AT_ONCE):
        mine = rows[start : start + _FRAMES_AT_ONCE].tolist()
        lengths = store.num_frames[mine]
        # Of few lengths, so that few shapes compile.
        hidden = np.zeros((len(store.layers), _FRAMES_AT_ONCE, -(-int(lengths.max()) // 64) * 64, 0), np.float16)
        for slot, layer in enumerate(store.layers):
            frames = store.read(layer, mine)
            if not slot:
                hidden = np.zeros((*hidden.shape[:3], frames[0].shape[1]), frames[0].dtype)
            for i, one in enumerate(frames):
                hidden[slot, i, : len(one)] = one
        padded = np.zeros(_FRAMES_AT_ONCE, np.int32)
        padded[: len(mine)] = lengths
        state = update(state, hidden, padded, padded > 0)
    mean, sd = feature_norm.compute(state)
    return np.asarray(mean), np.asarray(sd)
