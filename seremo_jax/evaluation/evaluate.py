"""The stage that turns a training into result records: predictions of whole splits, in every condition, scored."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
from jax.sharding import Mesh

from seremo_jax.conditions import sources as condition_sources
from seremo_jax.conditions.render import Sources
from seremo_jax.core import ensemble, sharding, vocab
from seremo_jax.core.artefacts import ArtefactError, place_of, read_json, remove_leftovers
from seremo_jax.core.condition_names import Condition
from seremo_jax.core.config import Config
from seremo_jax.core.lock import at_work
from seremo_jax.core.progress import Progress
from seremo_jax.core.schema import Predictions, ResultRecord
from seremo_jax.data.screening import with_words
from seremo_jax.data.tables import read_for
from seremo_jax.evaluation import calibration_fit, enrolment, mean_heads, prototypes, speaker_priors
from seremo_jax.evaluation.records import ENROLMENT_FOLDER, FILE, are_whole, require_own
from seremo_jax.evaluation.records import write as write_records
from seremo_jax.evaluation.split_records import SplitScorer, predictions_file
from seremo_jax.features import condition_frames
from seremo_jax.features.manifest import require_config
from seremo_jax.features.store import Reader
from seremo_jax.training import loader, protocol, speakers, steps
from seremo_jax.training.arrangement import Arrangement, arrange
from seremo_jax.training.dataset import Data
from seremo_jax.training.feed import Feed, Placement, shape_of
from seremo_jax.training.predictions import STAMP_FILE, load_members, predict, settings_of
from seremo_jax.training.selection import Predicted


def run(config: Config, workdir: str | os.PathLike, is_quiet: bool = False) -> PurePath:
    """Evaluates the trained members on `eval.splits`; writes `predictions/` and, last, `results.jsonl`.

    Raises:
      ArtefactError: An artefact of an earlier stage is missing or belongs to other settings, or another process is at
        work in this workdir.
    """
    workdir = place_of(workdir)
    with at_work(workdir, "evaluate", sharding.is_first_process()):
        return _run(config, workdir, is_quiet)


def _run(config: Config, workdir: PurePath, is_quiet: bool) -> PurePath:
    if sharding.is_first_process():
        remove_leftovers(workdir / "predictions")
        for name in (FILE, calibration_fit.FILE):
            remove_leftovers(workdir, f"{name}.*")
        remove_leftovers(workdir / ENROLMENT_FOLDER)
    require_own(workdir)
    utterances, ratings, fingerprint = read_for(config, workdir)
    store = Reader(workdir / "store")
    store.require(tables_fingerprint=fingerprint)
    require_config(store.path, store.manifest, config)
    trained = read_json(workdir / "train" / STAMP_FILE, "run python -m launch.train with this --workdir")
    members = ensemble.members_in(workdir, config)
    run = protocol.run_identity(config, store, [vars(member) for member in members], trained["run"].get("copies"))
    remedy = "Give the --config it was trained with, or another --workdir."
    protocol.require_run(f"the training in {workdir / 'train'}", trained["run"], run, store, remedy)
    results, sources = workdir / FILE, None
    card = protocol.card(config, workdir, utterances, store, trained)
    if copies := trained.get("copies"):
        condition_sources.require_others(copies["recordings"], condition_sources.content_hashes(config, "eval"))
    if config.eval.conditions:
        sources = condition_sources.load_for(config)
        card |= {"condition_sources": sources.fingerprint}
    if protocol.is_card_of(card, results) and _is_whole(config, workdir, sources, card["checkpoint"]):
        if not is_quiet:
            print(f"{results} is up to date")
        return results
    data = Data.of(config, store, (utterances, ratings), members)
    settings = settings_of(config, data)
    mesh = sharding.make_mesh(len(members))
    current = arrange(len(members), mesh.shape[sharding.MEMBER])
    params = load_members(workdir / "train", settings, members, mesh)
    predict_step = steps.compile_steps(settings, mesh, num_running=current.num_running).predict
    listener = None
    if sources is not None:
        layers = {layer for member in members for layer in data.layers_of(member)}
        listener = condition_frames.Listener.of(config, workdir, sorted(layers), sources)
    statistics = data.normalisation(list(data.splits))
    words = [*config.eval.splits, *([vocab.DEVELOPMENT] if config.eval.calibrate else [])]
    job = _Job(
        data=data,
        utterances=utterances,
        members=members,
        mesh=mesh,
        current=current,
        params=params,
        predict_step=predict_step,
        listener=listener,
        card=card,
        is_quiet=is_quiet,
        statistics=statistics,
        clean_speakers=speakers.of_store(data, members, words),
    )
    if config.eval.calibrate:
        job = dataclasses.replace(job, fitted=job.calibrate())
        calibration_fit.write(workdir / calibration_fit.FILE, job.fitted, card["checkpoint"])
    if sharding.is_first_process():
        (workdir / ENROLMENT_FOLDER / FILE).unlink(missing_ok=True)
    if config.eval.enrolment:
        write_records(workdir / ENROLMENT_FOLDER / FILE, job.curves())
    records = [record for split in config.eval.splits for record in job.split(split, workdir / "predictions")]
    write_records(results, records)
    return results


def _is_whole(config: Config, workdir: PurePath, sources: Sources | None, checkpoint: str) -> bool:
    """Whether all that a finished evaluation has written is there, as it was written."""
    conditions = (Condition(),) if sources is None else condition_sources.asked(config, sources)
    names = [predictions_file(split, condition) for split in config.eval.splits for condition in conditions]
    return (
        are_whole(workdir / FILE)
        and all((workdir / "predictions" / name).exists() for name in names)
        and (not config.eval.calibrate or calibration_fit.is_of(workdir, checkpoint))
        and (not config.eval.enrolment or are_whole(workdir / ENROLMENT_FOLDER / FILE))
    )


@dataclasses.dataclass(frozen=True)
class _Job:
    """An evaluation: who predicts what, and what every record carries."""

    data: Data
    utterances: pa.Table
    members: list[ensemble.Member]
    mesh: Mesh
    current: Arrangement
    params: Any
    predict_step: Callable
    listener: condition_frames.Listener | None
    card: dict[str, Any]
    is_quiet: bool
    statistics: dict[tuple[int | None, int], tuple[np.ndarray, np.ndarray]]
    clean_speakers: speakers.Statistics | None
    fitted: calibration_fit.Calibrations | None = None

    def predicted(
        self,
        data: Data,
        rows: dict[int | None, np.ndarray],
        shape: loader.Shape,
        heard: speakers.Statistics | None,
    ) -> list[Predicted]:
        """What every member says of the rows of its fold, under the statistics of the speakers as they are heard."""
        placement = Placement(self.members, self.mesh, self.current, self.statistics, speakers=heard)
        feed = Feed(data, placement, shape, rows, has_own_order=False)
        return predict(self.predict_step, self.params, feed, self.current)

    def calibrate(self) -> calibration_fit.Calibrations:
        """Fitted on the development split of each fold; nothing where one has no such split."""
        rows, predicted, section = self.rows(vocab.DEVELOPMENT), [], self.data.config.eval
        if all(part.size for part in rows.values()):
            predicted = self.predicted(self.data, rows, self._shape(section.splits[0]), self.clean_speakers)
        genders = self.utterances["gender"].to_pylist()
        development = calibration_fit.development_of(predicted, self.members, self.data.targets, genders)
        return calibration_fit.fit(development, self.members, section.coverage)

    @functools.cached_property
    def priors(self) -> speaker_priors.TrainingPriors:
        """Of all splits and curves, once they are asked for."""
        return speaker_priors.TrainingPriors.of(self.data, self.members)

    def curves(self) -> list[ResultRecord]:
        """Records of the curves of enrolment, of all splits."""
        known = prototypes.of_training(self.data, self.priors, self.params, self.mesh)
        records = []
        for split in self.data.config.eval.splits:
            said = prototypes.with_embeddings(self.data, self.members, self.params, self.mesh, self.rows(split))
            heads, section = enrolment.Heads.of(said, self.members), self.data.config.eval
            who = enrolment.speakers(heads, self.utterances, self.data.targets, max(section.enrolment), section.seed)
            curves = enrolment.Curves(heads, who, self.data.targets, self.members, known, self.fitted, section)
            records += enrolment.records(curves, self.utterances, split, self.card)
        return records

    def rows(self, split: str) -> dict[int | None, np.ndarray]:
        """Fold -> rows of the utterance table in this split."""
        return {fold: self.data.rows(fold, split) for fold in self.data.splits}

    def _shape(self, split: str) -> loader.Shape:
        """Of the batches of a split, and of the development split, too, whose predictions then compile nothing more."""
        # Compilation takes longer than predicting a split, so two splits share one shape where that is possible.
        rows, development = self.rows(split), self.rows(vocab.DEVELOPMENT)
        is_shared = self.data.config.eval.calibrate and all(part.size for part in development.values())
        return shape_of(self.data, rows, development if is_shared else rows)

    def split(self, split: str, folder: PurePath) -> list[ResultRecord]:
        """Records of one split in every condition; writes the predictions."""
        rows = self.rows(split)
        if not all(part.size for part in rows.values()):
            raise ArtefactError(f"eval.splits names {split!r}, but no utterance of {folder.parent} is in it")
        shape = self._shape(split)

        def predicted(
            data: Data, rows: dict[int | None, np.ndarray], heard: speakers.Statistics | None
        ) -> tuple[Predictions, list[ensemble.Member]]:
            pooled = pool_folds(self.predicted(data, rows, shape, heard), self.members, data.targets.ids)
            return mean_heads.with_means(*pooled, data.config.eval.means)

        def judged(
            heard: speakers.Statistics | None,
            frames: condition_frames.BlockFrames,
            num_frames: np.ndarray,
            block: np.ndarray,
        ) -> tuple:
            # Frames of a condition are made block by block and are not in the store: the data of this block read them
            # instead, by places of their own. Everything behind is the path of the clean split.
            places = np.full(len(self.data.targets.ids), -1, np.int64)
            places[block] = np.arange(len(block))
            data = dataclasses.replace(self.data, frames=frames, num_frames=num_frames, store_rows=places)
            in_block = {fold: part[np.isin(part, block)] for fold, part in rows.items()}
            predictions, _ = predicted(data, in_block, heard)
            return predictions.attributes, predictions.distribution

        clean, pooled = predicted(self.data, rows, self.clean_speakers)
        whole = np.unique(np.concatenate(list(rows.values())))
        # With folds the column `split` of the table is that of fold 0. Here it is what was predicted: the test parts of
        # all. Babble must not have voices that the members of the fold were trained on, so it is drawn part by part.
        by_part = with_words(self.utterances, {f"{split} {fold}": part for fold, part in rows.items()})
        listener = None if self.listener is None else dataclasses.replace(self.listener, utterances=by_part)
        conditions = (Condition(),) if listener is None else listener.conditions
        scorer = SplitScorer(
            split=split,
            rows=rows,
            utterances=with_words(self.utterances, {split: whole}),
            targets=self.data.targets,
            members=pooled,
            section=self.data.config.eval,
            card=self.card,
            fitted=self.fitted,
            folder=folder,
            priors=self.priors if self.data.config.eval.speaker_prior else None,
        )
        records, reference = [], None
        with Progress(len(conditions), f"evaluate {split}", "conditions", is_quiet=self.is_quiet) as progress:
            for condition in conditions:
                predictions = clean
                if condition != Condition():
                    judge = functools.partial(judged, self._speakers_in(listener, condition, whole))
                    attributes, distribution, _ = condition_frames.predict_condition(
                        listener, condition, whole, judge, self.is_quiet
                    )
                    predictions = Predictions(clean.utterances, attributes, distribution)
                scored, aligned = scorer.records(predictions, condition, reference)
                # The clean condition comes first, and all others are held against it.
                reference = reference or aligned
                records += scored
                progress.update(note=condition.id)
        return records

    def _speakers_in(
        self, listener: condition_frames.Listener, condition: Condition, rows: np.ndarray
    ) -> speakers.Statistics | None:
        """Statistics of the voices as they are heard in a condition, which takes a pass of its own over the audio."""
        if self.clean_speakers is None:
            return None
        layers = speakers.layers_of(self.data, self.members)
        return speakers.gathered(
            self.data, self.clean_speakers.voices, layers, condition_frames.each(listener, condition, rows, layers)
        )


def pool_folds(
    predicted: Sequence[Predicted], members: Sequence[ensemble.Member], ids: np.ndarray
) -> tuple[Predictions, list[ensemble.Member]]:
    """Members of different folds as one, each utterance predicted by the member that never saw its speaker.

    Args:
      predicted: Of each stream.
      members: The members.
      ids: [N] ids of the utterance table.

    Returns:
      Predictions of all utterances that some stream holds, and the members they stand for, without folds.
    """
    # Members that differ in their fold only become one. Each utterance is in the test part of one fold, so each cell of
    # the pooled arrays is written once, and NaN would show one that was not.
    pooled = list(dict.fromkeys(map(ensemble.without_fold, members)))
    rows = np.unique(np.concatenate([part.rows for part in predicted]))
    shapes = [(len(pooled), len(rows), array.shape[-1]) for array in predicted[0][2:4]]
    attributes, distribution = (np.full(shape, np.nan, np.float32) for shape in shapes)
    for part in predicted:
        places = np.searchsorted(rows, part.rows)
        for m, of_attributes, of_classes in zip(part.members, part.attributes, part.distribution, strict=True):
            e = pooled.index(ensemble.without_fold(members[m]))
            attributes[e, places], distribution[e, places] = of_attributes, of_classes
    return Predictions(ids[rows], attributes, distribution), pooled
