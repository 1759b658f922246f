"""Evaluation of a trained model on another corpus than the one it was trained on, scored as a test split is.

The corpus is ingested, heard through the model's own backbone, layers, windows, level and feature statistics, and
scored against the votes for the model's classes. Records and predictions lie where an evaluation leaves them, so that
the report and all tables read them. Source: METHOD.md, section 9.1 (OURS).
"""

import dataclasses
import functools
import os
from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from seremo_jax.conditions import sources as condition_sources
from seremo_jax.conditions.render import Sources
from seremo_jax.core import commands, ensemble, sharding, vocab
from seremo_jax.core.artefacts import (
    ArtefactError,
    fingerprint_of,
    place_of,
    read_json,
    remove_leftovers,
    remove_tree,
)
from seremo_jax.core.config import Config
from seremo_jax.core.lock import at_work
from seremo_jax.core.schema import Predictions
from seremo_jax.data import audio_batches, ingest, roots, tables
from seremo_jax.data.screening import with_words
from seremo_jax.data.targets import Targets
from seremo_jax.evaluation import calibration_fit, mean_heads
from seremo_jax.evaluation.records import FILE, are_whole
from seremo_jax.evaluation.records import write as write_records
from seremo_jax.evaluation.split_records import SplitScorer, predictions_file
from seremo_jax.features import condition_frames
from seremo_jax.predict import (
    cross_checks,
    cross_settings,
    heard_parts,
    hub_folder,
    model_backbone,
    model_folder,
    model_record,
)
from seremo_jax.predict.class_map import ClassMap
from seremo_jax.predict.model_folder import Model
from seremo_jax.reports import validation
from seremo_jax.training import protocol
from seremo_jax.training.dataset import targets_by_role

_EVERY_MEMBER = ("*",)


def run(
    config: Config,
    model: str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    members: Sequence[str] = (),
    backbone: str | os.PathLike | None = None,
    asked: Collection[str] = (),
    is_quiet: bool = False,
) -> PurePath:
    """Scores a model on the corpus of a config; writes its tables, `predictions/` and, last, `results.jsonl`.

    Every utterance is heard, as the model knows none of the speakers, unless `asked` has `eval.splits`. What is
    finished is left alone, and a run that was cut off goes on where it was.

    Args:
      config: Of the other corpus: what it is, its label policies, and how scores are made.
      model: A model folder, or a workdir with a finished training, all members of which are scored.
      workdir: Folder of the scores. It may hold the tables of the corpus, and no training.
      members: Which members of a workdir, see `model_folder.pick`.
      backbone: Where the model's backbone is, if not where the model says.
      asked: Fields that the user asked for beyond the recipe; those that the model has settled are refused.
      is_quiet: Shows no progress.

    Raises:
      ArtefactError: No model, or a damaged one; the workdir holds something else; the corpora share fewer than two
        classes, or are the same; or another process is at work in this workdir.
      IngestError, CorpusError: See `ingest.run`.
    """
    if jax.process_count() > 1:
        raise ArtefactError("a model hears another corpus in one process: leave out --distributed")
    for name in ("speaker_prior", "enrolment"):
        if getattr(config.eval, name):
            raise ArtefactError(f"eval.{name} is not offered for a model on another corpus: leave it empty")
    workdir, place = place_of(workdir), hub_folder.place(model)
    cross_checks.require_free(workdir, place)
    is_folder = (place / model_record.RECORD_FILE).exists()
    read = model_folder.read(place, members or (() if is_folder else _EVERY_MEMBER))
    model_backbone.require_here(place, read.about, backbone)  # before the corpus is read, which may take hours
    heard, told = cross_settings.heard_config(config, read.about, asked)
    with at_work(workdir, "evaluate"):
        cross_checks.require_scores_of(workdir, read.about)
        remove_leftovers(workdir, f"{FILE}.*")
        remove_leftovers(workdir / "predictions")
        ingest.run(heard, workdir, is_quiet)
        if not (workdir / validation.FOLDER / "index.html").exists():
            validation.write_page(workdir)
        job = _Job.of(heard, read, place, workdir, is_quiet=is_quiet, has_splits="eval.splits" in asked)
        for sentence in (*job.said(), *told) if not is_quiet else ():
            print(sentence, flush=True)
        return job.run(backbone)


@dataclasses.dataclass(frozen=True)
class _Job:
    """A model, and the corpus that it is scored on.

    Attributes:
      config: Under which the corpus is heard and scored.
      model: The model.
      place: Where it was read.
      workdir: Folder of the scores.
      utterances: Utterance table of the corpus.
      fingerprint: Of its tables.
      targets: Their targets in the model's classes; attributes that it does not know are masked.
      rows_of: Split -> rows that are heard.
      class_maps: Of each split.
      sources: Noises and rooms.
      card: The protocol card.
      is_quiet: Shows no progress.
    """

    config: Config
    model: Model
    place: PurePath
    workdir: PurePath
    utterances: pa.Table
    fingerprint: str
    targets: Targets
    rows_of: dict[str, np.ndarray]
    class_maps: dict[str, ClassMap]
    sources: Sources
    card: dict[str, Any]
    is_quiet: bool

    @classmethod
    def of(
        cls, config: Config, model: Model, place: PurePath, workdir: PurePath, *, is_quiet: bool, has_splits: bool
    ) -> "_Job":
        """Reads the tables of the corpus and holds them against the model.

        Raises:
          ArtefactError: See `run`.
        """
        utterances, ratings, fingerprint = tables.read_for(config, workdir)
        targets = _masked(targets_by_role(config, utterances, ratings)[0], model.about)
        words = utterances["split"].to_pylist()
        rows_of = {vocab.TEST: np.arange(utterances.num_rows)}
        if has_splits:
            rows_of = {split: np.flatnonzero(np.array(words) == split) for split in config.eval.splits}
        for split, rows in rows_of.items():
            if not rows.size:
                there = ", ".join(sorted(set(words)))
                raise ArtefactError(f"eval.splits names {split!r}, but no utterance of {workdir} is in it: {there}")
        info, trained = tables.info_of(utterances), cross_settings.trained_on(model.about)
        ingested = read_json(workdir / tables.STAMP_FILE, "run python -m launch.ingest with this --workdir")
        cross_checks.require_other(ingested, model.about, trained, list(rows_of) if has_splits else None)
        cross_checks.require_other_recordings(utterances, rows_of, place)
        class_maps = {split: ClassMap.of(targets, rows) for split, rows in rows_of.items()}
        for class_map in class_maps.values():
            class_map.require_common(info.corpus, str(trained["corpus"]))
        sources = condition_sources.load_for(config)
        if copies := model.about.get("copies"):
            condition_sources.require_others(copies["recordings"], condition_sources.content_hashes(config, "eval"))
        own = {
            "corpus": info.corpus,
            "release": info.release,
            "is_simulated": info.is_simulated,
            "notes": [*info.notes, *_notes(info.corpus, info.release, trained, model.about)],
            "split_hash": ingested["split_hash"],
            "classes": model.about["classes"],
            "checkpoint": model.about["checkpoint"],
            "settings": (settings := cross_settings.card_settings(config, model.about, ingested["settings"])),
            "fingerprint": fingerprint_of(settings),
            "metrics": protocol.catalogue_fingerprint(),
            "code_version": protocol.code_version(),
            "commit": protocol.commit(),
            "trained_on": trained,
            "members": [member["name"] for member in model.about["members"]],
            "heard": ", ".join(rows_of) if has_splits else "every utterance",
            "class_map": {split: class_map.card() for split, class_map in class_maps.items()},
        }
        if heard := protocol.transductive(model.about["members"]):
            cross_checks.require_speakers(utterances, rows_of)
            own |= {"transductive": heard, "notes": [*own["notes"], protocol.TRANSDUCTIVE]}
        left_out = ("store", "transductive", *own)
        of_the_model = {name: value for name, value in model.about["protocol"].items() if name not in left_out}
        if config.eval.conditions != (vocab.CLEAN,):
            own["condition_sources"] = sources.fingerprint
        return cls(config, model, place, workdir, utterances, fingerprint, targets, rows_of, class_maps, sources,
                   of_the_model | own, is_quiet)  # fmt: skip

    def said(self) -> list[str]:
        """What the user reads before the corpus is heard."""
        about, trained = self.model.about, self.card["trained_on"]
        layers = ", ".join(map(str, about["layers"]))
        lines = [
            f"{self.place}: {len(about['members'])} members, layers {layers} of {about['backbone']['name']}, trained "
            f"on {trained['corpus']} ({trained['release']})"
        ]
        for split, rows in self.rows_of.items():
            words = self.class_maps[split].in_words(self.card["corpus"], str(trained["corpus"]))
            what = self.card["heard"] if self.card["heard"] == "every utterance" else f"split {split}"
            lines.append(f"{self.card['corpus']} ({self.card['release']}), {what}: {len(rows)} utterances\n  {words}")
        return lines

    def run(self, backbone: str | os.PathLike | None) -> PurePath:
        """Hears and scores; see `cross_corpus.run`."""
        results, folder = self.workdir / FILE, self.workdir / "predictions"
        conditions = condition_sources.asked(self.config, self.sources)
        names = [predictions_file(split, condition) for split in self.rows_of for condition in conditions]
        is_whole = are_whole(results) and all((folder / name).exists() for name in names)
        if protocol.is_card_of(self.card, results) and is_whole:
            if not self.is_quiet:
                print(f"{results} is up to date")
            return results
        listener = self._listener(backbone)
        parts = heard_parts.Parts(folder / heard_parts.FOLDER, self._origin(listener))
        predict = heard_parts.HeadPass(self.model)
        members = [_member(entry) for entry in self.model.about["members"]]
        names = [entry["name"] for entry in self.model.about["members"]]
        fitted = None
        if self.config.eval.calibrate:
            fitted = calibration_fit.restored(self.model.about.get("calibrations"), members, names)
        records = []
        for split, rows in self.rows_of.items():
            in_split = with_words(self.utterances, {split: rows})
            here = dataclasses.replace(listener, utterances=in_split)
            scorer, reference = None, None
            for condition in conditions:
                kept = parts.of(f"{split}_{condition.file_name}")
                judge = predict
                if self.model.heads.kappa_s is not None and not heard_parts.are_all(kept, here.rows_of_blocks(rows)):
                    judge = functools.partial(predict, voice_of=heard_parts.voices_in(here, condition, rows))
                attributes, distribution, _ = condition_frames.predict_condition(
                    here, condition, rows, judge, self.is_quiet, kept
                )
                predictions = Predictions(self.targets.ids[rows], attributes, distribution)
                predictions, pooled = mean_heads.with_means(predictions, members, self.config.eval.means)
                scorer = scorer or SplitScorer(
                    split=split,
                    rows={None: rows},
                    utterances=in_split,
                    targets=self.targets,
                    members=pooled,
                    section=self.config.eval,
                    card=self.card,
                    fitted=fitted,
                    folder=folder,
                )
                scored, aligned = scorer.records(predictions, condition, reference)
                # The clean condition comes first, and all others are held against it.
                reference = reference or aligned
                records += scored
        write_records(results, records)
        remove_tree(folder / heard_parts.FOLDER)
        if not self.is_quiet:
            print(commands.as_called(f"{results}: next: python -m launch.report --workdir={self.workdir}"))
        return results

    def _listener(self, backbone: str | os.PathLike | None) -> condition_frames.Listener:
        """Hears the corpus as the model heard its own."""
        root = roots.audio_root(self.config, self.workdir)
        recordings = audio_batches.Recordings.of(self.utterances, root)
        loaded, layers = model_backbone.load(self.place, self.model, backbone), tuple(self.model.about["layers"])
        return condition_frames.Listener(
            self.config, self.utterances, recordings, self.sources, loaded, layers, sharding.make_data_mesh()
        )

    def _origin(self, listener: condition_frames.Listener) -> dict[str, Any]:
        """All that decides what is predicted of a block."""
        about, section = self.model.about, self.config.eval
        lengths = {
            split: [len(block) for block in listener.rows_of_blocks(rows)] for split, rows in self.rows_of.items()
        }
        return {
            "model": fingerprint_of([about["checkpoint"], self.card["members"], about["backbone"]]),
            "tables": self.fingerprint,
            "conditions": fingerprint_of([section.condition_seed, section.direct_to_tail_db, self.sources.fingerprint]),
            "blocks": fingerprint_of([self.card["split_hash"], self.card["heard"], lengths]),
        }


def _member(entry: dict[str, Any]) -> ensemble.Member:
    """A member as a model records it; fields that its version did not know have their defaults."""
    known = {field.name for field in dataclasses.fields(ensemble.Member)}
    try:
        return ensemble.Member(**{name: value for name, value in entry.items() if name in known})
    except TypeError as error:
        raise ArtefactError(f"the model's member {entry.get('name')!r} is none ({error}): export it again") from None


def _masked(targets: Targets, about: dict[str, Any]) -> Targets:
    """Targets without the attributes of which the model says nothing that compares."""
    is_known = np.array([item["is_trained"] for item in about["attributes"]], bool)
    is_known &= cross_settings.has_comparable_attributes(about)
    return dataclasses.replace(targets, has_attribute=targets.has_attribute & is_known[None, :])


def _notes(corpus: str, release: str, trained: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """What belongs under every table made of these scores."""
    notes = [f"The model was trained on {trained['corpus']} ({trained['release']})."]
    for name, other in sorted(cross_settings.corpora_of(trained)):
        if corpus == name and release != other:
            notes.append(
                f"Both are releases of {corpus}: speakers of {release} may be among those that the model was trained "
                "on."
            )
    if not cross_settings.has_comparable_attributes(about):
        notes.append("Attributes are not scored: the model gives them on the scale of its own corpus.")
    return notes
