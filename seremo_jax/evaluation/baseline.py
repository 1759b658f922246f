"""The row that every user would pick instead of a head: logistic regression on pooled frames of a stored layer.

Mean and standard deviation of each feature over an utterance's frames, z-scored, then multinomial logistic regression:
on the votes, each class of an utterance weighing its share, or on the consensus; with and without classes balanced.
Attributes, where there are any, by ridge regression. Nothing is selected, so it learns from every utterance that isn't
in the test part, development ones, too. Source: OURS.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from jaxtyping import Float

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError, fingerprint_of, place_of, remove_leftovers
from seremo_jax.core.config import Config
from seremo_jax.core.lock import at_work
from seremo_jax.core.progress import Progress
from seremo_jax.core.schema import Predictions, ResultRecord
from seremo_jax.data.screening import with_words
from seremo_jax.data.tables import read_for
from seremo_jax.data.targets import Targets, without_no_agreement
from seremo_jax.evaluation import scoring
from seremo_jax.evaluation.alignment import align
from seremo_jax.evaluation.records import BASELINE_FOLDER, FILE, are_whole, write_predictions
from seremo_jax.evaluation.records import write as write_records
from seremo_jax.features.manifest import require_config
from seremo_jax.features.store import Reader
from seremo_jax.training import protocol
from seremo_jax.training.dataset import split_of, targets_by_role

STRENGTH = 0.003
"""C of scikit-learn's logistic regression: the inverse of its L2 penalty."""

_KINDS = ("soft_ce", "balanced_soft_ce")
"""Class losses of which the regression is the counterpart: with and without classes balanced."""

_ROWS_AT_ONCE = 256
_MOST_STEPS, _TOLERANCE = 2000, 1e-6


def pooled_frames(store: Reader, layer: int, rows: Sequence[int]) -> Float[np.ndarray, "N F"]:
    """Mean and standard deviation of every feature over the frames of each utterance, [N, 2 D] float32."""
    summaries = np.empty((len(rows), 2 * store.manifest["num_features"]), np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = list(rows[start : start + _ROWS_AT_ONCE])
        for i, frames in enumerate(store.read(layer, part), start):
            wide = np.asarray(frames, np.float32)
            summaries[i] = np.concatenate([wide.mean(axis=0), wide.std(axis=0)])
    return summaries


def fit_classes(
    features: Float[np.ndarray, "N F"],
    shares: Float[np.ndarray, "N C"],
    is_balanced: bool,
    heard: Float[np.ndarray, "M F"],
) -> Float[np.ndarray, "M C"]:
    """Fits the regression and predicts other utterances; classes that nobody chose in training get 0.

    Args:
      features: Of the training utterances, z-scored.
      shares: Their vote distribution, or one-hot consensus; a class weighs its share.
      is_balanced: Whether each class weighs the same in all.
      heard: Features of the utterances to predict.

    Raises:
      ArtefactError: Fewer than two classes are chosen in training.
    """
    from sklearn.linear_model import LogisticRegression

    # A distribution as several labelled rows of one utterance, each weighing its share: the log loss is then that of
    # soft cross-entropy, and scikit-learn needs no other interface.
    row, label = np.nonzero(shares)
    classes = np.unique(label)
    if len(classes) < 2:
        raise ArtefactError(f"{len(classes)} class in the training utterances: a regression needs two or more")
    weight = shares[row, label].astype(np.float64)
    if is_balanced:
        weight *= weight.sum() / len(classes) / np.bincount(label, weight, minlength=shares.shape[1])[label]
    model = LogisticRegression(C=STRENGTH, max_iter=_MOST_STEPS, tol=_TOLERANCE).fit(
        features[row], label, sample_weight=weight
    )
    predicted = np.zeros((len(heard), shares.shape[1]), np.float32)
    predicted[:, classes] = model.predict_proba(heard)
    return predicted


def fit_attributes(
    features: Float[np.ndarray, "N F"], targets: Targets, rows: np.ndarray, heard: Float[np.ndarray, "M F"]
) -> Float[np.ndarray, "M A"]:
    """Ridge regression of each attribute on the rows where it's rated; 0 where it's rated in none."""
    from sklearn.linear_model import Ridge

    predicted = np.zeros((len(heard), targets.attributes.shape[1]), np.float32)
    for a in range(predicted.shape[1]):
        is_rated = targets.has_attribute[rows, a]
        if is_rated.any():
            model = Ridge(alpha=1 / STRENGTH).fit(features[is_rated], targets.attributes[rows[is_rated], a])
            predicted[:, a] = model.predict(heard)
    return predicted


def run(config: Config, workdir: str | os.PathLike, is_quiet: bool = False) -> PurePath:
    """Fits and evaluates the regression on `eval.splits`; writes `WORKDIR/baseline/`, and `results.jsonl` in it last.

    With `ensemble.folds`, each utterance is predicted by the regression of the fold whose test part it's in.

    Raises:
      ArtefactError: An artefact of an earlier stage is missing or belongs to other settings, a split is empty, or
        scikit-learn is not installed.
    """
    try:
        import sklearn
    except ImportError:
        raise ArtefactError(
            "the baseline needs scikit-learn: pip install 'seremo_jax[baseline]', or pip install scikit-learn"
        ) from None
    workdir = place_of(workdir)
    with at_work(workdir, "baseline"):
        return _run(config, workdir, is_quiet, sklearn.__version__)


def _run(config: Config, workdir: PurePath, is_quiet: bool, version: str) -> PurePath:
    folder = workdir / BASELINE_FOLDER
    for place in (folder, folder / "predictions"):
        remove_leftovers(place)
    utterances, ratings, fingerprint = read_for(config, workdir)
    store = Reader(workdir / "store")
    store.require(tables_fingerprint=fingerprint)
    require_config(store.path, store.manifest, config)
    targets, learned = targets_by_role(config, utterances, ratings)
    like = ensemble.members_in(workdir, config)
    members = members_of(config, like, store.layers)
    checkpoint = fingerprint_of({"baseline": STRENGTH, "scikit-learn": version})
    card = protocol.card(
        config, workdir, utterances, store, {"checkpoint_id": checkpoint, "members": list(map(vars, like))}
    )
    results = folder / FILE
    if protocol.is_card_of(card, results) and are_whole(results):
        if not is_quiet:
            print(f"{results} is up to date")
        return results
    folds = config.ensemble.folds or (None,)
    splits = {fold: split_of(config, utterances, fold) for fold in folds}
    layers = {member.fold: member.layer for member in like}
    records: list[ResultRecord] = []
    with Progress(
        len(config.eval.splits) * len(folds) * len(members), "baseline", "regressions", is_quiet=is_quiet
    ) as progress:
        for split in config.eval.splits:
            keep = config.data.keep_no_agreement
            predictions = _predictions(store, (targets, learned), members, (splits, layers), split, keep, progress)
            path = results.parent / "predictions" / f"{split}_{vocab.CLEAN}.parquet"
            origin = write_predictions(path, predictions, members, targets, checkpoint)
            table = with_words(utterances, {split: np.isin(targets.ids, predictions.utterances)})
            scored = _scored(config, predictions, targets, table, members, split, card)
            records += [dataclasses.replace(record, predictions=origin) for record in scored]
    write_records(results, records)
    return results


def members_of(config: Config, like: Sequence[ensemble.Member], stored: Sequence[int]) -> list[ensemble.Member]:
    """Every layer of the config x class target x class balancing; what else tells heads apart means nothing here.

    Args:
      config: The experiment.
      like: Members that heads of this experiment would have.
      stored: Layers of the store, which stand for a learned sum of them.
    """
    # A learned sum of layers has none of its own.
    layers = (ensemble.BY_FOLD,) if like[0].is_layer_by_fold else ensemble.layers(like) or tuple(stored)
    targets = config.ensemble.class_targets or vocab.CLASS_TARGETS
    return [
        dataclasses.replace(like[0], layer=layer, class_target=target, class_kind=kind, seed=0, data_seed=0, fold=None)
        for layer in layers for target in targets for kind in _KINDS
    ]  # fmt: skip


def _predictions(
    store: Reader, by_role: tuple[Targets, Targets], members: Sequence[ensemble.Member],
    by_fold: tuple[dict[int | None, np.ndarray], dict[int | None, int]], split: str, keep_no_agreement: str,
    progress: Progress,
) -> Predictions:  # fmt: skip
    """What every regression says; `by_fold` has the splits of each fold, and the layer that heads read there."""
    (targets, learned_from), (splits, layer_of) = by_role, by_fold
    place = {utterance: row for row, utterance in enumerate(store.utterances)}
    absent = [utterance for utterance in targets.ids if utterance not in place]
    if absent:
        raise ArtefactError(f"{len(absent)} utterances of the table, {absent[0]!r} first, are not in the store "
                            f"{store.path}: run python -m launch.extract again")  # fmt: skip
    rows = np.unique(np.concatenate([np.flatnonzero(of_fold == split) for of_fold in splits.values()]))
    if not len(rows):
        raise ArtefactError(f"eval.splits names {split!r}, but no utterance is in it")
    shape = (len(members), len(rows))
    attributes = np.full((*shape, targets.attributes.shape[1]), np.nan, np.float32)
    distribution = np.full((*shape, len(targets.class_names)), np.nan, np.float32)
    wanted = [
        (layer_of[fold] if member.layer == ensemble.BY_FOLD else member.layer, fold, e)
        for fold in splits
        for e, member in enumerate(members)
    ]
    for layer in dict.fromkeys(layer for layer, _, _ in wanted):
        features = pooled_frames(store, layer, [place[utterance] for utterance in targets.ids])
        for fold, of_fold in splits.items():
            if not (reading := [e for other, of, e in wanted if (other, of) == (layer, fold)]):
                continue
            here = np.flatnonzero(of_fold == split)
            learned = np.flatnonzero(_is_learned(of_fold, split))
            # Standardised by what the regression learns from, fold by fold: no number of a test utterance enters.
            mean, sd = features[learned].mean(axis=0), features[learned].std(axis=0)
            scaled = (features - mean) / np.where(sd < 1e-6, 1, sd)
            at = np.searchsorted(rows, here)
            rated = fit_attributes(scaled[learned], targets, learned, scaled[here])
            # Votes without a consensus may count in training only, and that is another split in each fold.
            taught_by = without_no_agreement(learned_from, keep_no_agreement, of_fold == vocab.TRAIN)
            tables = {
                "votes": (taught_by.distribution, taught_by.has_votes),
                "consensus": (targets.consensus, targets.has_consensus),
            }
            for e in reading:
                shares, is_there = tables[members[e].class_target]
                taught = learned[is_there[learned]]
                is_balanced = vocab.CLASS_LOSSES[members[e].class_kind].is_balanced
                attributes[e, at] = rated
                distribution[e, at] = fit_classes(scaled[taught], shares[taught], is_balanced, scaled[here])
            progress.update(len(reading))
    return Predictions(targets.ids[rows], attributes, distribution)


def _is_learned(splits: np.ndarray, split: str) -> np.ndarray:
    """Training and development utterances; of these not the ones that are predicted."""
    return ((splits == vocab.TRAIN) | (splits == vocab.DEVELOPMENT)) & (splits != split)


def _scored(
    config: Config, predictions: Predictions, targets: Targets, table: Any, members: Sequence[ensemble.Member],
    split: str, card: dict[str, Any],
) -> list[ResultRecord]:  # fmt: skip
    aligned = align(predictions, targets, table, num_members=len(members), split=split, group_by=config.eval.group_by)
    return scoring.score(aligned, scoring.ScoreRequest(systems(members), split, config.eval, card))


def systems(members: Sequence[ensemble.Member]) -> list[tuple[list[int], dict[str, Any]]]:
    """Each regression as a system of its own, as `core.ensemble.systems` describes those of heads."""
    differing = ["layer"] if len({member.layer for member in members}) > 1 else []
    described = []
    for row, member in enumerate(members):
        axes = {
            "model": "regression",
            "num_heads": 1,
            "varying": [*differing, "is_balanced"],
            "layer": member.layer,
            "class_target": member.class_target,
            "is_balanced": vocab.CLASS_LOSSES[member.class_kind].is_balanced,
        }
        about = {"system": ensemble.label(axes), "layer": member.layer, "seeds": (member.seed,), "axes": axes}
        described.append(([row], about))
    return described
