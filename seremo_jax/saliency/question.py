"""The question put to every layer: over which utterances a curve is taken, and of which targets.

The targets are those that training sees (`targets.build`, with the policies of the config), so a layer is never chosen
by labels that no head learns from.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import Config, ConfigError
from seremo_jax.core.ensemble import folds_to_choose_for
from seremo_jax.data import policies, splits, targets
from seremo_jax.data.screening import in_fold
from seremo_jax.data.tables import in_split
from seremo_jax.saliency.variance_shares import FACTORS

_MOST_GROUPS = 100


@dataclasses.dataclass(frozen=True)
class Question:
    """What saliency is asked for.

    Attributes:
      rows: [n] rows of the utterance table: the seeded draw from the training split, ascending.
      values: [N, Y] float32 targets of every row of the table, attributes then vote shares.
      mask: [N, Y] bool, False where a row has no such target or was not drawn.
      is_drawn: [N] bool, the rows in `rows`.
      fold: [N] int32 fold of the row's speaker, -1 where it was not drawn. Utterances of speaker `unknown` are in one
        fold together: nobody can say who else they are.
      group: [N] int32 group of speakers that the intervals leave out together (one speaker a group up to 100 speakers),
        -1 likewise.
      factors: Column of the table, of `variance_shares.FACTORS` -> [N] int32 which of its values a drawn row has; -1
        where the row was not drawn or the value is unknown. A column that the table lacks is left out.
      attribute_names: Names of the attributes.
      class_names: Names of the classes.
      about: Everything that decides `rows`, `values` and `mask`.
      split_fold: Fold whose training split is asked; None for the splits of the utterance table.
    """

    rows: np.ndarray
    values: np.ndarray
    mask: np.ndarray
    is_drawn: np.ndarray
    fold: np.ndarray
    group: np.ndarray
    factors: dict[str, np.ndarray]
    attribute_names: tuple[str, ...]
    class_names: tuple[str, ...]
    about: dict[str, Any]
    split_fold: int | None = None


def ask(
    config: Config, utterances: pa.Table, ratings: pa.Table, fingerprint: str, split_fold: int | None = None
) -> Question:
    """The question that the config asks of a corpus.

    Args:
      config: Sections `saliency` and `targets` are read, and the label policies of `data`.
      utterances: Utterance table.
      ratings: Ratings table.
      fingerprint: Fingerprint of both.
      split_fold: Fold whose training split is asked; None for the splits of the table. The answer is what the table of
        that fold would give.

    Raises:
      ConfigError: `saliency.targets` names targets that the corpus lacks.
      ArtefactError: The training split has fewer than two utterances.
    """
    utterances = in_fold(utterances, config.data, split_fold)
    # Correlation knows no scale, and one scale for all keeps the sums of a corpus those of every experiment.
    asked = dataclasses.replace(policies.target_policies(config), attribute_scale="centered", has_levels=False)
    built = targets.build(utterances, ratings, asked)
    train = np.flatnonzero(in_split(utterances, vocab.TRAIN))
    if len(train) < 2:
        where = "" if split_fold is None else f" of fold {split_fold}"
        raise ArtefactError(f"the training split{where} has {len(train)} utterances: saliency needs at least 2")
    rows = np.sort(np.random.default_rng(config.saliency.seed).permutation(train)[: config.saliency.num_utterances])
    has_votes = np.repeat(built.has_votes[:, None], len(built.class_names), axis=1)
    if built.is_offered is not None:
        has_votes = has_votes & built.is_offered
    is_drawn = np.zeros(len(built.has_votes), bool)
    is_drawn[rows] = True
    mask = np.concatenate([built.has_attribute, has_votes], axis=1) & is_drawn[:, None]
    num_attributes = len(built.attribute_names)
    if config.saliency.targets == "attributes" and not mask[:, :num_attributes].any():
        raise ConfigError(
            "saliency.targets = 'attributes', but no training utterance has any of "
            f"{', '.join(asked.attributes) or 'them'} (the corpus may have none): rank layers by the shares of "
            "votes with --config.saliency.targets=votes"
        )
    if config.saliency.targets == "votes" and not mask[:, num_attributes:].any():
        raise ConfigError("saliency.targets = 'votes', but no training utterance has a vote in targets.class_set")
    speakers, seed = np.array(utterances["speaker"].to_pylist()), config.saliency.seed
    fold, group = (
        _parts(speakers, is_drawn, most, f"{what}:{seed}")
        for what, most in (("fold", config.saliency.num_folds), ("group", _MOST_GROUPS))
    )
    return Question(
        rows=rows,
        values=np.concatenate([built.attributes, built.distribution], axis=1).astype(np.float32),
        mask=mask,
        is_drawn=is_drawn,
        fold=fold,
        group=group,
        factors={name: _values(utterances[name], is_drawn) for name in FACTORS if name in utterances.column_names},
        attribute_names=built.attribute_names,
        class_names=built.class_names,
        about=about(config, fingerprint, split_fold),
        split_fold=split_fold,
    )


def ask_all(config: Config, utterances: pa.Table, ratings: pa.Table, fingerprint: str) -> Iterator[Question]:
    """Yields the question of the table's splits, then those of the folds that saliency is to choose a layer for."""
    for fold in (None, *folds_to_choose_for(config)):
        yield ask(config, utterances, ratings, fingerprint, fold)


def _parts(speakers: np.ndarray, is_drawn: np.ndarray, most: int, salt: str) -> np.ndarray:
    """[N] int32 part that each drawn row's speaker was dealt to, at most `most`; -1 for the other rows."""
    part_of = splits.deal(set(speakers[is_drawn].tolist()), most, salt)
    return np.array([part_of[name] if drawn else -1 for name, drawn in zip(speakers, is_drawn, strict=True)], np.int32)


def _values(column: pa.ChunkedArray, is_drawn: np.ndarray) -> np.ndarray:
    """[N] int32 place of each drawn row's value among all values of the drawn rows; -1 where it is unknown."""
    words = [word if drawn else None for word, drawn in zip(column.to_pylist(), is_drawn, strict=True)]
    place = {word: i for i, word in enumerate(sorted(set(words) - {None, "", vocab.UNKNOWN}))}
    return np.array([place.get(word, -1) for word in words], np.int32)


def about(config: Config, fingerprint: str, split_fold: int | None = None) -> dict[str, Any]:
    """Everything that decides a question: the tables, and the config fields that change its rows, values or mask.

    Fields without an effect are left out, so that changing them takes no new pass over the audio.

    Args:
      config: The experiment.
      fingerprint: Fingerprint of the tables.
      split_fold: See `ask`.
    """
    fields = config.results_fields("saliency", "targets", "data")
    names = {"saliency.num_utterances", "saliency.seed", "saliency.num_folds", "data.modality", "data.self_reports"}
    names |= {name for name in fields if name.startswith("targets.")}
    names -= {"targets.class_target", "targets.attribute_scale", "targets.tie_rule", "targets.predict_variance"}
    if config.data.keep_no_agreement == "drop":
        # Only then do training utterances lose their votes for want of a consensus, and ties decide who has one.
        names |= {"data.keep_no_agreement", "targets.tie_rule"}
    if split_fold is not None:
        names |= {"data.split_kind", "data.split_seed", "data.num_folds"}
        fields["fold"] = split_fold
        names.add("fold")
    return {"tables_fingerprint": fingerprint, "split": vocab.TRAIN, **{name: fields[name] for name in sorted(names)}}
