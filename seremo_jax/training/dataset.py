"""Data of a training: the rows of each fold's splits, labels, class weights, and statistics of the features."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import Config, ConfigError
from seremo_jax.core.schema import Labels
from seremo_jax.data import targets
from seremo_jax.data.policies import target_policies
from seremo_jax.data.screening import in_fold
from seremo_jax.data.targets import Targets
from seremo_jax.features import normalisation as feature_norm
from seremo_jax.features.store import Reader
from seremo_jax.metrics import class_distances
from seremo_jax.saliency import ranking
from seremo_jax.training import balance, loader, losses
from seremo_jax.training import copies as copies_lib
from seremo_jax.training.balance import Groups
from seremo_jax.training.copies import Copies
from seremo_jax.training.loader import FrameSource

_UTTERANCES_AT_ONCE = 256
"""Utterances whose frames are held in memory while statistics are gathered."""
Fold = int | None
"""Number of a fold, or None for the splits of the utterance table."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Everything that the members of a run read.

    Attributes:
      config: The experiment.
      store: Hidden states of the clean utterances.
      targets: Targets of every utterance of the table, by which members are scored.
      training_targets: Those that members learn from. They differ from the others where a label policy says so.
      splits: Fold -> split of every utterance of the table.
      frames: Source of the frames: the store, or frames in memory of utterances heard in a condition.
      num_frames: Number of frames of each utterance in `frames`.
      store_rows: [N] row in `frames` of each utterance of the table, -1 where `frames` lacks it.
      columns: Layer -> features that the head reads, ascending. Layers left out are read whole.
      groups: Speaker and group of every utterance of the table.
      copies: Copies of training utterances, whose frames stand behind those of the store in `frames`; None where no
        member hears any.
    """

    config: Config
    store: Reader
    targets: Targets
    training_targets: Targets
    splits: dict[Fold, np.ndarray]
    frames: FrameSource
    num_frames: np.ndarray
    store_rows: np.ndarray
    columns: dict[int, np.ndarray]
    groups: Groups
    copies: Copies | None = None

    @classmethod
    def of(
        cls,
        config: Config,
        store: Reader,
        tables: tuple[pa.Table, pa.Table],
        members: Sequence[ensemble.Member],
        copies: Copies | None = None,
    ) -> "Data":
        """The data that these members need, from the utterances and the ratings, and in training from copies.

        Raises:
          ArtefactError: A layer that a member reads is not in the store, or `model.top_features` is set and no
            saliency was computed.
          SplitError: The utterances cannot be split as asked.
        """
        absent = sorted(set(ensemble.layers(members)) - set(store.layers))
        if absent:
            raise ArtefactError(
                f"members read layer {', '.join(map(str, absent))}, but the store {store.path} has the layers "
                f"{', '.join(map(str, store.layers))}: change model.layer or ensemble.layers, or extract into another "
                "--workdir with them in extract.layers"
            )
        utterances = tables[0]
        scored, learned = targets_by_role(config, *tables)
        position = {utterance: row for row, utterance in enumerate(store.utterances)}
        frames = store if copies is None else copies_lib.Frames(store, copies)
        return cls(
            config=config,
            store=store,
            targets=scored,
            training_targets=learned,
            splits={fold: split_of(config, utterances, fold) for fold in dict.fromkeys(m.fold for m in members)},
            frames=frames,
            num_frames=frames.num_frames,
            store_rows=np.array([position.get(utterance, -1) for utterance in scored.ids], np.int64),
            columns=ranking.top_features(store.path.parent, config, ensemble.layers(members)),
            groups=balance.groups_of(utterances, config.train.group_by, members),
            copies=copies,
        )

    @property
    def num_features(self) -> int:
        """D of the frames as the head reads them."""
        return self.config.model.top_features or self.store.manifest["num_features"]

    def layers_of(self, member: ensemble.Member) -> tuple[int, ...]:
        """Layers that a member reads."""
        return tuple(self.store.layers) if member.layer == ensemble.SUM else (member.layer,)

    def rows(self, fold: Fold, split: str) -> np.ndarray:
        """Rows of the utterance table that are in a split of a fold.

        Raises:
          ArtefactError: An utterance of the split is not in the store.
        """
        rows = np.flatnonzero(self.splits[fold] == split)
        if (absent := rows[self.store_rows[rows] < 0]).size:
            raise ArtefactError(
                f"{absent.size} utterances of the table, {self.targets.ids[absent[0]]!r} first, are not in the store "
                f"{self.store.path}: delete its folder and run python -m launch.extract again"
            )
        return rows

    def heard_rows(self, rows: np.ndarray, order: loader.Order, epoch: int | None) -> np.ndarray:
        """Rows in `frames` that utterances are read from in an epoch: of an utterance or of one of its copies.

        Args:
          rows: Rows of the utterance table.
          order: The order that they are read in.
          epoch: Number of the epoch; None hears all of them clean.
        """
        clean = self.store_rows[rows]
        if epoch is None or not order.copy_share:
            return clean
        return self.copies.heard(clean, order.copy_share, order.data_seed or 0, epoch)

    def held_rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows in `frames` of utterances of the table and of all copies of them."""
        clean = self.store_rows[np.unique(rows)]
        return clean if self.copies is None else np.concatenate([clean, self.copies.of(clean)])

    def is_heard(self, members: Sequence[ensemble.Member]) -> np.ndarray:
        """[N] bool, the utterances of the table that some of these members are trained on, in their own folds."""
        return np.any([self.splits[member.fold] == vocab.TRAIN for member in members], axis=0)

    def labelled_rows(self, fold: Fold, split: str) -> np.ndarray:
        """Rows of a split that have a vote distribution or a rated attribute.

        Raises:
          ArtefactError: Fewer than two rows are left. CCC is not defined over fewer.
        """
        rows, t = self.rows(fold, split), self.training_targets if split == vocab.TRAIN else self.targets
        kept = rows[(t.has_votes | t.has_attribute.any(1))[rows]]
        if len(kept) < 2:
            where = "" if fold is None else f" of fold {fold}"
            raise ArtefactError(
                f"the {split} split{where} has {len(rows)} utterances, {len(kept)} of them labelled: at least 2 are "
                "needed. Check the splits in ingest.json, data.split_shares and data.max_speakers"
            )
        return kept

    def labels(self, targets: Targets | None = None) -> Labels:
        """Targets of every utterance of the table, as the head is trained on them unless others are given."""
        tables = {name: getattr(targets or self.training_targets, name) for name in Labels._fields}
        if tables["attribute_shares"] is None:
            # A table without levels, so that the compiled step has the same inputs whatever the loss.
            tables["attribute_shares"] = np.zeros((*self.targets.attributes.shape, 0), np.float32)
        return Labels(**tables)

    def class_weights(self, members: Sequence[ensemble.Member]) -> list[np.ndarray]:
        """[C] weights of the classes in balanced losses, for each member, from its own training split alone."""
        tables = {"votes": self.training_targets.distribution, "consensus": self.training_targets.consensus}
        weights = {}
        for member in members:
            key = member.fold, member.class_target
            if key not in weights:
                rows = self.labelled_rows(member.fold, vocab.TRAIN)
                weights[key] = losses.balanced_weights(tables[member.class_target][rows].sum(0))
        return [weights[member.fold, member.class_target] for member in members]

    def class_distances(self, members: Sequence[ensemble.Member]) -> list[np.ndarray]:
        """[C, C] distance between classes for each member, by the votes of its own training split alone.

        Raises:
          ArtefactError: The votes of a training split do not tell.
        """
        by_fold: dict[Fold, np.ndarray | None] = {}
        for fold in dict.fromkeys(member.fold for member in members):
            rows, t = self.labelled_rows(fold, vocab.TRAIN), self.training_targets
            by_fold[fold] = class_distances.co_vote_distance(t.votes[rows] * t.has_votes[rows, None])
            if by_fold[fold] is None:
                raise ArtefactError(
                    "loss.closeness_weight: the votes of the training split do not tell classes apart that are near or "
                    "far: that takes utterances of several votes; set it to 0"
                )
        return [by_fold[member.fold] for member in members]

    def require_groups(self, members: Sequence[ensemble.Member], groups: balance.GroupTables | None = None) -> None:
        """Refuses members whose training split does not name the speakers or groups that they read.

        Args:
          members: The members.
          groups: The groups that they train by; None for those of the table.

        Raises:
          ArtefactError: It names fewer than two, or votes would be mixed that raters of other classes gave.
        """
        groups = groups or balance.GroupTables.of_columns(self.groups, len(members))
        for number, member in enumerate(members):
            if member.mixup and self.training_targets.is_offered is not None:
                raise ArtefactError(
                    f"train.mixup = {member.mixup:g} mixes votes, but raters of the corpora of corpus.also "
                    "could choose different classes: set it to 0, or targets.class_set to classes that all could choose"
                )
            asked = [("train.mixup", "speaker")] * bool(member.mixup)
            asked += [(f"loss.objective = {member.objective!r}", member.objective_group)] * (member.objective != "mean")
            for field, kind in asked:
                codes = getattr(groups.of_member(number), kind)[self.labelled_rows(member.fold, vocab.TRAIN)]
                if (num := len(set(codes[codes >= 0].tolist()))) < 2:
                    what = (
                        "speakers" if kind == "speaker" else f"groups (train.group_by = {self.config.train.group_by})"
                    )
                    raise ArtefactError(f"{field}: the training split names {num} {what}, and 2 are needed")

    def weights(self, members: Sequence[ensemble.Member], groups: balance.GroupTables | None = None) -> balance.Weights:
        """Weights of the utterances in the losses of these members, from the training split of each one's fold alone.

        Args:
          members: The members.
          groups: The groups that they train by; None for those of the table.

        Raises:
          ArtefactError: A member balances speakers or groups, of which its training split names none.
        """
        groups = groups or balance.GroupTables.of_columns(self.groups, len(members))
        combinations, slot = balance.combinations(members, groups.slot)
        if not balance.is_asked_for(self.config):
            return balance.Weights(None, np.zeros_like(slot))
        table = np.ones((len(combinations), len(self.targets.ids)), np.float32)
        for weights, (fold, *powers, place) in zip(table, combinations, strict=True):
            rows, t = self.labelled_rows(fold, vocab.TRAIN), self.training_targets
            own = balance.Groups(*(codes[rows] for codes in groups.table._replace(group=groups.groups[place])))
            weights[rows] = balance.tempered(own, t.distribution[rows], t.has_votes[rows], *powers)
        return balance.Weights(table, slot)

    def planned_steps(
        self, members: Sequence[ensemble.Member], shape: loader.Shape, rows: dict[Fold, np.ndarray]
    ) -> list[int] | None:
        """Updates that each member makes in `train.max_epochs`, if every epoch has as many batches as its first.

        A member's batches depend on its own fold and order alone, and so does this number. None where learning rates
        are constant.

        Args:
          members: The members.
          shape: Shape of the batches.
          rows: Fold -> rows of the training split.

        Raises:
          ConfigError: Some member would not live to the end of the warm-up.
        """
        optim, t = self.config.optim, self.config.train
        if optim.schedule == "constant" and not optim.warmup_steps:
            return None
        streams = {(member.fold, member.data_seed): 0 for member in members}
        for fold, data_seed in streams:
            lengths = self.num_frames[self.store_rows[rows[fold]]]
            streams[fold, data_seed] = t.max_epochs * len(loader.plan_epoch(lengths, shape, data_seed, 1))
        if optim.warmup_steps >= (least := min(streams.values())):
            raise ConfigError(
                f"optim.warmup_steps = {optim.warmup_steps}: train.max_epochs = {t.max_epochs} gives a member {least} "
                "updates, so its learning rate would never get there; lower the one or raise the other"
            )
        return [streams[member.fold, member.data_seed] for member in members]

    def normalisation(self, folds: Sequence[Fold]) -> dict[tuple[Fold, int], tuple[np.ndarray, np.ndarray]]:
        """Mean and standard deviation of the features over the training split of each fold, by fold and layer.

        The statistics of the table's own splits were gathered when the store was written. Those of other folds are
        gathered here, in one pass over the store for each fold.

        Returns:
          (fold, layer) -> mean [D] and sd [D], float32, of the features that the head reads.
        """
        statistics = {}
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
                statistics[fold, layer] = mean[slot][kept].astype(np.float32), sd[slot][kept].astype(np.float32)
        return statistics


def targets_by_role(config: Config, utterances: pa.Table, ratings: pa.Table) -> tuple[Targets, Targets]:
    """The targets that members are scored by, and those that they learn from.

    Under `data.keep_no_agreement = train_only` a member learns from the votes of utterances without a consensus, and is
    not scored by them. Which utterances it learns from is a matter of its fold, so neither table may read the column
    `split`, which is that of one fold.
    """
    policies = target_policies(config)
    if policies.keep_no_agreement != "train_only":
        built = targets.build(utterances, ratings, policies)
        return built, built
    learned = targets.build(utterances, ratings, dataclasses.replace(policies, keep_no_agreement="keep"))
    nobody = np.zeros(utterances.num_rows, bool)
    return targets.without_no_agreement(learned, policies.keep_no_agreement, nobody), learned


def split_of(config: Config, utterances: pa.Table, fold: Fold) -> np.ndarray:
    """Split of each utterance of the table in a fold."""
    return np.array(in_fold(utterances, config.data, fold)["split"].to_pylist())


def _statistics(store: Reader, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd [K, D] of every stored layer over all frames of these rows of the store, as extraction gathers them.

    A store has the utterances of the table in their order, so the numbers are those of a store of this fold.
    """
    moments = feature_norm.InTableOrder()
    for start in range(0, len(rows), _UTTERANCES_AT_ONCE):
        block = rows[start : start + _UTTERANCES_AT_ONCE].tolist()
        by_layer = [store.read(layer, block) for layer in store.layers]
        for row, frames in zip(block, zip(*by_layer, strict=True), strict=True):
            moments.add(row, feature_norm.of_utterance(np.stack(frames)))
    return feature_norm.compute(moments.total())
