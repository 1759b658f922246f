"""Curves: what a few utterances of a test speaker change, with labels (enrolment) and without (the speaker's prior).

trained members  ->  enrolment/results.jsonl

The mean of the heads of each system is adapted to each test speaker, whose utterances are drawn anew in every draw. The
same utterances are scored at every point of both curves, and no enrolled one is among them. METHOD.md, section 8.15.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
from jaxtyping import Float

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config_fields import EvalConfig
from seremo_jax.core.schema import Predictions, ResultRecord
from seremo_jax.data.screening import with_words
from seremo_jax.data.targets import Targets
from seremo_jax.evaluation import mean_heads, scoring
from seremo_jax.evaluation.alignment import align
from seremo_jax.evaluation.calibration_fit import Calibrations
from seremo_jax.evaluation.prototypes import Prototypes
from seremo_jax.evaluation.speaker_priors import TrainingPriors, temperatures
from seremo_jax.evaluation.states import member_states
from seremo_jax.metrics import class_priors
from seremo_jax.metrics import prototypes as class_prototypes
from seremo_jax.training.selection import Predicted

PRIOR_SIZES = (1, 2, 5, 10, None)
"""Utterances that a speaker's prior is estimated from, the corrected one among them; None for all."""

ENROLLED, PRIOR = "enrolled", "prior"
"""Kinds of adaptation, in the axes of a record."""

_member_states = jax.jit(member_states, static_argnames=("num_cells", "nbest"))


def in_words(kind: str, size: int | None) -> str:
    """A point of a curve as the name of its system has it."""
    if kind == ENROLLED:
        return f"{size} enrolled"
    number = "all utterances" if size is None else f"{size} utterance{'s' * (size > 1)}"
    return f"prior of the speaker, {number} (transductive)"


class Speaker(NamedTuple):
    """A test speaker, by rows of the split in the order of their ids.

    Attributes:
      fold: Place of the fold whose members predict the speaker.
      every: [n] all utterances.
      scored: Those that are scored.
      labelled: Those others that have a consensus.
      seed: Of all draws, from the speaker's name.
    """

    fold: int
    every: np.ndarray
    scored: np.ndarray
    labelled: np.ndarray
    seed: int

    def enrolled(self, seed: int, draw: int, size: int) -> np.ndarray:
        """The first `size` utterances that are enrolled in a draw: more of them are those and others."""
        return np.random.default_rng([seed, draw, self.seed]).permutation(self.labelled)[:size]

    def beside(self, seed: int, draw: int, size: int) -> np.ndarray:
        """[scored, m] each scored utterance, first, and m - 1 = min(size, n) - 1 others."""
        rng = np.random.default_rng([seed, draw, self.seed, 1])
        others = ([row, *rng.permutation(self.every[self.every != row])[: size - 1]] for row in self.scored)
        return np.array(list(others))


@dataclasses.dataclass(frozen=True)
class Heads:
    """What the members say of a split, each utterance by those of its fold, which never heard the speaker.

    Attributes:
      rows: [N] rows of the utterance table, ascending.
      folds: The folds.
      fold: [N] place of each utterance's fold.
      pooled: The M members without folds.
      by_fold: [M, F] number of each of them in the training.
      distribution: [M, N, C].
      embedding: [M, N, I].
    """

    rows: np.ndarray
    folds: list[int | None]
    fold: np.ndarray
    pooled: list[ensemble.Member]
    by_fold: np.ndarray
    distribution: np.ndarray
    embedding: np.ndarray

    @classmethod
    def of(cls, predicted: Sequence[Predicted], members: Sequence[ensemble.Member]) -> "Heads":
        """Pools predictions that bring embeddings.

        Args:
          predicted: Of each stream.
          members: Of the training.
        """
        pooled = list(dict.fromkeys(map(ensemble.without_fold, members)))
        folds = list(dict.fromkeys(member.fold for member in members))
        rows = np.unique(np.concatenate([part.rows for part in predicted]))
        shapes = [
            (len(pooled), len(rows), array.shape[-1]) for array in (predicted[0].distribution, predicted[0].embedding)
        ]
        distribution, embedding = (np.full(shape, np.nan) for shape in shapes)
        fold, by_fold = np.full(len(rows), -1), np.full((len(pooled), len(folds)), -1)
        for part in predicted:
            places = np.searchsorted(rows, part.rows)
            for e, shares, vectors in zip(part.members.tolist(), part.distribution, part.embedding, strict=True):
                m, f = pooled.index(ensemble.without_fold(members[e])), folds.index(members[e].fold)
                distribution[m, places], embedding[m, places] = shares, vectors
                fold[places], by_fold[m, f] = f, e
        return cls(rows, folds, fold, pooled, by_fold, distribution, embedding)

    def models(self) -> list[tuple[list[int], ensemble.Member, dict[str, Any]]]:
        """What is adapted: of each system the mean of its heads, or its only head.

        Returns:
          Of each the members behind it, as rows, the member that it is, and what records say of it.
        """
        means = mean_heads.means_of(self.pooled, ("seeds",))
        wide = [*self.pooled, *(member for _, member in means)]
        models = []
        for rows, about in ensemble.systems([vars(member) for member in wide]):
            if rows[0] >= len(self.pooled):
                models.append((means[rows[0] - len(self.pooled)][0], wide[rows[0]], about))
            elif len(rows) == 1:
                models.append((rows, wide[rows[0]], about))
        return models


def speakers(heads: Heads, utterances: pa.Table, targets: Targets, least: int, seed: int) -> list[Speaker]:
    """Known speakers of whose utterances a random half, which is not scored, has `least` with a consensus.

    Neither the order of the table nor who else is in it decides which half that is.

    Raises:
      ArtefactError: Fewer than two speakers have utterances enough.
    """
    names, ids = utterances["speaker"].to_pylist(), utterances["id"].to_pylist()
    by_speaker: dict[tuple[int, str], list[int]] = {}
    for i in sorted(range(len(heads.rows)), key=lambda i: ids[heads.rows[i]]):
        if (name := names[heads.rows[i]]) not in (None, "", vocab.UNKNOWN):
            by_speaker.setdefault((int(heads.fold[i]), name), []).append(i)
    kept = []
    for (fold, name), own in sorted(by_speaker.items()):
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        # Rows stay in the order of ids, so that every draw below is of the same utterances in any table.
        order, every = np.random.default_rng([seed, number]).permutation(len(own)), np.array(own)
        held, scored = every[np.sort(order[: len(own) // 2])], every[np.sort(order[len(own) // 2 :])]
        labelled = held[targets.consensus_index[heads.rows[held]] >= 0]
        if len(labelled) >= least:
            kept.append(Speaker(fold, every, scored, labelled, number))
    if len(kept) < 2:
        raise ArtefactError(
            f"eval.enrolment asks for {least} labelled utterances of a speaker, and of {len(kept)} test speakers one "
            "half has so many: give smaller numbers, or leave it empty"
        )
    return kept


@dataclasses.dataclass(frozen=True)
class Curves:
    """What the points of both curves are computed from.

    Attributes:
      heads: What the members say.
      speakers: The speakers.
      targets: Of the utterance table.
      members: Of the training.
      known: What they know of the classes of their training.
      fitted: Calibrations of the development split, or None.
      section: Sizes, draws and settings.
    """

    heads: Heads
    speakers: list[Speaker]
    targets: Targets
    members: Sequence[ensemble.Member]
    known: Prototypes
    fitted: Calibrations | None
    section: EvalConfig

    def points(self) -> Iterator[tuple[str, int | None]]:
        """Kind and size of each point."""
        yield from ((ENROLLED, size) for size in self.section.enrolment)
        yield from ((PRIOR, size) for size in PRIOR_SIZES)

    def enrolled(self, size: int, draw: int) -> Float[np.ndarray, "M N C"]:
        """Predictions of the members with `size` labelled utterances of each speaker."""
        heads, section = self.heads, self.section
        result = heads.distribution.copy()
        for speaker in self.speakers:
            chosen = speaker.enrolled(section.seed, draw, size)
            label, scored = self.targets.consensus_index[heads.rows[chosen]], speaker.scored
            for m, vectors in enumerate(heads.embedding):
                means = self.known.means[heads.by_fold[m, speaker.fold]]
                own = class_prototypes.enrolled(means, vectors[chosen], label, section.enrolment_kappa)
                step = class_prototypes.evidence(vectors[scored], means, own)
                result[m, scored] = class_prototypes.mixed(
                    heads.distribution[m, scored], step, section.enrolment_weight
                )
        return result

    def with_prior(
        self, given: Float[np.ndarray, "N C"], model: ensemble.Member, size: int | None, draw: int
    ) -> Float[np.ndarray, "N C"]:
        """Predictions of a model, each corrected by the prior that `size` utterances show, itself among them."""
        section, folds, result = self.section, self.heads.folds, given.copy()
        priors = TrainingPriors(tuple(self.members), self.known.prior).in_folds(model, folds)
        temperature = temperatures(self.fitted, model, folds)
        for speaker in self.speakers:
            prior, t, scored = priors[speaker.fold], temperature[[speaker.fold]], speaker.scored
            beside = speaker.every[None] if size is None else speaker.beside(section.seed, draw, size)
            calibrated = class_priors.calibrated(given[beside], np.tile(t, len(beside)))
            own = class_priors.fit(calibrated, np.tile(prior, (len(beside), 1)), section.speaker_prior_kappa)
            own = np.broadcast_to(own, (len(scored), len(prior)))
            result[scored] = class_priors.corrected(given[None, scored], prior[None], own[None], t)[0]
        return result


def records(curves: Curves, utterances: pa.Table, split: str, card: Mapping[str, Any]) -> list[ResultRecord]:
    """Records of each model as it was trained and at each point, on the same utterances; draws stand for members.

    Args:
      curves: What they are computed from.
      utterances: The utterance table.
      split: Name of the split.
      card: The protocol card of the evaluation.
    """
    heads, section, targets = curves.heads, curves.section, curves.targets
    scored = np.sort(np.concatenate([speaker.scored for speaker in curves.speakers]))
    num_draws, models = section.enrolment_draws, heads.models()
    parts, systems, adapted = [], [], {}

    def add(values: Sequence[np.ndarray], about: Mapping[str, Any], adaptation: Mapping[str, Any] | None) -> None:
        axes = {**about["axes"], **(adaptation or {})}
        system = ensemble.label(axes)
        systems.append((list(range(len(parts), len(parts) + num_draws)), {**about, "axes": axes, "system": system}))
        parts.extend(part[scored] for part in values)
        if adaptation is not None:
            adapted[system] = about["system"]

    plain = [heads.distribution[behind].mean(axis=0) for behind, _, _ in models]
    for given, (_, _, about) in zip(plain, models, strict=True):
        # Once for each draw, so that speakers are exchanged draw by draw with those of an adapted system.
        add([given] * num_draws, about, None)
    for kind, size in curves.points():
        by_draw = [curves.enrolled(size, draw) for draw in range(num_draws)] if kind == ENROLLED else None
        kappa = section.enrolment_kappa if kind == ENROLLED else section.speaker_prior_kappa
        how = {"kind": kind, "size": size, "kappa": kappa, "draws": num_draws}
        how |= {"weight": section.enrolment_weight} if kind == ENROLLED else {}
        for given, (behind, model, about) in zip(plain, models, strict=True):
            if by_draw is not None:
                values = [drawn[behind].mean(axis=0) for drawn in by_draw]
            else:
                values = [curves.with_prior(given, model, size, draw) for draw in range(num_draws)]
            add(values, about, {"adaptation": in_words(kind, size), "adapted_by": how})
    predictions, rows = np.stack(parts).astype(np.float32), heads.rows[scored]
    # Adaptation concerns classes alone.
    nothing = dataclasses.replace(targets, has_attribute=np.zeros_like(targets.has_attribute))
    attributes = np.zeros((*predictions.shape[:2], targets.attributes.shape[1]), np.float32)
    aligned = align(
        Predictions(targets.ids[rows], attributes, predictions),
        nothing,
        with_words(utterances, {split: rows}),
        num_members=len(predictions),
        split=split,
        group_by=section.group_by,
    )
    heard = f"half of the utterances of {len(curves.speakers)} speakers"
    card = {**card, "notes": list(dict.fromkeys([*card["notes"], vocab.ADAPTED_NOTE])), "heard": heard}
    request = scoring.ScoreRequest(systems, split, section, card, adapted=adapted)
    return scoring.score(aligned, request, _member_states)
