"""Predictions of a split in a condition -> their file and their result records: one path, whoever predicted.

The stage `evaluate` takes it for members of a training on their own corpus, and `predict.cross_corpus` for a model on
another one.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.condition_names import Condition
from seremo_jax.core.config_fields import EvalConfig
from seremo_jax.core.schema import Predictions, ResultRecord
from seremo_jax.data.targets import Targets
from seremo_jax.evaluation import calibration_scores, scoring, stability
from seremo_jax.evaluation.alignment import Aligned, align
from seremo_jax.evaluation.calibration_fit import Calibrations
from seremo_jax.evaluation.records import write_predictions
from seremo_jax.evaluation.speaker_priors import Corrections, TrainingPriors
from seremo_jax.evaluation.states import member_states

_member_states = jax.jit(member_states, static_argnames=("num_cells", "nbest"))


def predictions_file(split: str, condition: Condition) -> str:
    """Name of the file of predictions, in the folder `predictions`."""
    return f"{split}_{condition.file_name}.parquet"


@dataclasses.dataclass(frozen=True)
class SplitScorer:
    """What all records of a split share.

    Attributes:
      split: Its name.
      rows: Fold of the members -> rows of the utterance table that they predict.
      utterances: The utterance table; its column `split` has the name of the split in all of these rows and nowhere
        else.
      targets: Of the utterance table.
      members: Of the predictions, without folds, the means of heads among them.
      section: How they are scored.
      card: The protocol card, with the `checkpoint`.
      fitted: Calibration of the members; None where there is none.
      folder: Where predictions are written.
      priors: How often each class occurs in training, for `eval.speaker_prior`; None where nothing is corrected.
    """

    split: str
    rows: Mapping[int | None, np.ndarray]
    utterances: pa.Table
    targets: Targets
    members: list[ensemble.Member]
    section: EvalConfig
    card: Mapping[str, Any]
    fitted: Calibrations | None
    folder: PurePath
    priors: TrainingPriors | None = None

    def records(
        self, predictions: Predictions, condition: Condition, clean: Aligned | None = None
    ) -> tuple[list[ResultRecord], Aligned]:
        """Writes the predictions and scores them.

        Args:
          predictions: Of every utterance of the split, by the members.
          condition: Acoustic condition that it was heard in.
          clean: Predictions of the clean condition, which those of others are held against.

        Returns:
          The records, and the predictions that they were made from, aligned with the targets.

        Raises:
          AlignmentError: Predictions, targets and table do not belong together.
        """
        path = self.folder / predictions_file(self.split, condition)
        origin = write_predictions(path, predictions, self.members, self.targets, self.card["checkpoint"])
        section, systems = self.section, ensemble.systems([vars(member) for member in self.members])
        aligned = align(
            predictions,
            self.targets,
            self.utterances,
            num_members=len(self.members),
            split=self.split,
            group_by=section.group_by,
        )
        members, adapted = self.members, {}
        if self.priors is not None:
            corrections = Corrections(self.priors, self.fitted, section, self.rows, self.utterances)
            aligned, systems, members, adapted = corrections.added(aligned, systems, members)
        request = scoring.ScoreRequest(systems, self.split, section, self.card, condition.id, adapted)
        records = scoring.score(aligned, request, _member_states)
        if clean is not None:
            members_of = {about["system"]: rows for rows, about in systems}
            records = stability.with_stability(records, clean, aligned, members_of, section.num_resamples, section.seed)
        # What was fitted on the development split cannot be judged there.
        if self.fitted is not None and self.split != vocab.DEVELOPMENT:
            records = calibration_scores.with_calibration(
                records, aligned, self.fitted, (systems, members), self.rows, self.targets.ids, section
            )
        return [dataclasses.replace(record, predictions=origin) for record in records], aligned
