"""Systems whose predictions are corrected for how often a test speaker shows each class; nothing is trained again.

They see the test speaker's other utterances, without labels. What they are corrected by, the training prior and the
temperature, comes from training and development speakers alone. Source: METHOD.md, section 8.14.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config_fields import EvalConfig
from seremo_jax.core.schema import System
from seremo_jax.evaluation.alignment import Aligned
from seremo_jax.evaluation.calibration_fit import Calibrations
from seremo_jax.metrics import class_priors
from seremo_jax.training import clusters, losses
from seremo_jax.training.dataset import Data

SPEAKER = "speaker"


@dataclasses.dataclass(frozen=True)
class TrainingPriors:
    """How often each class occurs in what members learned from.

    Attributes:
      members: The members of the training.
      shares: [E, C] float64, rows sum to 1.
    """

    members: tuple[ensemble.Member, ...]
    shares: np.ndarray

    @classmethod
    def of(cls, data: Data, members: Sequence[ensemble.Member]) -> "TrainingPriors":
        """The mean target over the training split of each member's fold.

        It is that of the member's own loss: votes or consensus, smoothed, with its weights of utterances and, where the
        loss is balanced, of classes.

        Raises:
          ArtefactError: No utterance has a class; or see `clusters.tables` and `Data.weights`.
        """
        learned, weights, shares = data.training_targets, data.weights(members, clusters.tables(data, members)), []
        for e, member in enumerate(members):
            rows = data.labelled_rows(member.fold, vocab.TRAIN)
            is_votes = member.class_target == "votes"
            has_class = (learned.has_votes if is_votes else learned.has_consensus)[rows]
            target = jnp.asarray((learned.distribution if is_votes else learned.consensus)[rows])
            offered = None if learned.is_offered is None else jnp.asarray(learned.is_offered[rows])
            target = np.asarray(losses.smoothed(target, member.label_smoothing, offered), np.float64)
            weight = has_class.astype(np.float64)
            if weights.table is not None:
                weight *= weights.table[weights.slot[e], rows]
            total = (weight[:, None] * target).sum(axis=0)
            if vocab.CLASS_LOSSES[member.class_kind].is_balanced:
                total = total * data.class_weights([member])[0]
            if not total.sum() > 0:
                name = ensemble.names(members)[e]
                raise ArtefactError(
                    f"no utterance that {name} learned from has a class, so there is no training prior: leave "
                    "eval.speaker_prior empty"
                )
            shares.append(total / total.sum())
        return cls(tuple(members), np.stack(shares))

    def in_folds(self, evaluated: ensemble.Member, folds: Sequence[int | None]) -> Float[np.ndarray, "F C"]:
        """The prior of a member, given without its fold, in each fold; of a mean of heads the mean of theirs."""
        return np.stack([
            self.shares[[e for e, member in enumerate(self.members)
                         if member.fold == fold and ensemble.stands_for(evaluated, member)]].mean(axis=0)
            for fold in folds
        ])  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Corrections:
    """What the predictions of a split are corrected by.

    Attributes:
      priors: Of the training.
      fitted: Calibrations of the development split; None takes predictions as they are.
      section: What is asked for.
      rows: Fold -> rows of the utterance table that its members predict.
      utterances: The utterance table, whose order is that of the corpus.
    """

    priors: TrainingPriors
    fitted: Calibrations | None
    section: EvalConfig
    rows: Mapping[int | None, np.ndarray]
    utterances: pa.Table

    def added(
        self, aligned: Aligned, systems: Sequence[System], members: Sequence[ensemble.Member]
    ) -> tuple[Aligned, list[System], list[ensemble.Member], dict[str, str]]:
        """Predictions with those of corrected systems behind them.

        Args:
          aligned: Predictions and targets.
          systems: Its systems.
          members: The member of each of its rows, without folds.

        Returns:
          The same with more rows and systems, and corrected system -> the one that it was before. Utterances whose
          speaker, or value of the column, is unknown keep their predictions, and so do all attributes.
        """
        given, kinds = aligned.predictions_distribution, self.section.speaker_prior
        folds = list(self.rows)
        prior = np.stack([self.priors.in_folds(member, folds) for member in members])
        temperature = np.stack([temperatures(self.fitted, member, folds) for member in members])
        parts = [given, *(given.copy() for _ in kinds)]
        table_row, place = self._places()
        for (fold, _), block in self._blocks(aligned, table_row, place).items():
            # Transductive in the order of ids, to the bit the same whatever that of the corpus; online in that.
            in_order = block[np.argsort(table_row[block])]
            for kind, part in zip(kinds, parts[1:], strict=True):
                here, correct = (block, _transductive) if kind == "transductive" else (in_order, class_priors.online)
                kappa = self.section.speaker_prior_kappa
                part[:, here] = correct(given[:, here], prior[:, fold], kappa, temperature[:, fold])
        further, adapted = [], {}
        for number, kind in enumerate(kinds, 1):
            for rows, about in systems:
                after = self._described(kind, about, prior[rows].mean(axis=(0, 1)))
                further.append(([number * len(given) + row for row in rows], after))
                adapted[after["system"]] = about["system"]
        aligned = dataclasses.replace(
            aligned,
            predictions_distribution=np.concatenate(parts),
            predictions_attributes=np.concatenate([aligned.predictions_attributes] * len(parts)),
        )
        return aligned, [*systems, *further], [*members] * len(parts), adapted

    def _described(self, kind: str, about: Mapping[str, Any], prior: Float[np.ndarray, " C"]) -> dict[str, Any]:
        section = self.section
        axes = about["axes"] | {
            "adaptation": f"prior of each {section.speaker_prior_by} ({kind})",
            "adapted_by": {"kappa": section.speaker_prior_kappa, "training_prior": prior.tolist()},
        }
        return {**about, "axes": axes, "system": ensemble.label(axes)}

    def _blocks(
        self, aligned: Aligned, table_row: Int[np.ndarray, " B"], place: Int[np.ndarray, " B"]
    ) -> dict[tuple[int, Any], Int[np.ndarray, " n"]]:
        """(place of the fold, who) -> rows of `aligned` that share a prior, ascending."""
        who = [aligned.speakers[unit] for unit in aligned.unit]
        if self.section.speaker_prior_by != SPEAKER:
            if self.section.speaker_prior_by not in self.utterances.column_names:
                raise ArtefactError(f"eval.speaker_prior_by = {self.section.speaker_prior_by!r}: the utterance table "
                                    f"has no such column; it has {self.utterances.column_names}")  # fmt: skip
            column = self.utterances[self.section.speaker_prior_by].to_pylist()
            who = [column[row] for row in table_row]
        blocks: dict[tuple[int, Any], list[int]] = {}
        for i, (fold, name) in enumerate(zip(place, who, strict=True)):
            if name not in ("", None, vocab.UNKNOWN):
                blocks.setdefault((int(fold), name), []).append(i)
        return {key: np.array(block) for key, block in blocks.items()}

    def _places(self) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " B"]]:
        """Of each row of an `Aligned`, which are sorted by id: its row of the table, and the place of its fold."""
        ids = self.utterances["id"].to_pylist()
        there = sorted((ids[row], row, place) for place, part in enumerate(self.rows.values()) for row in part.tolist())
        return np.array([row for _, row, _ in there]), np.array([place for _, _, place in there])


def _transductive(*arguments: Any) -> Float[np.ndarray, "E n C"]:
    return class_priors.transductive(*arguments)[0]


def temperatures(
    fitted: Calibrations | None, member: ensemble.Member, folds: Sequence[int | None]
) -> Float[np.ndarray, " F"]:
    """Temperature of a member, given without its fold, in each fold; 1 where nothing was fitted."""
    there = None if fitted is None else fitted.in_folds([member], folds)
    return np.ones(len(folds)) if there is None else np.array([fit.temperature for fit in there])
