"""The row that every user would pick instead of a head: logistic regression on pooled frames of a stored layer.

Mean and standard deviation of each feature over an utterance's frames, z-scored, then multinomial logistic regression:
on the votes, each class of an utterance weighing its share, or on the consensus; with and without classes balanced.
Attributes, where there are any, by ridge regression. It learns from the training utterances, as heads do. Its penalty
is chosen from `regression.STRENGTHS` on the development utterances of each fold, by the score that chooses the epoch
of a head (`train.selection`). The mean of three of the regressions is a system of its own, and so is that over all
layers of heads on several. Heads that were evaluated before are compared with them by speaker (`against_regression`).
Source: OURS.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError, fingerprint_of, place_of, remove_leftovers, write_json
from seremo_jax.core.config import Config
from seremo_jax.core.lock import at_work
from seremo_jax.core.progress import Progress
from seremo_jax.core.schema import Predictions, ResultRecord, System
from seremo_jax.data.screening import with_words
from seremo_jax.data.tables import read_for
from seremo_jax.data.targets import Targets, without_no_agreement
from seremo_jax.evaluation import against_regression, mean_heads, scoring
from seremo_jax.evaluation.alignment import align
from seremo_jax.evaluation.records import BASELINE_FOLDER, FILE, are_whole, write_predictions
from seremo_jax.evaluation.records import write as write_records
from seremo_jax.evaluation.regression import (
    SOLVER,
    STRENGTHS,
    best_for_attributes,
    best_for_classes,
    fit_attributes,
    fit_classes,
    library_version,
    pooled_frames,
)
from seremo_jax.features.manifest import require_config
from seremo_jax.features.store import Reader
from seremo_jax.training import protocol
from seremo_jax.training.balance import groups_of
from seremo_jax.training.dataset import split_of, targets_by_role
from seremo_jax.training.selection import require_labels

CHOSEN_FILE = "chosen.json"
"""Below the folder of the records: the strength that each regression has in each fold, and every development score."""

_KINDS = ("soft_ce", "balanced_soft_ce")
"""Class losses of which the regression is the counterpart: with and without classes balanced."""

_ALIKE: dict[str, Any] = {"seed": 0, "data_seed": 0, "fold": None, "speaker_kappa_s": vocab.NO_SPEAKER}
"""Fields of a head that no regression differs in. Features of all are brought to the training split's statistics."""

_AVERAGED = (("votes", "soft_ce"), ("votes", "balanced_soft_ce"), ("consensus", "balanced_soft_ce"))
"""Class target and class loss of the regressions that the mean is over."""


def run(config: Config, workdir: str | os.PathLike, is_quiet: bool = False) -> PurePath:
    """Fits and evaluates the regression on `eval.splits`; writes `WORKDIR/baseline/`, and `results.jsonl` in it last.

    With `ensemble.folds`, each utterance is predicted by the regression of the fold whose test part it's in.

    Raises:
      ArtefactError: An artefact of an earlier stage is missing or belongs to other settings, a split is empty, or
        scikit-learn is not installed.
    """
    version, workdir = library_version(), place_of(workdir)
    with at_work(workdir, "baseline"):
        return _run(config, workdir, is_quiet, version)


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
    single = members_of(config, like, store.layers)
    members = single + [member for _, member in means_of(single)]
    checkpoint = fingerprint_of(
        {"baseline": STRENGTHS, "averaged": _AVERAGED, "solver": SOLVER, "scikit-learn": version}
    )
    of_layers = [vars(member) | {"speaker_kappa_s": vocab.NO_SPEAKER} for member in like]
    card = protocol.card(config, workdir, utterances, store, {"checkpoint_id": checkpoint, "members": of_layers})
    results, chosen_path = folder / FILE, folder / CHOSEN_FILE
    heads = list(dict.fromkeys(map(ensemble.without_fold, like)))
    heads += [member for _, member in mean_heads.means_of(heads, config.eval.means)]
    both = ensemble.systems(list(map(vars, heads))), systems(single)
    if protocol.is_card_of(card, results) and are_whole(results) and chosen_path.exists():
        words = [f"{results} is up to date", against_regression.update(config, workdir, (utterances, targets), both)]
        if not is_quiet:
            print(*words, sep="\n")
        return results
    folds = config.ensemble.folds or (None,)
    source = _Source(
        targets=targets,
        learned=learned,
        keep_no_agreement=config.data.keep_no_agreement,
        splits={fold: split_of(config, utterances, fold) for fold in folds},
        layers={member.fold: member.layer for member in like},
        speaker=groups_of(utterances, config.train.group_by, ()).speaker,
        selection=config.train.selection,
    )
    records: list[ResultRecord] = []
    chosen: dict[str, list[dict[str, Any]]] = {}
    with Progress(
        len(config.eval.splits) * len(folds) * len(single), "baseline", "regressions", is_quiet=is_quiet
    ) as progress:
        for split in config.eval.splits:
            predictions, chosen[split] = _predictions(store, source, single, split, progress)
            path = results.parent / "predictions" / f"{split}_{vocab.CLEAN}.parquet"
            origin = write_predictions(path, predictions, members, targets, checkpoint)
            table = with_words(utterances, {split: np.isin(targets.ids, predictions.utterances)})
            scored = _scored(config, predictions, targets, table, single, split, card)
            records += [dataclasses.replace(record, predictions=origin) for record in scored]
    write_json(chosen_path, {"strengths": STRENGTHS, "checkpoint_id": checkpoint, "splits": chosen})
    write_records(results, records)
    compared = against_regression.update(config, workdir, (utterances, targets), both)
    if not is_quiet:
        print(*_in_words(next(iter(chosen.values()))), compared, sep="\n")
    return results


def members_of(config: Config, like: Sequence[ensemble.Member], stored: Sequence[int]) -> list[ensemble.Member]:
    """Every layer of the config x class target x class balancing; what else tells heads apart means nothing here.

    Both class targets, whatever heads learn from: the mean of regressions, which is the row to beat, is over both.

    Args:
      config: The experiment.
      like: Members that heads of this experiment would have.
      stored: Layers of the store, which stand for a learned sum of them.
    """
    # A learned sum of layers has none of its own.
    layers = (ensemble.BY_FOLD,) if like[0].is_layer_by_fold else ensemble.layers(like) or tuple(stored)
    return [
        dataclasses.replace(like[0], layer=layer, class_target=target, class_kind=kind, **_ALIKE)
        for layer in layers for target in vocab.CLASS_TARGETS for kind in _KINDS
    ]  # fmt: skip


def means_of(single: Sequence[ensemble.Member]) -> list[tuple[list[int], ensemble.Member]]:
    """The regressions of each mean, and that mean as a member: one of each layer, then one over several layers."""
    kinds = tuple(kind for _, kind in _AVERAGED)
    by_layer = {}
    for layer in dict.fromkeys(member.layer for member in single):
        place = {(m.class_target, m.class_kind): i for i, m in enumerate(single) if m.layer == layer}
        if set(_AVERAGED) <= set(place):
            by_layer[layer] = [place[kind] for kind in _AVERAGED]
    if len(by_layer) > 1:
        by_layer[ensemble.EVERY_LAYER] = [row for rows in by_layer.values() for row in rows]
    like = {"seed": ensemble.MEAN, "class_target": vocab.BOTH_TARGETS, "class_kind": kinds}
    return [(rows, dataclasses.replace(single[rows[0]], layer=layer, **like)) for layer, rows in by_layer.items()]


@dataclasses.dataclass(frozen=True)
class _Source:
    """What the regressions learn from.

    Attributes:
      targets: Those that are scored and chosen by.
      learned: Those that are learned from, before `keep_no_agreement`.
      keep_no_agreement: Whether votes without a consensus count; see `data.targets`.
      splits: Split of every utterance, by fold.
      layers: Layer that heads read, by fold.
      speaker: Speaker of every utterance, see `training.balance.Groups`.
      selection: Score that picks a penalty, see `vocab.SELECTION_SCORES`.
    """

    targets: Targets
    learned: Targets
    keep_no_agreement: str
    splits: dict[int | None, np.ndarray]
    layers: dict[int | None, int]
    speaker: np.ndarray
    selection: str = "ccc"


def _predictions(
    store: Reader, source: _Source, members: Sequence[ensemble.Member], split: str, progress: Progress
) -> tuple[Predictions, list[dict[str, Any]]]:
    """What every regression says, their means last, and the strength that each of them has in each fold."""
    targets = source.targets
    place = {utterance: row for row, utterance in enumerate(store.utterances)}
    absent = [utterance for utterance in targets.ids if utterance not in place]
    if absent:
        raise ArtefactError(f"{len(absent)} utterances of the table, {absent[0]!r} first, are not in the store "
                            f"{store.path}: run python -m launch.extract again")  # fmt: skip
    rows = np.unique(np.concatenate([np.flatnonzero(of_fold == split) for of_fold in source.splits.values()]))
    if not len(rows):
        raise ArtefactError(f"eval.splits names {split!r}, but no utterance is in it")
    shape = (len(members), len(rows))
    attributes = np.full((*shape, targets.attributes.shape[1]), np.nan, np.float32)
    distribution = np.full((*shape, len(targets.class_names)), np.nan, np.float32)
    chosen = []
    wanted = [
        (source.layers[fold] if member.layer == ensemble.BY_FOLD else member.layer, fold, e)
        for fold in source.splits
        for e, member in enumerate(members)
    ]
    for layer in dict.fromkeys(layer for layer, _, _ in wanted):
        features = pooled_frames(store, layer, [place[utterance] for utterance in targets.ids])
        for fold in source.splits:
            if reading := [e for *there, e in wanted if there == [layer, fold]]:
                predicted, strengths = _of_fold(source, features, fold, split, [members[e] for e in reading])
                at = np.searchsorted(rows, np.flatnonzero(source.splits[fold] == split))
                attributes[np.ix_(reading, at)], distribution[np.ix_(reading, at)] = predicted
                chosen += [{"fold": fold, "layer": layer, **strength} for strength in strengths]
                progress.update(len(reading))
    for behind, _ in means_of(members):
        attributes = np.concatenate([attributes, attributes[behind].mean(axis=0, keepdims=True)])
        distribution = np.concatenate([distribution, distribution[behind].mean(axis=0, keepdims=True)])
    return Predictions(targets.ids[rows], attributes, distribution), chosen


# The products of a fit are small: on two threads it takes twice as long as on one, and longer beside other jobs.
@threadpool_limits.wrap(limits=1, user_api="blas")
def _of_fold(
    source: _Source, features: Float[np.ndarray, "N F"], fold: int | None, split: str,
    members: Sequence[ensemble.Member],
) -> tuple[tuple[np.ndarray, np.ndarray], list[dict[str, Any]]]:  # fmt: skip
    """Attributes [m, n, A] and distributions [m, n, C] of a fold's part of the split, and each member's strength."""
    targets, of_fold = source.targets, source.splits[fold]
    is_train = of_fold == vocab.TRAIN
    learned, judged, here = (np.flatnonzero(of_fold == part) for part in (vocab.TRAIN, vocab.DEVELOPMENT, split))
    judged = judged[(targets.has_votes | targets.has_attribute.any(axis=1))[judged]]
    if len(judged) < 2:
        raise ArtefactError(
            f"the development split{'' if fold is None else f' of fold {fold}'} has {len(judged)} labelled utterances: "
            "the regression's penalty is chosen on them, and needs 2 or more. Check data.split_shares"
        )
    require_labels(source.selection, targets, {fold: judged}, source.speaker)
    # Standardised by what the regression learns from, fold by fold: no number of a test utterance enters.
    mean, sd = features[learned].mean(axis=0), features[learned].std(axis=0)
    scaled = (features - mean) / np.where(sd < 1e-6, 1, sd)
    heard, num_judged = scaled[np.concatenate([judged, here])], len(judged)
    # Votes without a consensus may count in training only, and that is another split in each fold.
    votes = without_no_agreement(source.learned, source.keep_no_agreement, is_train)
    tables = {
        "votes": (votes.distribution, votes.has_votes),
        "consensus": (targets.consensus, targets.has_consensus),
    }
    rated = fit_attributes(scaled[learned], targets, learned, heard, STRENGTHS)
    rated_best = best_for_attributes(rated[:, :num_judged], judged, targets, source.selection)
    attributes = np.broadcast_to(rated[rated_best, num_judged:], (len(members), *rated[0, num_judged:].shape))
    distributions, chosen = [], []
    for member in members:
        shares, is_there = tables[member.class_target]
        taught = learned[is_there[learned]]
        is_balanced = vocab.CLASS_LOSSES[member.class_kind].is_balanced
        offered = None if targets.is_offered is None else targets.is_offered[taught]
        predicted = fit_classes(scaled[taught], shares[taught], is_balanced, heard, STRENGTHS, offered)
        best, scores = best_for_classes(
            predicted[:, :num_judged], judged, targets, member.class_target,
            is_balanced=is_balanced, score=source.selection, speaker=source.speaker,
        )  # fmt: skip
        distributions.append(predicted[best, num_judged:])
        chosen.append(
            {
                "class_target": member.class_target,
                "is_balanced": is_balanced,
                "strength": STRENGTHS[best],
                "development_scores": scores,
                "attribute_strength": STRENGTHS[rated_best] if rated.shape[2] else None,
            }
        )
    return (attributes, np.stack(distributions)), chosen


def _in_words(chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each regression: the strength it has in each fold."""
    by_regression: dict[tuple, list[str]] = {}
    for entry in chosen:
        key = (entry["class_target"], entry["is_balanced"])
        by_regression.setdefault(key, []).append(f"{entry['strength']:g}")
    return [
        f"{target}{', classes balanced' if is_balanced else ''}: C = {', '.join(strengths)}, chosen on development "
        "utterances"
        for (target, is_balanced), strengths in by_regression.items()
    ]


def _scored(
    config: Config, predictions: Predictions, targets: Targets, table: Any, members: Sequence[ensemble.Member],
    split: str, card: dict[str, Any],
) -> list[ResultRecord]:  # fmt: skip
    described = systems(members)
    aligned = align(predictions, targets, table, num_members=len(described), split=split, group_by=config.eval.group_by)
    return scoring.score(aligned, scoring.ScoreRequest(described, split, config.eval, card))


def systems(members: Sequence[ensemble.Member]) -> list[System]:
    """Each regression as a system of its own, then their means, as `core.ensemble.systems` describes those of heads."""
    differing = ["layer"] if len({member.layer for member in members}) > 1 else []
    means = means_of(members)
    everything = [([row], member) for row, member in enumerate(members)] + means
    described = []
    for row, (behind, member) in enumerate(everything):
        balanced = [vocab.CLASS_LOSSES[members[i].class_kind].is_balanced for i in behind]
        axes = {
            "model": "regression",
            "num_heads": len(behind),
            "varying": [*differing, "is_balanced"],
            "layer": member.layer,
            "class_target": member.class_target,
            "is_balanced": balanced if len(behind) > 1 else balanced[0],
        }
        about = {"system": ensemble.label(axes), "layer": member.layer, "seeds": (0,), "axes": axes}
        described.append(([row], about))
    return described
